"""An object on the crop's grid: by the published chain, step by step, or by the one affine map that replaces it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.recipe import SampleRecipe


def view_box(box: NDArray, image_size: tuple[int, int], recipe: SampleRecipe) -> NDArray[np.int64]:
    """The window that the recipe crops: the object's box and its margin, or the whole image."""
    if recipe.view == "full_image":
        return np.array([0, 0, image_size[1] - 1, image_size[0] - 1])
    return geometry.relax_box(box, recipe.relax)


def crop_image(image: NDArray[np.uint8], crop_box: NDArray, recipe: SampleRecipe) -> NDArray[np.float32]:
    """The published test-time chain for the image: zero-padded crop, resize in float, values not clipped."""
    window = geometry.crop(image, crop_box).astype(np.float32)
    return geometry.resize(window, (recipe.size, recipe.size), recipe.test_interpolation)


@dataclass(frozen=True)
class Views:
    """An object on the crop's grid: what the chain and the fused map both produce."""

    image: NDArray
    mask: NDArray[np.uint8]
    void: NDArray[np.uint8]
    to_crop: NDArray[np.float64]
    crop_box: NDArray[np.int64]
    box: NDArray[np.int64]


def _no_object(size: tuple[int, int]) -> NDArray[np.int64]:
    """The box of an object that augmentation moved out of the frame: the whole image, as in the published code."""
    return np.array([0, 0, size[1] - 1, size[0] - 1])


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


def evaluation_views(image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe) -> Views:
    """The published test-time chain, without augmentation."""
    box = tight_box(mask)
    crop_box = view_box(box, mask.shape, recipe)
    size = (recipe.size, recipe.size)
    return Views(
        crop_image(image, crop_box, recipe),
        geometry.resize(geometry.crop(mask, crop_box), size, "nearest"),
        geometry.resize(geometry.crop(void, crop_box), size, "nearest"),
        geometry.box_to_grid(crop_box, size),
        crop_box,
        box,
    )


def augmented_views(
    image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe, draw: np.random.Generator
) -> Views:
    """Flip, scale and rotate, crop and resize; `fused` into one map or as the published `chain`."""
    full = (int(mask.shape[0]), int(mask.shape[1]))
    size = (recipe.size, recipe.size)
    flipped = draw.random() < recipe.flip
    angle, scale = draw.uniform(-recipe.rotation, recipe.rotation), draw.uniform(*recipe.scale)
    matrix = geometry.scale_and_rotate(full, angle, scale)
    if recipe.geometry == "chain":
        image = image.astype(np.float32)
        if flipped:
            image, mask, void = (np.ascontiguousarray(array[:, ::-1]) for array in (image, mask, void))
        image = geometry.warp(image, matrix, full, recipe.interpolation)
        mask, void = (geometry.warp(array, matrix, full, "nearest") for array in (mask, void))
    if flipped:
        matrix = geometry.compose(matrix, geometry.flip_matrix(full[1]))
    seen = _box_of(mask) if recipe.geometry == "chain" else _box_through(mask, matrix)
    box = _no_object(full) if seen is None else seen
    crop_box = box if seen is None else view_box(box, full, recipe)
    to_crop = geometry.compose(geometry.box_to_grid(crop_box, size), matrix)
    if recipe.geometry == "chain":
        image, mask, void = (geometry.crop(array, crop_box) for array in (image, mask, void))
        if seen is None and recipe.view == "crop":  # the published crop of an object that left the frame is black
            image, void = np.zeros_like(image), np.zeros_like(void)
        image = geometry.resize(image, size, recipe.interpolation)
        mask, void = (geometry.resize(array, size, "nearest") for array in (mask, void))
    else:
        image = geometry.warp(image, to_crop, size, recipe.interpolation)
        mask = geometry.warp(mask, to_crop, size, "nearest")
        void = geometry.warp(void, to_crop, size, "nearest") if void.any() else np.zeros(size, np.uint8)
    return Views(image, mask, void, to_crop, crop_box, box)
