"""From an object on disk to a Sample, as a recipe says."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from datamodules import geometry
from datamodules.batch import FullMask, Sample
from datamodules.clicks.distance import CROSS
from datamodules.clicks.points import Clicked, NoPoints, Target
from datamodules.images import read_image, read_shared
from datamodules.index import ObjectIndex
from datamodules.keys import rng, seed_of
from datamodules.recipe import SampleRecipe
from datamodules.rendering import Views, augmented_views, clean_image, evaluation_views
from datamodules.transforms import build_transforms, transformed


class ObjectSamples(Dataset):
    """The objects of an index as Samples; asked for by (epoch, position), which the sampler yields.

    Training samples are augmented and carry no full-size mask; evaluation samples are not and do.
    """

    def __init__(self, index: ObjectIndex, recipe: SampleRecipe, *, train: bool, seed: int = 0) -> None:
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
        mask, void = self.index.read_mask(i)
        full = (int(mask.shape[0]), int(mask.shape[1]))
        if not cv2.hasNonZero(mask):  # a file was replaced after its objects were listed
            raise ValueError(
                f"object {self.index.native_id[i]} of {self.index.dataset} on {self.index.image_path(i)} has no pixels "
                "in its mask; list the objects again, or leave this one out"
            )
        image = (read_image if self.train else read_shared)(self.index.image_path(i), full)
        void = np.zeros(full, np.uint8) if void is None else void
        if self.train:
            void = void | boundary_band(mask, self.recipe.void_band) if self.recipe.void_band else void
            views = augmented_views(image, mask, void, self.recipe, draw)
        else:
            drawn = self.recipe.test_points.box(self.index.native_id[i])
            views = evaluation_views(image, mask, void, self.recipe, drawn)
        others = self._others(i, views, full) if "others" in self.recipe.extras else None
        clean = clean_image(image, mask, self.recipe, views) if "clean_image" in self.recipe.extras else None
        if self._transforms is not None:
            views, others = transformed(self._transforms, seed_of(self.seed, epoch, object_id, 1), views, others)
        points, kinds = self._points(i, views, others, draw, None if self.train else mask)
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
        if not self.train:
            sample.rle = FullMask(_encode(mask), _encode(void) if void.any() else None)
        return sample

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
            )
            return rule(target, draw)
        if whole is not None:
            points, kinds = rule(Target(whole, native_id=native_id), draw)
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
