"""detections.json and truth.json of an evaluation by instances, in COCO's formats, which any other tool reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
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
    """What an evaluation is scored against. Raises ValueError in one sentence for a file that is none.

    `annotations` are missing where nobody outside of a benchmark's server has them.
    """
    found = _json(file)
    if not isinstance(found, dict) or not all(found.get(key) for key in ("images", "categories")):
        raise ValueError(f"{file} is no file in COCO's format: expected its images, categories and annotations")
    known = {key: _ids(found[key], key, file) for key in ("images", "categories")}
    _ids(found.get("annotations", ()), "annotations", file)
    for entry in found.get("annotations", ()):
        for key, name in (("image_id", "images"), ("category_id", "categories")):
            if entry.get(key) not in known[name]:
                raise ValueError(
                    f"{file}: annotation {entry['id']} has {key} {entry.get(key)!r}, which its {name} do not list"
                )
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
    for number in _damaged([result["segmentation"] for result in found]):
        raise ValueError(f"{file}: result number {number + 1} has run lengths that do not fill its mask")
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
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return f"has score {score!r}, expected a number"
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str) or not mask["counts"]:
        return "has no segmentation of compressed run lengths, {size, counts}"
    if mask.get("size") != size:
        return f"has a mask of size {mask.get('size')}, its image is {size} (height, width)"
    return ""


def _damaged(masks: Sequence[Tree]) -> list[int]:
    """Places of the masks whose run lengths are none, or cover fewer or more pixels than their size has."""
    if not masks:
        return []
    encoded = [mask["counts"].encode() for mask in masks]
    covered, _ = run_totals(np.frombuffer(b"".join(encoded), np.uint8), offsets_of(np.array(list(map(len, encoded)))))
    return np.flatnonzero(covered != [mask["size"][0] * mask["size"][1] for mask in masks]).tolist()


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
