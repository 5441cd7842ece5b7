"""From an object on disk to a Sample, as a recipe says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from datamodules import geometry
from datamodules.batch import FullMask, Sample
from datamodules.clicks.extreme import tight_box
from datamodules.clicks.points import EXTREME_KINDS
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from datamodules.keys import rng, seed_of
from datamodules.recipe import SampleRecipe
from datamodules.transforms import build_transforms, transformed
from datamodules.views import Views, augmented_views, evaluation_views, view_box


class ObjectSamples(Dataset):
    """The objects of an index as Samples; asked for by (epoch, position), which the sampler yields.

    Training samples are augmented and carry no full-size mask; evaluation samples are not and do.
    """

    def __init__(self, index: ObjectIndex, recipe: SampleRecipe, *, train: bool, seed: int = 0) -> None:
        self.index, self.recipe, self.train, self.seed = index, recipe, train, seed
        self._transforms = build_transforms(recipe.transforms) if train and recipe.transforms else None

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
            views, others = transformed(self._transforms, seed_of(self.seed, epoch, object_id, 1), views, others)
        points, kinds = self._points(views, draw, None if self.train else mask)
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
            sample.rle = FullMask(_encode(mask), _encode(void) if void.any() else None)
        return sample

    def _points(
        self, views: Views, draw: np.random.Generator, whole: NDArray | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The clicks on the crop's grid; an object too thin for it keeps those of its `whole` mask, where given."""
        rule = self.recipe.train_points if self.train else self.recipe.test_points
        kinds = np.array(EXTREME_KINDS, np.int64)
        if views.mask.any():
            return rule(views.mask, draw), kinds
        if whole is not None:
            return geometry.apply(views.to_crop, rule(whole, draw)).astype(np.float32), kinds
        return np.zeros((0, 2), np.float32), kinds[:0]  # moved out of the frame: no clicks, an empty map

    def _others(self, i: int, views: Views, full: tuple[int, int]) -> NDArray[np.uint8]:
        """Label map of the image's other objects on the crop's grid: 1, 2, ... in the order of the index."""
        labels = np.zeros(full, np.uint8)
        first, last = np.searchsorted(self.index.image, [self.index.image[i], self.index.image[i] + 1])
        for label, other in enumerate((n for n in range(first, last) if n != i), start=1):
            labels[self.index.read_mask(other).mask > 0] = min(label, 255)
        return geometry.warp(labels, views.to_crop, (self.recipe.size,) * 2, "nearest")


def _encode(mask: NDArray[np.uint8]) -> dict:
    return coco_mask.encode(np.asfortranarray(mask))  # type: ignore[no-any-return]
