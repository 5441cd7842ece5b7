"""What a report shows of the click benchmark: curves, targets, stops and times, over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.console import DASH, Grid, Spread, spread_text
from experiments.curves import click_curves, click_sweep
from experiments.pictures import Picture

SHOWN_CLICKS = (0, 1, 2, 3, 5, 10, 15, 20)


@dataclass(frozen=True)
class ClickRuns:
    """The evaluations of one model on one test set: the metrics of each, one evaluation per seed."""

    metrics: tuple[Mapping[str, Any], ...]

    @property
    def curve(self) -> dict[int, Spread]:
        """Mean IoU (%) by number of clicks; 0 is the start mask."""
        names = {int(name[4:]): name for name in self.metrics[0] if name.startswith("iou_") and name[4:].isdigit()}
        return {t: self.spread(name, 100) for t, name in sorted(names.items())}

    @property
    def most(self) -> int:
        """How many clicks every object got."""
        return max(self.curve)

    @property
    def targets(self) -> list[float]:
        """The IoUs (0..1) to reach."""
        return self._after("noc@", "failed@", "wholeset@", "wholeset_integer@")

    @property
    def sweep(self) -> dict[float, tuple[Spread, Spread]]:
        """Per target IoU (0..1) the clicks used and the IoU (%) achieved, when every object stops at the target."""
        targets = self._after("sweep_clicks@")
        return {t: (self.spread(f"sweep_clicks@{t:g}"), self.spread(f"sweep_iou@{t:g}", 100)) for t in targets}

    def values(self, name: str) -> list[float | None]:
        """One entry of the metrics per seed, None where a target was never reached; empty where nobody measured it."""
        return [metrics[name] for metrics in self.metrics if name in metrics]

    def spread(self, name: str, scale: float = 1) -> Spread:
        """Mean and standard deviation over seeds of an entry that every seed has."""
        values = [scale * metrics[name] for metrics in self.metrics]
        return fmean(values), stdev(values) if len(values) > 1 else None

    def _after(self, *kinds: str) -> list[float]:
        return sorted({float(name.removeprefix(k)) for name in self.metrics[0] for k in kinds if name.startswith(k)})


def click_runs(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, ClickRuns]:
    """The evaluations of each model."""
    return {name: ClickRuns(tuple(metrics)) for name, metrics in measured.items()}


def click_grids(found: Mapping[str, ClickRuns]) -> list[Grid]:
    """The curve at some clicks, the targets, the points of a sweep, the time."""
    return [_curves(found), _targets(found), _stops(found), _times(found)]


def click_pictures(found: Mapping[str, ClickRuns], folder: Path) -> Iterator[Picture]:
    """IoU by clicks, and by clicks used where users stop at a target."""
    path = click_curves({name: runs.curve for name, runs in found.items()}, folder / "iou-by-clicks.png")
    several = any(len(runs.metrics) > 1 for runs in found.values())
    bands = "; bands: ± one standard deviation over seeds" if several else ""
    yield Picture(f"Mean IoU over objects by number of clicks{bands}.", path)
    stops = {k: [(c, iou) for (c, _), (iou, _) in runs.sweep.values()] for k, runs in found.items() if runs.sweep}
    if stops:
        path = click_sweep(stops, folder / "iou-by-clicks-used.png")
        yield Picture("Mean IoU achieved against mean clicks used, a point per target IoU.", path)


def click_numbers(found: Mapping[str, ClickRuns]) -> dict[str, Any]:
    """By name and clicks, mean IoU (%) and its deviation over seeds."""
    return {name: {str(t): list(point) for t, point in runs.curve.items()} for name, runs in found.items()}


def _curves(found: Mapping[str, ClickRuns]) -> Grid:
    lasts = {runs.most for runs in found.values()}
    counts = sorted(lasts | {t for t in SHOWN_CLICKS if any(t in runs.curve for runs in found.values())})
    names = tuple(map(str, counts))
    lines = tuple(
        (k, *(spread_text(c.get(t)) for t in counts)) for k, c in ((k, runs.curve) for k, runs in found.items())
    )
    text = (
        "Mean IoU (%) over all objects after so many clicks, mean ± standard deviation over seeds. Every object gets "
        "all clicks; before a method's first mask its IoU is 0."
    )
    text += " After 0 clicks there is the start mask." if 0 in counts else ""
    return Grid("IoU after k clicks", ("Row", *names), lines, text, names)


def _targets(found: Mapping[str, ClickRuns]) -> Grid:
    """Per row and target the number of clicks: NoC, who never got there, the whole set's."""
    lines = []
    for label, runs in found.items():
        for target in runs.targets:
            noc, never, integer, between = (
                runs.values(f"{kind}@{target:g}") for kind in ("noc", "failed", "wholeset_integer", "wholeset")
            )
            failed = f"{_number(never, 0)} of {runs.metrics[0]['n']:,}" if never else DASH
            whole = (_number(integer, 0, runs.most), _number(between, 2, runs.most))
            lines.append((label, f"{100 * target:g} %", _number(noc, 2), failed, *whole))
    names = ("NoC", "Never reached", "Whole set", "Whole set, interpolated")
    most = " or ".join(map(str, sorted({runs.most for runs in found.values()})))
    text = (
        "NoC: clicks until an object's IoU is at least the target, mean over objects; an object that never gets there "
        f"counts {most} and is counted as never reached. Whole set: clicks until the mean IoU over all objects is at "
        "least the target; papers publish fractions without a formula, ours is linear interpolation."
    )
    return Grid("Clicks to reach an IoU", ("Row", "Target", *names), tuple(lines), text, ("Target", *names))


def _stops(found: Mapping[str, ClickRuns]) -> Grid:
    lines = tuple(
        (label, f"{100 * target:g} %", spread_text(clicks), spread_text(iou))
        for label, runs in found.items()
        for target, (clicks, iou) in runs.sweep.items()
    )
    text = "Every object stops at its first IoU that is at least the target, or at its last click; means over objects."
    names = ("Clicks used", "IoU achieved (%)")
    return Grid("IoU achieved by clicks used", ("Row", "Target", *names), lines, text, ("Target", *names))


def _times(found: Mapping[str, ClickRuns]) -> Grid:
    both = ("seconds_per_click", "overhead_per_click")
    timed = {label: [runs.values(name) for name in both] for label, runs in found.items()}
    lines = tuple((label, *(_number(each, 4) for each in times)) for label, times in timed.items() if all(times))
    names = ("Network", "Everything else")
    text = "Mean over objects: the forward pass; the rest, that is simulating the click, pasting and scoring."
    return Grid("Seconds per click", ("Row", *names), lines, text, names)


def _number(values: Sequence[float | None], digits: int, most: int = 0) -> str:
    """Values of several seeds; '>20' where one seed never got there, a dash where nobody measured."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f">{most}"
    if not known:
        return DASH
    whole = digits == 0 and len(set(known)) > 1  # the mean of whole numbers is none
    return spread_text((fmean(known), stdev(known) if len(known) > 1 else None), 1 if whole else digits)
