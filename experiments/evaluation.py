"""An `evaluate` node: every object through `start` and `predict`, pasted into its image, one row each on disk."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pytorch_lightning import LightningModule, Trainer

from datamodules.batch import Batch
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from datamodules.selection import open_objects
from experiments.click_benchmark import ClickScorer
from experiments.compose import Tree
from experiments.figures import overlay, save_picture
from experiments.nodes import Node
from experiments.object_rows import describe, merge_rows, summarise
from experiments.oracle import OracleScorer
from experiments.runs import RunFolder
from experiments.scorer import Scorer, sample_recipe, stretched
from experiments.training import build_part, without_hints
from lightning_modules.interactive import Interactive
from lightning_modules.metrics import error_rate, threshold_sweep
from lightning_modules.two_stage import TwoStage

__all__ = ["ObjectScorer", "evaluate", "load_model", "sample_recipe", "stretched"]


def load_model(node: Node, folder: RunFolder) -> LightningModule:
    """The network of a finished `train` or `weights` node, in eval mode on the CPU."""
    config = copy.deepcopy(node.config["model"])
    network = config["init_args"]["network"]["init_args"]
    if "pretrained" in network:  # its weights are about to be replaced
        network["pretrained"] = False
    model: LightningModule = build_part(LightningModule, config)
    node.load_into(model)
    return model.eval()


def load_interactive(node: Node) -> Interactive:
    """What an `evaluate` or `label` node predicts with: its network, after that of a first stage if it has one.

    Raises ValueError when the two stages do not see the same crop.
    """
    second: Any = load_model(node.model, node.model.folder)
    if node.first is None:
        return second  # type: ignore[no-any-return]
    seen, wanted = (run.config["data"]["init_args"]["sample"] for run in (node.first, node))
    for key in ("size", "relax", "view", "test_view", "long_side", "test_interpolation"):
        if seen.get(key) != wanted.get(key):
            raise ValueError(
                f"the two stages must see the same crop: data.sample.{key} is {seen.get(key)} of the first, run "
                f"{node.first.hash}, and {wanted.get(key)} of the second, run {node.model.hash}"
            )
    return TwoStage(load_model(node.first, node.first.folder), second)  # type: ignore[arg-type]


class ObjectScorer(Scorer):
    """Protocols `object_iou` and `grabcut_error`: one prediction per object, at every threshold of a sweep."""

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path) -> None:
        super().__init__(model, index, config, folder)
        thresholds = {*self.evaluation["thresholds"], self.evaluation["threshold"]}
        self.thresholds = np.array(sorted(thresholds), np.float32)

    @property
    def columns(self) -> list[str]:
        """Names of the row's values."""
        sweep = [f"iou@{threshold:g}" for threshold in self.thresholds]
        return [*self.described, "iou", "error_rate", "seconds", *sweep]

    def score(self, batch: Batch) -> Iterable[list[Any]]:
        """Predict a batch, score its objects in threads (OpenCV releases the lock)."""
        started = time.perf_counter()
        clicks = batch.clicks
        logits, _ = self.model.predict(self.model.start(batch.image, clicks), clicks)
        probability = torch.sigmoid(logits.float())[:, 0].cpu().numpy()
        seconds = (time.perf_counter() - started) / len(batch)
        return self.pool.map(lambda i: self._score(batch, i, probability[i], seconds), range(len(batch)))

    def _score(self, batch: Batch, i: int, probability: NDArray[np.float32], seconds: float) -> list[Any]:
        position = self.position(int(batch.object_id[i]))
        assert batch.rle is not None
        encoded = batch.rle[i]
        mask = coco_mask.decode(encoded.mask)
        void = None if encoded.void is None else coco_mask.decode(encoded.void)
        window, pasted = self.pasted(probability, batch, i)
        inside = None if void is None else void[window]
        outside = _labelled(mask, void) - _labelled(mask[window], inside)  # 0 unless a user's box cuts the object off
        ious = threshold_sweep(pasted, mask[window], inside, self.thresholds, outside)
        iou = ious[np.searchsorted(self.thresholds, np.float32(self.evaluation["threshold"]))]
        error: float | str = ""
        if self.evaluation["protocol"] == "grabcut_error":
            prediction = np.zeros_like(mask)
            prediction[window] = pasted > self.evaluation["threshold"]
            error = error_rate(prediction, mask, void, self.index.box[position])
        if position in self.pictured:
            self._picture(position, mask, pasted, window, batch, i, float(iou))
        return [
            *self.description(position), float(iou), error, round(seconds, 5), *(float(value) for value in ious),
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
        picture = overlay(read_image(self.index.image_path(position)), prediction, *self.clicked(batch, i), truth=mask)
        save_picture(picture, self.picture_file(position, iou))


def _labelled(mask: NDArray, void: NDArray | None) -> int:
    """How many pixels of an object are labelled."""
    return int(np.count_nonzero(mask if void is None else mask.astype(bool) & (void == 0)))


SCORERS: dict[str, type[Scorer]] = {
    "object_iou": ObjectScorer, "grabcut_error": ObjectScorer, "clicks": ClickScorer, "oracle": OracleScorer,
}  # fmt: skip


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


def evaluate(node: Node, folder: RunFolder, title: str) -> None:
    """Evaluate a node and write rows.csv, pictures and record.json."""
    started = time.perf_counter()
    data = node.config["data"]["init_args"]
    scoring = node.config["evaluation"]
    index = open_objects(scoring["test"], data["root"], data["seed"])
    if scoring["protocol"] not in SCORERS:
        raise ValueError(f"no evaluation.protocol {scoring['protocol']!r}; there are: {', '.join(SCORERS)}")
    trainer = run_through(SCORERS[scoring["protocol"]](load_interactive(node), index, node.config, folder.path))
    if not trainer.is_global_zero:
        return
    metrics = summarise(merge_rows(folder.path, len(index), trainer.world_size), scoring)
    print(f"  {title}: {describe(metrics, scoring)}", flush=True)
    folder.finish(
        kind="evaluate",
        metrics=metrics,
        seed=node.config["seed"],
        seconds=time.perf_counter() - started,
        parents=[run.hash for run in node.parents],
        manifest=node.manifest(),
        data=scoring["test"],
        scoring={
            name: value for name, value in scoring.items() if name in ("protocol", "threshold", "paste", "stretch")
        },
        clicks=scoring["clicks"] if scoring["protocol"] == "clicks" else None,
        left_out=list(index.left_out),
        devices={"processes": trainer.world_size, "accelerator": type(trainer.accelerator).__name__},
    )
