"""Protocol `instances`: what a network detects on whole images, and its mask AP, computed from files.

    python -m experiments.evaluate --run RUN --data coco200/val2017

RUN finds instances of classes. Its detections go to disk image by image; detections.json, which any other tool reads
as COCO's results, is scored against truth.json beside it. Where nobody has the annotations (coco2017/test-dev),
detections.json is what is uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pytorch_lightning import LightningModule

from experiments.composition.building import build_part
from experiments.composition.classes import import_class
from experiments.composition.tree import Tree
from experiments.console import DASH, Choice, Grid, spread_text
from experiments.evaluation.detection_files import DETECTIONS, TRUTH, read_detections, read_truth
from experiments.evaluation.instance_scorer import InstanceScorer
from experiments.evaluation.instance_settings import (
    LIMITS_IN_WORDS,
    InstanceSettings,
    network_limits,
    with_limits,
)
from experiments.evaluation.protocols import Measured, Metric, Metrics, Protocol
from experiments.evaluation.settings import read_settings
from experiments.evaluation.truth import Truth
from experiments.runs.identity import without_starts
from experiments.runs.models import load_model
from experiments.runs.node import Node
from lightning_modules.metrics.average_precision import coco_ap, is_lvis, lvis_ap

KINDS = ("", "50", "75", "_small", "_medium", "_large", "_rare", "_common", "_frequent")
NAMES = tuple(f"ap{kind}" for kind in KINDS)
PARTS = {
    "ap_rare": "APr",
    "ap_common": "APc",
    "ap_frequent": "APf",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}
PARTS_IN_WORDS = (
    "In per cent. LVIS' rare, common, frequent categories; objects below 32 x 32 pixels, to 96 x 96, above."
)
# What an AP means nothing without, beside the limits: as reports call it.
OF_TRAINING = ("weights", "learning rate", "schedule", "warmup", "length of training", "samples")
FEW = 30  # classes, up to which each has its AP in a record


class Instances(Protocol):
    """Mask AP of the instances that a network finds on whole images."""

    metrics = (
        *map(Metric, NAMES),
        Metric("ap@*"),  # of a class
        Metric("detections_per_image", 1.0),
    )
    settings = InstanceSettings
    files = (DETECTIONS, TRUTH)
    by_object = False
    printed = ("limit of detections", *LIMITS_IN_WORDS.values(), *OF_TRAINING)

    def checked(self, config: Tree) -> None:
        """See Protocol."""
        method = import_class(config["model"]["class_path"])
        if not hasattr(method, "detect"):
            raise ValueError(
                f"protocol instances takes a method that detects instances of classes, which {method.__name__} does not"
            )
        if len(config["evaluation"].get("test") or ()) != 1:
            raise ValueError(
                f"protocol instances scores one data set, whose categories are its own, got evaluation.test "
                f"{config['evaluation'].get('test')}"
            )
        with_limits(config["model"], read_settings(InstanceSettings, config["evaluation"]).network)

    def scorer(self, node: Node, folder: Path) -> InstanceScorer:
        """See Protocol. Raises ValueError where the data have other classes than those that the run was trained on."""
        data = node.opened["data"]["init_args"]
        (spec,) = node.opened["evaluation"]["test"]
        truth = Truth(spec, data["root"], data["seed"])
        model = load_limited(node.model, read_settings(InstanceSettings, node.config["evaluation"]).network)
        return InstanceScorer(model, truth, labels_in(truth.categories, node.model, model), node.opened, folder)

    def measures(self, settings: InstanceSettings) -> set[str]:
        """See Protocol."""
        return {*NAMES, "n", "objects", "detections", "detections_per_image"}

    def summarise(self, rows: Path, settings: InstanceSettings) -> dict[str, Any]:
        """See Protocol: from detections.json and truth.json beside the rows; `n` counts images.

        Without annotations nothing but detections is counted; `objects` is then None, as all AP.
        """
        truth = read_truth(rows.parent / TRUTH)
        found = read_detections(rows.parent / DETECTIONS, truth)
        images = len(truth["images"])
        counts = {"n": images, "detections": len(found), "detections_per_image": len(found) / images}
        if "annotations" not in truth:
            return {**dict.fromkeys(NAMES), "objects": None, **counts}
        style, most = settings.counted(truth)
        if style == "lvis" and not is_lvis(truth):
            raise ValueError(
                f"{rows.parent / TRUTH} has no neg_category_ids and frequency, without which LVIS' style says nothing; "
                "set evaluation.style=coco"
            )
        overall, by_class = (lvis_ap if style == "lvis" else coco_ap)(truth, found, most)
        few = {f"ap@{name}": ap for name, ap in by_class.items()} if len(by_class) <= FEW else {}
        objects = sum(not entry.get("iscrowd") for entry in truth["annotations"])
        return {**{name: overall[name] for name in NAMES}, **few, "objects": objects, **counts}

    def describe(self, metrics: Metrics, settings: InstanceSettings) -> str:
        """See Protocol."""
        many = f"{metrics['detections_per_image']:.1f} detections on each of {metrics['n']:,} images"
        if metrics["objects"] is None:
            return f"{many}, in {DETECTIONS}; nobody here has annotations to score them"
        shown = [f"{name.upper()} {_percent(metrics[name])}" for name in ("ap50", "ap75")]
        return f"mask AP {_percent(metrics['ap'])} ({', '.join(shown)}), {many}"

    def table(self, metrics: Metrics, settings: InstanceSettings) -> str:
        """See Protocol: in per cent, what has no number left out."""
        shown = [name for name in metrics if name.startswith("ap") and metrics[name] is not None]
        lines = [f"{name.removeprefix('ap@'):>20} {_percent(metrics[name])}" for name in shown]
        return "\n".join([*lines, self.describe(metrics, settings)])

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol: what an AP means nothing without; rate, batch and samples say the training's own choices."""
        settings = read_settings(InstanceSettings, evaluation.config["evaluation"])
        limit = Choice("limit of detections", settings.limit(_record(evaluation).get("scored")))
        return [limit, *network_limits(evaluation.config["model"], settings.network)]

    def without_number(self, name: str, record: Mapping[str, Any]) -> tuple[str, str]:
        """See Protocol: annotations that are kept elsewhere, or objects of a kind that the data have none of."""
        if record["metrics"].get("objects") is None:
            where = record.get("upload", "the benchmark's server")
            return "to upload", f"{DETECTIONS} of run {record['run']} is written: upload it at {where}"
        return DASH, f"the data have no object that {name} is about"

    def grids(self, measured: Measured) -> Iterator[Grid]:
        """See Protocol: AP by frequency and size, as far as the data have such objects; of each class, where few."""
        found = {
            row: [metrics for metrics in seeds if metrics.get("ap") is not None] for row, seeds in measured.items()
        }
        models = {row: seeds for row, seeds in found.items() if seeds}
        metrics = dict.fromkeys(n for seeds in models.values() for m in seeds for n, ap in m.items() if ap is not None)
        if kinds := [name for name in PARTS if name in metrics]:
            header = ("AP", *(PARTS[name] for name in kinds))
            lines = [(row, *(_spread(seeds, name) for name in ("ap", *kinds))) for row, seeds in models.items()]
            yield Grid("Mask AP by frequency and size", ("Model", *header), tuple(lines), PARTS_IN_WORDS, header)
        if classes := [name for name in metrics if name.startswith("ap@")]:
            rows = tuple(row for row, seeds in models.items() if any(name in m for m in seeds for name in classes))
            lines = [(name.removeprefix("ap@"), *(_spread(models[row], name) for row in rows)) for name in classes]
            yield Grid("Mask AP of each class", ("Class", *rows), tuple(lines), "In per cent.", rows)


def labels_in(categories: tuple[str, ...], run: Node, model: Any) -> list[int]:
    """The place among a data set's categories of each class of a run, by its name.

    Raises ValueError unless both have the same classes. Of weights without a training only their number is known.
    """
    record = run.folder.record or {}
    classes = list((record.get("said") or {}).get("classes") or ())
    if not classes:
        number = getattr(getattr(model, "network", None), "num_classes", len(categories))
        if number != len(categories):
            raise ValueError(
                f"run {run.hash} tells {number} classes apart, these data have {len(categories)} categories"
            )
        return list(range(len(categories)))
    if set(classes) != set(categories) or len(classes) != len(categories):
        other = [*(name for name in classes if name not in categories), *(n for n in categories if n not in classes)]
        what = f"the first that only one of them has is {other[0]!r}" if other else "names are used twice"
        raise ValueError(
            f"run {run.hash} was trained on {len(classes)} classes, these data have {len(categories)}: {what}; "
            "evaluate it on data with its own classes"
        )
    return [categories.index(name) for name in classes]


def load_limited(run: Node, limits: Mapping[str, Any] | None) -> LightningModule:
    """The network of a finished run, which keeps what an evaluation's `network` says of its detections."""
    if not limits:
        return load_model(run)
    model: LightningModule = build_part(LightningModule, without_starts(with_limits(run.config["model"], limits)))
    run.load_into(model)
    return model.eval()


def _record(run: Node) -> Mapping[str, Any]:
    """A finished run's record; nothing of another, or of one whose name nobody knows without its data."""
    try:
        return run.folder.record or {}
    except (OSError, ValueError):
        return {}


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}"


def _spread(seeds: Sequence[Metrics], name: str) -> str:
    """A share over seeds, in per cent."""
    values = [100 * metrics[name] for metrics in seeds if metrics.get(name) is not None]
    return spread_text((fmean(values), stdev(values) if len(values) > 1 else None) if values else None, 1)
