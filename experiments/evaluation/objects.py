"""Protocols `object_iou` and `grabcut_error`: one prediction per object, at every threshold of a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datamodules.batch import Batch
from datamodules.catalog import find, root_of
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from datamodules.selection import open_objects
from datamodules.words import yes
from experiments.composition.tree import Tree
from experiments.console import DASH, Choice, Grid
from experiments.curves import threshold_curves
from experiments.evaluation.protocols import Measured, Metric, Metrics, Protocol
from experiments.evaluation.rows import read_rows
from experiments.evaluation.scorer import ObjectScorer
from experiments.evaluation.settings import MaskSettings, SweepSettings, read_settings
from experiments.evaluation.stages import load_interactive
from experiments.pictures import Picture, overlay, save_picture
from experiments.runs.node import Node
from lightning_modules.metrics.masks import error_rate, threshold_sweep

KEPT = {
    "tight": "dropped outside of the object's own box",
    "clicked": "dropped outside of the box of the first clicks",
    "crop": "kept wherever it is",
}


class ObjectIoU(Protocol):
    """Predictions pasted back into the image, void left out, plain means over objects; at other thresholds, too."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("mean_iou"),
        Metric("mean_iou_over_classes"),
        Metric("mean_iou@*"),
        Metric("seconds_per_object", 1.0, higher_is_better=False),
    )
    settings = SweepSettings
    behaviour = 3  # 2: pasted as evaluation.paste says. 3: the mean over classes is measured, too

    def scorer(self, node: Node, folder: Path) -> MaskScorer:
        """See Protocol."""
        return MaskScorer(load_interactive(node), opened_objects(node), node.opened, folder)

    def measures(self, settings: SweepSettings) -> set[str]:
        """See Protocol."""
        swept = {f"mean_iou@{threshold:g}" for threshold in (*settings.thresholds, settings.threshold)}
        return {"mean_iou", "mean_iou_over_classes", "n", "seconds_per_object", *swept}

    def summarise(self, rows: Path, settings: Any = None) -> dict[str, Any]:
        """See Protocol: plain means; where objects have classes, also the mean of the classes' own means."""
        sums: dict[str, float] = {}
        classes: dict[str, list[float]] = {}
        count = 0
        for row in read_rows(rows):
            count += 1
            if row.get("category"):
                classes.setdefault(row["category"], []).append(float(row["iou"]))
            for name, value in row.items():
                if value and name.startswith(("iou", "error_rate", "seconds")):
                    sums[name] = sums.get(name, 0.0) + float(value)
        means = {name: total / count for name, total in sums.items()}
        metrics: dict[str, Any] = {"mean_iou": means["iou"], "n": count, "seconds_per_object": means["seconds"]}
        if classes:
            metrics["mean_iou_over_classes"] = fmean(map(fmean, classes.values()))
        if "error_rate" in means:
            metrics["error_rate"] = means["error_rate"]
        return metrics | {f"mean_iou@{name[4:]}": mean for name, mean in means.items() if name.startswith("iou@")}

    def describe(self, metrics: Metrics, settings: MaskSettings) -> str:
        """See Protocol."""
        best = max((name for name in metrics if "@" in name), key=lambda name: metrics[name])
        text = f"mean IoU {100 * metrics['mean_iou']:.1f} at threshold {settings.threshold:g}"
        text += f" over {metrics['n']:,} objects"
        if "mean_iou_over_classes" in metrics:
            text += f" ({100 * metrics['mean_iou_over_classes']:.1f} over classes)"
        if "error_rate" in metrics:
            text += f", error rate {100 * metrics['error_rate']:.1f} %"
        return f"{text} (best of the sweep: {100 * metrics[best]:.1f} at {best.partition('@')[2]})"

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol."""
        settings = read_settings(SweepSettings, evaluation.config["evaluation"])
        swept = len(settings.thresholds) > 1
        return [*mask_choices(settings, "the paper names none; the sweep shows the others" if swept else "")]

    def grids(self, measured: Measured) -> Iterator[Grid]:
        """See Protocol: the sweep."""
        swept = threshold_sweeps(measured)
        thresholds = sorted({threshold for curve in swept.values() for threshold in curve})
        names = tuple(f"{threshold:g}" for threshold in thresholds)
        lines = tuple((k, *(f"{c[t]:.2f}" if t in c else DASH for t in thresholds)) for k, c in swept.items())
        text = "Mean IoU (%) at other thresholds. For comparison only: no threshold is chosen on an evaluation set."
        yield Grid("Threshold sweep", ("Row", *names), lines, text, names)

    def pictures(self, measured: Measured, folder: Path) -> Iterator[Picture]:
        """See Protocol."""
        if swept := threshold_sweeps(measured):
            path = threshold_curves(swept, folder / "threshold-sweep.png")
            yield Picture("Mean IoU over objects at other thresholds.", path)


class GrabCutError(ObjectIoU):
    """The same, and the share of misclassified pixels inside the given boxes, as published for GrabCut."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric("error_rate", higher_is_better=False), *ObjectIoU.metrics)
    elsewhere = "object_iou"

    def scorer(self, node: Node, folder: Path) -> MaskScorer:
        """See Protocol."""
        return MaskScorer(load_interactive(node), opened_objects(node), node.opened, folder, error=True)

    def measures(self, settings: SweepSettings) -> set[str]:
        """See Protocol."""
        return {"error_rate", *super().measures(settings)}

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol."""
        root = evaluation.config["data"]["init_args"]["root"]
        given = (root_of(find("grabcut"), root) / "boundary_GT_rect").is_dir()
        own = "the objects' own: boundary_GT_rect is not there, so the published value was counted in other boxes"
        return [*super().choices(evaluation), Choice("boxes of the error rate", "the benchmark's" if given else own)]


def mask_choices(settings: MaskSettings, why: str = "") -> Iterator[Choice]:
    """What every protocol of masks decides."""
    yield Choice("threshold", f"probability > {settings.threshold:g}", why)
    because = "the released code saves 8-bit images" if settings.stretch else ""
    yield Choice("maps stretched before the threshold", yes(settings.stretch), because)
    yield Choice("where a mask counts", KEPT[settings.box])


def opened_objects(node: Node) -> ObjectIndex:
    """The objects that an evaluation is about."""
    data = node.config["data"]["init_args"]
    return open_objects(node.opened["evaluation"]["test"], data["root"], data["seed"])


def threshold_sweeps(measured: Measured) -> dict[str, dict[float, float]]:
    """By model and threshold the mean IoU (in %), mean over seeds; without those that hold one threshold only."""
    found: dict[str, dict[float, float]] = {}
    for label, seeds in measured.items():
        values: dict[float, list[float]] = {}
        for metrics in seeds:
            for name, value in metrics.items():
                if name.startswith("mean_iou@"):
                    values.setdefault(float(name.removeprefix("mean_iou@")), []).append(100 * value)
        if len(values) > 1:
            found[label] = {threshold: fmean(several) for threshold, several in sorted(values.items())}
    return found


class MaskScorer(ObjectScorer):
    """A row per object with its IoU at every threshold; with `error`, and the error rate of GrabCut."""

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path, error: bool = False) -> None:
        super().__init__(model, index, config, folder)
        self.error, self.settings = error, read_settings(SweepSettings, config["evaluation"])
        self.paste = self.settings.pasting
        self.thresholds = np.array(sorted({*self.settings.thresholds, self.settings.threshold}), np.float32)

    @property
    def columns(self) -> list[str]:
        """Names of the row's values."""
        sweep = [f"iou@{threshold:g}" for threshold in self.thresholds]
        return [*self.described, "iou", "error_rate", "seconds", *sweep]

    def score(self, batch: Batch) -> Iterable[list[Any]]:
        """Predict a batch, score its objects in threads (OpenCV releases the lock)."""
        started = time.perf_counter()
        probability = self.probabilities(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        return self.pool.map(lambda i: self._score(batch, i, probability[i], seconds), range(len(batch)))

    def _score(self, batch: Batch, i: int, probability: NDArray[np.float32], seconds: float) -> list[Any]:
        position = self.position(int(batch.object_id[i]))
        mask, void = self.truth(batch, i)
        window, pasted = self.paste.pasted(probability, batch, i)
        inside = None if void is None else void[window]
        outside = _labelled(mask, void) - _labelled(mask[window], inside)  # 0 unless a user's box cuts the object off
        ious = threshold_sweep(pasted, mask[window], inside, self.thresholds, outside)
        iou = float(ious[np.searchsorted(self.thresholds, np.float32(self.settings.threshold))])
        prediction = np.zeros_like(mask)
        prediction[window] = pasted > self.settings.threshold
        error = error_rate(prediction, mask, void, self.index.box[position]) if self.error else ""
        if position in self.pictured:
            image = read_image(self.index.image_path(position))
            picture = overlay(image, prediction, *self.clicked(batch, i), truth=mask)
            save_picture(picture, self.picture_file(position, iou))
        return [*self.description(position), iou, error, round(seconds, 5), *map(float, ious)]


def _labelled(mask: NDArray, void: NDArray | None) -> int:
    """How many pixels of an object are labelled."""
    return int(np.count_nonzero(mask if void is None else mask.astype(bool) & (void == 0)))
