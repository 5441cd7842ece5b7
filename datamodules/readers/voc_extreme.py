"""The extreme clicks that people made on PASCAL VOC (Papadopoulos et al., ICCV 2017), matched to objects with masks.

The published archive was not at hand and nothing we found describes its files, so no names of fields are expected: read
is whatever says, for an image, four points per object, and everything else is refused with a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.optimize import linear_sum_assignment

from datamodules.index import ObjectIndex

IMAGE_NAME = re.compile(r"(?<!\d)(\d{4}_\d{6}|\d{6})(?!\d)")  # of VOC 2008 to 2012, and of VOC 2007
ACCEPTED = "four points (4, 2) per object, arrays (n, 4, 2) or (n, 8) of x, y, or fields x and y of four numbers each"
Clicks = dict[str, list[NDArray[np.float64]]]


def read_voc_extreme(place: Path, first_pixel: int = 1) -> Clicks:
    """The clicks by image name, each object's (4, 2) as x, y in pixels, counted from 0.

    Args:
        place: a .mat or .json, or a folder with one per image. An image is named by the file, or by a text beside or
            above its points, as VOC names it (`2007_000033`, `JPEGImages/2007_000033.jpg`).
        first_pixel: what the file calls the first pixel; 1, MATLAB's and VOC's own, is an assumption.
    Raises FileNotFoundError without such a file, ValueError naming one that holds no such points.
    """
    kinds = (".mat", ".json")
    files = sorted(p for p in place.iterdir() if p.suffix.lower() in kinds) if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"no extreme clicks at {place}; expected a .mat or .json, or a folder of these")
    clicks: Clicks = {}
    for file in files:
        for name, points in _points(_content(file), _image_name(file.stem)):
            if name is None:
                raise ValueError(f"{file} has points of an image that it does not name; expected such as 2007_000033")
            if not np.isfinite(points).all():
                raise ValueError(f"{file} has a point of image {name} that is not finite: {points.tolist()}")
            clicks.setdefault(name, []).append(points - first_pixel)
    if not clicks:
        raise ValueError(f"no extreme clicks can be read from {place}; expected {ACCEPTED}")
    return clicks


def _content(file: Path) -> Any:
    try:
        if file.suffix.lower() == ".json":
            return json.loads(file.read_text(encoding="utf-8-sig"))
        return {key: value for key, value in loadmat(str(file), simplify_cells=True).items() if key[:2] != "__"}
    except Exception as error:  # scipy raises a dozen kinds, from zlib's to NotImplementedError for MATLAB 7.3
        raise ValueError(f"{file} is no .mat up to version 7 and no .json ({error})") from None


def _image_name(text: str) -> str | None:
    found = IMAGE_NAME.search(text)
    return found[1] if found else None


def _points(value: Any, name: str | None) -> Iterator[tuple[str | None, NDArray[np.float64]]]:
    """Everything below a value that is four points of an object, with the name of its image."""
    if isinstance(value, Mapping):
        texts = [found for text in value.values() if isinstance(text, str) and (found := _image_name(text))]
        name = texts[0] if texts else name
        fields = {key.lower(): field for key, field in value.items()}
        if {"x", "y"} <= set(fields):
            x, y = _numbers(fields["x"]), _numbers(fields["y"])
            if x is not None and y is not None and x.shape == y.shape:
                yield from _points(np.stack([x, y], -1), name)
                return
        for key, field in value.items():
            yield from _points(field, _image_name(key) or name)
        return
    numbers = _numbers(value)
    if numbers is None:
        for part in value if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim) else ():
            yield from _points(part, name)
    elif numbers.shape[-2:] == (4, 2) or (numbers.ndim <= 2 and numbers.shape[-1] == 8):
        yield from ((name, points) for points in numbers.reshape(-1, 4, 2))


def _numbers(value: Any) -> NDArray[np.float64] | None:
    """A regular array of numbers, or None."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" and array.size else None


def match_to_objects(
    clicks: Clicks, index: ObjectIndex, min_iou: float = 0.5
) -> tuple[list[tuple[str, int, NDArray[np.float64]]], int]:
    """Each clicked box with the object of the image whose box it fits, one to one, so that all IoUs add up to the most.

    Boxes are those of the index and the tight ones of the clicks; classes are not compared. Returns the records
    (native id, annotator 0, points), in the order of the index, and how many clicked objects got none: on images that
    the index does not have, or with an IoU below `min_iou`. Points are moved into their image.
    """
    places: dict[str, list[int]] = {}
    names = [Path(path).stem for path in index.image_paths]
    for i, image in enumerate(index.image.tolist()):
        places.setdefault(names[image], []).append(i)
    found: dict[int, NDArray[np.float64]] = {}
    for name, clicked in clicks.items():
        rows = places.get(name, [])
        if not rows:
            continue
        last = index.image_size[index.image[rows[0]]][::-1] - 1
        inside = [np.clip(points, 0, last) for points in clicked]
        boxes = np.array([[*points.min(0), *points.max(0)] for points in inside])
        ious = box_ious(boxes, np.asarray(index.box)[rows])
        for k, j in zip(*linear_sum_assignment(ious, maximize=True)):
            if ious[k, j] >= min_iou:
                found[rows[j]] = inside[k]
    records = [(index.native_id[i], 0, found[i]) for i in sorted(found)]
    return records, sum(map(len, clicks.values())) - len(records)


def box_ious(first: NDArray, second: Sequence | NDArray) -> NDArray[np.float64]:
    """IoU of every inclusive box xyxy of the first (n, 4) with every one of the second (m, 4): (n, m)."""
    first, second = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]) + 1
    shared = np.clip(sides, 0, None).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared)
