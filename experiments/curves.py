"""Curves for reports: IoU by clicks and by threshold, losses by step."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LINES = ("-", "--", "-.", ":")  # so that a curve which covers another lets it show


def threshold_curves(
    curves: Mapping[str, Mapping[float, float]], path: Path, chosen: Mapping[str, float] | None = None
) -> Path:
    """Mean IoU (%) against the threshold, one curve per row; `chosen` marks the threshold a row was scored with."""
    figure, (axes,) = _figure(1)
    for number, (label, curve) in enumerate(curves.items()):
        style = LINES[number % len(LINES)]
        (drawn,) = axes.plot(list(curve), list(curve.values()), style, marker="o", markersize=3.5, label=label)
        if chosen and chosen.get(label) in curve:
            at = chosen[label]
            axes.plot(at, curve[at], "o", markersize=9, markerfacecolor="none", color=drawn.get_color())
    axes.set_xlabel("threshold")
    axes.set_ylabel("mean IoU (%)")
    return _save(figure, [axes], path)


def click_curves(curves: Mapping[str, Mapping[int, tuple[float, float | None]]], path: Path) -> Path:
    """Mean IoU (%) after 1, 2, ... clicks, one curve per name; a band of ± its standard deviation where there is one.

    A curve begins with its first mask: clicks before it, which have an IoU of 0, are not drawn.
    """
    figure, (axes,) = _figure(1, size=(9.6, 4.4))
    for number, (label, curve) in enumerate(curves.items()):
        start = min((t for t, (mean, _) in curve.items() if mean > 0), default=min(curve))
        points = [(t, mean, std or 0.0) for t, (mean, std) in curve.items() if t >= start]
        clicks, means, stds = (np.array(column) for column in zip(*points))
        (drawn,) = axes.plot(clicks, means, LINES[number % len(LINES)], marker="o", markersize=3, label=label)
        if stds.any():
            axes.fill_between(clicks, means - stds, means + stds, color=drawn.get_color(), alpha=0.18, linewidth=0)
    last = max(t for curve in curves.values() for t in curve)
    if last <= 30:
        axes.set_xticks(range(min(t for curve in curves.values() for t in curve), last + 1))
    axes.set_xlabel("clicks")
    axes.set_ylabel("mean IoU (%)")
    return _save(figure, [axes], path)


def click_sweep(sweeps: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> Path:
    """Mean IoU (%) achieved against mean clicks used, one curve of such points per name, a point per target IoU."""
    figure, (axes,) = _figure(1, size=(9.6, 4.4))
    for number, (label, points) in enumerate(sweeps.items()):
        axes.plot(*zip(*points), LINES[number % len(LINES)], marker="o", markersize=3.5, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("mean clicks used")
    axes.set_ylabel("mean IoU achieved (%)")
    return _save(figure, [axes], path)


def learning_curves(logs: Mapping[str, Path], path: Path, metrics: Sequence[str] = ()) -> Path:
    """Curves from the CSV logs of trainings, by label: one panel per metric (default: all of `train/` and `val/`)."""
    tables = {label: list(csv.DictReader(log.open())) for label, log in logs.items()}
    columns = dict.fromkeys(name for rows in tables.values() for row in rows for name in row)
    known = [name for name in columns if str(name).startswith(("train/", "val/"))]
    names = [name for name in (metrics or known) if name in known][:4]
    if not names:
        where = ", ".join(map(str, logs.values()))
        raise ValueError(f"no train/ or val/ columns in {where}; expected a CSVLogger's metrics.csv")
    figure, panels = _figure(len(names))
    for name, axes in zip(names, panels):
        for number, (label, rows) in enumerate(tables.items()):
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(*zip(*points), LINES[number % len(LINES)], label=label, linewidth=1.6)
        axes.set_xlabel("step")
        axes.set_title(name, loc="left", fontsize=10)
    return _save(figure, panels, path)


def forest(lines: Mapping[str, tuple[float, float, float, str]], path: Path, axis: str) -> Path:
    """A line for each (value, low, high, verdict): the value, its interval, and 0 for what makes no difference."""
    figure, (axes,) = _figure(1, size=(9.6, 1.2 + 0.26 * len(lines)))
    colours = {"holds": "#1a7f37", "does not hold": "#c62828"}
    for place, (value, low, high, verdict) in enumerate(lines.values()):
        colour = colours.get(verdict, "#6b7280")
        label = verdict if verdict not in axes.get_legend_handles_labels()[1] else None
        axes.plot([low, high], [-place, -place], color=colour, linewidth=2)
        axes.plot(value, -place, "o", color=colour, markersize=5, label=label)
    axes.axvline(0, color="#6b7280", linewidth=1)
    axes.set_yticks([-place for place in range(len(lines))], [textwrap.shorten(name, 60) for name in lines], fontsize=8)
    axes.set_xlabel(axis)
    return _save(figure, [axes], path)


def _figure(panels: int, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size or (max(7.2, 4.4 * panels), 3.6), dpi=150, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, panels)))


def _save(figure: Figure, panels: Sequence[Axes], path: Path) -> Path:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ec")
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    labels = [textwrap.fill(str(label), 34) for label in labels]  # a long name must not push the axes aside
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
