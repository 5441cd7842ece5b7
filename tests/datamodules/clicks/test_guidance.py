import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clicks import guidance as drawing
from datamodules.clicks.guidance import (
    DistanceMap,
    GaussianMap,
    SignedDistances,
    SignedGaussians,
    TruncatedGaussians,
    distance_map,
    gaussian_map,
    truncated_gaussian_map,
)
from datamodules.clicks.points import PointKind, Points
from tests.conftest import GOLDEN

SIZE = (80, 64)  # (H, W) of the golden maps
SETS = range(6)  # 4 is partly outside the map, 5 lies between the pixels


def clicks(*points: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """One object's points (1, K, 2), all of them valid (1, K)."""
    return torch.tensor([points], dtype=torch.float32).reshape(1, -1, 2), torch.ones(1, len(points), dtype=torch.bool)


def as_points(xy, kinds) -> Points:
    """Clicks of a batch; kinds: one for all, a (B, K) tensor, or bools, False at padding."""
    kinds = torch.full(xy.shape[:2], kinds) if isinstance(kinds, int) else kinds
    if kinds.dtype == torch.bool:
        kinds = torch.where(kinds, int(PointKind.LEFT), int(PointKind.PADDING))
    return Points(xy, kinds, torch.ones(len(xy), 2))


@pytest.fixture(scope="module")
def itis():
    """What the authors' ITIS code drew; its clicks are (row, column)."""
    with np.load(GOLDEN / "itis.npz", allow_pickle=False) as arrays:
        return dict(arrays)


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
    both = as_points(points, valid)
    np.testing.assert_allclose(paper(both, SIZE), same(both, SIZE), atol=1e-5)
    assert paper(as_points(*clicks((12, 40))), SIZE)[0, 0, 40, 22].item() == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert GaussianMap(fwhm=10).fwhm / 2.3548 == pytest.approx(4.247, abs=1e-3)


@pytest.mark.parametrize("arguments", [{}, {"fwhm": 10, "std": 10}])
def test_a_gaussian_map_has_one_width(arguments):
    with pytest.raises(ValueError, match="either fwhm or std, got fwhm="):
        GaussianMap(**arguments)


ADDED = (
    GaussianMap(fwhm=10),
    DistanceMap(30),
    TruncatedGaussians(),
    TruncatedGaussians(6.5, 11.25, "zero", amplitude=16),
)
SIGNED = (SignedGaussians(), SignedGaussians(tail="zero"), SignedDistances(), SignedDistances(33.3))
ENCODERS = (*ADDED, *SIGNED, GaussianMap(fwhm=10, stretch=True))
named = {"ids": lambda encoder: type(encoder).__name__}


@pytest.mark.parametrize("encoder", ENCODERS, **named)
def test_padding_contributes_nothing(encoder):
    points, valid = clicks((20, 30), (50, 60))
    padded = torch.cat([points, torch.tensor([[[5.0, 5.0], [0.0, 0.0]]])], dim=1)
    padding = torch.cat([valid, torch.zeros(1, 2, dtype=torch.bool)], dim=1)
    kinds = torch.where(padding, int(PointKind.POSITIVE), int(PointKind.PADDING))
    assert torch.equal(encoder(as_points(padded, kinds), SIZE), encoder(as_points(points, kinds[:, :2]), SIZE))


@pytest.mark.parametrize("padding", [0, 3])
def test_without_clicks_gaussians_are_zero_and_everything_is_far(padding):
    points, valid = torch.zeros(2, padding, 2), torch.zeros(2, padding, dtype=torch.bool)
    nothing = as_points(points, valid)
    for encoder in (GaussianMap(fwhm=10), GaussianMap(std=10, stretch=True)):
        assert torch.equal(encoder(nothing, SIZE), torch.zeros(2, 1, *SIZE))
    assert torch.equal(DistanceMap(40)(nothing, SIZE), torch.ones(2, 1, *SIZE))
    assert torch.equal(SignedGaussians(tail="zero")(nothing, SIZE), torch.zeros(2, 2, *SIZE))
    assert torch.equal(SignedDistances()(nothing, SIZE), torch.ones(2, 2, *SIZE))
    plateau = SignedGaussians()(nothing, SIZE)
    assert plateau.unique().tolist() == pytest.approx([0.1349774], abs=1e-6)


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


coordinates = st.one_of(st.floats(-20, 90, allow_nan=False, width=32), st.integers(-2, 33).map(float))
corrective = st.sampled_from([PointKind.POSITIVE, PointKind.NEGATIVE])
lists_of_clicks = st.lists(
    st.lists(st.tuples(coordinates, coordinates, corrective), max_size=4), min_size=1, max_size=3
)


def padded(objects) -> Points:
    points, kinds = torch.zeros(len(objects), 4, 2), torch.full((len(objects), 4), int(PointKind.PADDING))
    for i, of_object in enumerate(objects):
        for k, (x, y, kind) in enumerate(of_object):
            points[i, k], kinds[i, k] = torch.tensor([x, y]), int(kind)
    return as_points(points, kinds)


def only(points: Points, objects: slice, which=slice(None)) -> Points:
    return Points(points.xy[objects, which], points.kinds[objects, which], points.scale[objects])


@given(lists_of_clicks)
def test_a_batch_is_the_maps_of_its_objects(objects):
    points = padded(objects)
    for encoder in ENCODERS:
        together = encoder(points, (24, 32))
        assert together.shape == (len(objects), encoder.channels, 24, 32)
        assert together.min() >= 0
        assert together.max() <= 1
        for i in range(len(objects)):
            assert torch.equal(together[i : i + 1], encoder(only(points, slice(i, i + 1)), (24, 32)))


@given(lists_of_clicks, st.permutations(range(4)))
def test_clicks_one_by_one_in_any_order_draw_the_map_of_all(objects, order):
    points = padded(objects)
    for encoder in (*ADDED, *SIGNED):
        maps = encoder.blank(len(objects), (24, 32))
        for k in order:
            assert encoder.add(maps, only(points, slice(None), slice(k, k + 1))) is maps
        assert torch.equal(maps, encoder(points, (24, 32)))
        assert torch.equal(encoder.add(maps.clone(), points), maps)  # drawn again, nothing changes
        later = encoder.add(encoder(only(points, slice(None), slice(2)), (24, 32)), points.since(2))
        assert torch.equal(later, maps)


@given(lists_of_clicks, st.sampled_from([(24, 32), (90, 7), (1, 1), (70, 140)]))
def test_a_box_around_each_click_gives_the_bits_of_whole_planes(objects, size):
    points = padded(objects)
    for encoder in (*ADDED, *SIGNED, DistanceMap(1), GaussianMap(std=0.3)):
        boxes = encoder(points, size)
        with pytest.MonkeyPatch.context() as on_an_accelerator:
            on_an_accelerator.setattr(drawing, "boxes_around", drawing.whole_planes)
            assert torch.equal(boxes, encoder(points, size))


@pytest.mark.parametrize("set_", [*range(5), "wide"])
def test_signed_maps_are_those_of_the_authors(itis, set_):
    clicked = itis["enc_wide_clicks" if set_ == "wide" else f"enc_clicks_{set_}"][:, ::-1]
    gauss, distances = (itis[f"enc_wide_{of}" if set_ == "wide" else f"enc_{of}_{set_}"] for of in ("gauss", "dt"))
    points = torch.from_numpy(clicked.copy())[None]
    for sign, channel in ((PointKind.NEGATIVE, 0), (PointKind.POSITIVE, 1)):
        drawn, nothing = as_points(points, int(sign)), 1 - channel
        maps = SignedGaussians()(drawn, gauss.shape)
        np.testing.assert_allclose(maps[0, channel], gauss, atol=1e-6)
        np.testing.assert_allclose(maps[0, nothing], itis["enc_gauss_0"][0, 0], atol=1e-6)
        maps = SignedDistances()(drawn, distances.shape)
        np.testing.assert_allclose(maps[0, channel], distances, atol=1e-6)
        assert (maps[0, nothing] == 1).all()


def test_profiles_are_those_of_the_authors(itis):
    for distance, gauss, far in zip(itis["profile_distance"], itis["profile_gauss"], itis["profile_dt"], strict=True):
        points, valid = clicks((-float(distance), 0))
        assert truncated_gaussian_map(points, valid, (1, 1)).item() == pytest.approx(gauss, abs=1e-6)
        assert distance_map(points, valid, (1, 1)).item() == pytest.approx(far, abs=1e-6)


def test_tails_differ_from_the_radius_on_and_nowhere_else():
    points, valid = clicks((30, 40))
    plateau, zero = (truncated_gaussian_map(points, valid, SIZE, tail=tail)[0, 0] for tail in ("plateau", "zero"))
    y, x = torch.meshgrid(torch.arange(80), torch.arange(64), indexing="ij")
    inside = (x - 30) ** 2 + (y - 40) ** 2 < 400
    assert torch.equal(plateau[inside], zero[inside])
    assert (zero[~inside] == 0).all()
    assert not inside[52, 46]  # 12 and 16 pixels off: exactly 20
    assert plateau[~inside].unique().tolist() == pytest.approx([25 * math.exp(-2) / (10 * math.sqrt(2 * math.pi))])
    assert plateau[40, 30].item() == pytest.approx(0.9973557, abs=1e-6)


def test_clicks_of_other_kinds_are_not_drawn_into_signed_maps():
    points = clicks((20, 30), (40, 50))[0]
    kinds = torch.tensor([[int(PointKind.LEFT), int(PointKind.INSIDE)]])
    for encoder in SIGNED:
        assert torch.equal(encoder(as_points(points, kinds), SIZE), encoder.blank(1, SIZE))


def test_a_subclass_with_other_groups_has_other_channels():
    class InsideOutside(GaussianMap):
        groups = ((PointKind.INSIDE,), (PointKind.OUTSIDE, PointKind.NEGATIVE))

    assert InsideOutside.channels == SignedGaussians.channels == 2
    assert GaussianMap.channels == TruncatedGaussians.channels == 1
    kinds = torch.tensor([[int(PointKind.OUTSIDE), int(PointKind.INSIDE), int(PointKind.NEGATIVE)]])
    maps = InsideOutside(std=10)(as_points(clicks((5, 6), (30, 40), (60, 70))[0], kinds), SIZE)[0]
    assert [(maps[:, y, x] == 1).tolist() for x, y in ((5, 6), (30, 40), (60, 70))] == [
        [False, True],
        [True, False],
        [False, True],
    ]


def test_a_stretched_map_cannot_be_added_to():
    encoder = GaussianMap(fwhm=10, stretch=True)
    with pytest.raises(ValueError, match=r"depends on all of its clicks at once .* call the guidance with all clicks"):
        encoder.add(encoder.blank(1, SIZE), as_points(*clicks((20.5, 30.5))))


@pytest.mark.parametrize("maps", [torch.zeros(1, 1, 4, 4), torch.zeros(2, 2, 4, 4)])
def test_maps_of_another_guidance_or_batch_are_refused(maps):
    with pytest.raises(ValueError, match=r"draws 1 objects into maps .* of 2 channels, got maps of shape"):
        SignedGaussians().add(maps, as_points(*clicks((1, 1))))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SignedGaussians(tail="flat"), "one of plateau, zero, got 'flat'"),
        (lambda: SignedGaussians(std=0), "std of a guidance map must be positive, got 0"),
        (lambda: SignedDistances(truncate=-1), "truncate of a guidance map must be positive, got -1"),
    ],
)
def test_guidance_without_extent_or_with_an_unknown_tail_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_guidance_is_drawn_in_single_precision_whatever_the_clicks_are():
    points, valid = clicks((20, 30), (50.5, 60.25))
    assert torch.equal(gaussian_map(points.double(), valid, SIZE), gaussian_map(points, valid, SIZE))
    assert gaussian_map(points.double(), valid, SIZE).dtype == torch.float32
