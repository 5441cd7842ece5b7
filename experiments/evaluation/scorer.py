"""What all evaluations share: batches dealt out to processes, and a row per object streamed to disk."""

from __future__ import annotations

import csv
import time
from abc import abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.index import ObjectIndex
from datamodules.objects import evaluation_loader
from experiments.composition.building import sample_recipe
from experiments.composition.tree import Tree
from experiments.console import without_hints
from experiments.evaluation.pasting import box_kept, checked_box, stretched


def run_through(scorer: Scorer) -> Trainer:
    """Let a scorer see its objects, on the devices of its recipe; all processes are through when this returns."""
    settings = scorer.config["trainer"]
    with without_hints():
        trainer = Trainer(
            accelerator=settings["accelerator"], devices=settings["devices"], num_nodes=settings["num_nodes"],
            strategy=settings["strategy"], precision=settings["precision"], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.test(scorer, verbose=False)
    trainer.strategy.barrier()
    return trainer


PICTURES = 12


class Scorer(LightningModule):
    """Runs a method over batches and writes a row per object; Lightning deals with devices and precision."""

    described: ClassVar = ["position", "object_id", "image", "native_id", "category", "area"]

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path) -> None:
        super().__init__()
        self.model, self.index, self.config, self.folder = model, index, config, folder
        self.evaluation = config["evaluation"]
        order = np.argsort(index.object_id, kind="stable")
        self._order, self._sorted_ids = order, np.asarray(index.object_id)[order]
        self.pictured = {int(i) for i in np.linspace(0, len(index) - 1, min(PICTURES, len(index)))}
        self.pool = ThreadPoolExecutor(max_workers=4)

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of a row's values; those of `described` come first."""

    @abstractmethod
    def score(self, batch: Batch) -> Iterable[list[Any]]:
        """The rows of a batch's objects."""

    def on_test_start(self) -> None:
        """Open this process' part of the rows."""
        self._file = (self.folder / f"rows.{self.global_rank}.csv").open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(self.columns)
        self._done, self._shown = 0, time.monotonic()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Write the rows of a batch; every 15 seconds say how far it is."""
        self._rows.writerows(self.score(batch))
        self._done += len(batch)
        if self.trainer.is_global_zero and time.monotonic() - self._shown > 15:
            self._shown = time.monotonic()
            print(f"  evaluated {self._done * self.trainer.world_size:,} of {len(self.index):,} objects", flush=True)

    def test_dataloader(self) -> DataLoader:
        """Asked for when the processes are up: whole batches dealt out to them."""
        data = self.config["data"]["init_args"]
        return evaluation_loader(
            self.index, sample_recipe(self.config), self.evaluation["batch_size"], data["workers"],
            self.trainer.global_rank, self.trainer.world_size, seed=data["seed"],
        )  # fmt: skip

    def on_test_end(self) -> None:
        """Close the part."""
        self._file.close()

    def pasted(
        self, probability: NDArray[np.float32], batch: Batch, i: int
    ) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
        """The part of its image (rows, columns) that an object's prediction can change, and what it is there."""
        crop_box, box = batch.crop_box[i].cpu().numpy(), box_kept(checked_box(self.evaluation), batch, i)
        size = (int(batch.image_size[i, 0]), int(batch.image_size[i, 1]))
        window = geometry.window_in_image(crop_box, box, size)
        assert window is not None  # the object's own box lies in its image
        pasted = geometry.window_of(probability, crop_box, window)
        if self.evaluation["stretch"]:
            pasted = stretched(pasted, beyond=pasted.size < size[0] * size[1])
        return window, pasted

    def clicked(self, batch: Batch, i: int) -> tuple[NDArray[np.float64], list[int]]:
        """An object's first clicks (K, 2), in pixels of its image, and their kinds."""
        valid, to_image = batch.clicks.valid[i].cpu().numpy(), cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        xy, kinds = batch.points[i].cpu().numpy(), batch.point_kinds[i].cpu().numpy()
        return geometry.apply(to_image, xy[valid]), kinds[valid].tolist()

    def position(self, object_id: int) -> int:
        """Where an object stands in the index."""
        return int(self._order[np.searchsorted(self._sorted_ids, object_id)])

    def description(self, position: int) -> list[Any]:
        """The values of `described`."""
        category = int(self.index.category[position])
        return [
            position, int(self.index.object_id[position]), self.index.image_path(position).name,
            self.index.native_id[position], self.index.categories[category] if category >= 0 else "",
            int(self.index.area[position]),
        ]  # fmt: skip

    def picture_file(self, position: int, iou: float) -> Path:
        """Where an object's picture goes; its name says the IoU in per cent, which reports read."""
        return self.folder / "pictures" / f"{position:07d}-iou{100 * iou:04.1f}.png"
