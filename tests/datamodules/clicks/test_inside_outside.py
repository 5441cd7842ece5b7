from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import distance_transform_edt

from datamodules import geometry
from datamodules.batch import collate
from datamodules.clicks.inside_outside import (
    InsideOutside,
    InsideOutsideMaps,
    OutsideMaps,
    box_centre,
    inside_point,
    outside_points,
    perturbed,
)
from datamodules.clicks.points import PointKind, Points, Target
from datamodules.clicks.rules import RULES
from datamodules.readers.folders import read_pairs
from datamodules.recipe import SampleRecipe
from datamodules.samples import ObjectSamples, hard
from tests.conftest import GOLDEN, disc, square

MASKS = [
    "L_shape",
    "disk",
    "full_image",
    "random_blobs",
    "rect_even_ties",
    "rect_odd_ties",
    "ring",
    "single_pixel",
    "soft_bilinear",
    "star_512",
    "thin_line",
    "touches_bottom_right",
    "touches_top_left",
    "two_equal_squares",
]
CLICKS = [
    "all_missed",
    "both_fn_larger",
    "both_fp_larger",
    "error_touching_border",
    "false_positive",
    "missing_part",
    "offdiag_missing",
    "perfect",
    "wide_thin_vs_small_round",
]
CASES = ["border", "inside", "small"]
FIVE = [PointKind.INSIDE] + 4 * [PointKind.OUTSIDE]
CORNERS = [(10, 10), (10, 115), (115, 10), (115, 115)]
INITIAL = [(64, 64), *CORNERS]  # of the golden clicks
RECIPE = SampleRecipe(
    size=512,
    relax=30,
    masks="soft",
    test_interpolation="linear",
    train_points=InsideOutside(),
    test_points=InsideOutside(),
)

objects = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


@pytest.fixture(scope="module")
def iog():
    """What the authors' IOG code answered; points are (x, y)."""
    with np.load(GOLDEN / "iog.npz") as file:
        return dict(file)


def key(number=0):
    return np.random.default_rng(number)


def clicks(*objects_, padded=0):
    """A batch of clicks; each object a list of (kind, x, y), padded on the right."""
    longest = max(map(len, objects_)) + padded
    xy, kinds = torch.zeros(len(objects_), longest, 2), torch.full((len(objects_), longest), int(PointKind.PADDING))
    for i, row in enumerate(objects_):
        for k, (kind, x, y) in enumerate(row):
            xy[i, k], kinds[i, k] = torch.tensor([x, y], dtype=torch.float32), int(kind)
    return Points(xy, kinds, torch.ones(len(objects_), 2))


def five(points):
    return [(kind, *point) for kind, point in zip(FIVE, np.reshape(points, (-1, 2)).tolist())]


# -- points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relax", [10, 0])
@pytest.mark.parametrize("name", MASKS)
def test_the_five_points_are_those_of_the_authors_code(iog, name, relax):
    target = Target(hard(iog[f"points/{name}/mask"]))
    points, kinds = InsideOutside(relax)(target, key())
    np.testing.assert_array_equal(points, iog[f"points/{name}/pad{relax}"])
    assert points.dtype == np.float32
    assert kinds.tolist() == FIVE


@given(objects)
def test_the_inside_point_is_farthest_from_everything_else_and_first_among_equals(mask):
    assume(mask.any())
    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.argwhere(distance == distance.max())[0]
    assert inside_point(mask).tolist() == [x, y]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_the_type_and_the_memory_order_of_a_mask_do_not_matter(dtype):
    mask = disc((30, 40), (12, 17), 8)
    for array in (mask.astype(dtype), np.asfortranarray(mask.astype(dtype))):
        assert inside_point(array).tolist() == [12, 17]
        assert outside_points(array).tolist() == [[0, 0], [0, 30], [30, 0], [30, 30]]
        assert box_centre(array).tolist() == [12, 17]


def test_the_thickest_part_wins_over_the_larger_one():
    mask = square((30, 60), top_left=(2, 2), side=(3, 55)) | square((30, 60), top_left=(40, 15), side=7)
    assert inside_point(mask).tolist() == [43, 18]


def test_an_object_cut_off_by_the_crop_is_not_clicked_at_its_edge():
    assert inside_point(square(20, top_left=(0, 5), side=(9, 9))).tolist() == [4, 9]


def test_a_corner_may_lie_one_pixel_outside_on_the_right_and_below_only():
    mask = square((20, 30), top_left=(2, 3), side=(16, 27))  # x 2..28, y 3..18
    assert outside_points(mask, 10).tolist() == [[0, 0], [0, 20], [30, 0], [30, 20]]
    assert outside_points(mask, 1).tolist() == [[1, 2], [1, 19], [29, 2], [29, 19]]


@pytest.mark.parametrize(("relax", "whole"), [(10.0, 10), (2.5, 3), (2.49, 2), (0.0, 0), (0.5, 1)])
def test_corners_stay_on_the_pixel_grid_whatever_the_size_of_the_crop(relax, whole):
    mask = square(100, top_left=(40, 40), side=11)
    assert outside_points(mask, relax)[0].tolist() == [40 - whole] * 2
    assert outside_points(mask, relax)[3].tolist() == [50 + whole] * 2


def test_the_box_centre_knows_nothing_of_the_mask_inside():
    mask = square((40, 50), top_left=(5, 5), side=(30, 4)) | square((40, 50), top_left=(5, 5), side=(4, 30))
    points, kinds = InsideOutside(inside="box_centre")(Target(mask), key())
    assert points[0].tolist() == [19, 19]  # of 5..34, and not on the L
    assert kinds.tolist() == FIVE
    np.testing.assert_array_equal(points[1:], outside_points(mask))


def test_without_an_inside_point_the_corners_remain():
    mask = disc((40, 50), (20, 20), 6)
    points, kinds = InsideOutside(inside="none", radius=5)(Target(mask), key())
    np.testing.assert_array_equal(points, outside_points(mask))
    assert kinds.tolist() == 4 * [PointKind.OUTSIDE]


def test_a_perturbed_point_is_any_object_pixel_of_the_disc_alike():
    mask = square((40, 60), top_left=(10, 10), side=(20, 30))
    mask[:, 27:] = 0
    draw = key()
    drawn = np.array([perturbed((18, 20), mask, 10, draw) for _ in range(6000)])
    expected = np.argwhere(disc(mask.shape, (18, 20), 10) & mask)[:, ::-1]
    places, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(p) for p in places} == {tuple(p) for p in expected.tolist()}
    share = len(drawn) / len(expected)
    assert np.square(counts - share).sum() / share < len(expected) + 4 * np.sqrt(2 * len(expected))  # chi squared


def test_a_point_that_need_not_stay_inside_may_leave_the_object_but_not_the_crop():
    mask = square((30, 40), top_left=(0, 0), side=3)
    draw = key()
    drawn = np.array([perturbed((1, 1), mask, 6, draw, stay_inside=False) for _ in range(500)])
    assert (drawn >= 0).all()
    assert (np.square(drawn - 1).sum(1) <= 36).all()
    assert drawn.max() == 7


@given(objects, st.floats(0, 6), st.booleans(), st.integers(0, 99))
def test_a_perturbed_point_keeps_within_its_radius_and_the_crop(mask, radius, stay, seed):
    assume(mask.any())
    centre = inside_point(mask)
    rule = InsideOutside(radius=radius, stay_inside=stay)
    (x, y), *outside = rule(Target(mask), key(seed))[0].tolist()
    assert (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    assert 0 <= x < mask.shape[1]
    assert 0 <= y < mask.shape[0]
    assert mask[int(y), int(x)] or not stay
    assert outside == outside_points(mask).tolist()


def test_a_radius_below_one_pixel_and_a_point_without_object_around_it_change_nothing():
    mask = square((30, 40), top_left=(3, 3), side=9)
    for seed in range(10):
        assert perturbed((7, 7), mask, 0.0, key(seed)).tolist() == [7, 7]
        assert perturbed((7, 7), mask, 0.9, key(seed)).tolist() == [7, 7]
        assert perturbed((30, 20), mask, 4, key(seed)).tolist() == [30, 20]


def test_an_empty_mask_is_refused():
    for function in (inside_point, outside_points, box_centre):
        with pytest.raises(ValueError, match=r"non-empty mask, got an empty one of size \(4, 5\)"):
            function(np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize("wrong", [{"inside": "middle"}, {"relax": -1}, {"radius": -0.5}, {"radius": float("nan")}])
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match=r"inside point is one of|must be at least 0"):
        InsideOutside(**wrong)


# -- maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["std", "overlap", "outside", "one_point"])
def test_maps_are_those_of_the_authors_code(iog, name):
    points = clicks(five(iog[f"heat/{name}/points"]))
    for guidance, expected in ((InsideOutsideMaps(peak=1), "raw"), (InsideOutsideMaps(stretch=True), "scaled255")):
        maps = guidance(points, (96, 128))
        assert maps.dtype == torch.float32
        np.testing.assert_allclose(maps[0].permute(1, 2, 0), iog[f"heat/{name}/{expected}"], atol=1e-4)


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("name", CLICKS)
def test_maps_after_a_further_click_are_the_bytes_of_the_authors_code(iog, name, stretch):
    guidance = InsideOutsideMaps(stretch=stretch, whole_numbers=True)
    maps = guidance(clicks(five(INITIAL)), (128, 128))
    click = RULES["iog_code"](iog[f"click/{name}/gt"], iog[f"click/{name}/pred"])
    for after in ("first", "second"):
        maps = guidance.add(maps, clicks([(click.kind, click.x, click.y)]))
        np.testing.assert_array_equal(maps[0], iog[f"click/{name}/maps_after"])
        np.testing.assert_array_equal(maps[0].sum((1, 2)), iog[f"click/{name}/sum_after_{after}"])


def test_positive_clicks_share_the_inside_channel_and_negative_ones_the_outside_channel():
    maps = InsideOutsideMaps()(clicks([(PointKind.POSITIVE, 5, 6), (PointKind.NEGATIVE, 30, 9)]), (30, 40))[0]
    assert maps[0, 6, 5] == maps[1, 9, 30] == 255
    assert maps[0, 9, 30] < 1e-3
    assert maps[1, 6, 5] < 1e-3


def test_outside_maps_have_one_channel_that_the_inside_point_does_not_change():
    guidance = OutsideMaps(stretch=True, whole_numbers=True)
    assert guidance.channels == OutsideMaps.channels == 1
    assert InsideOutsideMaps.channels == 2
    corners = five(INITIAL)[1:]
    both = clicks(five(INITIAL), corners)
    maps = guidance(both, (128, 128))
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], InsideOutsideMaps(stretch=True)(both, (128, 128))[0, 1:])


def test_only_initial_clicks_say_how_maps_are_stretched():
    """Between pixels all Gaussians peak below 255 on the grid: the initial ones are stretched, further ones are not."""
    points = clicks([(PointKind.INSIDE, 10.5, 10.5), (PointKind.POSITIVE, 30.5, 10.5)])
    plain, stretched = (InsideOutsideMaps(fwhm=5, stretch=stretch)(points, (24, 44)) for stretch in (False, True))
    assert plain[0, 0].max() < 250
    assert stretched[0, 0, 10, 10] == 255
    assert torch.equal(plain[0, 0, :, 25:], stretched[0, 0, :, 25:])


def test_stretched_maps_share_one_scale():
    """The inside point lies between pixels and the corners on them: the corners alone reach the peak."""
    points = clicks([(PointKind.INSIDE, 10.5, 10.5), (PointKind.OUTSIDE, 40, 10)])
    maps = InsideOutsideMaps(stretch=True)(points, (24, 60))[0]
    assert maps[1].max() == 255
    assert maps[0].max() == pytest.approx(255 * 2 ** (-4 * 0.5 / 100), rel=1e-5)


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_clicks_one_by_one_and_all_at_once_draw_the_same_maps(stretch, whole):
    guidance = InsideOutsideMaps(fwhm=7, stretch=stretch, whole_numbers=whole)
    corrective = [(PointKind.POSITIVE, 14.3, 20), (PointKind.NEGATIVE, 33, 4.6), (PointKind.POSITIVE, 16, 20)]
    initial = five([(20.2, 20), (5, 5), (5, 40), (40, 5), (40, 40)])
    points = clicks(initial + corrective, initial + corrective[:1], initial)
    maps = guidance(replace(points, xy=points.xy[:, :5], kinds=points.kinds[:, :5]), (45, 48))
    for k in range(5, 8):
        maps = guidance.add(maps, replace(points, xy=points.xy[:, k : k + 1], kinds=points.kinds[:, k : k + 1]))
        so_far = replace(points, xy=points.xy[:, : k + 1], kinds=points.kinds[:, : k + 1])
        assert torch.equal(maps, guidance(so_far, (45, 48)))


def test_only_objects_with_a_corrective_click_are_cut_to_whole_numbers():
    guidance = InsideOutsideMaps(whole_numbers=True)
    points = clicks(five(INITIAL), five(INITIAL), padded=2)
    maps = guidance(points, (128, 128))
    before = maps.clone()
    assert (before % 1 > 0).any()
    assert torch.equal(guidance.add(maps, points.since(5)), before)  # padding only
    guidance.add(maps, clicks([(PointKind.NEGATIVE, 30, 30)], []))
    assert (maps[0] % 1 == 0).all()  # its other channel, too
    assert torch.equal(maps[1], before[1])


def test_objects_without_clicks_have_empty_maps():
    maps = InsideOutsideMaps(stretch=True, whole_numbers=True)(clicks([], five(INITIAL)), (128, 128))
    assert torch.equal(maps[0], torch.zeros(2, 128, 128))
    assert maps[1].max() == 255


def test_initial_clicks_cannot_be_added_to_stretched_maps():
    guidance = InsideOutsideMaps(stretch=True)
    with pytest.raises(ValueError, match="corrective clicks only"):
        guidance.add(guidance.blank(1, (128, 128)), clicks(five(INITIAL)))


# -- the whole chain at test time ------------------------------------------------------------------------------------


@pytest.fixture
def sample_of(iog, tmp_path):
    """The evaluation sample of a golden case, as the recipe makes it from files."""

    def sample(name, recipe=RECIPE):
        for folder in ("images", "masks"):
            (tmp_path / name / folder).mkdir(parents=True)
        mask = np.where(iog[f"chain/{name}/void"] > 0, 128, np.where(iog[f"chain/{name}/gt"] > 0, 255, 0))
        Image.fromarray(iog["chain/image"]).save(tmp_path / name / "images" / "a.png")
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / name / "masks" / "a.png")
        folders = (tmp_path / name / folder for folder in ("images", "masks"))
        index = read_pairs(*folders, "drawn", threshold=255, void_value=128)
        return ObjectSamples(index, recipe, train=False)[0]

    return sample


@pytest.mark.parametrize("name", CASES)
def test_the_network_sees_what_the_authors_network_sees(iog, sample_of, name):
    sample = sample_of(name)
    np.testing.assert_array_equal(sample.crop_box, iog[f"chain/{name}/bbox"])
    np.testing.assert_array_equal(sample.points, iog[f"chain/{name}/points"])
    assert sample.point_kinds.tolist() == FIVE
    batch = collate([sample])
    maps = InsideOutsideMaps(stretch=True)(batch.clicks, (512, 512))
    seen = torch.cat([batch.image, maps], dim=1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(seen[8::32, 8::32], iog[f"chain/{name}/concat_grid"], rtol=1e-4, atol=0.05)
    mean_std = np.stack([seen.mean((0, 1), dtype=np.float64), seen.std((0, 1), dtype=np.float64)])
    np.testing.assert_allclose(mean_std, iog[f"chain/{name}/concat_mean_std"], rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_masks_are_as_soft_as_those_of_the_authors_code(iog, sample_of, name):
    sample = sample_of(name)
    mask, void = sample.mask, sample.void
    assert mask.dtype == void.dtype == np.float32
    np.testing.assert_allclose(mask[4::16, 4::16], iog[f"chain/{name}/crop_gt_grid"], atol=1e-5)
    stats = [mask.sum(dtype=np.float64), (mask > 0.5).sum(), (mask >= 0.5).sum(), ((mask > 0) & (mask < 1)).sum()]
    np.testing.assert_allclose(stats, iog[f"chain/{name}/crop_gt_stats"], rtol=1e-6)
    np.testing.assert_allclose([void.sum(dtype=np.float64), (void <= 0.5).sum()], iog[f"chain/{name}/crop_void_stats"])


@pytest.mark.parametrize("name", CASES)
def test_a_prediction_returns_to_its_place_and_scores_as_in_the_authors_code(iog, name):
    y, x = np.mgrid[:512, :512]
    prediction = (1 / (1 + np.exp(-(0.02 * (x - 250) + 2 * np.sin(y / 30))))).astype(np.float32)
    gt, void = iog[f"chain/{name}/gt"] > 0, iog[f"chain/{name}/void"] > 0
    pasted = geometry.paste(prediction, iog[f"chain/{name}/bbox"], gt.shape)
    np.testing.assert_allclose(pasted, iog[f"chain/{name}/pasteback"], atol=1e-4)
    for threshold, expected in iog[f"chain/{name}/iou_paste_vs_gt"]:
        found = (pasted > threshold) & ~void
        assert (found & gt).sum() / (found | gt & ~void).sum() == pytest.approx(expected, abs=1e-6)


def test_augmentation_is_cubic_for_images_and_nearest_for_masks(iog):
    angle, scale = iog["aug/rot_scale"]
    size = iog["aug/gt"].shape
    matrix = geometry.scale_and_rotate(size, angle, scale)
    image = geometry.warp(iog["chain/image"].astype(np.float32), matrix, size, "cubic")
    np.testing.assert_allclose(image[::3, ::3], iog["aug/image"], atol=0.05)
    np.testing.assert_allclose([image.min(), image.max()], iog["aug/image_minmax"], atol=0.05)
    np.testing.assert_array_equal(geometry.warp(iog["chain/inside/gt"], matrix, size, "nearest"), iog["aug/gt"])


def test_a_recipe_augments_as_the_authors_code_does(iog, tmp_path, monkeypatch):
    """The training chain with the golden angle and scale: warped cubically, unclipped, then cropped and resized."""
    angle, scale = (float(v) for v in iog["aug/rot_scale"])
    size = iog["aug/gt"].shape
    matrix = geometry.scale_and_rotate(size, angle, scale)
    monkeypatch.setattr(geometry, "scale_and_rotate", lambda *_: matrix)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(iog["chain/image"]).save(tmp_path / "images" / "a.png")
    Image.fromarray(255 * iog["chain/inside/gt"]).save(tmp_path / "masks" / "a.png")
    recipe = replace(RECIPE, geometry="chain", interpolation="linear", warp_interpolation="cubic", flip=0.0)
    sample = ObjectSamples(read_pairs(tmp_path / "images", tmp_path / "masks", "drawn"), recipe, train=True)[0]
    x, y, width, height = cv2.boundingRect(iog["aug/gt"])
    assert sample.crop_box.tolist() == [x - 30, y - 30, x + width + 29, y + height + 29]
    warped = geometry.warp(iog["chain/image"].astype(np.float32), matrix, size, "cubic")
    for ours, whole in ((sample.image, warped), (sample.mask, iog["aug/gt"].astype(np.float32))):
        expected = geometry.resize(geometry.crop(whole, sample.crop_box), (512, 512), "linear")
        np.testing.assert_array_equal(ours, expected)
    assert sample.image.min() < 0
