import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.recipe import SampleRecipe
from datamodules.rendering import evaluation_views
from experiments.interactive.first_clicks import points_in_crop
from tests.conftest import dot, place_of, square

SIZE = (72, 88)  # (H, W) of the golden image

# Boxes around an image of 20 x 24 pixels, many of them partly and some of them wholly outside.
corners = st.tuples(st.integers(-30, 40), st.integers(-30, 40))
boxes = st.builds(
    lambda at, extent: np.array([*at, at[0] + extent[0], at[1] + extent[1]]),
    corners,
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize(("relax", "clipped"), [(0, True), (10, True), (10, False), (50, False)])
def test_boxes_of_masks_grow_as_in_the_authors_code(golden, number, relax, clipped):
    mask = golden[f"mask_{number:02d}"]
    box = geometry.relax_box(tight_box(mask), relax, clip_to=mask.shape if clipped else None)
    assert box.tolist() == golden[f"bbox_{number:02d}_pad{relax}_zp{int(not clipped)}"].tolist()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("picture", ["rgb", "gray"])
def test_crops_outside_the_image_are_black(golden, number, picture):
    image = golden["crop_img" if picture == "rgb" else "crop_gray"]
    crop = geometry.crop(image, golden[f"crop_box_{number}"])
    np.testing.assert_array_equal(crop, golden[f"crop_{picture}_{number}"])


@given(boxes)
def test_an_image_that_repeats_is_cut_as_if_it_were_laid_out_many_times(box):
    image = np.arange(20 * 24, dtype=np.int32).reshape(20, 24)
    x_min, y_min, x_max, y_max = (box + np.tile([4 * 24, 4 * 20], 2)).tolist()
    laid_out = np.tile(image, (9, 9))[y_min : y_max + 1, x_min : x_max + 1]
    np.testing.assert_array_equal(geometry.crop(image, box, "wrap"), laid_out)


@given(boxes, st.integers(5, 90), st.booleans(), st.sampled_from(["zero", "wrap"]), st.integers(0, 2**31))
def test_a_filled_box_is_seen_as_its_mask_is(seen, side, flipped, beyond, key):
    draw = np.random.default_rng(key)
    x, y = (np.sort(draw.integers(0, extent, 2)).tolist() for extent in (24, 20))
    matrix = geometry.box_to_grid(seen, (side, side + 3))
    matrix = geometry.after(matrix, geometry.flip_matrix(24)) if flipped else matrix
    mask = square((20, 24), (x[0], y[0]), (y[1] - y[0] + 1, x[1] - x[0] + 1))
    filled = geometry.warp_box(np.array([x[0], y[0], x[1], y[1]]), (20, 24), matrix, (side, side + 3), beyond)
    assert geometry.is_upright(matrix)
    np.testing.assert_array_equal(filled, geometry.warp(mask, matrix, (side, side + 3), "nearest", beyond))


def test_what_rotates_is_not_upright():
    assert not geometry.is_upright(geometry.scale_and_rotate((20, 24), 3.0, 1.0))
    assert geometry.is_upright(geometry.scale_and_rotate((20, 24), 0.0, 0.8))


@pytest.mark.parametrize(("relax", "clipped"), [(0, True), (20, False), (20, True), (50, False)])
def test_crops_around_a_mask_are_the_authors(golden, relax, clipped):
    mask = golden["crop_mask"]
    box = geometry.relax_box(tight_box(mask), relax, clip_to=SIZE if clipped else None)
    for name, array in (("rgb", golden["crop_img"]), ("mask", mask)):
        expected = golden[f"cfm_{name}_relax{relax}_zp{int(not clipped)}"]
        np.testing.assert_array_equal(geometry.crop(array, box), expected)


def test_resized_crops_are_the_authors(golden):
    image, mask = golden["cfm_rgb_relax20_zp1"].astype(np.float32), golden["cfm_mask_relax20_zp1"]
    resized = geometry.resize(image, (64, 64), "cubic")
    np.testing.assert_allclose(resized, golden["resize_rgb_64"], atol=1e-2)
    assert resized.min() < 0  # cubic overshoots, and nothing is clipped
    np.testing.assert_array_equal(geometry.resize(mask, (64, 64), "nearest"), golden["resize_mask_64"])


def test_the_test_time_chain_is_the_authors(golden):
    void = np.zeros(SIZE, np.uint8)
    views = evaluation_views(golden["crop_img"], golden["crop_mask"], void, SampleRecipe(size=128, relax=50))
    np.testing.assert_allclose(views.image, golden["pipe_crop_image"], atol=1e-2)
    np.testing.assert_array_equal(views.mask, golden["pipe_crop_gt"])
    assert views.crop_box.tolist() == golden["paste_box_relax50"].tolist()
    assert views.box.tolist() == tight_box(golden["crop_mask"]).tolist()


@pytest.mark.parametrize(("angle", "scale"), [(-20.0, 1.25), (13.5, 0.8)])
def test_rotated_and_scaled_images_are_the_authors(golden, angle, scale):
    matrix = geometry.scale_and_rotate(SIZE, angle, scale)
    image = geometry.warp(golden["crop_img"].astype(np.float32), matrix, SIZE, "cubic")
    np.testing.assert_allclose(image, golden[f"snr_rot{angle}_sc{scale}_image"], atol=1e-2)
    mask = geometry.warp(golden["crop_mask"], matrix, SIZE, "nearest")
    np.testing.assert_array_equal(mask, golden[f"snr_rot{angle}_sc{scale}_gt"])


def test_the_flip_as_a_matrix_is_the_authors_flip(golden):
    flipped = geometry.warp(golden["crop_img"], geometry.flip_matrix(SIZE[1]), SIZE, "cubic")
    np.testing.assert_array_equal(flipped, golden["hflip_image"])


@pytest.mark.parametrize("relax", [20, 50])
@pytest.mark.parametrize("tight", [True, False])
def test_pasted_predictions_are_the_authors(golden, relax, tight):
    box = tight_box(golden["crop_mask"])
    crop_box = geometry.relax_box(box, relax)
    assert crop_box.tolist() == golden[f"paste_box_relax{relax}"].tolist()
    pasted = geometry.paste(golden["paste_prob"], crop_box, SIZE, box if tight else None)
    name = f"paste_relax{relax}_mr{int(tight)}"
    np.testing.assert_allclose(pasted, golden[name], atol=1e-4)
    np.testing.assert_array_equal(pasted > 0.8, golden[f"{name}_gt0p8"].astype(bool))


def test_clicks_of_the_demonstration_find_the_authors_crop(golden):
    points = golden["demo_points"]
    crop_box = geometry.relax_box(np.concatenate([points.min(0), points.max(0)]), 50)
    assert crop_box.tolist() == golden["demo_box"].tolist()
    assert points_in_crop(points, crop_box, (512, 512)).tolist() == golden["demo_points_in_crop512"].tolist()


@given(boxes, st.integers(1, 3))
def test_a_pasted_crop_returns_to_its_place(box, factor):
    """Enlarged by a whole factor and made smaller again, every pixel of the image inside the box is as it was."""
    image = np.arange(1, 20 * 24 + 1, dtype=np.float32).reshape(20, 24)
    window = geometry.crop(image, box)
    resized = geometry.resize(window, (factor * window.shape[0], factor * window.shape[1]), "nearest")
    pasted = geometry.paste(resized, box, image.shape, interpolation="nearest")
    y, x = np.mgrid[:20, :24]
    inside = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    np.testing.assert_array_equal(pasted, np.where(inside, image, 0))


@given(boxes, boxes)
def test_nothing_is_pasted_outside_the_tight_box(crop_box, box):
    pasted = geometry.paste(np.ones((8, 8), np.float32), crop_box, (20, 24), box)
    y, x = np.mgrid[:20, :24]
    inside = [(x >= b[0]) & (x <= b[2]) & (y >= b[1]) & (y <= b[3]) for b in (crop_box, box)]
    np.testing.assert_allclose(pasted, inside[0] & inside[1], atol=1e-6)
    window = geometry.window_in_image(crop_box, box, (20, 24))
    assert (window is None) == (not (inside[0] & inside[1]).any())


@pytest.mark.parametrize("size", [(96, 96), (150, 70)])
def test_a_prediction_of_any_size_comes_back_within_a_quarter_of_a_pixel(size):
    picture = dot((40, 50), at=(11.3, 30.6), spread=3)
    box = np.array([-9, 15, 30, 52])  # leaves the image at the left and below
    pasted = geometry.paste(geometry.resize(geometry.crop(picture, box), size, "cubic"), box, picture.shape)
    cut = np.zeros_like(picture)
    cut[15:, :31] = picture[15:, :31]
    assert np.abs(place_of(pasted) - place_of(cut)).max() < 0.25
    assert np.abs(pasted - cut).max() < 0.02


@given(boxes, st.integers(1, 64), st.integers(1, 64))
def test_a_box_fills_its_grid_from_edge_to_edge(box, height, width):
    to_grid = geometry.box_to_grid(box, (height, width))
    edges = np.array([[box[0] - 0.5, box[1] - 0.5], [box[2] + 0.5, box[3] + 0.5]])
    np.testing.assert_allclose(geometry.apply(to_grid, edges), [[-0.5, -0.5], [width - 0.5, height - 0.5]], atol=1e-9)


@pytest.mark.parametrize("box", [[5, 8, 44, 35], [-10, 3, 30, 50], [12, -9, 61, 30]])
@pytest.mark.parametrize("size", [(64, 64), (96, 40), (30, 30)])
def test_a_dot_is_found_in_the_crop_where_the_matrix_says(box, size):
    at = np.array([[20.4, 17.7]])
    expected = geometry.apply(geometry.box_to_grid(np.array(box), size), at)[0]
    picture = dot((45, 60), tuple(at[0]))
    np.testing.assert_allclose(
        place_of(geometry.resize(geometry.crop(picture, box), size, "linear")), expected, atol=0.1
    )
    warped = geometry.warp(picture, geometry.box_to_grid(np.array(box), size), size, "linear")
    np.testing.assert_allclose(place_of(warped), expected, atol=0.1)


@given(
    st.floats(-30, 30),
    st.floats(0.75, 1.25),
    st.booleans(),
    st.tuples(st.floats(22, 38), st.floats(18, 28)),
)
def test_a_dot_goes_through_flip_and_rotation_where_the_matrices_say(angle, scale, flip_last, at):
    size = (48, 60)
    rotation, flip = geometry.scale_and_rotate(size, angle, scale), geometry.flip_matrix(size[1])
    both = geometry.after(flip, rotation) if flip_last else geometry.after(rotation, flip)
    expected = geometry.apply(both, np.array([at]))
    one_by_one = [rotation, flip] if flip_last else [flip, rotation]
    through = np.array([at])
    for matrix in one_by_one:
        through = geometry.apply(matrix, through)
    np.testing.assert_allclose(through, expected, atol=1e-9)
    np.testing.assert_allclose(place_of(geometry.warp(dot(size, at), both, size, "linear")), expected[0], atol=0.1)


def test_rotation_is_counter_clockwise_about_the_point_between_the_middle_pixels():
    matrix = geometry.scale_and_rotate((40, 60), angle=90, scale=1)
    np.testing.assert_allclose(geometry.apply(matrix, np.array([[30, 20], [40, 20]])), [[30, 20], [30, 10]], atol=1e-9)


@given(st.floats(-180, 180), st.floats(0.5, 2))
def test_a_matrix_and_its_inverse_cancel(angle, scale):
    matrix = geometry.after(geometry.flip_matrix(60), geometry.scale_and_rotate((40, 60), angle, scale))
    back = geometry.after(cv2.invertAffineTransform(matrix), matrix)
    np.testing.assert_allclose(back, [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_a_flip_twice_is_no_flip():
    mask = square((6, 9), top_left=(1, 2), side=3)
    once = geometry.warp(mask, geometry.flip_matrix(9), (6, 9), "nearest")
    assert tight_box(once).tolist() == [5, 2, 7, 4]
    np.testing.assert_array_equal(geometry.warp(once, geometry.flip_matrix(9), (6, 9), "nearest"), mask)


def test_masks_stay_masks_whatever_their_values():
    """Interpolation follows the field, never the values found in it: a label map keeps its labels."""
    labels = 7 * square(30, top_left=(5, 6), side=11)
    for out in (
        geometry.resize(labels, (47, 53), "nearest"),
        geometry.warp(labels, geometry.scale_and_rotate((30, 30), 17, 1.1), (30, 30), "nearest"),
    ):
        assert np.unique(out).tolist() == [0, 7]
