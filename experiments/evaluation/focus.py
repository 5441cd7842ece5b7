"""How far FAIRS' focus moves when a user misses the extreme points (Sec. 4.2, Fig. 3d): a `study` node."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from datamodules.clicks.points import EXTREME_KINDS
from datamodules.clicks.soft_focus import focus
from datamodules.index import ObjectIndex
from datamodules.keys import rng
from datamodules.recipe import SampleRecipe
from datamodules.samples import ObjectSamples
from datamodules.selection import open_objects
from datamodules.words import data_set_in_words
from experiments.composition.tree import Tree
from experiments.console import Choice
from experiments.evaluation.protocols import Metric, Protocol, protocol
from experiments.runs.files import write_atomically
from experiments.runs.folder import RunFolder
from experiments.runs.node import Kind, Made, Node

Noise = Literal["integers", "continuous"]


def study(
    index: ObjectIndex,
    recipe: SampleRecipe,
    *,
    draws: int = 10_000,
    noise: Noise = "integers",
    spread: float = 10.0,
    seed: int = 0,
    folder: Path | None = None,
) -> dict[str, float]:
    """Move the extreme points of the objects' evaluation crops, and measure the error and the shift of the focus.

    A draw is one object, whose four points move in x and in y by r of U[-spread, spread] each, nothing clipped. Its
    error is the sum of the four Euclidean displacements: the paper does not say so, but only then is a mean of 32.9 at
    a spread of 10 near: expected are 32.1 for whole numbers and 30.6 for real ones (41.9 and 40 for the sum of absolute
    coordinates, 8.0 and 7.7 for one point). Its shift is the distance between the foci. The paper names no objects, and
    the shift depends on them: it is small where the diagonals cross at right angles.

    Args:
        draws: in all, shared out evenly among the objects, or, of more objects than that, among evenly spaced ones.
        noise: r is a whole number, as of pixels that were clicked, or a real one.
        spread: pixels of the crop.
        folder: gets focus.png and focus.csv.
    Returns: `mean_`, `median_`, `p10_` and `p90_` of `error` and of `shift` over the draws and, as `object_shift`, of
        the objects' mean shifts; `n` objects and `draws`. Raises ValueError for points that are not four.
    """
    if draws < 1 or not spread > 0 or noise not in get_args(Noise):
        raise ValueError(
            f"the study needs draws and a spread above 0 and {' or '.join(get_args(Noise))} noise, "
            f"got {draws}, {spread} and {noise!r}"
        )
    owner = np.arange(draws) * len(index) // draws  # the object of each draw
    places, owner = np.unique(owner, return_inverse=True)
    points = crop_points(index, recipe, places)
    key = rng(seed, draws)
    if noise == "integers":
        moves = key.integers(-int(spread), int(spread), (draws, 4, 2), endpoint=True).astype(np.float64)
    else:
        moves = key.uniform(-spread, spread, (draws, 4, 2))
    error = np.linalg.norm(moves, axis=2).sum(axis=1)
    shift = np.linalg.norm(focus(points[owner] + moves) - focus(points)[owner], axis=1)
    of_object = np.bincount(owner, shift) / np.bincount(owner)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "focus.csv", _csv(index.object_id[places[owner]], error, shift))
        density(error, shift, folder / "focus.png")
    measured = {"error": error, "shift": shift, "object_shift": of_object}
    return {"n": len(places), "draws": draws} | {
        f"{name}_{what}": value for what, values in measured.items() for name, value in summary(values).items()
    }


def crop_points(index: ObjectIndex, recipe: SampleRecipe, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, 4, 2): the extreme points of these objects of the index, on their evaluation crops."""
    samples = ObjectSamples(index, recipe, train=False)
    points = []
    for place in places.tolist():
        sample = samples[place]
        if sample.point_kinds.tolist() != list(EXTREME_KINDS):
            raise ValueError(
                f"the focus study needs the four extreme points, {type(recipe.test_points).__name__} gives "
                f"{len(sample.points)} of kinds {sample.point_kinds.tolist()}; use ExtremePoints as test_points"
            )
        points.append(sample.points)
    return np.stack(points).astype(np.float64)


def summary(values: NDArray) -> dict[str, float]:
    """Mean, median and the outer deciles."""
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    return {"mean": float(values.mean()), "median": float(median), "p10": float(p10), "p90": float(p90)}


def density(error: NDArray, shift: NDArray, path: Path) -> Path:
    """Joint density of error and shift with both marginals, as in Fig. 3d; the upper hundredth of shifts is cut off."""
    figure = Figure(figsize=(6.4, 5.6), dpi=150, layout="constrained")
    top, joint, right = figure.subplot_mosaic(
        [["top", "."], ["joint", "right"]], width_ratios=[4, 1], height_ratios=[1, 4]
    ).values()
    error_range, shift_range = (0.0, 1.05 * float(error.max())), (0.0, max(1.0, float(np.percentile(shift, 99))))
    joint.hist2d(error, shift, bins=48, range=[error_range, shift_range], cmap="Blues")
    top.hist(error, bins=48, range=error_range, color="#2d7dff")
    right.hist(shift, bins=48, range=shift_range, color="#2d7dff", orientation="horizontal")
    mark: dict[str, Any] = {"color": "#eb3c3c", "linewidth": 1.2}
    for axes in (joint, top):
        axes.axvline(error.mean(), **mark)
        axes.set_xlim(*error_range)
    for axes in (joint, right):
        axes.axhline(shift.mean(), **mark)
        axes.set_ylim(*shift_range)
    joint.set_xlabel("annotation error: sum of the four points' displacements (px)")
    joint.set_ylabel("shift of the focus (px)")
    top.set_title(f"mean error {error.mean():.1f} px, mean shift {shift.mean():.1f} px", loc="left", fontsize=10)
    for axes in (top, right):
        axes.set_axis_off()
    figure.savefig(path)
    return path


def _csv(objects: NDArray, error: NDArray, shift: NDArray) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["object_id", "error", "shift"])
    writer.writerows((int(o), f"{e:.4f}", f"{s:.4f}") for o, e, s in zip(objects, error, shift))
    return text.getvalue()


@dataclass(frozen=True)
class StudySettings:
    """The section `evaluation.study`: crop and margin of the points, how many draws, of what noise."""

    study: Mapping[str, Any]


class Focus(Protocol):
    """Not of a network: how far points and focus move together."""

    metrics = (Metric("mean_shift", 1.0, higher_is_better=False), Metric("*", 1.0))
    settings = StudySettings

    def scorer(self, node: Node, folder: Path) -> Any:
        """There is nothing to score."""
        raise ValueError("the focus study needs no trained run; `python -m experiments.focus_study` makes it")

    def summarise(self, rows: Path, settings: StudySettings) -> dict[str, Any]:
        """There are no rows of objects."""
        return {}

    def measures(self, settings: StudySettings) -> set[str]:
        """See Protocol."""
        kinds = (f"{name}_{what}" for name in ("mean", "median", "p10", "p90") for what in ("error", "shift"))
        return {"n", "draws", *kinds, *(f"{name}_object_shift" for name in ("mean", "median", "p10", "p90"))}

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol."""
        asked, record = evaluation.config["evaluation"]["study"], evaluation.folder.record or {}
        tests = ", ".join(map(data_set_in_words, evaluation.config["evaluation"]["test"]))
        draws = f"{asked['draws']:,} of U[-{asked['spread']:g}, {asked['spread']:g}], {asked['noise']}"
        return [
            Choice(
                "objects",
                f"{tests}, {record.get('metrics', {}).get('n')} objects",
                "the paper names none; the shift depends on their shapes",
            ),
            Choice("view", f"crop of {asked['size']} px, margin {asked['relax']} px of the image", "in every profile"),
            Choice(
                "draws", draws, "the error is the sum of the four Euclidean displacements: the paper does not define it"
            ),
        ]


class FocusStudy(Kind):
    """The `study` run of a table: figure, draws and metrics, by the values of `evaluation.study`."""

    alone = True

    def identity(self, node: Node) -> Tree:
        """The study's values and the seed."""
        evaluation = node.config["evaluation"]
        return {
            "protocol": {
                "name": evaluation["protocol"],
                "behaviour": protocol(evaluation["protocol"]).behaviour,
                "study": evaluation["study"],
            },
            "seed": node.config["data"]["init_args"]["seed"],
        }

    def reads(self, config: Tree) -> list[Any]:
        """The objects whose points move."""
        return list(config["evaluation"]["test"])

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind."""
        data, evaluation = node.config["data"]["init_args"], node.config["evaluation"]
        asked = dict(evaluation["study"])
        recipe = SampleRecipe(size=asked.pop("size"), relax=asked.pop("relax"))
        index = open_objects(evaluation["test"], data["root"], data["seed"])
        metrics = study(index, recipe, **asked, seed=data["seed"], folder=folder.path / "pictures")
        shown = f"mean error {metrics['mean_error']:.1f}, mean shift {metrics['mean_shift']:.1f} px"
        print(f"  {title}: {shown}", flush=True)
        return Made(metrics, facts={"study": evaluation["study"], "scoring": {"protocol": evaluation["protocol"]}})
