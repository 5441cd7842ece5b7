"""Which objects of which data sets: `pascal/val`, or a name with a smallest area, a set of categories, a limit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.catalog import open_index
from datamodules.index import ObjectIndex, concatenate
from datamodules.keys import rng

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PASCAL_CLASSES_IN_COCO = (
    "person", "bird", "cat", "cow", "dog", "horse", "sheep", "airplane", "bicycle", "boat", "bus", "car",
    "motorcycle", "train", "bottle", "chair", "dining table", "potted plant", "couch", "tv",
)  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """Objects of one data set.

    Args:
        name: of the catalog.
        min_area: smallest area in pixels.
        categories: names, or `pascal` / `not_pascal`: the classes that PASCAL VOC has or has not.
        limit: this many objects, drawn by the data's seed; 0 for all.
        every: every n-th object of the list (1 for all).
    """

    name: str
    min_area: int = 0
    categories: str | Sequence[str] = "all"
    limit: int = 0
    every: int = 1

    @classmethod
    def of(cls, spec: str | Mapping[str, Any]) -> Selection:
        """From a recipe: a name, or a mapping of the arguments. Raises ValueError for unknown keys."""
        if isinstance(spec, str):
            return cls(spec)
        known = [f.name for f in fields(cls)]
        for key in spec:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1) or known
                raise ValueError(f"a data set has no value {key!r}; did you mean {near[0]!r}?")
        return cls(**spec)


def open_objects(
    specs: Sequence[str | Mapping[str, Any]], root: Path | str | None = None, seed: int = 0
) -> ObjectIndex:
    """The selected objects of one or several data sets as one index. Raises ValueError when none is left."""
    parts = []
    for selection in map(Selection.of, [specs] if isinstance(specs, (str, Mapping)) else specs):
        index = _select(open_index(selection.name, root), selection, seed)
        if not len(index):
            raise ValueError(f"{selection} leaves no object")
        parts.append(index)
    return parts[0] if len(parts) == 1 else concatenate(parts, "+".join(part.dataset for part in parts))


def _select(index: ObjectIndex, selection: Selection, seed: int) -> ObjectIndex:
    keep = np.asarray(index.area) >= selection.min_area
    if selection.categories != "all":
        places = [place for place, name in enumerate(index.categories) if _wanted(name, selection.categories)]
        keep &= np.isin(index.category, places)
    if keep.all() and not selection.limit and selection.every == 1:
        return index
    positions = np.flatnonzero(keep)[:: selection.every]
    if selection.limit:
        positions = np.sort(rng(seed, len(positions)).permutation(positions)[: selection.limit])
    return index.select(positions)


def _wanted(name: str, categories: str | Sequence[str]) -> bool:
    in_pascal = name in PASCAL_CLASSES_IN_COCO or name in PASCAL_CLASSES
    if categories == "pascal":
        return in_pascal
    if categories == "not_pascal":
        return not in_pascal
    return name in ([categories] if isinstance(categories, str) else categories)
