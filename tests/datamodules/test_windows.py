"""The window of a scaled image that ITIS trains on, and the whole image that it is tested on (methods/itis, Sec. 7)."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.clicks.points import NoPoints
from datamodules.keys import rng
from datamodules.recipe import SampleRecipe
from datamodules.rendering import Views, augmented_views, evaluation_views
from datamodules.views import Located, size_within
from tests.conftest import disc, dot, ellipse, place_of, square

WIDE, TALL = (60, 100), (100, 60)
SIZE = 48
PUBLISHED = SampleRecipe(
    size=SIZE,
    relax=0,
    view="window",
    window="corner",
    test_view="whole_image",
    geometry="chain",
    flip=0.0,
    rotation=0.0,
    scale=(1.0, 1.0),
    train_points=NoPoints(),
    test_points=NoPoints(),
    test_interpolation="linear",
)
ANY = replace(PUBLISHED, window="random")
FORMS = pytest.mark.parametrize("form", ["chain", "fused"])


def picture(size: tuple[int, int], spot: NDArray | None = None) -> NDArray[np.uint8]:
    spot = np.zeros(size) if spot is None else spot
    return np.repeat((255 * spot).astype(np.uint8)[..., None], 3, axis=2)


def seen(mask: NDArray, recipe: SampleRecipe, *, void: NDArray | None = None, image=None, key: int = 0) -> Views:
    void = np.zeros_like(mask) if void is None else void
    return augmented_views(picture(mask.shape) if image is None else image, mask, void, recipe, rng(key))


def scaled(array: NDArray, shorter: int) -> NDArray:
    """The whole array with a shorter side of so many pixels, labels as OpenCV leaves them."""
    height, width = (round(side * shorter / min(array.shape)) for side in array.shape)
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_NEAREST)


def iou(one: NDArray, other: NDArray) -> float:
    return float((one & other).sum() / (one | other).sum())


boxes = st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(1, 60), st.integers(1, 60))
sizes = st.tuples(st.integers(20, 130), st.integers(20, 130))


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    x, y, height, width = box
    assume(x < size[1] and y < size[0])
    return square(size, (x, y), (height, width))


# -- the published window ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_the_shorter_side_of_the_image_becomes_the_windows(size):
    """An object at the first pixels: the window begins there, and shows the whole shorter side."""
    views = seen(square(size, (0, 0), 6), PUBLISHED)
    assert views.to_crop[0, 0] == pytest.approx(SIZE / 60)
    assert views.to_crop[1, 1] == pytest.approx(SIZE / 60)
    np.testing.assert_array_equal(views.mask, scaled(square(size, (0, 0), 6), SIZE)[:SIZE, :SIZE])
    assert views.crop_box.tolist() == [0, 0, 59, 59]
    assert views.mask.shape == views.void.shape == (SIZE, SIZE)
    assert views.image.shape == (SIZE, SIZE, 3)


def test_a_shorter_side_of_its_own_makes_the_window_a_part_of_it():
    views = seen(square(WIDE, (0, 0), 6), replace(PUBLISHED, short_side=96))
    assert views.to_crop[0, 0] == pytest.approx(96 / 60)
    assert views.crop_box.tolist() == [0, 0, 29, 29]


@given(sizes, boxes, st.none() | boxes, st.integers(32, 80))
def test_the_corner_window_ends_where_object_or_void_end_and_loses_their_last_pixels(size, box, void_box, shorter):
    """The released code: offset = max(0, largest coordinate of a label that is not 0 - size), on the scaled label."""
    mask = rectangle(size, box)
    void = np.zeros_like(mask) if void_box is None else rectangle(size, void_box) * (1 - mask)
    recipe = replace(PUBLISHED, size=32, short_side=shorter)
    label, voids = scaled(mask, shorter), scaled(void, shorter)
    assume(label.any())
    rows, columns = np.nonzero(label | voids)
    x, y = max(0, columns.max() - 32), max(0, rows.max() - 32)
    views = seen(mask, recipe, void=void)
    expected = geometry.crop(label, np.array([x, y, x + 31, y + 31]))
    np.testing.assert_array_equal(views.mask, expected)
    np.testing.assert_array_equal(views.void, geometry.crop(voids, np.array([x, y, x + 31, y + 31])))


def test_a_wide_object_is_cut_off_on_its_left():
    mask = square((60, 200), (10, 20), (20, 150))
    views = seen(mask, replace(PUBLISHED, size=60))
    assert views.crop_box.tolist() == [159 - 60, 0, 159 - 1, 59]
    assert views.mask[20:40].all()
    assert views.mask[:20].sum() == views.mask[40:].sum() == 0


def test_void_of_another_object_moves_the_window():
    mask, void = square(WIDE, (5, 5), 20), square(WIDE, (90, 50), 5)
    recipe = replace(PUBLISHED, size=60)
    assert seen(mask, recipe).crop_box.tolist() == [0, 0, 59, 59]
    assert seen(mask, recipe, void=void).crop_box.tolist() == [34, 0, 93, 59]


# -- any window -------------------------------------------------------------------------------------------------------


@FORMS
@given(size=sizes, box=boxes, key=st.integers(0, 99))
def test_a_random_window_holds_the_object_whenever_it_fits(form, size, box, key):
    mask = rectangle(size, box)
    whole = scaled(mask, SIZE)
    assume(whole.any())
    x_min, y_min, x_max, y_max = tight_box(whole)
    assume(x_max - x_min < SIZE - 1 and y_max - y_min < SIZE - 1)  # a pixel may be added on either side
    views = seen(mask, replace(ANY, geometry=form), key=key)
    if form == "chain":
        assert views.mask.sum() == whole.sum()
    corners = geometry.apply(views.to_crop, np.array([tight_box(mask)[:2], tight_box(mask)[2:]]))
    assert corners.min() > -0.5
    assert corners.max() < SIZE - 0.5


@given(st.integers(60, 180), st.integers(0, 20), st.integers(0, 50))
def test_of_an_object_that_does_not_fit_a_random_window_shows_as_much_as_it_can(width, left, key):
    mask = square((60, 220), (left, 10), (30, width))
    views = seen(mask, replace(ANY, size=60), key=key)
    assert views.mask[10:40].all()
    assert views.mask.sum() == 30 * 60


def test_random_windows_differ_from_draw_to_draw_and_stay_inside_of_the_image():
    mask = square((60, 200), (90, 20), 10)
    first = set()
    for key in range(60):
        views = seen(mask, replace(ANY, size=60), key=key)
        assert views.crop_box[0] >= 0
        assert views.crop_box[2] < 200
        assert views.crop_box[1] == 0
        assert views.mask.sum() == 100
        first.add(int(views.crop_box[0]))
    assert min(first) >= 90 + 10 - 60
    assert max(first) <= 90
    assert len(first) > 30


@pytest.mark.parametrize("window", ["corner", "random"])
def test_an_image_smaller_than_the_window_has_nothing_beyond_it(window):
    """The scaled image is 30 x 50 and the window 64: the rest is black and no object."""
    mask = disc(WIDE, (80, 40), 12)
    recipe = replace(PUBLISHED, size=64, short_side=30, window=window)
    views = seen(mask, recipe, image=np.full((*WIDE, 3), 200, np.uint8))
    assert views.mask.sum() == scaled(mask, 30).sum()
    assert (views.image[:30, :50] == 200).all()
    assert views.image[30:].max() == views.image[:, 50:].max() == 0


# -- chain, fused map and points --------------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("window", ["corner", "random"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("size", [WIDE, TALL])
def test_points_of_the_image_land_on_the_pixels_that_show_them(form, window, flip, size):
    for key, at in enumerate([(30.0, 30.0), (42.0, 22.0), (20.0, 45.0)]):
        mask = disc(size, at, 9)
        recipe = replace(PUBLISHED, window=window, flip=flip, geometry=form)
        views = seen(mask, recipe, image=picture(size, dot(size, at, 2.0)), key=key)
        (expected,) = geometry.apply(views.to_crop, np.array([at]))
        assert np.abs(place_of(views.image[..., 0]) - expected).max() < 0.1
        assert np.abs(place_of(views.mask) - expected).max() < 0.6
        assert np.sign(views.to_crop[0, 0]) == (-1 if flip else 1)


@pytest.mark.parametrize("window", ["corner", "random"])
@pytest.mark.parametrize("key", range(8))
def test_chain_and_fused_map_show_the_same_object(window, key):
    """The fused map rounds to the nearest pixel once, the chain twice."""
    size = (480, 800)
    mask = ellipse(size, (420, 240), (160, 120), 20)
    recipe = replace(PUBLISHED, size=320, short_side=400, window=window, flip=0.5)
    void = cv2.dilate(mask, np.ones((9, 9), np.uint8)) - mask
    views = {form: seen(mask, replace(recipe, geometry=form), void=void, key=key) for form in ("chain", "fused")}
    one, other = views["chain"], views["fused"]
    np.testing.assert_allclose(one.to_crop, other.to_crop)
    np.testing.assert_array_equal(one.crop_box, other.crop_box)
    assert iou(one.mask, other.mask) >= 0.98
    for shown in (one, other):
        assert iou(shown.mask, geometry.warp(mask, shown.to_crop, (320, 320), "nearest")) >= 0.98
        assert iou(shown.mask | shown.void, geometry.warp(mask | void, shown.to_crop, (320, 320), "nearest")) >= 0.98


@FORMS
@pytest.mark.parametrize("key", range(6))
def test_rotated_and_scaled_objects_are_where_the_matrix_says(form, key):
    size = (240, 400)
    mask = ellipse(size, (210, 120), (60, 40), 20)
    recipe = replace(ANY, size=160, rotation=20.0, scale=(0.75, 1.25), flip=0.5, geometry=form)
    views = seen(mask, recipe, key=key)
    assert iou(views.mask, geometry.warp(mask, views.to_crop, (160, 160), "nearest")) >= 0.97


def test_a_flip_mirrors_the_image_before_the_window_is_cut():
    mask = square(WIDE, (5, 10), (20, 12))
    plain = seen(np.ascontiguousarray(mask[:, ::-1]), PUBLISHED)
    flipped = seen(mask, replace(PUBLISHED, flip=1.0))
    np.testing.assert_array_equal(flipped.mask, plain.mask)
    np.testing.assert_array_equal(flipped.crop_box, plain.crop_box)


def test_the_clean_view_is_the_published_window():
    mask = disc(WIDE, (70, 40), 15)
    clean = ANY.training_view.placed(Located(tight_box(mask), WIDE), SIZE, None)
    np.testing.assert_allclose(clean.grid, seen(mask, PUBLISHED).to_crop)


@FORMS
@pytest.mark.parametrize("window", ["corner", "random"])
def test_one_pixel_at_the_images_end_is_no_error(form, window):
    """The published window loses an object that is one pixel wide and at its far end; nothing fails."""
    mask = square((60, 200), (199, 59), 1)
    views = seen(mask, replace(PUBLISHED, size=60, geometry=form, window=window))
    assert views.mask.sum() == (1 if window == "random" else 0)


# -- the whole image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_whole_image_is_the_image_itself(dtype):
    image = np.random.default_rng(0).integers(0, 256, (*WIDE, 3)).astype(dtype)
    mask = disc(WIDE, (70, 20), 9)
    void = square(WIDE, (0, 0), 5)
    views = evaluation_views(image, mask, void, replace(PUBLISHED, rotation=20.0, flip=1.0))
    np.testing.assert_array_equal(views.image, image)
    np.testing.assert_array_equal(views.mask, mask)
    np.testing.assert_array_equal(views.void, void)
    assert views.crop_box.tolist() == [0, 0, 99, 59]
    assert views.box.tolist() == [61, 11, 79, 29]
    clicks = np.array([[0, 0], [99, 59], [17, 33]], float)
    assert (geometry.apply(views.to_crop, clicks) == clicks).all()


@pytest.mark.parametrize(("size", "expected"), [(WIDE, (30, 50)), (TALL, (50, 30)), ((40, 40), (40, 40))])
def test_a_long_image_is_made_smaller_and_keeps_its_shape(size, expected):
    mask = ellipse(size, (size[1] // 2, size[0] // 2), (15, 10))
    at = (size[1] / 2, size[0] / 2)
    recipe = replace(PUBLISHED, long_side=50)
    views = evaluation_views(picture(size, dot(size, at, 4.0)), mask, np.zeros_like(mask), recipe)
    assert views.mask.shape == views.void.shape == views.image.shape[:2] == expected
    (there,) = geometry.apply(views.to_crop, np.array([at]))
    assert np.abs(place_of(views.image[..., 0]) - there).max() < 0.1
    assert views.crop_box.tolist() == [0, 0, size[1] - 1, size[0] - 1]
    assert views.mask.mean() == pytest.approx(mask.mean(), rel=0.05)


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.integers(0, 1000))
def test_images_are_only_ever_made_smaller_and_to_whole_pixels(size, long_side):
    height, width = size_within(size, long_side)
    if not long_side or max(size) <= long_side:
        assert (height, width) == size
    else:
        assert max(height, width) == long_side
        assert min(height, width) >= 1
        assert min(height, width) == pytest.approx(max(1, min(size) * long_side / max(size)), abs=0.51)


@pytest.mark.parametrize("form", ["fused", "chain"])
def test_beyond_the_image_nothing_is_labelled(form):
    recipe = SampleRecipe(
        size=64, view="window", short_side=64, window="random", geometry=form, flip=0.0, rotation=0.0, scale=(0.5, 0.5)
    )
    mask = square((80, 80), top_left=(30, 30), side=20)
    image = np.full((80, 80, 3), 200, np.uint8)
    views = augmented_views(image, mask, np.zeros_like(mask), recipe, rng(1))
    outside = views.image[..., 0] < 100
    assert 0.6 < outside.mean() < 0.85  # half as wide and half as high
    assert (outside == views.void.astype(bool)).mean() > 0.97
    assert not views.void[views.mask > 0].any()
