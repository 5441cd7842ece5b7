"""Protocol `oracle`: the most that anybody could predict inside a user's box, without any network (DEXTR, Table 1)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.batch import Batch
from experiments.console import Choice
from experiments.evaluation.objects import ObjectIoU, opened_objects
from experiments.evaluation.protocols import Metrics
from experiments.evaluation.scorer import ObjectScorer
from experiments.evaluation.settings import NoSettings
from experiments.evaluation.stages import load_interactive
from experiments.runs.node import Node
from lightning_modules.metrics.masks import object_iou


class Oracle(ObjectIoU):
    """The object itself, cut to the box that the user's points span: people's points may cut off a part of it.

    Nothing is predicted, so nothing of the section `evaluation` is read: no threshold, no pasting.
    """

    settings = NoSettings
    behaviour = 2  # reads no settings, its rows have no threshold
    elsewhere = "object_iou"

    def scorer(self, node: Node, folder: Path) -> OracleScorer:  # type: ignore[override]
        """See Protocol."""
        return OracleScorer(load_interactive(node), opened_objects(node), node.opened, folder)

    def measures(self, settings: Any) -> set[str]:
        """See Protocol."""
        return {"mean_iou", "mean_iou_over_classes", "n", "seconds_per_object"}

    def describe(self, metrics: Metrics, settings: Any) -> str:
        """See Protocol."""
        return f"mean IoU {100 * metrics['mean_iou']:.1f} of the objects themselves, over {metrics['n']:,}"

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol."""
        return [Choice("mask", "the object's own, cut to the box of the user's points", "no network is asked")]


class OracleScorer(ObjectScorer):
    """A row per object with the IoU of a mask that no network made: here its own, cut to its box."""

    @property
    def columns(self) -> list[str]:
        """Names of the row's values."""
        return [*self.described, "iou", "seconds"]

    def score(self, batch: Batch) -> list[list[Any]]:
        """One object after the other."""
        return [self._score(batch, i) for i in range(len(batch))]

    def mask(self, batch: Batch, i: int, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask (H, W) of an object, whose true one is this."""
        window = geometry.window_in_image(batch.box[i].cpu().numpy(), None, (truth.shape[0], truth.shape[1]))
        assert window is not None  # people click in the image
        prediction = np.zeros_like(truth)
        prediction[window] = truth[window]
        return prediction

    def _score(self, batch: Batch, i: int) -> list[Any]:
        truth, void = self.truth(batch, i)
        begun = time.perf_counter()
        mask = self.mask(batch, i, truth)
        seconds = time.perf_counter() - begun
        return [*self.description(self.position(int(batch.object_id[i]))), object_iou(mask, truth, void), seconds]
