"""From an object on disk to a Sample: crop, points and geometric augmentation, as a recipe says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from datamodules import geometry
from datamodules.batch import FullMask, Sample
from datamodules.clicks.extreme import band_points, extreme_points, jittered_points, tight_box
from datamodules.clicks.points import EXTREME_KINDS
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from datamodules.keys import rng, seed_of


@dataclass
class PointRule:
    """How the four extreme points are simulated, in pixels of the crop.

    exact: the extreme points themselves. band: DEXTR's code, any object pixel within `pixels` of its side.
    jitter: DEXTR's paper, the extreme points moved by up to `pixels` in x and y.
    """

    rule: Literal["exact", "band", "jitter"] = "exact"
    pixels: float = 0.0

    def __call__(self, mask: NDArray, draw: np.random.Generator) -> NDArray[np.float32]:
        """(4, 2) points, left, top, right, bottom, of a non-empty (H, W) mask."""
        if self.rule == "exact":
            return extreme_points(mask)
        if self.rule == "band":
            return band_points(mask, round(self.pixels), draw)
        return jittered_points(mask, self.pixels, draw)


@dataclass
class SampleRecipe:
    """What a method wants to see of an object.

    Args:
        size: the crop is resized to size x size pixels, aspect ratio not kept.
        relax: margin around the object's box, in pixels of the image.
        view: `crop` on the object, or the `full_image` resized (DEXTR's Table 3).
        geometry: `fused`, one affine map from image to crop; or `chain`, the published steps one by one: flip and warp
            the whole float image, crop it, resize the crop. Evaluation always runs the chain, without augmentation.
        interpolation: of images; masks are nearest.
        flip, rotation, scale: probability; degrees either way; range of the factor. All drawn per object and epoch.
        train_points, test_points: see PointRule.
        transforms: albumentations transforms (class_path and init_args) on the crop and its masks, after the geometry.
            They may move pixels by an affine map at most; points are simulated on the mask as they leave it.
        extras: optional fields of the Batch that a method asks for: `others`, `clean_image`.
    """

    size: int = 512
    relax: int = 50
    view: Literal["crop", "full_image"] = "crop"
    geometry: Literal["fused", "chain"] = "fused"
    interpolation: Literal["linear", "cubic"] = "linear"
    test_interpolation: Literal["linear", "cubic"] = "cubic"
    flip: float = 0.5
    rotation: float = 20.0
    scale: tuple[float, float] = (0.75, 1.25)
    train_points: PointRule = field(default_factory=PointRule)
    test_points: PointRule = field(default_factory=PointRule)
    transforms: list[dict[str, Any]] = field(default_factory=list)
    extras: list[Literal["others", "clean_image"]] = field(default_factory=list)


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
class _Views:
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


def evaluation_views(image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe) -> _Views:
    """The published test-time chain, without augmentation."""
    box = tight_box(mask)
    crop_box = view_box(box, mask.shape, recipe)
    size = (recipe.size, recipe.size)
    return _Views(
        crop_image(image, crop_box, recipe),
        geometry.resize(geometry.crop(mask, crop_box), size, "nearest"),
        geometry.resize(geometry.crop(void, crop_box), size, "nearest"),
        geometry.box_to_grid(crop_box, size),
        crop_box,
        box,
    )


def augmented_views(
    image: NDArray, mask: NDArray, void: NDArray, recipe: SampleRecipe, draw: np.random.Generator
) -> _Views:
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
    return _Views(image, mask, void, to_crop, crop_box, box)


class ObjectSamples(Dataset):
    """The objects of an index as Samples; asked for by (epoch, position), which the sampler yields.

    Training samples are augmented and carry no full-size mask; evaluation samples are not and do.
    """

    def __init__(self, index: ObjectIndex, recipe: SampleRecipe, *, train: bool, seed: int = 0) -> None:
        self.index, self.recipe, self.train, self.seed = index, recipe, train, seed
        self._transforms = _compose(recipe.transforms) if train and recipe.transforms else None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, i = key if isinstance(key, tuple) else (0, key)
        object_id = int(self.index.object_id[i])
        draw = rng(self.seed, epoch, object_id, 0)
        image = read_image(self.index.image_path(i))
        mask, void = self.index.read_mask(i)
        full = (int(mask.shape[0]), int(mask.shape[1]))
        if image.shape[:2] != full:
            raise ValueError(f"{self.index.image_path(i)} is {image.shape[:2]}, its mask {full} (H, W)")
        void = np.zeros(full, np.uint8) if void is None else void
        if self.train:
            views = augmented_views(image, mask, void, self.recipe, draw)
        else:
            views = evaluation_views(image, mask, void, self.recipe)
        others = self._others(i, views, full) if "others" in self.recipe.extras else None
        if self._transforms is not None:
            views, others = _transformed(self._transforms, seed_of(self.seed, epoch, object_id, 1), views, others)
        points, kinds = self._points(views.mask, draw)
        sample = Sample(
            image=views.image,
            mask=views.mask,
            void=views.void,
            points=points,
            point_kinds=kinds,
            to_crop=views.to_crop,
            crop_box=views.crop_box,
            box=views.box,
            image_size=full,
            object_id=object_id,
            others=others,
        )
        if "clean_image" in self.recipe.extras:
            box = view_box(tight_box(mask), full, self.recipe)
            grid = geometry.box_to_grid(box, (self.recipe.size, self.recipe.size))
            sample.clean_image = geometry.warp(image, grid, (self.recipe.size,) * 2, self.recipe.interpolation)
        if not self.train:
            sample.full_mask = FullMask(_encode(mask), _encode(void) if void.any() else None)
        return sample

    def _points(self, mask: NDArray, draw: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if not mask.any():  # moved out of the frame, or too thin for the grid: no clicks, an empty map
            return np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
        rule = self.recipe.train_points if self.train else self.recipe.test_points
        return rule(mask, draw), np.array(EXTREME_KINDS, np.int64)

    def _others(self, i: int, views: _Views, full: tuple[int, int]) -> NDArray[np.uint8]:
        """Label map of the image's other objects on the crop's grid: 1, 2, ... in the order of the index."""
        labels = np.zeros(full, np.uint8)
        first, last = np.searchsorted(self.index.image, [self.index.image[i], self.index.image[i] + 1])
        for label, other in enumerate((n for n in range(first, last) if n != i), start=1):
            labels[self.index.read_mask(other).mask > 0] = min(label, 255)
        return geometry.warp(labels, views.to_crop, (self.recipe.size,) * 2, "nearest")


def _transformed(
    transforms: Any, seed: int, views: _Views, others: NDArray[np.uint8] | None
) -> tuple[_Views, NDArray[np.uint8] | None]:
    """The crop after the albumentations transforms; four marks that move along say what became of `to_crop`."""
    height, width = views.mask.shape
    marks = np.array([[x, y] for x in (0, width - 1) for y in (0, height - 1)], np.float32)
    image = views.image if views.image.dtype == np.uint8 else np.clip(np.rint(views.image), 0, 255).astype(np.uint8)
    masks = [views.mask, views.void] if others is None else [views.mask, views.void, others]
    transforms.set_random_seed(seed)
    out = transforms(image=image, masks=masks, keypoints=marks)
    moved = np.asarray(out["keypoints"], np.float64).reshape(-1, 2)
    if out["image"].shape[:2] != (height, width):
        made = " x ".join(str(side) for side in out["image"].shape[:2])
        raise ValueError(f"sample.transforms must keep the crop at {height} x {width} pixels, they made it {made}")
    to_crop = views.to_crop
    if not np.array_equal(moved, marks):
        to_crop = geometry.compose(_affine_through(marks, moved), to_crop)
    mask, void, *rest = out["masks"]
    return replace(views, image=out["image"], mask=mask, void=void, to_crop=to_crop), rest[0] if rest else None


def _affine_through(source: NDArray, target: NDArray) -> NDArray[np.float64]:
    """The matrix that maps these points (N, 2) to those; raises ValueError where none comes within a pixel."""
    if len(source) == len(target):
        columns = np.concatenate([source, np.ones((len(source), 1))], axis=1).astype(np.float64)
        matrix: NDArray[np.float64] = np.linalg.lstsq(columns, target, rcond=None)[0].T
        if np.abs(geometry.apply(matrix, source) - target).max() < 1:
            return matrix
    raise ValueError(
        "sample.transforms bend the crop, which no affine to_crop can follow; use flips, shifts, scalings, rotations "
        "and transforms of colour"
    )


def _compose(transforms: Sequence[dict[str, Any]]) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    import albumentations

    def build(spec: dict[str, Any]) -> Any:
        name = spec["class_path"].rpartition(".")[2]
        if not hasattr(albumentations, name):
            raise ValueError(f"no albumentations transform named {spec['class_path']!r}")
        return getattr(albumentations, name)(**spec.get("init_args", {}))

    keypoints = albumentations.KeypointParams(format="xy", remove_invisible=False)
    listed = [
        build(spec) for spec in transforms
    ]  # without NoOp, colours alone make it warn that nothing moves keypoints
    return albumentations.Compose([*listed, albumentations.NoOp()], keypoint_params=keypoints)


def _encode(mask: NDArray[np.uint8]) -> dict:
    return coco_mask.encode(np.asfortranarray(mask))  # type: ignore[no-any-return]
