"""Protocol `oracle`: the most that anybody could predict inside a user's box, without any network (DEXTR, Table 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules import geometry
from datamodules.batch import Batch
from experiments.evaluation.scorer import Scorer
from lightning_modules.metrics.masks import object_iou


class OracleScorer(Scorer):
    """The object itself, cut to the box that the user's points span: people's points may cut off a part of it.

    Rows have the columns of protocol object_iou; a threshold changes nothing.
    """

    @property
    def columns(self) -> list[str]:
        """Names of the row's values."""
        return [*self.described, "iou", "seconds", f"iou@{self.evaluation['threshold']:g}"]

    def score(self, batch: Batch) -> list[list[Any]]:
        """Cut each object's mask to its box."""
        return [self._score(batch, i) for i in range(len(batch))]

    def _score(self, batch: Batch, i: int) -> list[Any]:
        assert batch.rle is not None
        encoded, box = batch.rle[i], batch.box[i].cpu().numpy()
        mask = coco_mask.decode(encoded.mask)
        void = None if encoded.void is None else coco_mask.decode(encoded.void)
        window = geometry.window_in_image(box, None, mask.shape)
        assert window is not None  # people click in the image
        prediction = np.zeros_like(mask)
        prediction[window] = mask[window]
        iou = object_iou(prediction, mask, void)
        return [*self.description(self.position(int(batch.object_id[i]))), iou, 0.0, iou]
