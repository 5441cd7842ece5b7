"""Protocols `object_iou` and `grabcut_error`: one prediction per object, at every threshold of a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.batch import Batch
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from experiments.composition.tree import Tree
from experiments.evaluation.scorer import Scorer
from experiments.pictures import overlay, save_picture
from lightning_modules.metrics.masks import error_rate, threshold_sweep


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
