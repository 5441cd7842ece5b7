"""The DataModule of every method that trains on objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from datamodules.batch import Batch, collate
from datamodules.index import ObjectIndex
from datamodules.recipe import SampleRecipe, seen_in_evaluation, seen_in_training, views_of
from datamodules.samplers import EvaluationSampler, TrainingSampler
from datamodules.samples import ObjectSamples
from datamodules.selection import open_objects
from datamodules.streams import TrainingStream
from datamodules.views import View
from datamodules.words import Said, data_set_in_words, in_words

DataSpecs = list[str | dict[str, Any]]


class ObjectData(TrainingStream):
    """Objects of one or several data sets as Batches.

    Args:
        train, val: data sets by name, or mappings as in `selection.Selection`.
        sample: what the method wants to see of an object.
        batch_size: objects per optimiser step over all processes and accumulated passes.
        val_batch_size: objects per forward pass when validating.
        workers: loader processes; changes nothing but speed.
        root: where the data lies; None for DATA_ROOT.
        seed: of the order and of every draw.
    """

    def __init__(
        self,
        train: DataSpecs,
        sample: SampleRecipe,
        val: DataSpecs | None = None,
        batch_size: int = 5,
        val_batch_size: int = 8,
        workers: int = 4,
        root: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size)
        self.train = train
        self.val = val
        self.sample = sample
        self.val_batch_size = val_batch_size
        self.workers = workers
        self.root = root
        self.seed = seed

    @staticmethod
    def shapes_training(arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What of these arguments determines a training's result, beside the objects themselves."""
        aside = ("workers", "root", "val", "val_batch_size")
        kept = {key: value for key, value in arguments.items() if key not in aside}
        return {**kept, "sample": seen_in_training(arguments["sample"])}

    @staticmethod
    def shapes_evaluation(arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What of them determines an evaluation's, beside its training and the objects."""
        return seen_in_evaluation(arguments["sample"])

    @staticmethod
    def training_choices(arguments: Mapping[str, Any]) -> list[Said]:
        """What a report says of the training data."""
        sample = arguments["sample"]
        return [
            ("training data", ", ".join(map(data_set_in_words, arguments["train"])), ""),
            ("points at training", in_words(sample["train_points"]), ""),
            ("view at training", _view_in_words(sample, views_of(sample)[0]), ""),
            ("geometry of training", sample["geometry"], "evaluation always runs the published chain"),
        ]

    @staticmethod
    def evaluation_choices(arguments: Mapping[str, Any]) -> list[Said]:
        """What a report says of how objects are shown at test."""
        sample = arguments["sample"]
        return [
            ("points at test", in_words(sample["test_points"]), ""),
            ("network's view at test", _view_in_words(sample, views_of(sample)[1]), ""),
        ]

    def train_dataloader(self) -> DataLoader:
        """Lightning's hook; the sampler is ours, so the trainer must not add a distributed one."""
        share, accumulated = self._share(), self._attached().accumulate_grad_batches
        objects = ObjectSamples(open_objects(self.train, self.root, self.seed), self.sample, train=True, seed=self.seed)
        micro_batch = share["micro_batch"]
        sampler = TrainingSampler(len(objects), seed=self.seed, **share)
        options = {"sampler": sampler, **loader_options(self.workers)}
        if accumulated > 1:
            return _StepLoader(objects, micro_batch, passes=accumulated, **options)
        return DataLoader(objects, micro_batch, **options)

    def val_dataloader(self) -> DataLoader | list:
        """Lightning's hook; nothing is validated without `val`."""
        if not self.val:
            return []
        trainer, index = self._attached(), open_objects(self.val, self.root, self.seed)
        return evaluation_loader(
            index,
            self.sample,
            batch_size=self.val_batch_size,
            workers=self.workers,
            rank=trainer.global_rank,
            processes=trainer.world_size,
            seed=self.seed,
        )


def _view_in_words(sample: Mapping[str, Any], view: View) -> str:
    """What a view of these samples shows."""
    soft = ", soft masks" if sample.get("masks") == "soft" and not view.whole else ""
    return f"{view.in_words(sample['size'])}{soft}"


class _StepLoader(DataLoader):
    """Groups of `passes` batches belong to one optimiser step; each learns the class counts of its whole group.

    A loss that weighs the classes over the global batch needs them before the first of the passes.
    """

    def __init__(self, *args: Any, passes: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._passes = passes

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        group: list[Batch] = []
        for batch in super().__iter__():
            group.append(batch)
            if len(group) == self._passes:
                counts = torch.stack([class_counts(part.mask, part.void) for part in group]).sum(0)
                for part in group:
                    part.window_counts = counts
                    yield part
                group = []


def class_counts(mask: torch.Tensor, void: torch.Tensor) -> torch.Tensor:
    """(3,) float64: pixels of the object, of the background, and without label (these count in the others, too)."""
    positive = (mask >= 0.5).sum(dtype=torch.float64)
    return torch.stack([positive, mask.numel() - positive, (void > 0.5).sum(dtype=torch.float64)])


def evaluation_loader(
    index: ObjectIndex,
    recipe: SampleRecipe,
    batch_size: int,
    workers: int,
    rank: int = 0,
    processes: int = 1,
    seed: int = 0,
) -> DataLoader:
    """Batches for evaluation: no augmentation, full-size masks, the same batches on any number of processes."""
    objects = ObjectSamples(index, recipe, train=False, seed=seed)
    sampler = EvaluationSampler(len(objects), batch_size, rank, processes)
    return DataLoader(objects, batch_size, sampler=sampler, **loader_options(workers))


def loader_options(workers: int, collated: Callable[..., Any] = collate) -> dict[str, Any]:
    """What all loaders share; `collated` makes a batch of samples."""
    return {
        "num_workers": workers,
        "collate_fn": collated,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _single_thread if workers else None,
    }


def _single_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
