import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clicks.guidance import DistanceMap, GaussianMap, distance_map, gaussian_map

SIZE = (80, 64)  # (H, W) of the golden maps
SETS = range(6)  # 4 is partly outside the map, 5 lies between the pixels


def clicks(*points: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """One object's points (1, K, 2), all of them valid (1, K)."""
    return torch.tensor([points], dtype=torch.float32).reshape(1, -1, 2), torch.ones(1, len(points), dtype=torch.bool)


def golden_clicks(golden, number) -> tuple[torch.Tensor, torch.Tensor]:
    return clicks(*golden[f"hm_points_{number}"].tolist())


@pytest.mark.parametrize(("number", "sigma"), [*((number, 10) for number in SETS), (0, 5), (1, 5)])
def test_the_authors_sigma_is_our_full_width_at_half_maximum(golden, number, sigma):
    expected = golden[f"hm_{number}_sigma{sigma}"]
    np.testing.assert_allclose(gaussian_map(*golden_clicks(golden, number), SIZE, sigma)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("number", SETS)
@pytest.mark.parametrize("made_by", ["toimage", "cstm"])
def test_stretched_maps_are_those_the_authors_network_sees(golden, number, made_by):
    ours = 255 * gaussian_map(*golden_clicks(golden, number), SIZE, 10, stretch=True)[0, 0]
    np.testing.assert_allclose(ours, golden[f"hm255_{number}_{made_by}"], atol=1e-3)


def test_the_map_of_several_clicks_is_the_maximum_of_the_maps_of_each(golden):
    points, _ = golden_clicks(golden, 1)
    alone = [gaussian_map(points, torch.arange(4)[None] == k, SIZE)[0, 0] for k in range(4)]
    np.testing.assert_allclose(torch.stack(alone, dim=-1), golden["hm_per_point_1"], atol=1e-6)
    assert torch.equal(torch.stack(alone).amax(0), gaussian_map(points, points[..., 0] > 0, SIZE)[0, 0])


def test_a_gaussian_is_one_at_its_click_and_one_half_at_half_its_width():
    guidance = gaussian_map(*clicks((20, 30)), SIZE, fwhm=10)[0, 0]
    assert guidance[30, 20] == 1
    assert guidance.argmax() == 30 * 64 + 20
    for y, x in ((30, 25), (30, 15), (35, 20), (25, 20)):
        assert guidance[y, x].item() == pytest.approx(0.5, abs=1e-6)


def test_a_click_between_pixels_peaks_below_one_unless_stretched():
    points, valid = clicks((20.5, 30.5))
    below = math.exp(-4 * math.log(2) * 0.5 / 100)  # half a squared pixel away from four of them
    assert gaussian_map(points, valid, SIZE).max().item() == pytest.approx(below, abs=1e-6)
    stretched = gaussian_map(points, valid, SIZE, stretch=True)
    assert stretched.max().item() == pytest.approx(1, abs=1e-6)
    assert stretched.min() == 0


def test_a_standard_deviation_of_ten_is_a_width_of_23_and_a_half():
    points, valid = clicks((12, 40), (50.3, 9.8))
    paper, same = GaussianMap(std=10), GaussianMap(fwhm=23.548)
    np.testing.assert_allclose(paper(points, valid, SIZE), same(points, valid, SIZE), atol=1e-5)
    assert paper(*clicks((12, 40)), SIZE)[0, 0, 40, 22].item() == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert GaussianMap(fwhm=10).fwhm / 2.3548 == pytest.approx(4.247, abs=1e-3)


@pytest.mark.parametrize("arguments", [{}, {"fwhm": 10, "std": 10}])
def test_a_gaussian_map_has_one_width(arguments):
    with pytest.raises(ValueError, match="either fwhm or std, got fwhm="):
        GaussianMap(**arguments)


@pytest.mark.parametrize("encoder", [GaussianMap(fwhm=10), GaussianMap(fwhm=10, stretch=True), DistanceMap()])
def test_padding_contributes_nothing(encoder):
    points, valid = clicks((20, 30), (50, 60))
    padded = torch.cat([points, torch.tensor([[[5.0, 5.0], [0.0, 0.0]]])], dim=1)
    padding = torch.cat([valid, torch.zeros(1, 2, dtype=torch.bool)], dim=1)
    assert torch.equal(encoder(padded, padding, SIZE), encoder(points, valid, SIZE))


@pytest.mark.parametrize("padding", [0, 3])
def test_without_clicks_gaussians_are_zero_and_everything_is_far(padding):
    points, valid = torch.zeros(2, padding, 2), torch.zeros(2, padding, dtype=torch.bool)
    for encoder in (GaussianMap(fwhm=10), GaussianMap(std=10, stretch=True)):
        assert torch.equal(encoder(points, valid, SIZE), torch.zeros(2, 1, *SIZE))
    assert torch.equal(DistanceMap(40)(points, valid, SIZE), torch.ones(2, 1, *SIZE))


def test_distances_are_those_of_a_ruler():
    distance = 255 * distance_map(*clicks((3, 4), (60, 70)), SIZE)[0, 0]
    assert distance[4, 3] == 0
    assert distance[0, 0].item() == pytest.approx(5, abs=1e-4)
    assert distance[4, 13].item() == pytest.approx(10, abs=1e-4)
    assert distance[70, 60] == 0
    assert distance[79, 48].item() == pytest.approx(15, abs=1e-4)  # 12 left of and 9 below the second click


def test_distances_end_at_their_truncation():
    far = distance_map(*clicks((0, 0)), SIZE, truncate=20)[0, 0]
    assert far[0, 10].item() == pytest.approx(0.5, abs=1e-6)
    assert far[0, 20] == far[0, 63] == far[79, 63] == 1
    assert (far[:, :20][:5] < 1).all()


coordinates = st.floats(-20, 90, allow_nan=False, width=32)


@given(st.lists(st.lists(st.tuples(coordinates, coordinates), max_size=4), min_size=1, max_size=3))
def test_a_batch_is_the_maps_of_its_objects(objects):
    points = torch.zeros(len(objects), 4, 2)
    valid = torch.zeros(len(objects), 4, dtype=torch.bool)
    for i, of_object in enumerate(objects):
        points[i, : len(of_object)] = torch.tensor(of_object).reshape(-1, 2)
        valid[i, : len(of_object)] = True
    for encoder in (GaussianMap(fwhm=10), GaussianMap(fwhm=10, stretch=True), DistanceMap(30)):
        together = encoder(points, valid, (24, 32))
        assert together.shape == (len(objects), encoder.channels, 24, 32)
        assert together.min() >= 0
        assert together.max() <= 1
        for i, of_object in enumerate(objects):
            np.testing.assert_allclose(together[i : i + 1], encoder(*clicks(*of_object), (24, 32)), atol=1e-6)


def test_guidance_is_drawn_in_single_precision_whatever_the_clicks_are():
    points, valid = clicks((20, 30), (50.5, 60.25))
    assert torch.equal(gaussian_map(points.double(), valid, SIZE), gaussian_map(points, valid, SIZE))
    assert gaussian_map(points.double(), valid, SIZE).dtype == torch.float32
