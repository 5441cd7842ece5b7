"""An object on the crop's grid: by the published chain, step by step, or by the one affine map that replaces it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.recipe import SampleRecipe

Resize = Callable[[NDArray, tuple[int, int]], NDArray]


def view_box(box: NDArray, image_size: tuple[int, int], recipe: SampleRecipe) -> NDArray[np.int64]:
    """The window that the recipe crops and stretches: the object's box and its margin, or the whole image."""
    if recipe.view == "crop":
        return geometry.relax_box(box, recipe.relax)
    return whole_box(image_size)


def whole_box(image_size: tuple[int, int]) -> NDArray[np.int64]:
    """The box of an image of size (H, W)."""
    return np.array([0, 0, image_size[1] - 1, image_size[0] - 1])


def crop_image(image: NDArray[np.uint8], crop_box: NDArray, recipe: SampleRecipe) -> NDArray[np.float32]:
    """The published test-time chain for the image: zero-padded crop, resize in float, values not clipped."""
    window = geometry.crop(image, crop_box).astype(np.float32)
    return geometry.resize(window, (recipe.size, recipe.size), recipe.test_interpolation)


def scaled_size(image_size: tuple[int, int], recipe: SampleRecipe) -> tuple[int, int]:
    """(H, W) of the image whose shorter side is the recipe's."""
    short = recipe.short_side or recipe.size
    height, width = (max(short, round(side * short / min(image_size))) for side in image_size)
    return height, width


def window_grid(
    last: NDArray, box: NDArray, image_size: tuple[int, int], recipe: SampleRecipe, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The `window` view of a recipe: matrix from image to crop, and the crop's box in the image.

    Args:
        last: the largest x and y of all pixels of the scaled image that are object or void.
        box: xyxy of the object alone, in pixels of the image.
    """
    scaled = np.array(scaled_size(image_size, recipe)[::-1])  # (width, height)
    per_pixel = scaled / np.array(image_size[::-1])
    if recipe.window == "corner":
        offset = np.maximum(0, last - recipe.size)  # the released code: the object's last row and column are lost
    else:
        first, end = np.floor(box[:2] * per_pixel).astype(np.int64), np.ceil((box[2:] + 1) * per_pixel).astype(np.int64)
        low, high = np.minimum(end - recipe.size, first), np.maximum(end - recipe.size, first)
        room = np.maximum(0, scaled - recipe.size)
        low, high = np.clip(low, 0, room), np.clip(high, 0, room)
        offset = draw.integers(low, high + 1)
    to_scaled = geometry.box_to_grid(whole_box(image_size), (int(scaled[1]), int(scaled[0])))
    grid = np.column_stack([to_scaled[:, :2], to_scaled[:, 2] - offset])
    crop_box = np.round(np.concatenate([offset, offset + recipe.size]) / np.tile(per_pixel, 2)).astype(np.int64)
    return grid, crop_box - np.array([0, 0, 1, 1])


def last_scaled(box: NDArray, size: tuple[int, int], scaled: tuple[int, int]) -> NDArray[np.int64]:
    """The last x and y of a box (xyxy, in an image of `size`) after nearest-neighbour scaling of all its pixels."""
    return np.ceil((box[2:] + 1) * np.array(scaled[::-1]) / np.array(size[::-1])).astype(np.int64) - 1


@dataclass(frozen=True)
class Views:
    """An object on the crop's grid: what the chain and the fused map both produce."""

    image: NDArray
    mask: NDArray[np.uint8]
    void: NDArray[np.uint8]
    to_crop: NDArray[np.float64]
    crop_box: NDArray[np.int64]
    box: NDArray[np.int64]


def _box_of(mask: NDArray) -> NDArray[np.int64] | None:
    return tight_box(mask) if mask.any() else None


def _box_through(mask: NDArray, matrix: NDArray) -> NDArray[np.int64] | None:
    """The tight box of a mask moved by `matrix` within its frame, None when it left; only where it can be is drawn."""
    if (own := _box_of(mask)) is None:
        return None
    full, (x_min, y_min, x_max, y_max) = np.array(mask.shape[::-1]), own
    corners = [[x, y] for x in (x_min - 1, x_max + 1) for y in (y_min - 1, y_max + 1)]
    reached = geometry.apply(matrix, np.array(corners))
    first = np.clip(np.floor(reached.min(0)), 0, full - 1).astype(np.int64)
    last = np.clip(np.ceil(reached.max(0)), 0, full - 1).astype(np.int64)
    to_window = np.column_stack([matrix[:, :2], matrix[:, 2] - first])
    height, width = (last - first + 1)[::-1].tolist()
    box = _box_of(geometry.warp(mask, to_window, (height, width), "nearest"))
    return None if box is None else box + np.tile(first, 2)


def resized_mask(mask: NDArray, size: tuple[int, int], recipe: SampleRecipe) -> NDArray:
    """A crop of a mask, or of void, on the grid of `size`: 0 and 1, or float32 in between where the recipe is soft."""
    if recipe.masks == "hard":
        return geometry.resize(mask, size, "nearest")
    return geometry.resize(mask.astype(np.float32), size, "linear")


def warped_mask(mask: NDArray, matrix: NDArray, size: tuple[int, int], recipe: SampleRecipe) -> NDArray:
    """The same through a matrix from the image to the grid."""
    if recipe.masks == "hard":
        return geometry.warp(mask, matrix, size, "nearest")
    return geometry.warp(mask.astype(np.float32), matrix, size, "linear")


def evaluation_views(
    image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe, drawn: NDArray[np.int64] | None = None
) -> Views:
    """The published test-time chain, without augmentation: the crop, or the whole image as it is (or made smaller).

    The crop is around the `drawn` box where a user has made one, else around the mask's own.
    """
    box = tight_box(mask) if drawn is None else drawn
    if recipe.test_view == "whole_image":
        full = (int(mask.shape[0]), int(mask.shape[1]))
        size, crop_box = size_within(full, recipe.long_side), whole_box(full)
        if size != full:
            image = geometry.resize(image, size, "area")
            mask, void = (geometry.resize(array, size, "nearest") for array in (mask, void))
        return Views(
            image=image, mask=mask, void=void, to_crop=geometry.box_to_grid(crop_box, size), crop_box=crop_box, box=box
        )
    crop_box = view_box(box, mask.shape, recipe)
    size = (recipe.size, recipe.size)
    return Views(
        image=crop_image(image, crop_box, recipe),
        mask=resized_mask(geometry.crop(mask, crop_box), size, recipe),
        void=resized_mask(geometry.crop(void, crop_box), size, recipe),
        to_crop=geometry.box_to_grid(crop_box, size),
        crop_box=crop_box,
        box=box,
    )


def size_within(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """(H, W) made smaller until neither side is longer than `long_side`; 0 is no limit."""
    if not long_side or max(size) <= long_side:
        return size
    height, width = (max(1, round(side * long_side / max(size))) for side in size)
    return height, width


def augmented_views(
    image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe, draw: np.random.Generator
) -> Views:
    """Flip, scale and rotate, crop and resize; `fused` into one map or as the published `chain`."""
    full = (int(mask.shape[0]), int(mask.shape[1]))
    size = (recipe.size, recipe.size)
    chain = recipe.geometry == "chain"
    flipped = draw.random() < recipe.flip
    angle, scale = draw.uniform(-recipe.rotation, recipe.rotation), draw.uniform(*recipe.scale)
    matrix = geometry.scale_and_rotate(full, angle, scale)
    if chain:
        image = image.astype(np.float32)
        if flipped:
            image, mask, void = (np.ascontiguousarray(array[:, ::-1]) for array in (image, mask, void))
        image = geometry.warp(image, matrix, full, recipe.warp_interpolation or recipe.interpolation)
        mask, void = (geometry.warp(array, matrix, full, "nearest") for array in (mask, void))
    if flipped:
        matrix = geometry.after(matrix, geometry.flip_matrix(full[1]))
    seen = _box_of(mask) if chain else _box_through(mask, matrix)
    box = whole_box(full) if seen is None else seen  # as in DEXTR's code when augmentation moved the object out
    scaled = scaled_size(full, recipe) if recipe.view == "window" else None
    if scaled is not None:
        last = _last_labelled(mask, void, box, matrix=None if chain else matrix, scaled=scaled, recipe=recipe)
        grid, crop_box = window_grid(last, box, full, recipe, draw)
    else:
        crop_box = box if seen is None else view_box(box, full, recipe)
        grid = geometry.box_to_grid(crop_box, size)
    to_crop = geometry.after(grid, matrix)
    if not chain:
        image = geometry.warp(image, to_crop, size, recipe.interpolation)
        mask = warped_mask(mask, to_crop, size, recipe)
        void = warped_mask(void, to_crop, size, recipe) if void.any() else np.zeros(size, mask.dtype)
        return Views(
            image=image,
            mask=mask,
            void=_with_outside(void, to_crop, full, recipe),
            to_crop=to_crop,
            crop_box=crop_box,
            box=box,
        )

    def cut(array: NDArray, resized: Resize) -> NDArray:
        if scaled is None:
            return resized(geometry.crop(array, crop_box), size)
        x, y = -grid[:, 2] + 0.5 * (grid.diagonal() - 1)  # of the window in the scaled image, both whole numbers
        first = np.round([x, y]).astype(np.int64)
        window = np.concatenate([first, first + recipe.size - 1])
        return geometry.crop(resized(array, scaled), window)

    soft = partial(resized_mask, recipe=recipe)
    image = cut(image, partial(geometry.resize, interpolation=recipe.interpolation))
    mask, void = cut(mask, soft), cut(void, soft)
    if seen is None and recipe.view == "crop":  # the published crop of an object that left the frame is black
        image, void = np.zeros_like(image), np.zeros_like(void)
    return Views(
        image=image,
        mask=mask,
        void=_with_outside(void, to_crop, full, recipe),
        to_crop=to_crop,
        crop_box=crop_box,
        box=box,
    )


def _last_labelled(
    mask: NDArray, void: NDArray, box: NDArray, matrix: NDArray | None, scaled: tuple[int, int], recipe: SampleRecipe
) -> NDArray[np.int64]:
    """(x, y) of the last column and row of the scaled image with object or void; `matrix` where both still move."""
    full = (int(mask.shape[0]), int(mask.shape[1]))
    if matrix is None and recipe.window == "corner":  # scaling may lose the outermost pixels
        left = _box_of(geometry.resize(mask | void, scaled, "nearest"))
        if left is not None:
            return left[2:]
    void_box = _box_of(void) if matrix is None else _box_through(void, matrix)
    labelled = box if void_box is None else np.concatenate([box[:2], np.maximum(box[2:], void_box[2:])])
    return last_scaled(labelled, full, scaled)


def _with_outside(void: NDArray, to_crop: NDArray, image_size: tuple[int, int], recipe: SampleRecipe) -> NDArray:
    """In a window, what lies beyond the image has no label: nothing is learned there, and nobody clicks there.

    Crops of DEXTR count it as background, as published; published windows lie inside their image.
    """
    height, width = void.shape
    corners = np.array([[x, y] for x in (0, width - 1) for y in (0, height - 1)])
    places = geometry.apply(cv2.invertAffineTransform(to_crop), corners)
    inside = (places >= -0.5) & (places <= np.array(image_size[::-1]) - 0.5)
    if recipe.view != "window" or inside.all():
        return void
    return np.maximum(void, 1 - geometry.warp(np.ones(image_size, np.uint8), to_crop, (height, width), "nearest"))


def plain_grid(mask: NDArray, recipe: SampleRecipe) -> NDArray[np.float64]:
    """From image to crop pixels without augmentation, for the clean view of an object."""
    full = (int(mask.shape[0]), int(mask.shape[1]))
    box = tight_box(mask)
    if recipe.view == "window":
        last = last_scaled(box, full, scaled_size(full, recipe))
        return window_grid(last, box, full, replace(recipe, window="corner"), np.random.default_rng(0))[0]
    return geometry.box_to_grid(view_box(box, full, recipe), (recipe.size, recipe.size))
