"""Drawn scenes as the annotation files of COCO, COCO MVal and LVIS v1."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.drawn.scenes import Scene

COCO_IDS = {
    "person": 1,
    "car": 3,
    "airplane": 5,
    "boat": 9,
    "dog": 18,
    "sheep": 20,
    "zebra": 24,
    "umbrella": 28,
    "bottle": 44,
    "banana": 52,
    "tv": 72,
    "clock": 85,
}
GROUPS = {
    "person": "person",
    "car": "vehicle",
    "airplane": "vehicle",
    "boat": "vehicle",
    "dog": "animal",
    "sheep": "animal",
    "zebra": "animal",
    "umbrella": "accessory",
    "bottle": "kitchen",
    "banana": "food",
    "tv": "electronic",
    "clock": "indoor",
}
LVIS_NAMES = {"car": "car_(automobile)", "tv": "television_set"}  # where LVIS says it differently
LVIS_IDS = {
    "airplane": 3,
    "banana": 45,
    "boat": 118,
    "bottle": 133,
    "car": 207,
    "clock": 271,
    "dog": 378,
    "person": 793,
    "sheep": 943,
    "tv": 1077,
    "umbrella": 1133,
    "zebra": 1202,
}
Table = dict[str, Any]


def image_id(i: int) -> int:
    """Ids with gaps and not in the order of the pictures, as COCO's."""
    return 139 + (i * 7919) % 580_000


def coco_tables(scenes: Mapping[int, Scene], split: str) -> Table:
    """An instances file of COCO: polygons, one for each part of an object; run lengths for holes and crowds.

    Run lengths are uncompressed for crowds, as COCO has them, and compressed for every second object with a hole.
    """
    year = split[-4:]
    prefix = f"COCO_{split}_" if year == "2014" else ""
    images, annotations = [], []
    for i, scene in scenes.items():
        images.append(_image(i, scene, f"{prefix}{image_id(i):012d}.jpg", split))
        for label in (*scene.objects, *([scene.crowd] if scene.crowd else [])):
            mask = _mask(scene, label)
            crowd = label == scene.crowd
            if crowd or (has_hole(mask) and label % 2):
                segmentation: Any = uncompressed(mask)
            else:
                segmentation = compressed(mask) if has_hole(mask) else polygons(mask)
            number = 900_100_000_000 + image_id(i) if crowd else 1 + i * 1000 + label
            category = COCO_IDS[scene.categories[label - 1]]
            annotations.append(_annotation(number, i, category, mask, segmentation) | {"iscrowd": int(crowd)})
    return _tables(f"drawn, in the format of COCO {year}", images, annotations, _coco_categories())


def mval_tables(drawn: Mapping[int, tuple[Scene, int]]) -> Table:
    """The COCO MVal file: one object of each picture, as compressed run lengths, with the benchmark's name of it."""
    images, annotations, numbers = [], [], Counter[str]()
    for i, (scene, label) in drawn.items():
        category = scene.categories[label - 1]
        mask = _mask(scene, label)
        images.append(_image(i, scene, f"{image_id(i):012d}.jpg", "val2017"))
        name = {"iscrowd": 0, "mval_name": f"{category}{numbers[category]:02d}_{image_id(i):012d}"}
        annotations.append(_annotation(i + 1, i, COCO_IDS[category], mask, compressed(mask)) | name)
        numbers[category] += 1
    return _tables("drawn, in the format of COCO MVal", images, annotations, _coco_categories())


def lvis_tables(scenes: Mapping[int, tuple[str, Scene]]) -> Table:
    """An LVIS v1 file: polygons only, no crowds, folders of images in `coco_url`, and what was (not fully) looked for.

    Objects with a hole, which polygons cannot say, are left out and their class named as not exhaustive. A third of
    the classes each is called rare, common and frequent, by their number of images.
    """
    images: list[Table] = []
    annotations: list[Table] = []
    seen: dict[str, set[int]] = {name: set() for name in LVIS_IDS}
    for i, (split, scene) in scenes.items():
        skipped = {scene.categories[scene.crowd - 1]} if scene.crowd else set()
        for label in scene.objects:
            mask, name = _mask(scene, label), scene.categories[label - 1]
            if has_hole(mask):
                skipped.add(name)
                continue
            seen[name].add(i)
            number = len(annotations) + 1
            annotations.append(_annotation(number, i, LVIS_IDS[name], mask, polygons(mask)))
        absent = sorted(LVIS_IDS[name] for name in set(LVIS_IDS) - set(scene.categories))
        looked_for = {
            "not_exhaustive_category_ids": sorted(LVIS_IDS[name] for name in skipped),
            "neg_category_ids": absent[i % 3 :: 3],
        }
        image = _image(i, scene, f"{image_id(i):012d}.jpg", split) | looked_for
        del image["file_name"]  # LVIS names folder and file in the address only
        images.append(image)
    by_rarity = sorted(LVIS_IDS, key=lambda name: (len(seen[name]), name))
    count = Counter(annotation["category_id"] for annotation in annotations)
    categories = [
        {
            "id": number,
            "name": LVIS_NAMES.get(name, name),
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "def": f"a drawn {name}",
            "frequency": "rcf"[by_rarity.index(name) * 3 // len(by_rarity)],
            "image_count": len(seen[name]),
            "instance_count": count[number],
        }
        for name, number in LVIS_IDS.items()
    ]
    return _tables("drawn, in the format of LVIS v1", images, annotations, categories)


def write_json(path: Path, tables: Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tables))


def polygons(mask: NDArray[np.uint8]) -> list[list[float]]:
    """One ring x, y, x, y, ... per part, along the pixels' edges: COCO fills it to exactly this mask."""
    fine = np.pad(mask.repeat(2, axis=0).repeat(2, axis=1), 1)
    rings, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((ring.reshape(-1) - 0.5) / 2).tolist() for ring in rings]


def has_hole(mask: NDArray[np.uint8]) -> bool:
    _, nesting = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return bool((nesting[0, :, 3] >= 0).any())


def uncompressed(mask: NDArray[np.uint8]) -> Table:
    """Run lengths as a list: pixels in column order, the first run is background and may be empty."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=0))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=len(pixels)).tolist()}


def compressed(mask: NDArray[np.uint8]) -> Table:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def _mask(scene: Scene, label: int) -> NDArray[np.uint8]:
    return (scene.labels == label).astype(np.uint8)


def _image(i: int, scene: Scene, file_name: str, split: str) -> Table:
    height, width = scene.size
    url = f"http://images.cocodataset.org/{split}/{file_name}"
    return {"id": image_id(i), "file_name": file_name, "height": height, "width": width, "coco_url": url, "license": 1}


def _annotation(number: int, i: int, category: int, mask: NDArray[np.uint8], segmentation: object) -> Table:
    return {
        "id": number,
        "image_id": image_id(i),
        "category_id": category,
        "segmentation": segmentation,
        "area": float(mask.sum()),
        "bbox": [float(side) for side in cv2.boundingRect(mask)],
    }


def _coco_categories() -> list[Table]:
    return [{"id": number, "name": name, "supercategory": GROUPS[name]} for name, number in COCO_IDS.items()]


def _tables(description: str, images: list[Table], annotations: list[Table], categories: list[Table]) -> Table:
    licenses = [{"id": 1, "name": "drawn by this suite", "url": ""}]
    about = {"description": description, "version": "1.0"}
    return {
        "info": about,
        "licenses": licenses,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
