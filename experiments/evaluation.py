"""An `evaluate` node: every object through `start` and `predict`, pasted into its image, one row each on disk."""

from __future__ import annotations

import copy
import csv
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from datamodules.objects import evaluation_loader
from datamodules.recipe import SampleRecipe
from datamodules.selection import open_objects
from experiments.compose import Tree
from experiments.figures import overlay
from experiments.nodes import Node
from experiments.object_rows import describe, merge_rows, summarise
from experiments.runs import RunFolder
from experiments.training import build_part
from lightning_modules.metrics import error_rate, threshold_sweep
from lightning_modules.networks.official import load_exactly, load_official, read_weights

PICTURES = 12


def load_model(node: Node, folder: RunFolder) -> LightningModule:
    """The network of a finished `train` or `weights` node, in eval mode on the CPU."""
    config = copy.deepcopy(node.config["model"])
    network = config["init_args"]["network"]["init_args"]
    if "pretrained" in network:  # its weights are about to be replaced
        network["pretrained"] = False
    model: LightningModule = build_part(LightningModule, config)
    if node.kind == "weights":
        load_official(model.network, str(node.weights))  # type: ignore[arg-type]
    else:
        load_exactly(model, read_weights(folder.path / "weights.pt"), source=f"run {folder.name}")
    return model.eval()


class ObjectScorer(LightningModule):
    """Runs a method over batches and writes a row per object; Lightning deals with devices and precision."""

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path) -> None:
        super().__init__()
        self.model, self.index, self.config, self.folder = model, index, config, folder
        self.evaluation = evaluation = config["evaluation"]
        self.thresholds = np.array(sorted({*evaluation["thresholds"], evaluation["threshold"]}), np.float32)
        order = np.argsort(index.object_id, kind="stable")
        self._order, self._sorted_ids = order, np.asarray(index.object_id)[order]
        self.pictured = {int(i) for i in np.linspace(0, len(index) - 1, min(PICTURES, len(index)))}
        self._pool = ThreadPoolExecutor(max_workers=4)

    def on_test_start(self) -> None:
        """Open this process' part of the rows."""
        self._file = (self.folder / f"rows.{self.global_rank}.csv").open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(self.columns)
        self._done, self._shown = 0, time.monotonic()

    @property
    def columns(self) -> list[str]:
        """Names of the row's values."""
        sweep = [f"iou@{threshold:g}" for threshold in self.thresholds]
        return [
            "position",
            "object_id",
            "image",
            "native_id",
            "category",
            "area",
            "iou",
            "error_rate",
            "seconds",
            *sweep,
        ]

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Predict a batch, score its objects in threads (OpenCV releases the lock), write their rows."""
        started = time.perf_counter()
        clicks = batch.clicks
        logits, _ = self.model.predict(self.model.start(batch.image, clicks), clicks)
        probability = torch.sigmoid(logits.float())[:, 0].cpu().numpy()
        seconds = (time.perf_counter() - started) / len(batch)
        for row in self._pool.map(lambda i: self._score(batch, i, probability[i], seconds), range(len(batch))):
            self._rows.writerow(row)
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

    def _score(self, batch: Batch, i: int, probability: NDArray[np.float32], seconds: float) -> list[Any]:
        object_id = int(batch.object_id[i])
        position = int(self._order[np.searchsorted(self._sorted_ids, object_id)])
        assert batch.rle is not None
        encoded = batch.rle[i]
        mask = coco_mask.decode(encoded.mask)
        void = None if encoded.void is None else coco_mask.decode(encoded.void)
        crop_box, box = batch.crop_box[i].cpu().numpy(), batch.box[i].cpu().numpy()
        window = geometry.window_in_image(crop_box, box, mask.shape)
        assert window is not None  # the object's own box lies in its image
        pasted = geometry.window_of(probability, crop_box, window)
        if self.evaluation["stretch"]:
            pasted = stretched(pasted, beyond=pasted.size < mask.size)
        inside = None if void is None else void[window]
        ious = threshold_sweep(pasted, mask[window], inside, self.thresholds)
        iou = ious[np.searchsorted(self.thresholds, np.float32(self.evaluation["threshold"]))]
        error: float | str = ""
        if self.evaluation["protocol"] == "grabcut_error":
            prediction = np.zeros_like(mask)
            prediction[window] = pasted > self.evaluation["threshold"]
            error = error_rate(prediction, mask, void, self.index.box[position])
        if position in self.pictured:
            self._picture(position, mask, pasted, window, batch, i, float(iou))
        category = int(self.index.category[position])
        return [
            position, object_id, self.index.image_path(position).name, self.index.native_id[position],
            self.index.categories[category] if category >= 0 else "", int(self.index.area[position]), float(iou),
            error, round(seconds, 5), *(float(value) for value in ious),
        ]  # fmt: skip

    def _picture(
        self,
        position: int,
        mask: NDArray,
        pasted: NDArray,
        window: tuple[slice, slice],
        batch: Batch,
        i: int,
        iou: float,
    ) -> None:
        prediction = np.zeros_like(mask)
        prediction[window] = pasted > self.evaluation["threshold"]
        to_image = cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        points = geometry.apply(to_image, batch.points[i].cpu().numpy()[batch.clicks.valid[i].cpu().numpy()])
        picture = overlay(read_image(self.index.image_path(position)), prediction, points, truth=mask)
        pictures = self.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        name = f"{position:07d}-iou{100 * iou:04.1f}.png"
        cv2.imwrite(str(pictures / name), picture[..., ::-1])


def stretched(pasted: NDArray[np.float32], beyond: bool) -> NDArray[np.float32]:
    """A pasted map min-max stretched to 256 levels of 0..1: what happens when DEXTR's code saves it as an image.

    `beyond`: the image goes on around `pasted`, with zeros.
    """
    low, high = float(pasted.min()), float(pasted.max())
    if beyond:
        low, high = min(low, 0.0), max(high, 0.0)
    return (np.round((pasted - low) / max(high - low, 1e-8) * 255) / 255).astype(np.float32)


def evaluate(node: Node, folder: RunFolder, title: str) -> None:
    """Evaluate a node and write rows.csv, pictures and record.json."""
    started = time.perf_counter()
    (parent,) = node.parents
    data = node.config["data"]["init_args"]
    index = open_objects(node.config["evaluation"]["test"], data["root"], data["seed"])
    scorer = ObjectScorer(load_model(parent, parent.folder), index, node.config, folder.path)
    settings = node.config["trainer"]
    trainer = Trainer(
        accelerator=settings["accelerator"], devices=settings["devices"], num_nodes=settings["num_nodes"],
        strategy=settings["strategy"], precision=settings["precision"], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.test(scorer, verbose=False)
    trainer.strategy.barrier()
    if not trainer.is_global_zero:
        return
    metrics = summarise(merge_rows(folder.path, len(index), trainer.world_size))
    print(f"  {title}: {describe(metrics, node.config['evaluation'])}", flush=True)
    folder.finish(
        kind="evaluate",
        metrics=metrics,
        seed=node.config["seed"],
        seconds=time.perf_counter() - started,
        parents=[parent.hash],
        manifest=node.manifest(),
        data=node.config["evaluation"]["test"],
        left_out=list(index.left_out),
        devices={"processes": trainer.world_size, "accelerator": type(trainer.accelerator).__name__},
    )


def sample_recipe(config: Tree) -> SampleRecipe:
    """The pre-processing of a composed tree."""
    recipe: SampleRecipe = build_part(SampleRecipe, config["data"]["init_args"]["sample"])
    return recipe
