"""Tiny data sets in the official layouts, drawn by hand so that every answer is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

SIZE = (12, 16)  # (H, W), not square: swapped axes show


def blank(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.zeros(size, np.uint8)


def rectangle(x0: int, y0: int, x1: int, y1: int, value: int = 1, on: NDArray | None = None) -> NDArray[np.uint8]:
    """A filled rectangle, inclusive xyxy, drawn over `on`."""
    labels = blank() if on is None else on.copy()
    labels[y0 : y1 + 1, x0 : x1 + 1] = value
    return labels


def write_image(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
    return path


def write_gray(path: Path, labels: NDArray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)
    return path


def write_palette(path: Path, labels: NDArray) -> Path:
    """Indices stored as they are; their colours are something else, as in VOC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8), mode="P")
    image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)
    return path


def write_voc(root: Path, splits: Mapping[str, Mapping[str, tuple[NDArray, NDArray]]]) -> Path:
    """`splits`: {"train": {image name: (objects, classes)}}; returns the folder with JPEGImages."""
    for split, images in splits.items():
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
        for name, (objects, classes) in images.items():
            write_image(root / "JPEGImages" / f"{name}.jpg", objects.shape)
            write_palette(root / "SegmentationObject" / f"{name}.png", objects)
            write_palette(root / "SegmentationClass" / f"{name}.png", classes)
    return root


def write_sbd(root: Path, splits: Mapping[str, Mapping[str, tuple[NDArray, Sequence[int]]]]) -> Path:
    """`splits`: {"train": {image name: (labels, categories of the labels)}}."""
    for split, images in splits.items():
        (root / "inst").mkdir(parents=True, exist_ok=True)
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
        for name, (labels, categories) in images.items():
            write_image(root / "img" / f"{name}.jpg", labels.shape)
            record = {"Segmentation": labels.astype(np.uint8), "Categories": np.array(categories, np.uint8)[:, None]}
            savemat(root / "inst" / f"{name}.mat", {"GTinst": record})
    return root


def coco_annotation(number: int, image: int, segmentation: Any, **fields: Any) -> dict[str, Any]:
    """An annotation that is right in every other respect."""
    annotation = {"id": number, "image_id": image, "category_id": 7, "iscrowd": 0, "area": 20, "bbox": [2, 3, 5, 4]}
    return {**annotation, "segmentation": segmentation, **fields}


def write_coco(
    root: Path, annotations: Sequence[dict], split: str = "val2017", images: Sequence[int] = (1,), **lists: Any
) -> Path:
    """COCO's folders; categories 7 (cat) and 90 (toothbrush); returns the annotation file."""
    entries = [{"id": i, "file_name": f"{i:012d}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in images]
    for entry in entries:
        write_image(root / split / str(entry["file_name"]))
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 7, "name": "cat"}]
    content = {"info": {"year": 2017}, "images": entries, "annotations": list(annotations), "categories": categories}
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**content, **lists}))
    return file
