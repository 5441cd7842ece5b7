"""What the rows of a click benchmark add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluation.rows import read_rows
from experiments.evaluation.settings import Clicking
from lightning_modules.metrics.clicks import clicks_for_mean, failures, noc, sweep

CHUNK = 1024  # rows in memory at a time


def summarise_clicks(path: Path, clicks: Clicking) -> dict[str, Any]:
    """The mean curve, and per target what click_metrics says of it and of the objects' curves."""
    most, targets, swept = clicks.most, clicks.targets, clicks.sweep
    sums: dict[str, float] = {}
    count, first = 0, most

    def add(name: str, values: Iterable[float]) -> None:
        for value in values:
            sums[name] = sums.get(name, 0.0) + float(value)

    rows = read_rows(path)
    while some := list(islice(rows, CHUNK)):
        count, first = count + len(some), min(first, *(int(row["first"]) for row in some))
        curves = np.array([[float(row[f"iou_{t}"]) for t in range(1, most + 1)] for row in some])
        for t in range(1, most + 1):
            add(f"iou_{t}", curves[:, t - 1])
        for name in ("iou_0", "seconds_network", "seconds_other"):
            add(name, (float(row[name]) for row in some if name in row))
        for target in targets:
            add(f"noc@{target:g}", noc(curves, target, most))
            add(f"failed@{target:g}", failures(curves, target, most))
        for target in swept:
            used, achieved = sweep(curves, target, most)
            add(f"sweep_clicks@{target:g}", used)
            add(f"sweep_iou@{target:g}", achieved)
    means = {name: total / count for name, total in sums.items()}
    curve = [means[f"iou_{t}"] for t in range(1, most + 1)]
    metrics: dict[str, Any] = {"mean_iou": curve[-1], "n": count}
    metrics |= {"seconds_per_click": means.pop("seconds_network"), "overhead_per_click": means.pop("seconds_other")}
    for target in targets:
        whole, between = clicks_for_mean(curve, target, max(first, 1), means.get("iou_0"))
        means[f"failed@{target:g}"] = round(sums[f"failed@{target:g}"])
        metrics |= {f"wholeset_integer@{target:g}": whole, f"wholeset@{target:g}": between}
    return metrics | means


def describe_clicks(metrics: Mapping[str, Any], clicks: Clicking) -> str:
    """One line for the console."""
    reached = ", ".join(f"NoC@{100 * t:g} {metrics[f'noc@{t:g}']:.2f}" for t in clicks.targets)
    cost = 1000 * (metrics["seconds_per_click"] + metrics["overhead_per_click"])
    last = f"mean IoU {_percent(metrics['mean_iou'])} after {clicks.most} clicks ({clicks.rule} rule)"
    return f"{', '.join(filter(None, [last, reached]))} over {metrics['n']:,} objects, {cost:.0f} ms a click"


def click_table(metrics: Mapping[str, Any], clicks: Clicking) -> str:
    """Some lines for the console: the curve at a few counts, and per target how many clicks and how many failures."""
    shown = [t for t in (0, 1, 3, 5, 10, 20) if f"iou_{t}" in metrics]
    lines = [
        f"{'clicks':>12} " + "".join(f"{t:>8}" for t in shown),
        f"{'mean IoU %':>12} " + "".join(f"{_percent(metrics[f'iou_{t}']):>8}" for t in shown),
        "",
        f"{'target IoU':>12} {'NoC':>8} {'failed':>8} {'whole set':>10}",
    ]
    for target in clicks.targets:
        whole = metrics[f"wholeset@{target:g}"]
        never = f">{clicks.most}" if whole is None else f"{whole:.1f}"
        needed, failed = metrics[f"noc@{target:g}"], metrics[f"failed@{target:g}"]
        lines.append(f"{target:>12.0%} {needed:>8.2f} {failed:>8,} {never:>10}")
    if swept := clicks.sweep:
        lines += ["", f"{'until IoU':>12} {'clicks':>8} {'IoU %':>8}"]
        for target in swept:
            used, achieved = metrics[f"sweep_clicks@{target:g}"], metrics[f"sweep_iou@{target:g}"]
            lines.append(f"{target:>12.0%} {used:>8.2f} {_percent(achieved):>8}")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
