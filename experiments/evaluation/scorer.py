"""What evaluations share: batches dealt out to processes, rows streamed to disk; and what those of objects share."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.index import ObjectIndex
from datamodules.objects import evaluation_loader
from experiments.composition.building import sample_recipe
from experiments.composition.tree import Tree
from experiments.console import trainers_manners
from experiments.evaluation.rows import RowWriter
from lightning_modules.interactive import NotFinite, finite

PICTURES = 12


class Scorer(LightningModule):
    """Runs a network over batches and writes rows; Lightning deals with devices and precision.

    Args:
        model: the network of a finished run, whatever its protocol asks of it.
        config: the composed tree of the evaluation, its data opened.
        folder: gets the rows, and pictures.
    """

    model_run = ""  # whose network this is: the hash of its training

    def __init__(self, model: Any, config: Tree, folder: Path) -> None:
        super().__init__()
        self.model, self.config, self.folder = model, config, folder
        self.pool = ThreadPoolExecutor(max_workers=4)

    @property
    @abstractmethod
    def units(self) -> int:
        """How many objects, or images, there are."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of a row's values, `position` first."""

    @abstractmethod
    def loader(self, rank: int, processes: int) -> DataLoader:
        """A process' batches, in the order of the units."""

    @abstractmethod
    def score(self, batch: Any) -> Iterable[list[Any]]:
        """The rows of a batch's units; of one without any, its position alone."""

    def on_test_start(self) -> None:
        """Open this process' part of the rows."""
        self._rows = RowWriter(self.folder, self.global_rank, self.columns)
        self._done, self._shown = 0, time.monotonic()

    @property
    def facts(self) -> Tree:
        """What the evaluation's record says besides."""
        return {}

    def finish(self, rows: Path) -> None:
        """Write what else the evaluation leaves, from the rows of all processes; rank zero is asked."""
        return

    def rows_of(self, batch: Any) -> list[list[Any]]:
        """The rows of a batch. Raises ValueError that names run and object where the network answers no number."""
        try:
            return list(self.score(batch))
        except NotFinite as error:
            raise ValueError(
                f"run {self.model_run}, {self.in_words(batch, error.place)}: {error}; {error.advice}"
            ) from None

    def in_words(self, batch: Any, place: int) -> str:
        """A batch's unit by the name that its data set gives it."""
        return f"number {place + 1} of a batch"

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Write the rows of a batch; every 15 seconds say how far it is."""
        self._rows.write(self.rows_of(batch))
        self._done += len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)
        if self.trainer.is_global_zero and time.monotonic() - self._shown > 15:
            self._shown = time.monotonic()
            print(f"  evaluated {self._done * self.trainer.world_size:,} of {self.units:,}", flush=True)

    def test_dataloader(self) -> DataLoader:
        """Asked for when the processes are up."""
        return self.loader(self.trainer.global_rank, self.trainer.world_size)

    def on_test_end(self) -> None:
        """Close the part."""
        self._rows.close()


class ObjectScorer(Scorer):
    """One row per object of an index, seen as the run's recipe says."""

    described: ClassVar = ["position", "object_id", "image", "native_id", "category", "area"]

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path) -> None:
        super().__init__(model, config, folder)
        self.index = index
        order = np.argsort(index.object_id, kind="stable")
        self._order, self._sorted_ids = order, np.asarray(index.object_id)[order]
        self.pictured = {int(i) for i in np.linspace(0, len(index) - 1, min(PICTURES, len(index)))}

    @property
    def units(self) -> int:
        """Objects."""
        return len(self.index)

    def loader(self, rank: int, processes: int) -> DataLoader:
        """Whole batches dealt out to the processes."""
        data = self.config["data"]["init_args"]
        return evaluation_loader(
            self.index,
            sample_recipe(self.config),
            batch_size=self.config["evaluation"]["batch_size"],
            workers=data["workers"],
            rank=rank,
            processes=processes,
            seed=data["seed"],
        )

    def truth(self, batch: Batch, i: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """An object's mask in its image and where nobody labelled it; None where that is nowhere."""
        assert batch.rle is not None
        encoded = batch.rle[i]
        return coco_mask.decode(encoded.mask), None if encoded.void is None else coco_mask.decode(encoded.void)

    def probabilities(self, batch: Batch) -> NDArray[np.float32]:
        """(B, H, W): what the method answers to the first clicks, on the crops' grid."""
        clicks = batch.clicks
        logits, _ = self.model.predict(self.model.start(batch.image, clicks), clicks)
        return torch.sigmoid(finite(logits).float())[:, 0].cpu().numpy()

    def clicked(self, batch: Batch, i: int) -> tuple[NDArray[np.float64], list[int]]:
        """An object's first clicks (K, 2), in pixels of its image, and their kinds."""
        valid, to_image = batch.clicks.valid[i].cpu().numpy(), cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        xy, kinds = batch.points[i].cpu().numpy(), batch.point_kinds[i].cpu().numpy()
        return geometry.apply(to_image, xy[valid]), kinds[valid].tolist()

    def position(self, object_id: int) -> int:
        """Where an object stands in the index."""
        return int(self._order[np.searchsorted(self._sorted_ids, object_id)])

    def in_words(self, batch: Batch, place: int) -> str:
        """See Scorer."""
        position = self.position(int(batch.object_id[place]))
        return f"object {self.index.native_id[position]} of {self.index.image_path(position)}"

    def description(self, position: int) -> list[Any]:
        """The values of `described`."""
        category = int(self.index.category[position])
        return [
            position,
            int(self.index.object_id[position]),
            self.index.image_path(position).name,
            self.index.native_id[position],
            self.index.categories[category] if category >= 0 else "",
            int(self.index.area[position]),
        ]

    def picture_file(self, position: int, iou: float) -> Path:
        """Where an object's picture goes; its name says the IoU in per cent, which reports read."""
        return self.folder / "pictures" / f"{position:07d}-iou{100 * iou:04.1f}.png"


def run_through(scorer: Scorer, model_run: str) -> Trainer:
    """Let a scorer of this run's network see its units, on the devices of its recipe.

    All processes are through when this returns.
    """
    settings, scorer.model_run = scorer.config["trainer"], model_run
    with trainers_manners():
        trainer = Trainer(
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=settings["strategy"],
            precision=settings["precision"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.test(scorer, verbose=False)
    trainer.strategy.barrier()
    return trainer
