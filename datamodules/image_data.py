"""The DataModule of every method that finds all instances of an image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from datamodules.image_index import (
    ImageIndex,
    category_names,
    repeat_factors,
    training_images,
)
from datamodules.image_samples import ImageSamples
from datamodules.instances import collate_images
from datamodules.objects import loader_options
from datamodules.ranges import COUNT, POSITIVE
from datamodules.resizing import Resizing
from datamodules.samplers import EvaluationSampler, ImageSampler, Rounding
from datamodules.streams import TrainingStream
from datamodules.words import Said, data_set_in_words, in_words


class ImageData(TrainingStream):
    """Images of one or several data sets as ImageBatches.

    Args:
        train, val: data sets by name, or mappings as in `selection.Selection`; `labelled` for masks that a model made.
        resize: the size of images in training.
        test_resize: the same at validation and test, without any draw.
        flip: probability that left and right change places in training.
        multiple: sides of a batch's grid are multiples of it, in pixels.
        repeat: threshold of repeat-factor sampling, LVIS' 0.001: categories that fewer images have come more often.
            None or 0 for each image once.
        repeat_rounding: `up` as in mmdetection, or `stochastic` for each epoch.
        batch_size: images per optimiser step over all processes and accumulated passes.
        val_batch_size: images per forward pass when validating; where a network's answers depend on the grid, so do
            they on this.
        workers: loader processes; changes nothing but speed.
        root: where the data lie; None for DATA_ROOT.
        seed: of the order and of every draw.
    """

    def __init__(
        self,
        train: list[str | dict[str, Any]],
        resize: Resizing,
        test_resize: Resizing,
        val: list[str | dict[str, Any]] | None = None,
        flip: float = 0.5,
        multiple: int = 32,
        repeat: float | None = None,
        repeat_rounding: Rounding = "up",
        batch_size: int = 16,
        val_batch_size: int = 1,
        workers: int = 4,
        root: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size)
        self.train = train
        self.val = val
        self.resize = resize
        self.test_resize = test_resize
        self.flip = flip
        self.multiple = COUNT.checked(multiple, "data.multiple")
        self.repeat = POSITIVE.checked(repeat, "data.repeat") if repeat else None
        self.repeat_rounding = repeat_rounding
        self.val_batch_size = val_batch_size
        self.workers = workers
        self.root = root
        self.seed = seed
        self.left_out: tuple[str, ...] = ()  # of the training data, in sentences, once they are loaded

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the training data, in the order of labels."""
        return category_names(self.train, self.root)

    @staticmethod
    def shapes_training(arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What of these arguments determines a training's result, beside the objects themselves."""
        aside = ("workers", "root", "val", "val_batch_size", "test_resize")
        return {key: value for key, value in arguments.items() if key not in aside}

    @staticmethod
    def shapes_evaluation(arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What of them determines an evaluation's, beside its training and the images."""
        return {key: arguments[key] for key in ("test_resize", "multiple") if key in arguments}

    @staticmethod
    def training_choices(arguments: Mapping[str, Any]) -> list[Said]:
        """What a report says of the training data."""
        repeat = arguments.get("repeat")
        rounding = arguments.get("repeat_rounding", "up")
        return [
            ("training data", ", ".join(map(data_set_in_words, arguments["train"])), ""),
            ("images at training", in_words(arguments["resize"]), f"flipped with {arguments.get('flip', 0.5)}"),
            *([("repeat-factor sampling", f"threshold {repeat}, rounded {rounding}", "")] if repeat else []),
        ]

    @staticmethod
    def evaluation_choices(arguments: Mapping[str, Any]) -> list[Said]:
        """What a report says of how images are shown at test."""
        return [("images at test", in_words(arguments["test_resize"]), "")]

    def train_dataloader(self) -> DataLoader:
        """Lightning's hook; the sampler is ours, so the trainer must not add a distributed one."""
        share = self._share()
        images = training_images(self.train, self.root, self.seed)
        self.left_out = images.objects.left_out
        if self.left_out and share["rank"] == 0:
            print(f"  training data, left out: {'; '.join(self.left_out)}", file=sys.stderr, flush=True)
        factors = None
        if self.repeat:
            factors = repeat_factors(self.train, self.repeat, self.root, self.seed)[images.rows]
        sampler = ImageSampler(len(images), factors, self.repeat_rounding, seed=self.seed, **share)
        samples = ImageSamples(images, self.resize, train=True, flip=self.flip, seed=self.seed)
        options = loader_options(self.workers, partial(collate_images, multiple=self.multiple))
        return DataLoader(samples, share["micro_batch"], sampler=sampler, **options)

    def val_dataloader(self) -> DataLoader | list:
        """Lightning's hook: the images with objects, with what is true of them; nothing is validated without `val`."""
        if not self.val:
            return []
        if (found := category_names(self.val, self.root)) != self.categories:
            raise ValueError(
                f"data.val has categories {', '.join(found[:3])} ..., training {', '.join(self.categories[:3])} ...: "
                "labels are places in these lists, which must be the same; measure AP by an evaluation instead"
            )
        trainer, images = self._attached(), training_images(self.val, self.root, self.seed)
        samples = ImageSamples(images, self.test_resize, train=False, truth=True)
        sampler = EvaluationSampler(len(samples), self.val_batch_size, trainer.global_rank, trainer.world_size)
        options = loader_options(self.workers, partial(collate_images, multiple=self.multiple))
        return DataLoader(samples, self.val_batch_size, sampler=sampler, **options)


def image_evaluation_loader(
    images: ImageIndex,
    resize: Resizing,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    processes: int = 1,
    multiple: int = 32,
) -> DataLoader:
    """ImageBatches for evaluation, in the order of images: no draw, no truth, the same on any number of processes."""
    samples = ImageSamples(images, resize, train=False)
    sampler = EvaluationSampler(len(samples), batch_size, rank, processes)
    options = loader_options(workers, partial(collate_images, multiple=multiple))
    return DataLoader(samples, batch_size, sampler=sampler, **options)
