"""An object on the crop's grid: by the published chain, step by step, or by the one affine map that replaces it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.recipe import SampleRecipe
from datamodules.views import Located, Place, Size, View, last_scaled, whole_box


@dataclass(frozen=True)
class Views:
    """An object on the crop's grid: what the chain and the fused map both produce."""

    image: NDArray
    mask: NDArray
    void: NDArray
    to_crop: NDArray[np.float64]
    crop_box: NDArray[np.int64]
    box: NDArray[np.int64]


def evaluation_views(
    image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe, drawn: NDArray[np.int64] | None = None
) -> Views:
    """The published test-time chain, without augmentation.

    The view is of the `drawn` box where a user has made one, else of the mask's own. A box that supervises is nothing
    beyond the image, also where the view shows the image once more (MAL's code).
    """
    view, full = recipe.evaluation_view, size_of(mask)
    box = tight_box(mask) if drawn is None else drawn
    place = view.placed(Located(box, full, last=partial(_last_labelled, mask, void, box, None)), recipe.size, None)
    beyond: geometry.Beyond = "zero" if recipe.supervision == "box" else view.beyond
    image, mask, void = _cut((image, mask, void), view, place, recipe.test_interpolation, recipe, beyond)
    return Views(image, mask, _with_outside(void, place.grid, full, view), place.grid, place.crop_box, box)


def augmented_views(
    image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe, draw: np.random.Generator
) -> Views:
    """Flip, scale and rotate, crop and resize; `fused` into one map or as the published `chain`."""
    view, full = recipe.training_view, size_of(mask)
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
    box = whole_box(full) if seen is None else seen
    last = partial(_last_labelled, mask, void, box, None if chain else matrix)
    place = view.placed(Located(box, full, seen is None, last), recipe.size, draw)
    to_crop = geometry.after(place.grid, matrix)
    if chain:
        image, mask, void = _cut((image, mask, void), view, place, recipe.interpolation, recipe, view.beyond)
        if seen is None and view.black_when_gone:
            image, void = np.zeros_like(image), np.zeros_like(void)
    else:
        if view.resizes and onto_pixels(matrix, full[1]):
            image = _resized(image, place, flipped, recipe.interpolation, view)
        else:
            image = geometry.warp(image, to_crop, place.size, recipe.interpolation, view.beyond)
        warped = partial(_warped_mask, matrix=to_crop, size=place.size, view=view, recipe=recipe)
        mask = warped(mask)
        void = warped(void) if cv2.hasNonZero(void) else np.zeros(place.size, mask.dtype)
    return Views(image, mask, _with_outside(void, to_crop, full, view), to_crop, place.crop_box, box)


def clean_image(image: NDArray, mask: NDArray, recipe: SampleRecipe, shown: Views) -> NDArray:
    """The second, clean view of an object beside the one that is `shown`, see `View.clean_moves`."""
    view = recipe.training_view
    if view.clean_moves:
        return shown.image
    place = view.placed(Located(tight_box(mask), size_of(mask)), recipe.size, None)
    return geometry.warp(image, place.grid, place.size, recipe.interpolation, view.beyond)


def size_of(mask: NDArray) -> Size:
    """(H, W) in whole numbers of Python."""
    return int(mask.shape[0]), int(mask.shape[1])


def _box_of(mask: NDArray) -> NDArray[np.int64] | None:
    return tight_box(mask) if cv2.hasNonZero(mask) else None


def filled_box_of(mask: NDArray) -> NDArray[np.int64] | None:
    """The box of a mask (H, W) uint8 of 0 and 1 that fills it to the corners; None of any other mask."""
    box = _box_of(mask)
    return None if box is None or cv2.countNonZero(mask) < (box[2:] - box[:2] + 1).prod() else box


def _box_through(mask: NDArray, matrix: NDArray) -> NDArray[np.int64] | None:
    """The tight box of a mask moved by `matrix` within its frame, None when it left; only where it can be is drawn."""
    if (own := _box_of(mask)) is None:
        return None
    if onto_pixels(matrix, mask.shape[1]):  # nothing has to be drawn
        ends = geometry.apply(matrix, own.reshape(2, 2))
        return np.concatenate([ends.min(axis=0), ends.max(axis=0)]).astype(np.int64)
    full, (x_min, y_min, x_max, y_max) = np.array(mask.shape[::-1]), own
    corners = [[x, y] for x in (x_min - 1, x_max + 1) for y in (y_min - 1, y_max + 1)]
    reached = geometry.apply(matrix, np.array(corners))
    first = np.clip(np.floor(reached.min(0)), 0, full - 1).astype(np.int64)
    last = np.clip(np.ceil(reached.max(0)), 0, full - 1).astype(np.int64)
    to_window = np.column_stack([matrix[:, :2], matrix[:, 2] - first])
    height, width = (last - first + 1)[::-1].tolist()
    box = _box_of(geometry.warp(mask, to_window, (height, width), "nearest"))
    return None if box is None else box + np.tile(first, 2)


def onto_pixels(matrix: NDArray, width: int) -> bool:
    """Whether a matrix leaves an image of this width as it is, or flips it: pixels fall on pixels."""
    return any(np.array_equal(matrix, known) for known in (np.eye(2, 3), geometry.flip_matrix(width)))


def _resized(image: NDArray, place: Place, flipped: bool, interpolation: str, view: View) -> NDArray:
    """What the fused map shows of an image that it at most flips: the same box, resized."""
    x_min, y_min, x_max, y_max = place.crop_box.tolist()
    last = image.shape[1] - 1
    box = np.array([last - x_max, y_min, last - x_min, y_max]) if flipped else place.crop_box
    seen = geometry.resize(geometry.crop(image, box, view.beyond), place.size, interpolation)
    return cv2.flip(seen, 1) if flipped else seen


def _last_labelled(
    mask: NDArray, void: NDArray, box: NDArray, matrix: NDArray | None, scaled: Size
) -> NDArray[np.int64]:
    """(x, y) of the last column and row of the scaled image with object or void; `matrix` where both still move."""
    if matrix is None:  # scaling may lose the outermost pixels
        left = _box_of(geometry.resize(mask | void, scaled, "nearest"))
        if left is not None:
            return left[2:]
    void_box = _box_of(void) if matrix is None else _box_through(void, matrix)
    labelled = box if void_box is None else np.concatenate([box[:2], np.maximum(box[2:], void_box[2:])])
    return last_scaled(labelled, size_of(mask), scaled)


def _cut(
    arrays: tuple[NDArray, NDArray, NDArray],
    view: View,
    place: Place,
    interpolation: str,
    recipe: SampleRecipe,
    masks_beyond: geometry.Beyond,
) -> tuple[NDArray, NDArray, NDArray]:
    """Image, mask and void on the crop's grid by the chain; the masks may end where the image is shown once more."""
    image, mask, void = arrays
    resized = partial(view.resized, interpolation=interpolation)
    resized_mask = partial(view.resized_mask, soft=recipe.masks == "soft")
    seen = place.cut(image, resized, view.beyond)
    return seen, place.cut(mask, resized_mask, masks_beyond), place.cut(void, resized_mask, masks_beyond)


def _warped_mask(mask: NDArray, matrix: NDArray, size: Size, view: View, recipe: SampleRecipe) -> NDArray:
    """A mask, or void, through a matrix from the image to the grid: 0 and 1, or float32 in between."""
    if recipe.masks == "hard":
        box = filled_box_of(mask) if geometry.is_upright(matrix) else None
        if box is not None:
            return geometry.warp_box(box, size_of(mask), matrix, size, view.beyond)
        return geometry.warp(mask, matrix, size, "nearest", view.beyond)
    return geometry.warp(mask.astype(np.float32), matrix, size, "linear", view.beyond)


def _with_outside(void: NDArray, to_crop: NDArray, image_size: Size, view: View) -> NDArray:
    """Where the view says so, what lies beyond the image has no label: nothing is learned or clicked there.

    Crops of DEXTR count it as background, as published.
    """
    if not view.void_beyond:
        return void
    height, width = void.shape
    corners = np.array([[x, y] for x in (0, width - 1) for y in (0, height - 1)])
    places = geometry.apply(cv2.invertAffineTransform(to_crop), corners)
    if ((places >= -0.5) & (places <= np.array(image_size[::-1]) - 0.5)).all():
        return void
    return np.maximum(void, 1 - geometry.warp(np.ones(image_size, np.uint8), to_crop, (height, width), "nearest"))
