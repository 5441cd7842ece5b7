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
from pytorch_lightning import LightningModule
from torch.utils.data import DataLoader

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.index import ObjectIndex
from datamodules.objects import evaluation_loader
from datamodules.recipe import SampleRecipe
from experiments.compose import Tree
from experiments.training import build_part

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


def sample_recipe(config: Tree) -> SampleRecipe:
    """The pre-processing of a composed tree."""
    recipe: SampleRecipe = build_part(SampleRecipe, config["data"]["init_args"]["sample"])
    return recipe


BOXES = ("tight", "clicked", "crop")  # where predictions count, see `box_kept`


def checked_box(evaluation: Tree) -> str:
    """evaluation.box of a recipe. Raises ValueError when there is no such box."""
    if evaluation["box"] not in BOXES:
        raise ValueError(f"evaluation.box is {evaluation['box']!r}; there are: {', '.join(BOXES)}")
    return str(evaluation["box"])


def box_kept(kind: str, batch: Batch, i: int) -> NDArray[np.int64] | None:
    """The box, in pixels of the image, outside of which an object's predictions are dropped; None: they are kept.

    `tight`: the object's own, as published for DEXTR. `clicked`: that of the first clicks, which is all that a user of
    IOG says of it. `crop`: wherever the network saw the object, as published for IOG.
    """
    if kind == "clicked":
        valid, to_image = batch.clicks.valid[i].cpu().numpy(), cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        if valid.any():
            places = np.round(geometry.apply(to_image, batch.points[i].cpu().numpy()[valid]), 3)
            return np.concatenate([np.floor(places.min(0)), np.ceil(places.max(0))]).astype(np.int64)
    return batch.box[i].cpu().numpy() if kind == "tight" else None  # type: ignore[no-any-return]


def stretched(pasted: NDArray[np.float32], beyond: bool) -> NDArray[np.float32]:
    """A pasted map min-max stretched to 256 levels of 0..1: what happens when DEXTR's code saves it as an image.

    `beyond`: the image goes on around `pasted`, with zeros.
    """
    low, high = float(pasted.min()), float(pasted.max())
    if beyond:
        low, high = min(low, 0.0), max(high, 0.0)
    return (np.round((pasted - low) / max(high - low, 1e-8) * 255) / 255).astype(np.float32)
