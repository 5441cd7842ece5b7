"""The quality report of a label run: quality.json, quality.md, sheets of the worst and best labels, and sentences."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.index import ObjectIndex
from experiments.console import DASH
from experiments.evaluation.walk_pictures import ENDING, IN_WORDS
from experiments.labelling.quality import GROUPS, SHARE, Figures, Quality, size_of
from experiments.labelling.rows import LabelRow
from experiments.pictures import RGB, contact_sheet, overlay, save_picture
from experiments.runs.files import write_atomically

PAGE, FIGURES = "quality.md", "quality.json"
ENOUGH = 0.9  # of the boxes, that should have a mask of the run's own
MARGIN = 0.5  # around an object in a picture, of its box's longer side
HEADER = ("objects", "number", "labels per box", "empty", "filled", "mIoU of objects", "mIoU of classes", "classes")


def write_quality(folder: Path, quality: Quality, index: ObjectIndex, about: dict[str, Any]) -> None:
    """Write the report into a run's folder.

    `about`: what labels.json says of its run, and `crowds`, how many it has copied.
    """
    figures = quality.figures
    compared = figures["all"]["compared"]
    content = {**about, "true_masks": compared, "parts_unknown": quality.unknown, "groups": figures}
    sheets = _write_sheets(folder, quality, index)
    write_atomically(folder / FIGURES, json.dumps(content, indent=1) + "\n")
    write_atomically(folder / PAGE, _page(content, quality, index, sheets))


def in_one_line(figures: dict[str, Figures]) -> str:
    """What the console says of the report."""
    whole = figures["all"]
    words = [f"{_percent(whole['labels_per_box'])} % of {_count(whole['objects'], 'box', 'boxes')} labelled"]
    if not whole["compared"]:
        return f"{words[0]}; no true masks to compare with"
    words.append(f"mIoU of objects {_percent(whole['miou_instance'])}, of classes {_percent(whole['miou_class'])}")
    by_group = [
        f"{name} {_percent(figures[name]['miou_instance'])} ({figures[name]['objects']:,})"
        for name in GROUPS[1:]
        if figures[name]["compared"]
    ]
    return "; ".join([*words, ", ".join(by_group)])


def warn(figures: dict[str, Figures], threshold: float) -> None:
    """Say on the error stream when objects have no label, or too few a mask that is found, and what to do."""
    whole = figures["all"]
    objects, empty = whole["objects"], whole["objects"] - whole["labels"]
    filled = round((whole["filled"] or 0) * objects)
    own = objects - empty - filled
    advice = f"lower the threshold (evaluation.threshold, --threshold; now {threshold:g})"
    if empty:
        lost = _count(empty, "object has", "objects have")
        print(
            f"warning: {lost} no label, {_percent(empty / objects)} % of {objects:,}; a training on these labels never "
            f"sees them: {advice}, or let --empty box (evaluation.empty) fill what is empty",
            file=sys.stderr,
        )
    if filled and own < ENOUGH * objects:
        print(
            f"warning: only {own:,} of {_count(objects, 'box', 'boxes')}, {_percent(own / objects)} %, have a mask "
            f"that the network found ({100 * ENOUGH:.0f} % should): {advice}, or train it longer first",
            file=sys.stderr,
        )


def _page(content: dict[str, Any], quality: Quality, index: ObjectIndex, sheets: Sequence[str]) -> str:
    figures: dict[str, Figures] = content["groups"]
    paragraphs = [
        f"# Quality of the labels of run {content['run']}",
        f"{_count(figures['all']['objects'], 'object', 'objects')} of {index.dataset}, method {content['method']}, "
        f"threshold {content['threshold']:g}; an object without a mask gets: {content['empty']}. "
        f"Crowds copied unchanged: {content['crowds']:,}.",
        _table(figures),
        "Shares and IoUs in %. Small, medium and large by the area of the box: below 32², below 96² pixels, the rest. "
        f"Separated: of the true mask at least 2 parts (8-connected) have {100 * SHARE:.0f} % of its area each; this "
        "stands in for Separated COCO's published list. mIoU of objects is the mean over objects, an empty "
        "label counting as 0; of classes, MAL's, the mean over the means of the classes that occur.",
    ]
    if not content["true_masks"]:
        paragraphs.append("The objects have no true masks: only what the labels cover is known.")
    elif content["parts_unknown"]:
        paragraphs.append(
            f"The parts of {content['parts_unknown']:,} objects are unknown, which an earlier version labelled; they "
            "are not among the separated ones."
        )
    paragraphs += [f"![{Path(sheet).stem} labels]({sheet})" for sheet in sheets]
    paragraphs += _walks(quality, index)
    return "\n\n".join(paragraphs) + "\n"


def _walks(quality: Quality, index: ObjectIndex) -> list[str]:
    """The pictures of the walk on the objects whose rows were kept, each below a line on its object."""
    rows = {position: row for position, row in sorted(quality.rows.items()) if row}
    if not rows:
        return []
    paragraphs = [
        "## Retrieved points",
        f"Of {_count(len(rows), 'object', 'objects')}, from left to right: {IN_WORDS}.",
    ]
    for position, row in rows.items():
        parts = f", {_count(row['parts'], 'part', 'parts')}" if row["parts"] else ""
        fits = "no label" if row["segmentation"] is None else "labelled"
        fits = fits if row["iou"] is None or row["segmentation"] is None else f"IoU {100 * row['iou']:.1f}"
        name = f"Object {index.native_id[position]}: {size_of(quality.areas[position])}{parts}, {fits}"
        paragraphs.append(f"{name}\n\n![{name}](pictures/{position:07d}{ENDING})")
    return paragraphs


def _table(figures: dict[str, Figures]) -> str:
    lines = [HEADER, ("---", *("---:" for _ in HEADER[1:]))]
    for name in GROUPS:
        group = figures[name]
        shares = (_percent(group[key]) for key in ("labels_per_box", "empty", "filled", "miou_instance", "miou_class"))
        lines.append((name, f"{group['objects']:,}", *shares, f"{group['classes']:,}"))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _write_sheets(folder: Path, quality: Quality, index: ObjectIndex) -> list[str]:
    """The labels that fit worst and best, decoded again; their places below the folder."""
    written = []
    for name, rows in zip(("worst", "best"), quality.shown):
        if rows:
            captions = [f"IoU {100 * row['iou']:.1f}, object {index.native_id[row['position']]}" for row in rows]
            sheet = contact_sheet([_picture(index, row) for row in rows], captions, columns=3)
            place = f"pictures/{name}.png"
            save_picture(sheet, folder / place)
            written.append(place)
    return written


def _picture(index: ObjectIndex, row: LabelRow) -> RGB:
    """An object with its label, tinted, and the outline of its true mask, and some of the image around both."""
    position = row["position"]
    label, truth = coco_mask.decode(row["segmentation"]), index.read_mask(position).mask
    window = _around(label | truth)
    return overlay(np.ascontiguousarray(index.read_image(position)[window]), label[window], truth=truth[window])


def _around(mask: NDArray[np.uint8]) -> tuple[slice, slice]:
    (top, bottom), (left, right) = ((places[0], places[-1]) for places in (np.flatnonzero(mask.any(k)) for k in (1, 0)))
    margin = round(MARGIN * max(bottom - top + 1, right - left + 1)) + 8
    return slice(max(0, top - margin), bottom + margin + 1), slice(max(0, left - margin), right + margin + 1)


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
