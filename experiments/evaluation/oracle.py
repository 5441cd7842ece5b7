"""Protocol `oracle`: the most that anybody could predict inside a user's box, without any network (DEXTR, Table 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules import geometry
from datamodules.batch import Batch
from experiments.evaluation.objects import ObjectIoU, opened_objects
from experiments.evaluation.scorer import ObjectScorer
from experiments.evaluation.settings import SweepSettings, read_settings
from experiments.evaluation.stages import load_interactive
from experiments.runs.node import Node
from lightning_modules.metrics.masks import object_iou


class Oracle(ObjectIoU):
    """The object itself, cut to the box that the user's points span: people's points may cut off a part of it.

    Rows have the columns of protocol object_iou; a threshold changes nothing.
    """

    behaviour = 1
    elsewhere = "object_iou"

    def scorer(self, node: Node, folder: Path) -> OracleScorer:  # type: ignore[override]
        """See Protocol."""
        return OracleScorer(load_interactive(node), opened_objects(node), node.opened, folder)

    def measures(self, settings: SweepSettings) -> set[str]:
        """See Protocol."""
        return {"mean_iou", "n", "seconds_per_object", f"mean_iou@{settings.threshold:g}"}


class OracleScorer(ObjectScorer):
    """A row per object with the IoU of its mask cut to its box."""

    @property
    def columns(self) -> list[str]:
        """Names of the row's values."""
        threshold = read_settings(SweepSettings, self.config["evaluation"]).threshold
        return [*self.described, "iou", "seconds", f"iou@{threshold:g}"]

    def score(self, batch: Batch) -> list[list[Any]]:
        """Cut each object's mask to its box."""
        return [self._score(batch, i) for i in range(len(batch))]

    def _score(self, batch: Batch, i: int) -> list[Any]:
        mask, void = self.truth(batch, i)
        window = geometry.window_in_image(batch.box[i].cpu().numpy(), None, mask.shape)
        assert window is not None  # people click in the image
        prediction = np.zeros_like(mask)
        prediction[window] = mask[window]
        iou = object_iou(prediction, mask, void)
        return [*self.description(self.position(int(batch.object_id[i]))), iou, 0.0, iou]
