"""From an image on disk to an ImageSample."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datamodules.image_index import ImageIndex
from datamodules.images import read_image
from datamodules.instances import ImageSample
from datamodules.keys import rng
from datamodules.mask_runs import MaskRuns, read_runs
from datamodules.ranges import PROBABILITY
from datamodules.resizing import Resizing

TRIED = 32  # images one after the other that cannot be read: that is no single broken one


class ImageSamples(Dataset):
    """The images of an index as ImageSamples, asked for by (epoch, position, copy), which the sampler yields.

    In training an image is resized and flipped as drawn, and carries the objects of which its view shows a pixel. One
    that cannot be read, or whose masks cannot, is replaced by the next of the index that can, with one warning per
    file. At test nothing is drawn, an image carries no objects, and an unreadable one is an error that names it; with
    `truth`, to validate, it carries them, and is replaced as in training.
    """

    def __init__(
        self,
        images: ImageIndex,
        resize: Resizing,
        *,
        train: bool,
        truth: bool = False,
        flip: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not train and resize.drawn:
            raise ValueError(
                f"{type(resize).__name__} draws the size of an image, which has one size at test; set data.test_resize "
                "to ShortSide with one side, such as [800]"
            )
        self.images = images
        self.resize = resize
        self.train, self.truth = train, truth
        self.flip = PROBABILITY.checked(flip, "data.flip")
        self.seed = seed
        self._said = torch.zeros(len(images), dtype=torch.uint8).share_memory_()  # by any worker

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int, int] | int) -> ImageSample:
        if not self.train:
            position = int(key) if not isinstance(key, tuple) else key[1]
            if self.truth:
                return self._sample(*self._readable(position))
            return self._sample(position, read_image(self.images.path(position), self.images.size(position)))
        epoch, position, copy = key if isinstance(key, tuple) else (0, key, 0)
        position, image, masks = self._readable(position)
        draw = rng(self.seed, epoch, int(self.images.keys[position]), copy)
        return self._sample(position, image, masks, draw)

    def _readable(self, position: int) -> tuple[int, NDArray[np.uint8], MaskRuns]:
        """This image with its masks, or the next one that can be read."""
        for step in range(min(TRIED, len(self.images))):
            place = (position + step) % len(self.images)
            try:
                image = read_image(self.images.path(place), self.images.size(place))
                return place, image, self._masks(place)
            except (OSError, ValueError) as error:
                failed = error
                if not self._said[place]:
                    self._said[place] = 1
                    warnings.warn(f"{failed}; another image is seen in its place", stacklevel=2)
        raise ValueError(f"{step + 1} images one after the other cannot be read, the last since: {failed}")

    def _masks(self, position: int) -> MaskRuns:
        return read_runs(self.images.objects, range(*self.images.bounds[position].tolist()))

    def _sample(
        self,
        position: int,
        image: NDArray[np.uint8],
        masks: MaskRuns | None = None,
        draw: np.random.Generator | None = None,
    ) -> ImageSample:
        place = self.resize.placed(self.images.size(position), draw)
        boxes, labels = np.zeros((0, 4)), np.zeros(0, np.int64)
        if draw is not None:
            place = replace(place, flip=bool(draw.random() < self.flip))
        if masks is not None:
            objects = slice(*self.images.bounds[position].tolist())
            boxes = np.asarray(self.images.objects.annotated[objects], np.float64) + np.array([0, 0, 1, 1])
            labels = np.asarray(self.images.objects.category[objects], np.int64)
        return ImageSample(
            image=image,
            place=place,
            fill=self.resize.fill,
            position=position,
            masks=masks,
            boxes=boxes,
            labels=labels,
        )
