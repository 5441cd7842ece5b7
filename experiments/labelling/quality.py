"""What the labels of a run are worth, counted while their rows go by: how many boxes have one, and how well they fit.

Figures are of all objects, of small, medium and large ones by the area of their boxes, as MAL has it, and of separated
ones, for which EXITS (Table 4) takes Separated COCO: objects that something in front cuts into pieces. Both mIoUs are
there, since the paper does not say which is its own: the mean over objects, and MAL's, the mean over the means of the
classes that occur.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.index import MaskKind, ObjectIndex
from datamodules.masks import pieces
from experiments.labelling.rows import LabelRow

SMALL, MEDIUM = 32**2, 96**2  # pixels: areas of boxes below are small, or medium
SHARE = 0.05  # of a mask's area, which a part must have to count
GROUPS = ("all", "small", "medium", "large", "separated")
SHOWN = 6  # objects with the worst and with the best labels
EACH, SEARCHED = 3, 400  # of the walk's pictures: objects of a kind; masks read in search of several parts
Figures = dict[str, Any]


class Group:
    """Objects that are reported together, as sums: their number does not matter to memory."""

    def __init__(self, classes: int) -> None:
        self.objects, self.empty, self.filled = 0, 0, 0
        self.ious, self.compared = np.zeros(classes), np.zeros(classes, np.int64)  # by class

    def add(self, row: LabelRow, place: int) -> None:
        """Count an object of the class at this place."""
        self.objects += 1
        self.empty += row["segmentation"] is None
        self.filled += row.get("filled", False)
        if row["iou"] is not None:
            self.ious[place] += row["iou"]
            self.compared[place] += 1

    @property
    def figures(self) -> Figures:
        """Numbers of objects, and shares and mIoUs in 0..1, None where there is nothing to divide by."""
        occur, objects = self.compared > 0, self.objects
        labels, compared = objects - self.empty, int(self.compared.sum())
        return {
            "objects": objects,
            "labels": labels,
            "labels_per_box": labels / objects if objects else None,
            "empty": self.empty / objects if objects else None,
            "filled": self.filled / objects if objects else None,
            "compared": compared,
            "classes": int(np.count_nonzero(occur)),
            "miou_instance": float(self.ious.sum() / compared) if compared else None,
            "miou_class": float((self.ious[occur] / self.compared[occur]).mean()) if compared else None,
        }


class Quality:
    """Counts labels by group, and keeps the rows of those that fit worst and best.

    Args:
        areas: (n,) pixels of the objects' boxes, by position.
        category: (n,) places of their classes, -1 without: such objects are one class more.
        classes: how many classes the data set has.
        kept: positions of objects whose rows are wanted afterwards, in `rows`.
    """

    def __init__(self, areas: NDArray, category: NDArray, classes: int, kept: Collection[int] = ()) -> None:
        self.areas, self.category = areas, category
        self.groups = {name: Group(classes + 1) for name in GROUPS}
        self.unknown = 0  # objects with true masks of which nobody counted the parts
        self.rows: dict[int, LabelRow] = {position: {} for position in kept}
        self._worst: list[tuple[float, int, LabelRow]] = []
        self._best: list[tuple[float, int, LabelRow]] = []

    def watch(self, rows: Iterable[LabelRow]) -> Iterator[LabelRow]:
        """The same rows, counted."""
        for row in rows:
            place = int(self.category[row["position"]])
            if row["position"] in self.rows:
                self.rows[row["position"]] = row
            for name in self._groups_of(row):
                self.groups[name].add(row, place)  # of -1 the last
            if row["iou"] is not None and row["segmentation"] is not None:
                _keep(self._worst, -row["iou"], row)
                _keep(self._best, row["iou"], row)
            yield row

    def _groups_of(self, row: LabelRow) -> Iterator[str]:
        yield "all"
        yield size_of(float(self.areas[row["position"]]))
        parts = row.get("parts")  # rows of earlier versions do not say it
        if parts is not None and parts >= 2:
            yield "separated"
        self.unknown += parts is None and row["iou"] is not None

    @property
    def figures(self) -> dict[str, Figures]:
        """Those of each group."""
        return {name: group.figures for name, group in self.groups.items()}

    @property
    def shown(self) -> tuple[list[LabelRow], list[LabelRow]]:
        """At most six rows of labels each: the worst, worst one first, and of the others the best, best one first."""
        worst = [row for _, _, row in sorted(self._worst, reverse=True)]
        taken = {row["position"] for row in worst}
        return worst, [row for _, _, row in sorted(self._best, reverse=True) if row["position"] not in taken]


def size_of(area: float) -> str:
    """The group of objects whose boxes have this area in pixels."""
    return "small" if area < SMALL else "medium" if area < MEDIUM else "large"


def spread(index: ObjectIndex) -> list[int]:
    """At most twelve objects of a data set, by position: three each of several parts, small, medium and large.

    Each kind evenly over the data; where one has fewer, others take their place. Those of several parts are looked for
    among 400 objects, since their masks have to be read.
    """
    everyone = np.arange(len(index))
    sizes = np.array([size_of(area) for area in (index.box[:, 2:] - index.box[:, :2] + 1).prod(axis=1)])
    looked_at = _evenly(everyone[np.asarray(index.mask_kind) != MaskKind.BOX], SEARCHED)
    several = [int(i) for i in looked_at if pieces(index.read_mask(int(i)).mask, SHARE) >= 2]
    chosen = np.zeros(0, np.int64)
    for kind in (np.array(several, np.int64), *(everyone[sizes == name] for name in ("small", "medium", "large"))):
        chosen = np.concatenate([chosen, _evenly(np.setdiff1d(kind, chosen), EACH)])
    rest = _evenly(np.setdiff1d(everyone, chosen), 4 * EACH - len(chosen))
    return sorted(int(i) for i in (*chosen, *rest))


def _evenly(positions: NDArray, count: int) -> NDArray[np.int64]:
    """So many of these positions, the first and the last among them."""
    places = np.linspace(0, len(positions) - 1, min(count, len(positions))).astype(np.int64)
    return np.asarray(positions[places], np.int64)


def _keep(kept: list[tuple[float, int, LabelRow]], value: float, row: LabelRow) -> None:
    """Keep the rows of the highest values, of equal ones those that come first."""
    entry = value, -row["position"], row
    if len(kept) < SHOWN:
        heapq.heappush(kept, entry)
    else:
        heapq.heappushpop(kept, entry)
