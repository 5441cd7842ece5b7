"""Which objects of which data sets: `pascal/val`, or a name with a smallest area, categories, a share, a list, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.catalog import find, open_index
from datamodules.index import ObjectIndex, concatenate, object_ids
from datamodules.keys import rng
from datamodules.masks import pieces
from datamodules.names import hint
from datamodules.pseudo_labels import labelled
from datamodules.ranges import COUNT, PROBABILITY, WHOLE, Range
from datamodules.readers.point_files import called, recorded_objects
from datamodules.sets.pascal import CATEGORIES

OBJECT_ID = Range(0, 2**63 - 1, whole=True)
VALUES = {
    "min_area": Range(0),
    "limit": WHOLE,
    "every": COUNT,
    "min_box_area": Range(0),
    "min_side": Range(0),
    "pieces": WHOLE,
    "piece_share": PROBABILITY,
}
PASCAL_CLASSES_IN_COCO = (
    "person",
    "bird",
    "cat",
    "cow",
    "dog",
    "horse",
    "sheep",
    "airplane",
    "bicycle",
    "boat",
    "bus",
    "car",
    "motorcycle",
    "train",
    "bottle",
    "chair",
    "dining table",
    "potted plant",
    "couch",
    "tv",
)


@dataclass(frozen=True)
class Selection:
    """Objects of one data set.

    Args:
        name: of the catalog.
        min_area: smallest area in pixels.
        categories: names, or `pascal` / `not_pascal`: the classes that PASCAL VOC has or has not.
        limit: this many objects, drawn by the data's seed; 0 for all.
        every: every n-th object of those left (1 for all).
        half: 1 or 2, one half of the images with objects, drawn at random and for all runs alike; 0 for both.
        share: this share of the images with objects, drawn at random and for all runs alike, at least one image: 0.1
            for IOG's fine-tuning on 10 % of Cityscapes. A larger share has all images of a smaller one; 1 for all.
        listed: a file with ids of objects, one a line: of those left, only these.
        recorded: a file of points that people clicked (datamodules/clicks/recorded.py): only objects that it names.
        labelled: a label run's file: of those left, the objects that it has masks for, with these masks.
        min_box_area: smallest area of the object's box, in pixels; MAL trains on boxes of more than 2048: 2049.
        min_side: smallest width and height of the box, in pixels; MAL has more than 2 of each: 3.
        pieces: only objects whose mask has at least so many connected parts (8-connected) that each hold at least
            `piece_share` of its area: 2 stands in for Separated COCO, whose list is published (Zhan et al., BMVC 2022).
            Their masks are read for it each time. 0 for all objects.
        piece_share: see `pieces`.

    Raises ValueError for a value that is none of these.
    """

    name: str
    min_area: int = 0
    categories: str | Sequence[str] = "all"
    limit: int = 0
    every: int = 1
    half: int = 0
    share: float = 1.0
    listed: str | None = None
    recorded: str | None = None
    labelled: str | None = None
    min_box_area: int = 0
    min_side: int = 0
    pieces: int = 0
    piece_share: float = 0.05

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise ValueError(f"a data set is called by a name, such as pascal/val, got {self.name!r}")
        for key, allowed in VALUES.items():
            allowed.checked(getattr(self, key), f"{self.name}: {key}")
        names = self.categories if isinstance(self.categories, (list, tuple)) else [self.categories]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{self.name}: categories must be names, or one of them, got {self.categories!r}")
        for key in ("listed", "recorded", "labelled"):
            if not isinstance(getattr(self, key), str | Path | None):
                raise ValueError(f"{self.name}: {key} must be the path of a file, got {getattr(self, key)!r}")
        if self.half not in (0, 1, 2):
            raise ValueError(f"{self.name}: half is {self.half!r}; expected 1 or 2, or 0 for both")
        if isinstance(self.share, bool) or not (isinstance(self.share, (int, float)) and 0 < self.share <= 1):
            raise ValueError(f"{self.name}: share is {self.share!r}; expected more than 0 and at most 1, such as 0.1")

    @classmethod
    def of(cls, spec: str | Mapping[str, Any]) -> Selection:
        """From a recipe: a name, or a mapping of the arguments. Raises ValueError for anything else."""
        if isinstance(spec, str):
            return cls(spec)
        if not isinstance(spec, Mapping) or "name" not in spec:
            raise ValueError(f"a data set is a name, or {{name: ..., min_area: ...}}, got {spec!r}")
        known = [f.name for f in fields(cls)]
        for key in spec:
            if key not in known:
                raise ValueError(f"a data set has no value {key!r}; {hint(key, known)}")
        return cls(**spec)


def open_objects(
    specs: Sequence[str | Mapping[str, Any]],
    root: Path | str | None = None,
    seed: int = 0,
    *,
    images_alone: bool = False,
) -> ObjectIndex:
    """The selected objects of one or several data sets as one index. Raises ValueError when none is left.

    `images_alone`: sets that list images without annotations will do.
    """
    parts = []
    for selection in map(Selection.of, [specs] if isinstance(specs, (str, Mapping)) else specs):
        index = _select(open_index(selection.name, root), selection, seed)
        kept = find(selection.name).upload
        if kept and not images_alone:
            raise ValueError(f"{selection.name} lists images without annotations, which are kept at {kept}")
        if not len(index) and not kept:
            raise ValueError(_no_object(selection))
        parts.append(index if selection.labelled is None else labelled(index, selection.labelled))
    return parts[0] if len(parts) == 1 else concatenate(parts, "+".join(part.dataset for part in parts))


def _no_object(selection: Selection) -> str:
    """A sentence on what a selection was made by, where nothing is left."""
    values = [(field.name, getattr(selection, field.name), field.default) for field in fields(selection)]
    said = [f"{key}={value}" for key, value, default in values[1:] if key != "labelled" and value != default]
    return f"{selection.name} with {', '.join(said)} leaves no object" if said else f"{selection.name} has no object"


def _select(index: ObjectIndex, selection: Selection, seed: int) -> ObjectIndex:
    keep = np.asarray(index.area) >= selection.min_area
    if selection.categories != "all":
        places = [place for place, name in enumerate(index.categories) if _wanted(name, selection.categories)]
        keep &= np.isin(index.category, places)
    if selection.half:
        keep &= np.isin(index.image, _half(index, selection.half))
    if selection.share < 1:
        keep &= np.isin(index.image, _share(index, selection.share))
    if selection.recorded is not None:
        keep &= called(index, recorded_objects(selection.recorded))
    if selection.min_box_area or selection.min_side:
        sides = index.box[:, 2:].astype(np.int64) - index.box[:, :2] + 1
        keep &= (sides.prod(axis=1) >= selection.min_box_area) & (sides.min(axis=1) >= selection.min_side)
    if selection.pieces:
        for i in np.flatnonzero(keep).tolist():
            keep[i] = pieces(index.read_mask(i).mask, selection.piece_share) >= selection.pieces
    if keep.all() and not selection.limit and selection.every == 1 and selection.listed is None:
        return index
    positions = np.flatnonzero(keep)[:: selection.every]
    if selection.limit:
        positions = np.sort(rng(seed, len(positions)).permutation(positions)[: selection.limit])
    if selection.listed is not None:
        positions = positions[np.isin(index.object_id[positions], read_list(selection.listed))]
    return index.select(positions)


def _shuffled(index: ObjectIndex, name: str) -> NDArray[np.int32]:
    """The images with objects in an order that belongs to the data set and this name alone: no seed changes it."""
    (key,) = object_ids(index.dataset, [name])
    return rng(int(key)).permutation(np.unique(index.image))


def _half(index: ObjectIndex, half: int) -> NDArray[np.int32]:
    """The images of one half, of an odd number one more in the first."""
    images = _shuffled(index, "halves")
    middle = (len(images) + 1) // 2
    return images[:middle] if half == 1 else images[middle:]


def _share(index: ObjectIndex, share: float) -> NDArray[np.int32]:
    """The images of a share, rounded to the nearest number of them."""
    images = _shuffled(index, "shares")
    return images[: max(1, round(share * len(images)))]


def read_list(path: Path | str) -> NDArray[np.int64]:
    """The ids of a list of objects. Raises ValueError when it is none."""
    try:
        return np.array([OBJECT_ID.read(line) for line in Path(path).read_text().split()], np.int64)
    except (OSError, ValueError) as error:
        raise ValueError(f"no list of objects at {path} ({error}); expected a file with an id on each line") from None


def _wanted(name: str, categories: str | Sequence[str]) -> bool:
    in_pascal = name in PASCAL_CLASSES_IN_COCO or name in CATEGORIES
    if categories == "pascal":
        return in_pascal
    if categories == "not_pascal":
        return not in_pascal
    return name in ([categories] if isinstance(categories, str) else categories)
