"""Pictures for the reports: masks and clicks on an image, sheets of them, threshold and learning curves."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from datamodules.clicks.points import PointKind

Array = NDArray[Any]
Picture = NDArray[np.uint8]  # (H, W, 3), RGB
TINT, TRUTH = (45, 125, 255), (255, 255, 255)
EXTREME = (255, 196, 0)
LINES = ("-", "--", "-.", ":")  # so that a curve which covers another lets it show
COLOURS = {
    PointKind.LEFT: EXTREME, PointKind.TOP: EXTREME, PointKind.RIGHT: EXTREME, PointKind.BOTTOM: EXTREME,
    PointKind.INSIDE: (40, 200, 90), PointKind.POSITIVE: (40, 200, 90),
    PointKind.OUTSIDE: (235, 60, 60), PointKind.NEGATIVE: (235, 60, 60),
}  # fmt: skip


def overlay(
    image: Picture, mask: Array | None = None, points: Array | None = None, kinds: Sequence[int] | None = None,
    truth: Array | None = None, min_side: int = 320,
) -> Picture:  # fmt: skip
    """An image with its mask tinted, the outlines of mask and ground truth, and the clicks; small images are enlarged.

    Args:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W), object where > 0: blue tint and outline.
        points: (K, 2) as (x, y) in pixels of the image.
        kinds: K kinds of `PointKind`: extreme yellow, inside and positive green, outside and negative red, padding not
            drawn; without them, all are extreme points.
        truth: (H, W), ground truth where > 0: white outline with a dark edge.
        min_side: the shorter side becomes at least this, by a whole factor.
    """
    height, width = image.shape[:2]
    factor = max(1, -(-min_side // min(height, width)))
    size = (width * factor, height * factor)
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    line = max(2, round(min(size) / 160))
    if mask is not None:
        inside = _enlarge(mask, size)
        tint = np.array(TINT, np.float32)
        canvas[inside] = (0.55 * canvas[inside] + 0.45 * tint).astype(np.uint8)
        cv2.drawContours(canvas, _outlines(inside), -1, TINT, line, cv2.LINE_AA)
    if truth is not None:
        outlines = _outlines(_enlarge(truth, size))
        cv2.drawContours(canvas, outlines, -1, (20, 20, 20), line + 1, cv2.LINE_AA)
        cv2.drawContours(canvas, outlines, -1, TRUTH, max(1, line // 2), cv2.LINE_AA)
    radius = max(4, round(min(size) / 55))
    for i, (x, y) in enumerate(np.asarray(points if points is not None else [], float).reshape(-1, 2)):
        kind = PointKind(int(kinds[i])) if kinds is not None else PointKind.LEFT
        if kind != PointKind.PADDING and np.isfinite([x, y]).all():
            centre = (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5))
            cv2.circle(canvas, centre, radius + 2, (20, 20, 20), -1, cv2.LINE_AA)
            cv2.circle(canvas, centre, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, centre, radius - 1, COLOURS[kind], -1, cv2.LINE_AA)
    return canvas


def contact_sheet(pictures: Sequence[Picture], captions: Sequence[str], columns: int = 4, tile: int = 300) -> Picture:
    """Pictures in a grid of equal tiles on white, each with its caption below."""
    if not pictures or len(pictures) != len(captions):
        came = f"{len(pictures)} pictures, {len(captions)} captions"
        raise ValueError(f"a contact sheet needs pictures and as many captions, got {came}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    gap, text = 14, 26
    tall = min(tile, max(round(tile * p.shape[0] / p.shape[1]) for p in pictures))
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, rows * (tall + text + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        x, y = gap + i % columns * (tile + gap), gap + i // columns * (tall + text + gap)
        small = Image.fromarray(picture)
        small.thumbnail((tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(small, (x + (tile - small.width) // 2, y + (tall - small.height) // 2))
        while draw.textlength(caption, font) > tile:
            caption = caption[:-2] + "…"
        draw.text((x, y + tall + 4), caption, fill=(60, 66, 80), font=font)
    return np.asarray(sheet)


def save_picture(picture: Picture, path: Path) -> Path:
    """Writes a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


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


def _enlarge(mask: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    plane = (np.asarray(mask) > 0).astype(np.uint8).reshape(np.asarray(mask).shape[-2:])
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) > 0)


def _outlines(mask: NDArray[np.bool_]) -> Sequence[Any]:
    return cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
