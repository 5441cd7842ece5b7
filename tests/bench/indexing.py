"""The index of a large data set: built and opened again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from datamodules import catalog
from datamodules.masks import mask_from_rle
from tests.bench.measure import MIB, Figure, apart, best_of


def write_large(file: Path, small: Path, objects: int, polygons: bool) -> int:
    """A COCO file of many objects: the entries of a small one again and again under new ids. Returns their number."""
    tables = json.loads(small.read_text())
    annotations = [entry for entry in tables["annotations"] if not entry.get("iscrowd")]
    if polygons:
        annotations = [_with_polygons(entry) for entry in annotations]
    copies = -(-objects // len(annotations))
    images, many = [], []
    for copy in range(copies):
        shift = copy * 10_000_000
        images += [entry | {"id": entry["id"] + shift} for entry in tables["images"]]
        for entry in annotations:
            many.append(entry | {"id": len(many) + 1, "image_id": entry["image_id"] + shift})
    file.write_text(json.dumps({"images": images, "annotations": many, "categories": tables["categories"]}))
    return len(many)


def _with_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with its run lengths traced, with about as many corners as COCO's annotators set."""
    if isinstance(entry["segmentation"], list) or isinstance(entry["segmentation"]["counts"], list):
        return entry
    mask = mask_from_rle(entry["segmentation"]["counts"].encode(), tuple(entry["segmentation"]["size"]))
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    rings = [cv2.approxPolyDP(contour, 1.0, True).ravel() for contour in contours]
    corners = [[round(value + 0.37, 2) for value in ring.tolist()] for ring in rings if len(ring) >= 6]
    return entry | {"segmentation": corners} if corners else entry


def index_figures(annotations: Path, images: Path, folder: Path, passes: int, objects: int) -> Iterator[Figure]:
    """Building and opening the index of a large COCO file, whole as a user has it: parsed, checked, hashed, saved."""
    held: list[Any] = []
    for kind, polygons in (("as in the file", False), ("polygons", True)):
        file = folder / f"instances_{kind.split()[0]}.json"  # real ones here: run lengths; drawn ones: polygons already
        count = write_large(file, annotations, objects, polygons)
        name = f"coco_json:{file}?images={images}"

        def build(name: str = name) -> int:
            os.environ["CACHE_ROOT"] = tempfile.mkdtemp(dir=folder)
            with contextlib.redirect_stderr(io.StringIO()):
                return len(catalog.open_index(name))

        def load(file: Path = file) -> None:
            with file.open() as stream:
                held.append(json.load(stream))  # until the process ends: to let go of it takes time, too

        turns = [(apart(build), apart(load)) for _ in range(max(2, passes // 3))]
        built, loaded = (min((turn[k] for turn in turns), key=lambda run: run["seconds"]) for k in (0, 1))
        ratio = built["seconds"] / loaded["seconds"]
        size = f"{count:,} objects, {file.stat().st_size / MIB:.0f} MiB"
        beside = f"json.load {loaded['seconds']:.2f} s"
        yield Figure(
            f"index built, {kind}",
            ratio,
            "x json.load",
            target=3,
            reference=beside,
            ratio=ratio,
            note=f"{built['seconds']:.2f} s; {size}",
        )
        beside = f"json.load {loaded['peak']:.0f} MiB"
        yield Figure(
            "  its peak of memory",
            built["peak"],
            "MiB",
            reference=beside,
            ratio=built["peak"] / loaded["peak"],
        )
        build()
        opening = best_of(20, opened=lambda name=name: catalog.open_index(name))["opened"]
        note = f"{opening[1] * 1e3:.1f} ms by the wall clock"
        beside, ratio = f"building {built['seconds']:.2f} s", opening[0] / built["seconds"]
        yield Figure("  opened again", opening[0] * 1e3, "ms", target=50, reference=beside, ratio=ratio, note=note)
