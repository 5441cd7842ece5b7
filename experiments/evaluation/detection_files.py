"""detections.json and truth.json of an evaluation by instances, in COCO's formats, which any other tool reads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.columns import offsets_of
from datamodules.files import whole_file
from datamodules.readers.coco_masks import run_totals
from datamodules.readers.json_stream import read_text
from experiments.composition.tree import Tree
from experiments.evaluation.rows import ObjectRow

DETECTIONS, TRUTH = "detections.json", "truth.json"
COLUMNS = ("position", "image_id", "category_id", "score", "height", "width", "counts")  # of an evaluation's rows
KEYS = ("image_id", "category_id", "segmentation", "score")
SHORT = "do not fill its mask"
AT_ONCE = 10_000  # masks


def write_detections(file: Path, rows: Iterable[ObjectRow]) -> None:
    """COCO's list of results from rows with these COLUMNS, one a line; the file is there when it is complete."""
    with whole_file(file) as partial, partial.open("w") as out:
        out.write("[")
        for number, row in enumerate(rows):
            size = [int(row["height"]), int(row["width"])]
            result = {
                "image_id": int(row["image_id"]),
                "category_id": int(row["category_id"]),
                "segmentation": {"size": size, "counts": row["counts"]},
                "score": float(row["score"]),
            }
            out.write(f"{',' if number else ''}\n{json.dumps(result)}")
        out.write("\n]\n")


def read_truth(file: Path) -> Tree:
    """What an evaluation is scored against. Raises ValueError in one sentence for what is none, edited by hand say.

    `annotations` are missing where nobody outside of a benchmark's server has them.
    """
    found = _json(file)
    if not isinstance(found, dict) or not all(found.get(key) for key in ("images", "categories")):
        raise ValueError(f"{file} is no file in COCO's format: expected its images, categories and annotations")
    lists = {key: found[key] for key in ("images", "categories", "annotations") if key in found}
    for key, entries in lists.items():
        if not isinstance(entries, list):
            raise ValueError(f"{file}: {key} is {entries!r:.60}, expected a list of entries")
    known = {key: _ids(entries, key, file) for key, entries in lists.items()}
    sizes: dict[int, list[int]] = {}
    for image in found["images"]:
        sizes[image["id"]] = [_value(image, key, _is_side, "pixels", "image", file) for key in ("height", "width")]
    for category in found["categories"]:
        _value(category, "name", _is_name, "a text", "category", file)
    annotations = lists.get("annotations", ())
    for entry in annotations:
        for key, name in (("image_id", "images"), ("category_id", "categories")):
            if not isinstance(entry.get(key), int) or entry[key] not in known[name]:
                raise ValueError(
                    f"{file}: annotation {entry['id']} has {key} {entry.get(key)!r:.60}, which its {name} do not list"
                )
        _value(entry, "area", _is_number, "a number", "annotation", file)
        if entry.get("iscrowd") not in (0, 1, None):
            _value(entry, "iscrowd", lambda value: False, "0 or 1", "annotation", file)
        if wrong := _wrong_mask(entry.get("segmentation"), sizes[entry["image_id"]]):
            raise ValueError(f"{file}: annotation {entry['id']} has {wrong}")
    encoded = [entry for entry in annotations if isinstance(entry["segmentation"], dict)]
    for place in _damaged([entry["segmentation"] for entry in encoded]):
        raise ValueError(f"{file}: annotation {encoded[place]['id']} has a segmentation of run lengths that {SHORT}")
    return found


def read_detections(file: Path, truth: Mapping[str, Any]) -> list[Tree]:
    """Results on the images of this truth. Raises ValueError in one sentence for what is none, edited by hand say."""
    found = _json(file)
    if not isinstance(found, list):
        raise ValueError(f"{file} is no list; expected COCO's results, [{{{', '.join(KEYS)}}}, ...]")
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for number, result in enumerate(found, 1):
        if wrong := _wrong(result, sizes, categories):
            raise ValueError(f"{file}: result number {number} {wrong}")
        result["segmentation"]["size"] = sizes[result["image_id"]]  # one list for an image, not one for each result
    for number in _damaged([result["segmentation"] for result in found]):
        raise ValueError(f"{file}: result number {number + 1} has run lengths that {SHORT}")
    return found


def _wrong(result: Any, sizes: Mapping[int, list[int]], categories: set[int]) -> str:
    """What is wrong with a result, or nothing."""
    if not isinstance(result, dict) or any(key not in result for key in KEYS):
        return f"is {result!r:.60}, expected {', '.join(KEYS)}"
    size = sizes.get(result["image_id"]) if isinstance(result["image_id"], int) else None
    if size is None:
        return f"has image_id {result['image_id']!r}, which is no image of the truth"
    if not isinstance(result["category_id"], int) or result["category_id"] not in categories:
        return f"has category_id {result['category_id']!r}, which is no category of the truth"
    score, mask = result["score"], result["segmentation"]
    if not _is_number(score):
        return f"has score {score!r}, expected a number"
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str) or not mask["counts"]:
        return "has no segmentation of compressed run lengths, {size, counts}"
    if mask.get("size") != size:
        return f"has a mask of size {mask.get('size')}, its image is {size} (height, width)"
    return ""


def _wrong_mask(mask: Any, size: list[int]) -> str:
    """What is wrong with an annotation's mask, beside run lengths that do not fill it, or nothing."""
    if isinstance(mask, list):
        rings = all(isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0 for ring in mask)
        if mask and rings and all(_is_number(value) for ring in mask for value in ring):
            return ""
    elif isinstance(mask, dict) and mask.get("counts") and isinstance(mask["counts"], str | list):
        return (
            "" if mask.get("size") == size else f"a segmentation of size {mask.get('size')}, its image is {size} (H, W)"
        )
    return f"segmentation {mask!r:.60}, expected polygons of three points or more, or run lengths {{size, counts}}"


def _damaged(masks: Sequence[Tree]) -> Iterator[int]:
    """Places of the masks whose run lengths are none, or cover fewer or more pixels than their size has.

    Annotations may have them as numbers, results are compressed.
    """
    for first in range(0, len(masks), AT_ONCE):  # their bytes are copied for it
        part = masks[first : first + AT_ONCE]
        encoded = [b"0" if isinstance(mask["counts"], list) else mask["counts"].encode() for mask in part]
        rle, offsets = np.frombuffer(b"".join(encoded), np.uint8), offsets_of(list(map(len, encoded)))
        covered, _ = run_totals(rle, offsets)
        for place, mask in enumerate(part):
            if isinstance(counts := mask["counts"], list):
                whole = all(type(count) is int and count >= 0 for count in counts)
                covered[place] = sum(counts) if whole else -1
        pixels = [mask["size"][0] * mask["size"][1] for mask in part]
        yield from (np.flatnonzero(covered != pixels) + first).tolist()


def _value(entry: Tree, key: str, good: Callable[[Any], bool], expected: str, kind: str, file: Path) -> Any:
    """What an entry says. Raises ValueError naming it where that is missing, or is not as expected."""
    value = entry.get(key)
    if not good(value):
        said = f"{key} {value!r:.60}" if key in entry else f"no {key}"
        raise ValueError(f"{file}: {kind} {entry['id']} has {said}, expected {expected}")
    return value


def _is_side(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _json(file: Path) -> Any:
    """Raises ValueError in one sentence where there is nothing to be read."""
    try:
        return json.loads(read_text(file))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing; make the evaluation again") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON at character {error.pos:,} ({error.msg}); is it cut off?") from None


def _ids(entries: Iterable[Any], key: str, file: Path) -> set[int]:
    """The ids of a list. Raises ValueError where one is missing or used twice."""
    found: set[int] = set()
    for number, entry in enumerate(entries, 1):
        which = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(which, bool) or not isinstance(which, int):
            raise ValueError(f"{file}: number {number} of its {key} has no id that is a whole number, got {which!r}")
        if which in found:
            raise ValueError(f"{file}: id {which} is used by two of its {key}; give each an id of its own")
        found.add(which)
    return found
