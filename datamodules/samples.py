"""From an object on disk to a Sample, as a recipe says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from datamodules import geometry
from datamodules.batch import FullMask, Sample
from datamodules.clicks.distance import CROSS
from datamodules.clicks.points import EXTREME_KINDS, Clicked, NoPoints, Target
from datamodules.clicks.vertices import onto_crop
from datamodules.images import read_image, read_shared
from datamodules.index import ObjectIndex, ObjectMask
from datamodules.keys import rng, seed_of
from datamodules.masks import mask_from_box
from datamodules.recipe import SampleRecipe
from datamodules.rendering import Views, augmented_views, clean_image, evaluation_views
from datamodules.transforms import build_transforms, transformed


class Supervised(NamedTuple):
    """What a method may see of an object on its image: mask and void, each (H, W) uint8 of 0 and 1, and what is known.

    `truth` is its full-size mask and void, None where nothing reads them; `points` were taken on the image beforehand.
    """

    mask: NDArray[np.uint8]
    void: NDArray[np.uint8]
    truth: ObjectMask | None
    points: NDArray[np.float32] | None


class ObjectSamples(Dataset):
    """The objects of an index as Samples; asked for by (epoch, position), which the sampler yields.

    Training samples are augmented and carry no full-size mask; evaluation samples are not and do. Raises ValueError for
    a recipe that asks for the masks of `others` where boxes supervise.
    """

    def __init__(self, index: ObjectIndex, recipe: SampleRecipe, *, train: bool, seed: int = 0) -> None:
        if recipe.supervision == "box" and "others" in recipe.extras:
            raise ValueError(
                "sample.supervision is box, so that no mask is seen, but sample.extras asks for the masks of others; "
                "leave others out, or set supervision to mask"
            )
        self.index = index
        self.recipe = recipe
        self.train = train
        self.seed = seed
        self._transforms = build_transforms(recipe.transforms) if train and recipe.transforms else None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, i = key if isinstance(key, tuple) else (0, key)
        object_id = int(self.index.object_id[i])
        draw = rng(self.seed, epoch, object_id, 0)
        full = self.index.size_of(i)
        mask, void, truth, taken = self._by_box(i, draw) if self.recipe.supervision == "box" else self._by_mask(i)
        image = (read_image if self.train else read_shared)(self.index.image_path(i), full)
        if self.train:
            void = void | boundary_band(mask, self.recipe.void_band) if self.recipe.void_band else void
            views = augmented_views(image, mask, void, self.recipe, draw)
        else:
            drawn = self.recipe.test_points.box(self.index.native_id[i]) if taken is None else None
            views = evaluation_views(image, mask, void, self.recipe, drawn)
        others = self._others(i, views, full) if "others" in self.recipe.extras else None
        clean = clean_image(image, mask, self.recipe, views) if "clean_image" in self.recipe.extras else None
        if self._transforms is not None:
            views, others = transformed(self._transforms, seed_of(self.seed, epoch, object_id, 1), views, others)
        if taken is None:
            points, kinds = self._points(i, views, others, draw, None if self.train else mask)
        else:
            points, kinds = self._moved(taken, views)
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
            clean_image=clean,
        )
        if not self.train and truth is not None:
            unlabelled = None if truth.void is None or not truth.void.any() else _encode(truth.void)
            sample.rle = FullMask(_encode(truth.mask), unlabelled)
        return sample

    def _read(self, i: int) -> ObjectMask:
        """Mask and void of an object as they are annotated."""
        found = self.index.read_mask(i)
        if not cv2.hasNonZero(found.mask):  # a file was replaced after its objects were listed
            raise ValueError(
                f"object {self.index.native_id[i]} of {self.index.dataset} on {self.index.image_path(i)} has no pixels "
                "in its mask; list the objects again, or leave this one out"
            )
        return found

    def _by_mask(self, i: int) -> Supervised:
        """An object with its own mask."""
        truth = self._read(i)
        void = np.zeros(truth.mask.shape, np.uint8) if truth.void is None else truth.void
        return Supervised(truth.mask, void, truth, None)

    def _by_box(self, i: int, draw: np.random.Generator) -> Supervised:
        """An object with its extreme points on the image and the box that they span as its mask.

        In training the mask is read only if the points need it.
        """
        truth = None if self.train else self._read(i)
        full, name = self.index.size_of(i), self.index.native_id[i]
        read: Callable[[], NDArray[np.uint8]] = (lambda: self._read(i).mask) if truth is None else (lambda: truth.mask)
        rule = self.recipe.train_points if self.train else self.recipe.test_points
        points, kinds = rule(_OnImage(read, name, partial(self.index.outline, i)), draw)
        try:
            points = within(points, kinds, full, clicked=rule.box(name) is not None)
        except ValueError as error:
            raise ValueError(f"object {name} of {self.index.dataset} on {self.index.image_path(i)}: {error}") from None
        return Supervised(mask_from_box(spanned_box(points), full), np.zeros(full, np.uint8), truth, points)

    def _moved(self, taken: NDArray[np.float32], views: Views) -> Clicked:
        """Extreme points of the image on the crop's grid; none of an object that training moved out of the frame."""
        if self.train and not views.mask.any():
            return NoPoints()(Target(views.mask), rng(0))
        return onto_crop(taken, views.to_crop), np.array(EXTREME_KINDS, np.int64)

    def _points(
        self, i: int, views: Views, others: NDArray | None, draw: np.random.Generator, whole: NDArray | None
    ) -> Clicked:
        """The clicks on the crop's grid; an object too thin for it keeps those of its `whole` mask, where given."""
        rule = self.recipe.train_points if self.train else self.recipe.test_points
        full = self.index.size_of(i)
        native_id = self.index.native_id[i]
        if views.mask.any():
            target = Target(
                hard(views.mask),
                hard(views.void) if views.void.any() else None,
                lambda: self._others(i, views, full) if others is None else others,
                native_id,
                views.to_crop,
                partial(self.index.outline, i),
            )
            return rule(target, draw)
        if whole is not None:
            points, kinds = rule(Target(whole, native_id=native_id, outline=partial(self.index.outline, i)), draw)
            return geometry.apply(views.to_crop, points).astype(np.float32), kinds
        return NoPoints()(Target(views.mask), draw)  # moved out of the frame: an empty map

    def _others(self, i: int, views: Views, full: tuple[int, int]) -> NDArray[np.uint8]:
        """Label map of the image's other objects on the crop's grid: 1, 2, ... in the order of the index."""
        labels = np.zeros(full, np.uint8)
        first, last = np.searchsorted(self.index.image, [self.index.image[i], self.index.image[i] + 1])
        for label, other in enumerate((n for n in range(first, last) if n != i), start=1):
            labels[self.index.read_mask(other).mask > 0] = min(label, 255)
        size = (int(views.mask.shape[0]), int(views.mask.shape[1]))
        view = self.recipe.training_view if self.train else self.recipe.evaluation_view
        return geometry.warp(labels, views.to_crop, size, "nearest", view.beyond)


class _OnImage(Target):
    """An object on its whole image, whose mask is read when the user looks at it."""

    def __init__(self, read: Callable[[], NDArray[np.uint8]], native_id: str, outline: Callable[[], NDArray]) -> None:
        self.read, self.native_id, self.outline = read, native_id, outline

    @cached_property
    def mask(self) -> NDArray[np.uint8]:  # type: ignore[override]
        return self.read()


def within(points: NDArray, kinds: NDArray, size: tuple[int, int], clicked: bool = False) -> NDArray[np.float32]:
    """The extreme points (4, 2) as left, top, right, bottom, on the pixels of an image (H, W).

    A polygon's vertices may lie beyond the image, on the far edge of its last pixels as a rule; they count as on these,
    as its mask ends there. Raises ValueError where a point that people `clicked` does, or any of the four is missing.
    """
    listed = kinds.tolist()
    order = [listed.index(kind) for kind in EXTREME_KINDS if kind in listed]
    if len(order) < len(EXTREME_KINDS):
        raise ValueError(
            f"supervision by boxes needs the four extreme points of an object, got {len(order)} of them; "
            "set sample.train_points and test_points to VertexPoints, ExtremePoints or RecordedExtremePoints"
        )
    xy, last = np.asarray(points, np.float32)[order], np.array([size[1] - 1, size[0] - 1])
    if clicked and not ((xy >= -0.5) & (xy < last + 0.5)).all():
        raise ValueError(
            f"its extreme points {xy.tolist()} leave the image of {size} (H, W); points are (x, y) in pixels of the "
            "whole image: correct them, or leave this object out"
        )
    return np.clip(xy, 0, last).astype(np.float32)


def spanned_box(points: NDArray) -> NDArray[np.int64]:
    """The box xyxy, inclusive, of the pixels that points (n, 2) fall on."""
    pixels = np.floor(points + 0.5).astype(np.int64)
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def boundary_band(mask: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """1 at pixels within `width` (city-block distance) of the boundary of a mask (H, W), on both of its sides.

    The edge of the image is no boundary.
    """
    grown = cv2.dilate(mask, CROSS, iterations=width)
    return np.asarray(grown - cv2.erode(mask, CROSS, iterations=width), np.uint8)


def hard(mask: NDArray) -> NDArray[np.uint8]:
    """A mask on the crop's grid as 0 and 1: where it is above one half, or above 0 where a soft one nowhere is."""
    if mask.dtype != np.uint8:
        above = mask > 0.5
        mask = above if above.any() else mask > 0
    whole: NDArray[np.uint8] = mask.astype(np.uint8, copy=False)
    return whole


def _encode(mask: NDArray[np.uint8]) -> dict:
    return coco_mask.encode(np.asfortranarray(mask))
