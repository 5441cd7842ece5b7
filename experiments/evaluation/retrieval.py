"""Protocol `retrieval`: do the points that EXITS' random walk finds fall on the object? By layer and by hops.

It stands on no table of the paper, and on all of its idea: precision and recall of the nodes that are called object and
background inside of the box, against true masks, and pictures of what was found (Figure 6).

    python -m experiments.evaluate --run RUN --data coco200/val2017 --protocol retrieval

RUN is a similarity extractor, or a generator that was trained with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import Batch
from experiments.console import DASH, Grid
from experiments.evaluation.objects import opened_objects
from experiments.evaluation.protocols import Measured, Metric, Metrics, Protocol
from experiments.evaluation.rows import read_rows
from experiments.evaluation.scorer import ObjectScorer
from experiments.evaluation.settings import read_settings
from experiments.evaluation.walk_pictures import save_walks
from experiments.runs.models import load_model
from experiments.runs.node import Node
from lightning_modules.exits import masks_on_the_crop
from lightning_modules.point_retrieval import PointRetrieval

KINDS = ("object", "background")
COUNTS = ("found", "right")
CHANGED = ("rounds", "first", "delta", "tau_foreground", "tau_background")


@dataclass(frozen=True)
class Walks:
    """The section `evaluation.retrieval`: at which layers and hops of a run's walk to look, and with which changes.

    Args:
        layers: counted from one, 0 for the likeness of the final tokens; none named: all of them.
        alphas: hops.
        rounds, first, delta, tau_foreground, tau_background: of `PointRetrieval`; None for those that the run's own
            walk has, or, of an extractor, which has none, the paper's.
        chosen: layer and hops of the pictures; the layer is the network's last where it has fewer.
    """

    layers: Sequence[int] = ()
    alphas: Sequence[int] = (1, 2, 3, 4, 5)
    rounds: int | None = None
    first: Literal["columns", "rows"] | None = None
    delta: float | None = None
    tau_foreground: float | None = None
    tau_background: float | None = None
    chosen: tuple[int, int] = (10, 3)

    def __post_init__(self) -> None:
        if not self.alphas or min(self.alphas) < 1:
            raise ValueError(
                f"evaluation.retrieval.alphas are numbers of hops, each at least 1, got {list(self.alphas)}"
            )
        if (self.rounds or 0) < 0 or (self.delta or 0) < 0:
            raise ValueError(
                f"evaluation.retrieval: rounds and delta are at least 0, got {self.rounds} and {self.delta}"
            )

    def walk(self, own: PointRetrieval | None, layer: int, alpha: int) -> PointRetrieval:
        """A run's own walk by this layer's attention and so many hops."""
        changed = {name: value for name in CHANGED if (value := getattr(self, name)) is not None}
        return (own or PointRetrieval()).but(layer=layer, alpha=alpha, **changed)


@dataclass(frozen=True)
class RetrievalSettings:
    """What this protocol reads of a recipe's section."""

    retrieval: Walks = field(default_factory=Walks)


class Retrieval(Protocol):
    """Of all nodes inside of all boxes: how many of those called object are, and how much of the object is found."""

    metrics = (Metric("precision_object_*"), Metric("*"))
    settings = RetrievalSettings
    elsewhere = "object_iou"

    def scorer(self, node: Node, folder: Path) -> RetrievalScorer:
        """See Protocol."""
        model = load_model(node.model)
        if not hasattr(model, "retrieved"):
            raise ValueError(
                f"run {node.model.hash} has no similarity extractor and retrieves no points: take a run of EXITS"
            )
        return RetrievalScorer(model, opened_objects(node), node.opened, folder)

    def summarise(self, rows: Path, settings: Any) -> dict[str, Any]:
        """See Protocol: counts are added over all objects before they are divided."""
        sums: Counter[str] = Counter()
        count = 0
        for row in read_rows(rows):
            count += 1
            for name, value in row.items():
                if name.startswith(("nodes_", "found_", "right_")):
                    sums[name] += int(value)
        metrics: dict[str, Any] = {"n": count}
        for name in [name for name in sums if name.startswith("found_")]:
            _, kind, place = name.split("_", 2)
            right, total = sums[f"right_{kind}_{place}"], sums[f"nodes_{kind}"]
            metrics[f"precision_{kind}_{place}"] = right / sums[name] if sums[name] else None
            metrics[f"recall_{kind}_{place}"] = right / total if total else None
        inside = sums["nodes_object"] + sums["nodes_background"]
        metrics["share_of_object"] = sums["nodes_object"] / inside if inside else None
        return metrics

    def table(self, metrics: Metrics, settings: RetrievalSettings) -> str:
        """Precision and recall in per cent, a line for each layer, a column for each number of hops."""
        lines = [
            f"{metrics['n']:,} objects; of the nodes in their boxes {_percent(metrics['share_of_object'])} % are object"
        ]
        for kind in KINDS:
            lines.append(f"{kind}: precision / recall in %, by hops")
            for layer, cells in _by_layer(metrics, kind).items():
                name = f"layer {layer:>2}" if layer else "tokens  "
                lines.append(f"  {name}  " + "   ".join(f"{hops}: {p} / {r}" for hops, p, r in cells))
        return "\n".join(lines)

    def describe(self, metrics: Metrics, settings: RetrievalSettings) -> str:
        """See Protocol."""
        best = max(
            (name for name in metrics if name.startswith("precision_object")), key=lambda name: metrics[name] or 0
        )
        return f"{best} {_percent(metrics[best])} % over {metrics['n']:,} objects"

    def grids(self, measured: Measured) -> Iterator[Grid]:
        """See Protocol: the same table of the first seed."""
        for name, runs in measured.items():
            for kind in KINDS:
                layers = _by_layer(runs[0], kind)
                if not layers:
                    continue
                hops = tuple(str(each[0]) for each in next(iter(layers.values())))
                lines = tuple((str(k), *(f"{p} / {r}" for _, p, r in cells)) for k, cells in layers.items())
                text = f"Precision / recall (%) of the nodes called {kind}, by layer and number of hops."
                yield Grid(f"{name}: retrieved {kind}", ("Layer", *hops), lines, text, hops)


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}"


def _by_layer(metrics: Metrics, kind: str) -> dict[int, list[tuple[int, str, str]]]:
    """(hops, precision, recall) of each layer, in order."""
    found: dict[int, list[tuple[int, str, str]]] = {}
    prefix = f"precision_{kind}_l"
    places = [name.removeprefix(prefix).split("_a") for name in metrics if name.startswith(prefix)]
    for layer, hops in sorted((int(layer), int(hops)) for layer, hops in places):
        cell = [_percent(metrics[f"{what}_{kind}_l{layer}_a{hops}"]) for what in ("precision", "recall")]
        found.setdefault(layer, []).append((hops, cell[0], cell[1]))
    return found


class RetrievalScorer(ObjectScorer):
    """A row per object: its nodes, and what each walk found of them."""

    def __init__(self, model: Any, index: Any, config: Any, folder: Path) -> None:
        super().__init__(model, index, config, folder)
        self.walks = read_settings(RetrievalSettings, config["evaluation"]).retrieval
        self.own = None if model.points is None else model.points.retrieval
        depth = model.network.depth
        self.layers = [*self.walks.layers] or [*range(depth + 1)]
        if wrong := [layer for layer in self.layers if not 0 <= layer <= depth]:
            raise ValueError(
                f"evaluation.retrieval.layers: the network has layers 0 (its final tokens) to {depth}, got {wrong[0]}"
            )
        self.threshold = float(config["evaluation"]["threshold"])
        layer, alpha = self.walks.chosen
        self.chosen = min(layer, depth), alpha

    @property
    def columns(self) -> list[str]:
        """Names of a row's values."""
        places = [f"l{layer}_a{alpha}" for layer in self.layers for alpha in self.walks.alphas]
        counted = [f"{what}_{kind}_{place}" for place in places for kind in KINDS for what in COUNTS]
        return [*self.described, *(f"nodes_{kind}" for kind in KINDS), *counted]

    def score(self, batch: Batch) -> list[list[Any]]:
        """Count the nodes of a batch."""
        truth_on_crop = masks_on_the_crop(batch).to(batch.mask.device)
        inside_object = self._of_nodes(truth_on_crop, self.model.network.grid) > 0.5
        truth = {"object": inside_object, "background": ~inside_object}
        counts: list[Tensor] = []
        for layer in self.layers:
            similarity = self.model.similarity(batch.image, layer)
            for alpha in self.walks.alphas:
                walk = self.walks.walk(self.own, layer, alpha)
                found = self.model.retrieved(batch.image, batch.clicks, batch.mask, walk, similarity)
                called = {"object": found.foreground, "background": found.background}
                counts += [each.sum(1) for kind in KINDS for each in (called[kind], called[kind] & truth[kind])]
                if (layer, alpha) == self.chosen:
                    probability = self.probabilities(batch)
                    save_walks(self, batch, found, similarity, self.pictured, probability, self.threshold)
        totals = [(found.inside & truth[kind]).sum(1) for kind in KINDS]
        table = torch.stack([*totals, *counts], 1).tolist()
        return [[*self.description(self.position(int(key))), *row] for key, row in zip(batch.object_id, table)]

    def _of_nodes(self, mask: Tensor, grid: int) -> Tensor:
        """(B, n) the share of each node's cell that a mask (B, 1, H, W) covers."""
        return F.adaptive_avg_pool2d(mask.float(), grid).flatten(1)
