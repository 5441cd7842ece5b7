"""What a comparison of runs says: numbers from the rows of their click benchmarks, as grids of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.console import DASH, Grid
from experiments.evaluation.rows import read_rows
from experiments.runs.node import Node
from lightning_modules.metrics.clicks import failures, noc

TARGETS = (0.8, 0.85, 0.9)

RESAMPLES = 2000

BINS = ("small", "medium", "large")

Interval = tuple[float, float]

Seconds = tuple[float, float | None]  # of the first look of the network, and of a further one


@dataclass(frozen=True, eq=False)
class Clicked:
    """A run's click benchmark on one data set, a line per object in the order of the data set.

    Args:
        name: what the report calls the run. data: the data set. evaluation: the run that holds the rows.
        object_id, area, first_clicks: (N,); the latter counts the clicks of the first mask, at least 1.
        curve: (N, T) IoU after 1, 2, ..., T clicks.
        clicks: (N,) as the rows hold them, `x,y,+ x,y,- ...`.
        titles: (N,) an object in words.
    """

    name: str
    data: str
    evaluation: str
    object_id: NDArray[np.int64]
    area: NDArray[np.int64]
    first_clicks: NDArray[np.int64]
    curve: NDArray[np.float64]
    clicks: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str, data: str, evaluation: str, rows: Path) -> Clicked:
        """From an evaluation's rows.csv."""
        found = list(read_rows(rows))
        most = sum(key.startswith("iou_") and key != "iou_0" for key in found[0])

        def whole(column: str) -> NDArray[np.int64]:
            return np.array([int(row[column]) for row in found], np.int64)

        return cls(
            name=name,
            data=data,
            evaluation=evaluation,
            object_id=whole("object_id"),
            area=whole("area"),
            first_clicks=np.maximum(whole("first"), 1),
            curve=np.array([[float(row[f"iou_{t}"]) for t in range(1, most + 1)] for row in found]),
            clicks=tuple(row["clicks"] for row in found),
            titles=tuple(" ".join(filter(None, (row["image"], row["category"], row["native_id"]))) for row in found),
        )

    @property
    def most(self) -> int:
        """How many clicks every object got."""
        return self.curve.shape[1]

    def after(self, clicks: int) -> NDArray[np.float64]:
        """(N,) IoU in per cent after so many clicks; 0 where there is no mask yet."""
        return 100 * self.curve[:, clicks - 1]

    def at_first(self) -> NDArray[np.float64]:
        """(N,) IoU in per cent of the first mask."""
        return 100 * np.take_along_axis(self.curve, self.first_clicks[:, None] - 1, 1)[:, 0]

    def means(self) -> dict[int, float]:
        """Mean IoU in per cent by number of clicks, from the first mask on."""
        return {t: float(self.after(t).mean()) for t in range(int(self.first_clicks.min()), self.most + 1)}


@dataclass(frozen=True)
class Run:
    """A training that takes part, by the name that the report calls it, and its evaluations by data set."""

    name: str
    training: Node
    evaluations: Mapping[str, Node]

    def clicked(self) -> list[Clicked]:
        """What its evaluations measured."""
        rows = {data: node.folder.path / "rows.csv" for data, node in self.evaluations.items()}
        return [Clicked.read(self.name, data, self.evaluations[data].hash, path) for data, path in rows.items()]


@dataclass(frozen=True)
class Paired:
    """How one run differs from another on the same objects: IoU in points, and shares of the objects in per cent."""

    difference: float
    interval: Interval
    better: float
    worse: float


def paired(first: NDArray, second: NDArray, seed: int = 0) -> Paired:
    """The second run's IoU (N,) minus the first's, object by object.

    The interval is the bootstrap's: 2.5 and 97.5 per cent of the means of `RESAMPLES` samples of N objects, drawn with
    replacement from the seed.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    draw, number = np.random.default_rng(seed), len(differences)
    means = [differences[draw.integers(number, size=number)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    shares = [100 * float(np.mean(side)) for side in (differences > 0, differences < 0)]
    return Paired(float(differences.mean()), (float(low), float(high)), *shares)


def thirds(area: NDArray) -> list[NDArray[np.int64]]:
    """Positions of the smaller, the middle and the larger third of objects (N,); equal areas in their given order."""
    return np.array_split(np.argsort(np.asarray(area), kind="stable"), len(BINS))


def common_clicks(found: Sequence[Clicked]) -> int:
    """The fewest clicks after which every run has a mask of every object: where they are compared click for click."""
    return max(int(clicked.first_clicks.max()) for clicked in found)


def spread(found: Sequence[Clicked], count: int, clicks: int) -> list[int]:
    """Positions of `count` objects of a data set, from the worst to the best mean IoU over its runs after `clicks`.

    At equal distances in that order, the ends included; of equal objects the first in the data set comes first.
    """
    order = np.argsort(np.mean([clicked.after(clicks) for clicked in found], axis=0), kind="stable")
    places = np.round(np.linspace(0, len(order) - 1, min(count, len(order)))).astype(np.int64)
    return [int(order[place]) for place in places]


def by_data(found: Sequence[Clicked]) -> dict[str, list[Clicked]]:
    """The runs of each data set, in their order."""
    names = dict.fromkeys(clicked.data for clicked in found)
    return {name: [clicked for clicked in found if clicked.data == name] for name in names}


def measured_grids(found: Sequence[Clicked]) -> list[Grid]:
    """All that follows from the rows alone."""
    common = common_clicks(found)
    return [_summary(found), _curves(found), *_differences(found, common), _sizes(found, common)]


def _summary(found: Sequence[Clicked]) -> Grid:
    targets = [f"{kind}@{100 * target:g}" for target in TARGETS for kind in ("NoC", "Failed")]
    lines = []
    for clicked in found:
        reached = [
            text
            for target in TARGETS
            for text in (
                f"{noc(clicked.curve, target, clicked.most).mean():.2f}",
                f"{int(failures(clicked.curve, target, clicked.most).sum()):,}",
            )
        ]
        low, high = int(clicked.first_clicks.min()), int(clicked.first_clicks.max())
        first = f"{low}" if low == high else f"{low} to {high}"
        shown = (f"{len(clicked.curve):,}", first, f"{clicked.at_first().mean():.2f}", *reached)
        lines.append((clicked.name, clicked.data, *shown))
    most = found[0].most
    text = (
        "IoU in per cent, plain means over objects; clicks for the first mask count. NoC: clicks until an object's IoU "
        f"is at least the target, {most} for one that never gets there, which is counted as failed."
    )
    names = ("Objects", "Clicks of the first mask", "IoU of the first mask", *targets)
    return Grid("Runs and data sets", ("Run", "Data", *names), tuple(lines), text, names)


def _curves(found: Sequence[Clicked]) -> Grid:
    counts = range(1, found[0].most + 1)
    lines = []
    for clicked in found:
        means = clicked.means()
        lines.append((clicked.name, clicked.data, *(f"{means[t]:.2f}" if t in means else DASH for t in counts)))
    names = tuple(map(str, counts))
    text = "Mean IoU (%) over all objects after so many clicks; a dash where the method has no mask yet."
    return Grid("IoU after k clicks", ("Run", "Data", *names), tuple(lines), text, names)


def _differences(found: Sequence[Clicked], common: int) -> list[Grid]:
    lines = []
    for data, (first, *others) in by_data(found).items():
        for other in others:
            pairs = {"the first mask": (first.at_first(), other.at_first())}
            pairs |= {_clicks(t): (first.after(t), other.after(t)) for t in (common, first.most)}
            for after, (one, two) in pairs.items():
                pair = paired(one, two)
                low, high = pair.interval
                shares = (f"{pair.better:.1f} %", f"{pair.worse:.1f} %")
                lines.append(
                    (other.name, data, after, f"{pair.difference:+.2f}", f"{low:+.2f} to {high:+.2f}", *shares)
                )
    if not lines:
        return []
    names = ("Difference", "95 % interval", "Better", "Worse")
    text = (
        f"IoU minus that of {found[0].name}, object by object, in points: mean, bootstrap interval over objects "
        f"({RESAMPLES:,} resamples), and on how many objects it is higher or lower. The first masks may have cost "
        "different numbers of clicks."
    )
    return [
        Grid(f"Object by object, against {found[0].name}", ("Run", "Data", "After", *names), tuple(lines), text, names)
    ]


def _sizes(found: Sequence[Clicked], common: int) -> Grid:
    names = tuple(dict.fromkeys(clicked.name for clicked in found))
    lines = []
    for data, runs in by_data(found).items():
        for label, part in zip(BINS, thirds(runs[0].area)):
            if len(part):
                areas = runs[0].area[part]
                about = (f"{areas.min():,} to {areas.max():,}", f"{len(part):,}")
                means = (f"{clicked.after(common)[part].mean():.2f}" for clicked in runs)
                lines.append((data, label, *about, *means))
    text = f"Mean IoU (%) after {_clicks(common)}, by thirds of a data set's objects in the order of their area."
    numbers = ("Area (px)", "Objects", *names)
    return Grid("IoU by object size", ("Data", "Third", *numbers), tuple(lines), text, numbers)


def times_grid(seconds: Mapping[str, Seconds]) -> Grid:
    """What a look of the network costs: `seconds` of the first and of a further one by run, None without a further."""
    lines = []
    for name, (first, further) in seconds.items():
        more = (DASH, DASH) if further is None else (f"{1000 * further:.1f}", f"{further / first:.2f}")
        lines.append((name, f"{1000 * first:.1f}", *more))
    names = ("First mask (ms)", "Further click (ms)", "Further / first")
    text = (
        "Medians over the pictured objects, clicked again one at a time when this report was made: from the crop and "
        "first points to the logits, and the same after one more click. The only numbers here that no row holds."
    )
    return Grid("Seconds per click", ("Run", *names), tuple(lines), text, names)


def _clicks(count: int) -> str:
    return f"{count} click{'s' * (count != 1)}"
