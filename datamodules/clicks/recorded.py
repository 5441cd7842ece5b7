"""Points that people clicked, read from a file instead of simulated (IOG, Table 7; DEXTR, Table 1; FAIRS, Table 2).

The file is one JSON object, UTF-8:

    {"version": 1,
     "type": "extreme",
     "dataset": "pascal-val",
     "points": [
      {"object": "2007_000033/1", "annotator": 0, "xy": [[9, 107], [83, 60.5], [499, 111], [263, 205]]},
      {"object": "2007_000033/2", "annotator": 0, "xy": [[30, 88], [52, 71], [76, 90], [55, 101]]}]}

    version     1
    type        of all points of the file: `extreme`, four per record in any order; or `inside`, one per record
    points      one record per object and annotator
    object      what its data set calls it (`native_id` of the index): image/label in VOC and SBD, the annotation's id
                in COCO and LVIS, as text or number
    annotator   a whole number from 0 on; 0 where left out
    xy          (x, y) in pixels of the whole image; the centre of its first pixel is (0, 0), fractions are allowed

Everything else at the top level (`dataset`, `source`, ...) is for people; a record has no other keys. Reading raises
FileNotFoundError without the file and ValueError, naming the file and the record, for whatever does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules import geometry
from datamodules.clicks.inside_outside import outside_points, with_kinds
from datamodules.clicks.points import EXTREME_KINDS, Clicked, SimulatedPoints, Target
from datamodules.columns import Strings, object_ids
from datamodules.files import whole_file
from datamodules.index import ObjectIndex

VERSION = 1
Type = Literal["extreme", "inside"]
PER_RECORD: dict[str, int] = {"extreme": 4, "inside": 1}
RECORD_KEYS = ("object", "annotator", "xy")
LEFT_TO_BOTTOM = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # the least of these products is the side's own point


@dataclass(frozen=True, eq=False)
class RecordedPoints:
    """The records of a file as columns, sorted by `key`: a hash of annotator and object, to look them up by."""

    file: str
    type: Type
    key: NDArray[np.int64]
    objects: Strings
    annotator: NDArray[np.int32]
    xy: NDArray[np.float64]  # (records, points, 2)

    @classmethod
    def read(cls, file: str | Path, type: Type) -> RecordedPoints:
        """Read a file, which must be of this type."""
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"the clicked points {file} are missing; expected a JSON of {type} points"
            ) from None
        except UnicodeDecodeError:
            raise ValueError(f"{file} is not a JSON of clicked points but binary data; unpack it first") from None
        return cls.of_text(text, file, type)

    @classmethod
    def of_text(cls, text: str, file: str | Path, type: Type) -> RecordedPoints:
        """The records of a file that says this."""
        records = _records(text, file, type)
        places = np.full((len(records), PER_RECORD[type], 2), np.nan)
        for number, record in enumerate(records):
            try:
                places[number] = _checked(record, type)
            except ValueError as error:
                raise ValueError(f"record {number + 1} of {file}: {error}") from None
        objects = [str(record["object"]) for record in records]
        annotator = np.array([record.get("annotator", 0) for record in records], np.int32)
        keys = _keys(zip(annotator.tolist(), objects))
        order = np.argsort(keys, kind="stable")
        again = order[1:][np.diff(keys[order]) == 0]
        if len(again):
            first = int(again.min())
            raise ValueError(
                f"{file} has more than one record of object {objects[first]} by annotator {annotator[first]}; "
                "give every annotator a number of their own"
            )
        return cls(
            file=str(file),
            type=type,
            key=keys[order],
            objects=Strings.of(objects).take(order),
            annotator=annotator[order],
            xy=places[order],
        )

    def __len__(self) -> int:
        return len(self.key)

    def of(self, native_id: str, annotator: int = 0) -> NDArray[np.float64]:
        """(points, 2): what this annotator clicked on an object, in pixels of the image and in the file's order."""
        key = _keys([(annotator, native_id)])[0]
        place = int(np.searchsorted(self.key, key))
        if place == len(self.key) or self.key[place] != key:
            annotators = ", ".join(map(str, np.unique(self.annotator))) or "none"
            raise ValueError(
                f"{self.file} has no {self.type} points of object {native_id!r} by annotator {annotator}; it has "
                f"{len(self)} records by annotators {annotators}: evaluate on the objects that were clicked"
            )
        return self.xy[place]

    def check(self, index: ObjectIndex) -> None:
        """Raise ValueError where a record's object is not in the index, or a point is outside of its image."""
        place = {native_id: i for i, native_id in enumerate(index.native_id)}
        rows = np.array([place.get(name, -1) for name in self.objects], np.int64)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            raise ValueError(
                f"{self.file} has points on {len(unknown)} objects that {index.dataset} does not list, such as "
                f"{self.objects[int(unknown[0])]!r}; its own are called like {index.native_id[0]!r}"
            )
        size = index.image_size[index.image[rows]][:, None, ::-1]  # (width, height)
        outside = np.flatnonzero((self.xy >= size - 0.5).any((1, 2)))
        if len(outside):
            first = int(outside[0])
            raise ValueError(
                f"{self.file} has points outside of the image on {len(outside)} objects, such as "
                f"{self.objects[first]!r}: {self.xy[first].tolist()} in an image of {size[first, 0].tolist()} "
                "(width, height)"
            )


def write_points(
    file: str | Path, type: Type, records: Iterable[tuple[str, int, ArrayLike]], **about: object
) -> RecordedPoints:
    """Write records of (object, annotator, points (n, 2)), and what people should know `about` them at the top level.

    Raises ValueError like reading does; an older file then stays as it is.
    """
    path = Path(file)
    lines = [
        json.dumps({"object": name, "annotator": int(annotator), "xy": np.asarray(xy, np.float64).tolist()})
        for name, annotator, xy in records
    ]
    head = json.dumps({"version": VERSION, "type": type, **about})[:-1]
    text = head + ', "points": [\n ' + ",\n ".join(lines) + "]}\n"
    written = RecordedPoints.of_text(text, path, type)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return written


class _Recorded(SimulatedPoints):
    """Points from a file, which every process reads once, when it needs the first of them."""

    type: Type
    files: ClassVar = ("file",)  # what a run's name knows by its content

    def __init__(self, file: str, annotator: int = 0) -> None:
        self.file, self.annotator = str(file), annotator

    def clicked(self, native_id: str) -> NDArray[np.float64]:
        """(n, 2) in pixels of the image; raises ValueError naming file and object where nobody clicked."""
        return _read_once(self.file, self.type).of(native_id, self.annotator)

    def on_crop(self, target: Target) -> NDArray[np.float64]:
        """(n, 2) in pixels of the crop, where the click fell; not rounded."""
        xy = self.clicked(target.native_id)
        return xy if target.to_crop is None else geometry.apply(target.to_crop, xy)


class RecordedExtremePoints(_Recorded):
    """The four extreme points that an annotator clicked; at test time the crop is around them, not around the mask.

    Args:
        file: JSON as in this module's description, of type `extreme`.
        annotator: whose points.
    """

    type = "extreme"

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        return in_box_order(self.on_crop(target)).astype(np.float32), np.array(EXTREME_KINDS, np.int64)

    def box(self, native_id: str) -> NDArray[np.int64]:
        """The tight box xyxy of the clicked pixels, in pixels of the image."""
        xy = np.floor(self.clicked(native_id) + 0.5).astype(np.int64)
        return np.concatenate([xy.min(0), xy.max(0)])


class RecordedInsidePoint(_Recorded):
    """The inside point that an annotator clicked, with the outside points of the object's mask (IOG, Table 7).

    Args:
        file: JSON as in this module's description, of type `inside`.
        annotator: whose point.
        relax: of the outside points, in pixels of the crop.
    """

    type = "inside"

    def __init__(self, file: str, annotator: int = 0, relax: float = 10.0) -> None:
        super().__init__(file, annotator)
        self.relax = relax

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        return with_kinds(self.on_crop(target)[0], outside_points(target.mask, self.relax))


def in_box_order(points: NDArray) -> NDArray:
    """Four points (4, 2) as left, top, right, bottom: the order in which they span the widest and highest box.

    Every point gets one place, also where one is the extreme of two sides; of equal orders the first one, as given.
    """
    orders = [list(order) for order in permutations(range(4))]
    return points[min(orders, key=lambda order: float((points[order] * LEFT_TO_BOTTOM).sum()))]


def _records(text: str, file: str | Path, type: Type) -> list[Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file} is not a JSON of clicked points ({error}); it may be cut off") from None
    found = content if isinstance(content, dict) else {}
    for key, wanted in (("version", VERSION), ("type", type)):
        if found.get(key) != wanted:
            raise ValueError(f'{file} must say "{key}": {json.dumps(wanted)}, got {json.dumps(found.get(key))}')
    if not isinstance(found.get("points"), list):
        raise ValueError(f'{file} must have its records in a list "points"')
    return list(found["points"])


def _checked(record: Any, type: Type) -> Sequence[Sequence[float]]:
    """The points of a record, (n, 2)."""
    unknown = [key for key in record if key not in RECORD_KEYS] if isinstance(record, dict) else None
    if unknown is None or unknown or not {"object", "xy"} <= set(record):
        got = f"got {', '.join(map(repr, record))}" if isinstance(record, dict) else f"got {record!r}"
        raise ValueError(f'expected the keys "object", "xy" and perhaps "annotator", {got}')
    name, annotator, xy = record["object"], record.get("annotator", 0), record["xy"]
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise ValueError(f"an object is a text or a whole number, got {name!r}")
    if not isinstance(annotator, int) or isinstance(annotator, bool) or not 0 <= annotator < 2**31:
        raise ValueError(f"the annotator of object {name!r} is a whole number from 0 on, got {annotator!r}")
    number = PER_RECORD[type]
    if not isinstance(xy, list) or len(xy) != number or not all(_is_point(point) for point in xy):
        points = "four points [x, y]" if number == 4 else "one point [[x, y]]"
        raise ValueError(f"{type} points of object {name!r} are {points}, got {json.dumps(xy)}")
    if min(map(min, xy)) < -0.5:
        raise ValueError(f"a point of object {name!r} is outside of the image: {json.dumps(xy)}")
    return xy


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e9 for v in point)
    )


def _keys(records: Iterable[tuple[int, str]]) -> NDArray[np.int64]:
    return object_ids("clicked points", (f"{annotator}\n{name}" for annotator, name in records))


def _read_once(file: str, type: Type) -> RecordedPoints:
    """The records of a file, once per process as long as it does not change."""
    return _read_version(file, type, _version(file))


def _version(file: str) -> tuple[int, int]:
    try:
        status = Path(file).stat()
    except OSError:
        return (0, 0)  # reading says what is wrong
    return status.st_mtime_ns, status.st_size


@cache
def _read_version(file: str, type: Type, version: tuple[int, int]) -> RecordedPoints:
    return RecordedPoints.read(file, type)
