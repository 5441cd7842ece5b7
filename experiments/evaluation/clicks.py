"""Protocol `clicks`: how many clicks an object needs, from a row per object with its curve and its clicks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.index import ObjectIndex
from datamodules.keys import rng
from datamodules.words import data_set_in_words, in_words, name_of
from experiments.composition.building import sample_of
from experiments.composition.tree import Tree
from experiments.console import Choice, Grid
from experiments.evaluation.click_report import click_grids, click_numbers, click_pictures, click_runs
from experiments.evaluation.click_summary import click_table, describe_clicks, summarise_clicks
from experiments.evaluation.clicking import FIRST_OF_TIES, click_rule, click_through
from experiments.evaluation.objects import mask_choices, opened_objects
from experiments.evaluation.protocols import Measured, Metric, Metrics, Protocol
from experiments.evaluation.scorer import ObjectScorer
from experiments.evaluation.settings import Clicking, ClickSettings, read_settings
from experiments.evaluation.simulated_user import SimulatedUser
from experiments.evaluation.stages import load_interactive
from experiments.pictures import Picture, contact_sheet, overlay, save_picture
from experiments.runs.node import Node
from lightning_modules.metrics.clicks import noc

CLICK_DRAWS = 0xC11C  # keeps the draws of clicks apart from those of samples

PICTURED_CLICKS = (1, 3, 5, 10, 20)


class Clicks(Protocol):
    """A simulated user corrects every object, click by click: NoC, curves of IoU, who never gets there."""

    metrics = (
        Metric("noc@0.85", 1.0, higher_is_better=False),
        Metric("noc@*", 1.0, higher_is_better=False),
        Metric("wholeset*", 1.0, higher_is_better=False),
        Metric("failed@*", 1.0, higher_is_better=False),
        Metric("sweep_clicks@*", 1.0, higher_is_better=False),
        Metric("seconds_per_click", 1.0, higher_is_better=False),
        Metric("overhead_per_click", 1.0, higher_is_better=False),
        Metric("*", 1.0),  # IoUs: a table says itself that it shows them in per cent
    )
    settings = ClickSettings

    def checked(self, config: Tree) -> None:
        """See Protocol."""
        if not isinstance(config["evaluation"].get("clicks"), Mapping):
            raise ValueError(
                f"recipe {config['method']} has no section evaluation.clicks (rule, most, corrections, start, "
                "targets): a run of it cannot be evaluated by clicks"
            )
        click_rule(config["evaluation"]["clicks"].get("rule", Clicking.rule))

    def scorer(self, node: Node, folder: Path) -> ClickScorer:
        """See Protocol."""
        return ClickScorer(load_interactive(node), opened_objects(node), node.opened, folder)

    def measures(self, settings: ClickSettings) -> set[str]:
        """See Protocol."""
        clicks = settings.clicks
        curve = range(0 if clicks.start == "mask" else 1, clicks.most + 1)
        kinds = ("noc", "failed", "wholeset", "wholeset_integer")
        return {
            "mean_iou",
            "n",
            "seconds_per_click",
            "overhead_per_click",
            *(f"iou_{t}" for t in curve),
            *(f"{kind}@{target:g}" for kind in kinds for target in clicks.targets),
            *(f"{kind}@{target:g}" for kind in ("sweep_clicks", "sweep_iou") for target in clicks.sweep),
        }

    def summarise(self, rows: Path, settings: ClickSettings) -> dict[str, Any]:
        """See Protocol."""
        return summarise_clicks(rows, settings.clicks)

    def describe(self, metrics: Metrics, settings: ClickSettings) -> str:
        """See Protocol."""
        return describe_clicks(metrics, settings.clicks)

    def table(self, metrics: Metrics, settings: ClickSettings) -> str:
        """See Protocol."""
        return click_table(metrics, settings.clicks)

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol: all that a number of clicks means nothing without."""
        return click_choices(evaluation)

    def without_number(self, name: str, record: Mapping[str, Any]) -> tuple[str, str]:
        """See Protocol: a target that the mean never reached."""
        most = max(int(key[4:]) for key in record["metrics"] if re.fullmatch(r"iou_\d+", key))
        target = float(name.partition("@")[2] or 1)
        return f">{most}", f"the mean IoU stays below {100 * target:g} % within {most} clicks"

    def grids(self, measured: Measured) -> Iterator[Grid]:
        """See Protocol."""
        return iter(click_grids(click_runs(measured)))

    def pictures(self, measured: Measured, folder: Path) -> Iterator[Picture]:
        """See Protocol."""
        return click_pictures(click_runs(measured), folder)

    def numbers(self, measured: Measured) -> dict[str, Any]:
        """See Protocol: the curves."""
        return click_numbers(click_runs(measured))


def click_choices(evaluation: Node) -> list[Choice]:
    """What was clicked, where, how often, and what counted."""
    config, record = evaluation.config, evaluation.folder.record or {}
    settings = read_settings(ClickSettings, config["evaluation"])
    clicks, objects = settings.clicks, record.get("metrics", {}).get("n")
    ties = "the first in raster order" if clicks.rule in FIRST_OF_TIES else "drawn per object and round"
    rule = " ".join(str(click_rule(clicks.rule).__doc__).split("\n\n")[0].split())
    corrected = {None: "as many as the clicks allow", 0: "none"}.get(clicks.corrections)
    counted = "" if objects is None else f", {objects:,} objects"
    targets = ", ".join(f"{100 * target:g}" for target in clicks.targets)
    left_out = " and ".join(record.get("left_out", ()))
    points = sample_of(config)["test_points"]
    if name_of(points) != "NoPoints":
        words, name = in_words(points), name_of(points)
        said = words if words.startswith(name) else f"{name} ({words})"
        first = f"{said} given at once, they count as clicks"
    else:
        first = "by the rule, on the start mask" if clicks.start == "mask" else "by the rule, on an empty prediction"
    return [
        *mask_choices(settings),
        Choice(
            "objects",
            f"{', '.join(map(data_set_in_words, config['evaluation']['test']))}{counted}",
            f"{left_out} left out" if left_out else "",
        ),
        Choice("click rule", f"{clicks.rule}; of equally good pixels {ties}", rule),
        Choice("first click", first),
        Choice(
            "clicks per object",
            f"{clicks.most}, all given: no early stop",
            f"an object that never reaches a target counts {clicks.most}, as does one that gets there with the last",
        ),
        Choice("corrections", corrected or f"at most {clicks.corrections}", "then the last mask stays"),
        Choice("targets", f"IoU >= {targets} %, compared in float32"),
        Choice("void pixels", "neither counted nor clicked"),
        Choice("test-time augmentation, zoom-in", "none"),
    ]


class ClickScorer(ObjectScorer):
    """A row per object with its curve, its clicks and what a click costs."""

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path) -> None:
        super().__init__(model, index, config, folder)
        settings = read_settings(ClickSettings, config["evaluation"])
        self.clicks = clicks = settings.clicks
        self.rule, self.draws = click_rule(clicks.rule), clicks.rule not in FIRST_OF_TIES
        self.seed = config["data"]["init_args"]["seed"] if clicks.seed is None else clicks.seed
        self.paste = settings.pasting
        bare = len(index) - int(np.count_nonzero(index.start_file >= 0))
        if clicks.start == "mask" and bare:
            raise ValueError(
                f"evaluation.clicks.start is `mask`, but {bare:,} of {len(index):,} objects of {index.dataset} have no "
                "start mask; use `nothing`, or a data set of masks to refine"
            )

    @property
    def columns(self) -> list[str]:
        """Names of the row's values; `first` counts the clicks before the first mask."""
        targets = [f"noc@{target:g}" for target in self.clicks.targets]
        start = ["iou_0"] if self.clicks.start == "mask" else []
        curve = [f"iou_{t}" for t in range(1, self.clicks.most + 1)]
        return [*self.described, "first", *start, *curve, *targets, "seconds_network", "seconds_other", "clicks"]

    def score(self, batch: Batch) -> list[list[Any]]:
        """Click through the batch's objects."""
        started = time.perf_counter()
        users = list(self.pool.map(lambda i: self._user(batch, i), range(len(batch))))
        click_through(self.model, batch, users, self.paste, self.pool.map if len(batch) > 1 else map)
        network = sum(user.seconds_network for user in users)
        other = (time.perf_counter() - started - network) / sum(max(1, user.rounds) for user in users)
        rows = []
        for i, user in enumerate(users):
            curve, position = user.curve(), self.position(int(batch.object_id[i]))
            needed = [int(noc(curve, target, user.most)) for target in self.clicks.targets]
            ious = [*([] if user.start_iou is None else [user.start_iou]), *curve]
            per_call = user.seconds_network / max(1, user.network_calls)
            rows.append(
                [
                    *self.description(position),
                    user.first_clicks,
                    *ious,
                    *needed,
                    round(per_call, 5),
                    round(other, 5),
                    user.written(),
                ]
            )
            if position in self.pictured:
                self._picture(position, user, curve)
        return rows

    def _user(self, batch: Batch, i: int) -> SimulatedUser:
        object_id = int(batch.object_id[i])
        position = self.position(object_id)
        (mask, void), valid = self.truth(batch, i), batch.clicks.valid[i].cpu().numpy()
        to_image = cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        user = SimulatedUser(
            mask=mask,
            void=void,
            rule=self.rule,
            first_points=geometry.apply(to_image, batch.points[i].cpu().numpy()[valid]),
            first_kinds=batch.point_kinds[i].cpu().numpy()[valid],
            most=self.clicks.most,
            corrections=self.clicks.corrections,
            start=self.index.start_mask(position) if self.clicks.start == "mask" else None,
            draws=lambda t: rng(self.seed, object_id, t, CLICK_DRAWS) if self.draws else None,
        )
        if position in self.pictured:
            user.keep_pictures((user.first_clicks, *PICTURED_CLICKS))
        return user

    def _picture(self, position: int, user: SimulatedUser, curve: Sequence[float]) -> None:
        """The masks after 1, 3, 5, 10 and 20 clicks side by side, where there are as many."""
        image, kinds = self.index.read_image(position), [int(kind) for kind in user.kinds]
        pictures, captions = [], []
        for t, (prediction, clicks, iou) in sorted(user.pictures.items()):
            points = np.array(user.clicks[:clicks], float)
            pictures.append(overlay(image, prediction, points, kinds[:clicks], truth=user.mask))
            captions.append(f"{t} click{'s' * (t != 1)}, IoU {100 * iou:.1f}")
        if not pictures:  # nothing was ever predicted
            pictures, captions = [overlay(image, user.prediction, truth=user.mask)], [f"IoU {100 * curve[-1]:.1f}"]
        file = self.picture_file(position, curve[-1])
        save_picture(contact_sheet(pictures, captions, columns=len(pictures)), file)
