"""Values of COCO files as exporters write them: numbers as text, null, pairs of coordinates; read, or refused by name.

Files of the format's own making never come here: the lists of `coco_lists` take their values as they are.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pycocotools import mask as coco_mask

LISTED = 10_000  # so many entries that were left out are named, all are counted
SAID = 3  # so many in one sentence
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)  # what a wrong value raises when taken
LARGEST = 1 << 30  # pixels of an image: OpenCV decodes no larger ones
NO, YES = ("", "0", "0.0", "false", "no", "n", "f", "none", "null", "nan"), ("1", "1.0", "true", "yes", "y", "t")


class Wrong:
    """Entries that are left out of an index since a value of theirs is not as the format says, and why."""

    def __init__(self) -> None:
        self.count, self.sentences = 0, list[str]()

    def add(self, who: str, why: object, count: int = 1) -> None:
        """Count an entry, `annotation 7`, and keep the reason of the first ones."""
        self.count += count
        if len(self.sentences) < LISTED:
            self.sentences.append(f"{who}: {why}")

    @property
    def first(self) -> str:
        """The first few, as they are said in one sentence."""
        more = "; ..." if self.count > SAID else ""
        return "; ".join(self.sentences[:SAID]) + more


def who(kind: str, entry: Any, number: int) -> str:
    """`annotation 7`, or where it does not say its id: `annotation number 3`, counted from 1."""
    known = isinstance(entry, Mapping) and isinstance(entry.get("id"), int | str)
    return f"{kind} {entry['id']}" if known else f"{kind} number {number}"


def annotation_of(entry: Any) -> dict[str, Any]:
    """An annotation with its values as the format has them. Raises ValueError naming key and value."""
    crowd = is_crowd(mapping(entry))
    return {
        "id": whole_number(entry, "id"),
        "image_id": whole_number(entry, "image_id"),
        "category_id": None if _nothing(entry.get("category_id")) else whole_number(entry, "category_id"),
        "iscrowd": int(crowd),
        "area": _number_or_nan(entry.get("area")),
        "bbox": box_of(entry),
        "segmentation": _segmentation_of(entry),
    }


def boxed_of(entry: Any) -> dict[str, Any]:
    """The same of an annotation of which only the box is read."""
    return annotation_of({**mapping(entry), "segmentation": None})


def image_of(entry: Any) -> dict[str, Any]:
    """An image's entry likewise."""
    try:
        name = image_name(mapping(entry))
    except (KeyError, AttributeError):
        name = None
    if not isinstance(name, str) or not name.strip():
        raise _refusal("file_name", entry.get("file_name"), "a file's name")
    sides = {key: whole_number(entry, key) for key in ("height", "width")}
    for key, side in sides.items():
        if side < 1 or math.prod(sides.values()) > LARGEST:
            raise _refusal(key, side, f"pixels of an image, of at most {LARGEST:,}")
    return {"id": whole_number(entry, "id"), "file_name": name, **sides}


def image_name(image: Mapping[str, Any]) -> Any:
    """LVIS names no file, only where COCO's servers have it: .../train2017/000000391895.jpg."""
    return image["file_name"] if "file_name" in image else "/".join(image["coco_url"].split("/")[-2:])


def is_crowd(entry: Mapping[str, Any]) -> bool:
    """What `iscrowd` says, also as text; an annotation that does not say is none."""
    said = entry.get("iscrowd")
    word = "" if _nothing(said) else str(said).strip().lower()
    if word not in (*NO, *YES):
        raise _refusal("iscrowd", said, "0 or 1")
    return word in YES


def whole_number(entry: Mapping[str, Any], key: str) -> int:
    """An id or a side: 7, 7.0 or "7"."""
    value = entry.get(key)
    number = _number_or_nan(value)
    if isinstance(value, bool) or not math.isfinite(number) or number != int(number) or abs(number) >= 2**63:
        raise _refusal(key, value, "a whole number") if key in entry else ValueError(f"it has no {key!r}")
    return int(value) if isinstance(value, int | str) and str(value).strip().lstrip("+-").isdecimal() else int(number)


def box_of(entry: Mapping[str, Any]) -> list[float] | None:
    """x, y, width, height; None where the file does not say them, or says more: a box that is turned."""
    box = entry.get("bbox")
    if isinstance(box, str):
        box = _parsed(box)
    if isinstance(box, Mapping):
        box = [box.get(key, box.get(key[0])) for key in ("x", "y", "width", "height")]
    if not isinstance(box, list):
        return None
    numbers = [_number_or_nan(value) for value in box]
    if any(map(math.isnan, numbers)):
        return None
    return numbers[:4] if len(numbers) == 4 or (len(numbers) == 5 and numbers[4] == 0) else None


def _segmentation_of(entry: Mapping[str, Any]) -> list[list[float]] | dict[str, Any]:
    """Rings of three or more points, or run lengths; an empty list where there is none."""
    found = entry.get("segmentation")
    if isinstance(found, str):
        found = _parsed(found)
    try:
        if _nothing(found):
            return []
        if isinstance(found, Mapping):
            return _run_lengths_of(found)
        if isinstance(found, list) and all(isinstance(part, Mapping) and "counts" in part for part in found):
            parts = [_compressed(_run_lengths_of(part)) for part in found]
            merged = coco_mask.merge(parts)
            return {"size": list(merged["size"]), "counts": merged["counts"]}
        if isinstance(found, list):
            return [ring for ring in _rings(found) if len(ring) >= 6]  # fewer than three points enclose nothing
    except UNREADABLE as error:
        raise ValueError(f"segmentation: {error}") from None
    raise _refusal("segmentation", found, "polygons or run lengths")


def _rings(found: list[Any]) -> Iterator[list[float]]:
    """Each ring as x, y, x, y, ...: also of a list that is one ring, and of points as pairs or as {x, y}."""
    if not any(isinstance(part, list) for part in found) or all(_is_point(part) for part in found):
        found = [found]
    for ring in found:
        if not isinstance(ring, list):
            raise ValueError(f"{ring!r:.40} is no polygon")
        if ring and all(_is_point(part) for part in ring):
            ring = [part[key] for part in ring for key in (("x", "y") if isinstance(part, Mapping) else (0, 1))]
        numbers = [_number_or_nan(value) for value in ring]
        if bad := [value for value, number in zip(ring, numbers) if not math.isfinite(number)]:
            raise ValueError(f"{bad[0]!r:.40} is no coordinate")
        if len(numbers) % 2:
            raise ValueError(f"a polygon of {len(numbers)} numbers, expected x, y, x, y, ...")
        yield numbers


def _is_point(part: Any) -> bool:
    if isinstance(part, Mapping):
        return "x" in part and "y" in part
    return isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list | Mapping)


def _run_lengths_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Run lengths with their counts as bytes, text of bytes or numbers made what pycocotools writes."""
    if "counts" not in found or not isinstance(found.get("size"), list) or len(found["size"]) != 2:
        raise ValueError("expected run lengths as {size: [height, width], counts: ...}")
    size = [whole_number({"size": side}, "size") for side in found["size"]]
    counts = found["counts"]
    if isinstance(counts, str) and counts.startswith(("b'", 'b"')):  # Python's own spelling of bytes
        counts = ast.literal_eval(counts)
    elif isinstance(counts, str) and ("," in counts or " " in counts):
        counts = counts.strip("[]() ").replace(",", " ").split()
    if isinstance(counts, list):
        counts = [whole_number({"counts": count}, "counts") for count in counts]
    if not isinstance(counts, list):
        counts = compressed_counts(counts, *size)
    return {"size": size, "counts": counts}


def _compressed(found: dict[str, Any]) -> dict[str, Any]:
    return {"size": found["size"], "counts": compressed_counts(found["counts"], *found["size"])}


def compressed_counts(counts: Any, height: int, width: int) -> bytes:
    """COCO's compressed run lengths of a mask of this size, from those or from numbers. Raises ValueError."""
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts, default=-1) < 0:
            raise ValueError(f"run lengths of {sum(counts)} pixels for a mask of {height} x {width}")
        counts = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    encoded: bytes = counts.encode() if isinstance(counts, str) else counts
    if not isinstance(encoded, bytes) or not encoded or not 48 <= encoded[-1] <= 79:  # the last of a number's digits
        raise ValueError(f"counts are {counts!r:.40}, expected run lengths")
    return encoded


def _parsed(text: str) -> Any:
    """What a text says that was written in place of a list or a mapping; the text itself where that is nothing."""
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        return text


def _nothing(value: Any) -> bool:
    return value is None or value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))


def _number_or_nan(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def mapping(entry: Any) -> dict[str, Any]:
    """The entry. Raises ValueError where it is none."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.40} is no entry with keys and values")
    return entry


def _refusal(key: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{key} is {value!r:.40}, expected {expected}")


def unusable(kind: str, entry: Any, number: int, error: Exception) -> tuple[str, str]:
    """Who an entry is and what is wrong with it, for `Wrong.add`."""
    why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return who(kind, entry, number), why
