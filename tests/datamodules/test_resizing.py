"""Where images come to lie, and with them their masks and boxes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from datamodules.keys import rng
from datamodules.mask_runs import MaskRuns, runs_of
from datamodules.resizing import LargeScaleJitter, Placement, ShortSide
from tests.conftest import dot, ellipse, place_of

ALL = np.ones(1, bool)


def runs(mask: np.ndarray) -> MaskRuns:
    return runs_of([coco_mask.encode(np.asfortranarray(mask))["counts"]], mask.shape)


def shown(place: Placement, pixels: np.ndarray) -> np.ndarray:
    out = np.full((*place.size, 3), 7, np.uint8)
    place.show(pixels, out)
    return out


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 1000), (400, 1333)), ((1600, 1600), (800, 800))],
)
def test_the_shorter_side_becomes_800_unless_the_longer_one_exceeds_1333(size, expected):
    place = ShortSide([800], 1333).placed(size, None)
    assert place.scaled == place.size == place.canvas == expected


def test_each_length_of_the_shorter_side_is_drawn():
    resize = ShortSide(range(640, 801, 32))
    drawn = {resize.placed((480, 640), rng(0, k)).size[0] for k in range(60)}
    assert drawn == {640, 672, 704, 736, 768, 800}


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 1000))
def test_jitter_shows_a_window_of_the_scaled_image_on_a_square(height, width, key):
    place = LargeScaleJitter(64, [0.1, 2.0]).placed((height, width), rng(key))
    assert place.canvas == (64, 64)
    assert 0.1 * 64 - 1 <= max(place.scaled) <= 2 * 64 + 1
    for own, first, scaled in zip(place.size, place.first, place.scaled):
        assert own == min(scaled, 64)
        assert 0 <= first <= scaled - own


def test_jitter_draws_windows_at_both_ends():
    places = [LargeScaleJitter(64, [2.0, 2.0]).placed((100, 100), rng(k)) for k in range(400)]
    assert {min(p.first[0] for p in places), max(p.first[0] for p in places)} == {0, 64}


@pytest.mark.parametrize("scaled", [(83, 121), (50, 60), (20, 31), (7, 300)])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_are_resized_as_opencv_resizes_them_to_the_nearest_pixel(scaled, flip):
    mask = ellipse((50, 60), (28, 22), (20, 9), 30)
    place = Placement((50, 60), scaled, first=(0, 0), size=scaled, canvas=scaled, flip=flip)
    expected = cv2.resize(mask, scaled[::-1], interpolation=cv2.INTER_NEAREST)
    _, found = place.masks(runs(mask), scaled, ALL)
    np.testing.assert_array_equal(found[0], expected[:, ::-1] if flip else expected)


@given(st.integers(0, 500))
def test_image_masks_and_boxes_move_together(key):
    """An ellipse whose box is its own, painted white: what is seen of it is where its mask and its box are."""
    mask = ellipse((60, 90), (40, 25), (25, 12), 20)
    x, y, width, height = cv2.boundingRect(mask)
    place = replace(LargeScaleJitter(96, [0.5, 2.0]).placed((60, 90), rng(key)), flip=bool(key % 2))
    seen, found = place.masks(runs(mask), place.canvas, ALL)
    moved = place.boxes(np.array([[x, y, x + width, y + height]], np.float64))[0]
    if not seen[0]:
        return
    image = shown(place, np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))[..., 0]
    own = found[0, : place.size[0], : place.size[1]]
    assert found[0].sum() == own.sum()
    factor = max(place.scaled) / 90
    differs = (image > 127) != (own > 0)
    assert differs.sum() <= 4 * np.pi * 25 * max(factor, 1) * max(factor, 1)  # the outline, a pixel of the file wide
    left, top, wide, high = cv2.boundingRect(own)
    np.testing.assert_allclose([left, top, left + wide, top + high], moved, atol=1 + factor)


def test_a_flipped_image_is_a_mirror_image_whether_it_grows_or_shrinks():
    picture = np.repeat(np.clip(dot((40, 60), (15, 22), 3) * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    for size in ((80, 120), (40, 60), (30, 45)):
        plain = Placement((40, 60), size, first=(0, 0), size=size, canvas=size)
        there, mirrored = (shown(place, picture) for place in (plain, replace(plain, flip=True)))
        assert np.abs(there[:, ::-1].astype(int) - mirrored).max() <= 1
        x, y = place_of(mirrored[..., 0])
        factor = size[0] / 40
        np.testing.assert_allclose([x, y], [(45 - 0.5) * factor - 0.5, 22.5 * factor - 0.5], atol=0.1)


def test_boxes_are_cut_where_the_window_ends():
    place = Placement((100, 100), (200, 200), first=(50, 100), size=(100, 100), canvas=(100, 100))
    boxes = place.boxes(np.array([[10.0, 30, 60, 50], [0, 0, 20, 20]]))
    np.testing.assert_array_equal(boxes, [[0, 10, 20, 50], [0, 0, 0, 0]])
    mirrored = replace(place, flip=True).boxes(np.array([[10.0, 30, 60, 50]]))
    np.testing.assert_array_equal(mirrored, [[80, 10, 100, 50]])


def test_what_cannot_be_a_size_is_refused():
    with pytest.raises(ValueError, match="ShortSide needs at least one length"):
        ShortSide([])
    with pytest.raises(ValueError, match="each of its sides must be at least 1, got 0"):
        ShortSide([640, 0])
    with pytest.raises(ValueError, match=r"the least and the largest factor, such as \[0.1, 2.0\], got \[2.0, 0.1\]"):
        LargeScaleJitter(scale=[2.0, 0.1])
    with pytest.raises(ValueError, match="for training alone; test with ShortSide"):
        LargeScaleJitter().placed((10, 10), None)
