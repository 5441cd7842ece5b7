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

import cv2
import numpy as np
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
from experiments.pictures import RGB, contact_sheet, overlay, save_picture
from experiments.runs.models import load_model
from experiments.runs.node import Node
from lightning_modules.exits import masks_on_the_crop
from lightning_modules.point_retrieval import PointRetrieval, Retrieved
from lightning_modules.point_supervision import extreme_points_of

KINDS = ("object", "background")
COUNTS = ("found", "right")
FOUND = {"object": (40, 200, 90), "background": (235, 60, 60)}
SEED, CHOSEN = (255, 196, 0), (255, 255, 255)


@dataclass(frozen=True)
class Walks:
    """The section `evaluation.retrieval`: the walk of a recipe, and which of its layers and hops are looked at.

    Args:
        layers: counted from one, 0 for the likeness of the final tokens; none named: all of them.
        alphas: hops.
        rounds, first, delta, tau_foreground, tau_background: see `PointRetrieval`.
        chosen: layer and hops of the pictures; the layer is the network's last where it has fewer.
    """

    layers: Sequence[int] = ()
    alphas: Sequence[int] = (1, 2, 3, 4, 5)
    rounds: int = 3
    first: Literal["columns", "rows"] = "columns"
    delta: float = 0.5
    tau_foreground: float = 1e-3
    tau_background: float = -1e-4
    chosen: tuple[int, int] = (10, 3)

    def __post_init__(self) -> None:
        if not self.alphas or min(self.alphas) < 1:
            raise ValueError(
                f"evaluation.retrieval.alphas are numbers of hops, each at least 1, got {list(self.alphas)}"
            )
        if self.rounds < 0 or self.delta < 0:
            raise ValueError(
                f"evaluation.retrieval: rounds and delta are at least 0, got {self.rounds} and {self.delta}"
            )

    def walk(self, layer: int, alpha: int) -> PointRetrieval:
        """The retrieval by this layer's attention and so many hops."""
        return PointRetrieval(
            layer=layer,
            rounds=self.rounds,
            first=self.first,
            alpha=alpha,
            delta=self.delta,
            tau_foreground=self.tau_foreground,
            tau_background=self.tau_background,
        )


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
        network: Any = getattr(model, "extractor", None) or getattr(model, "network", None)
        if not hasattr(network, "similarity"):
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
        self.network: Any = model.extractor if getattr(model, "extractor", None) is not None else model.network
        depth = self.network.depth
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
        seen, points = self.model.seen(batch.image), extreme_points_of(batch.clicks)
        grid = self.network.grid
        inside_object = self._of_nodes(masks_on_the_crop(batch).to(seen), grid) > 0.5
        truth = {"object": inside_object, "background": ~inside_object}
        counts: list[Tensor] = []
        for layer in self.layers:
            similarity = self.network.similarity(seen, layer)
            for alpha in self.walks.alphas:
                found = self.walks.walk(layer, alpha)(similarity, points, batch.mask)
                called = {"object": found.foreground, "background": found.background}
                counts += [each.sum(1) for kind in KINDS for each in (called[kind], called[kind] & truth[kind])]
                if (layer, alpha) == self.chosen:
                    self._picture(batch, found, similarity)
        totals = [(found.inside & truth[kind]).sum(1) for kind in KINDS]
        table = torch.stack([*totals, *counts], 1).tolist()
        return [[*self.description(self.position(int(key))), *row] for key, row in zip(batch.object_id, table)]

    def _of_nodes(self, mask: Tensor, grid: int) -> Tensor:
        """(B, n) the share of each node's cell that a mask (B, 1, H, W) covers."""
        return F.adaptive_avg_pool2d(mask.float(), grid).flatten(1)

    def _picture(self, batch: Batch, found: Retrieved, similarity: Tensor) -> None:
        """Figure 6 of each pictured object: seeds, retrieved points, what a seed finds similar, label and truth."""
        probability = self.probabilities(batch)
        for i, key in enumerate(batch.object_id.tolist()):
            position = self.position(key)
            if position not in self.pictured:
                continue
            crop = batch.image[i].permute(1, 2, 0).round().clamp(0, 255).byte().cpu().numpy()
            truth, _ = self.truth(batch, i)
            panels = [
                self._marked(crop, {SEED: found.seeds[i]}),
                self._marked(crop, {FOUND["object"]: found.foreground[i], FOUND["background"]: found.background[i]}),
                self._similar(crop, similarity[i], found.seeds[i]),
                overlay(crop, (probability[i] > self.threshold) & (batch.mask[i, 0].cpu().numpy() > 0)),
                overlay(self.index.read_image(position), None, *self.clicked(batch, i), truth=truth),
            ]
            captions = ["seeds", "retrieved points", "similarity of a seed", "label", "truth"]
            sheet = contact_sheet(panels, captions, columns=5, tile=240)
            save_picture(sheet, self.folder / "pictures" / f"{position:07d}-retrieval.png")

    def _marked(self, crop: RGB, nodes: dict[tuple[int, int, int], Tensor], side: int = 320) -> RGB:
        """A crop with a dot at each of these nodes."""
        canvas: RGB = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        cell = side / self.network.grid
        for colour, marked in nodes.items():
            for node in marked.nonzero()[:, 0].tolist():
                y, x = divmod(node, self.network.grid)
                centre = round((x + 0.5) * cell), round((y + 0.5) * cell)
                cv2.circle(canvas, centre, max(2, round(cell / 4)), colour, -1, cv2.LINE_AA)
        return canvas

    def _similar(self, crop: RGB, similarity: Tensor, seeds: Tensor, side: int = 320) -> RGB:
        """A crop tinted by how much its first seed attends to each place, and that seed."""
        node = int(seeds.int().argmax())
        grid = self.network.grid
        weight = similarity[node].reshape(grid, grid).float().cpu().numpy()
        weight = np.clip(weight / max(float(np.quantile(weight, 0.98)), 1e-12), 0, 1).astype(np.float32)
        shown = cv2.resize(weight, (side, side), interpolation=cv2.INTER_LINEAR)
        heat = cv2.applyColorMap((255 * shown).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
        canvas = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        mixed = (0.4 * canvas + 0.6 * heat).astype(np.uint8)
        y, x = divmod(node, grid)
        centre = round((x + 0.5) * side / grid), round((y + 0.5) * side / grid)
        cv2.circle(mixed, centre, 7, CHOSEN, -1, cv2.LINE_AA)
        return mixed
