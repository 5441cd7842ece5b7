"""COCO's splits by name, the 200 images of it that tests use, and any file in COCO's format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np

from datamodules.catalog import DataSet, register, register_specification
from datamodules.index import ObjectIndex
from datamodules.readers.coco import read_coco

IMAGES = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


def _split(name: str, folder: str, split: str, variable: str, layout: str, fetch: str, images: int) -> DataSet:
    def annotation_file(root: Path) -> Path:
        return root / "annotations" / f"instances_{split}.json"

    return DataSet(
        name,
        read=lambda root: read_coco(annotation_file(root), [root / split], name),
        folder=folder,
        variable=variable,
        sources=lambda root: [annotation_file(root)],
        layout=layout,
        fetch=fetch,
        images=images,
        note=CROWDS,
    )


def minival(val2014: ObjectIndex) -> ObjectIndex:
    """DEXTR's mini-val: all objects of the first 5,000 image ids in sorted order; they keep their ids of val2014."""
    first = np.arange(val2014.num_images) < 5000  # the reader sorts images by id
    left_out = tuple(f"{sentence} (in all of val2014)" for sentence in val2014.left_out)
    return replace(val2014.select_images(first), dataset="coco_minival5k", left_out=left_out)


def annotation_file_and_folders(kind: str, place: str) -> tuple[Path, list[Path]]:
    """The file that `<kind>:<place>` names, and where its images may lie: where `?images=/path` says, or near the file.

    Looked for are, next to the file and one folder up, a folder named as the file ends (`instances_train.json`:
    `train`), then `images`, and last those two places themselves. Raises ValueError for another `place`.
    """
    path, _, options = place.partition("?")
    asked = parse_qs(options, keep_blank_values=True)
    if set(asked) - {"images"} or not path:
        raise ValueError(f"expected {kind}:/path/annotations.json or ...json?images=/path, got {kind}:{place}")
    file = Path(path).absolute()
    near = [file.parent, file.parent.parent]
    names = [file.stem.rpartition("_")[2], "images", ""]
    return file, [Path(asked["images"][0]).absolute()] if asked else [base / name for name in names for base in near]


def describe_coco_json(place: str) -> DataSet:
    """`coco_json:/path/annotations.json`, with `?images=/path` where the images are not found beside it."""
    file, folders = annotation_file_and_folders("coco_json", place)
    name = f"coco_json:{file.name}"  # without the folder: ids are the same on every machine
    return DataSet(
        f"coco_json:{place}",
        read=lambda _: read_coco(file, folders, name),
        folder=str(file.parent),
        sources=lambda _: [file],
        layout=f"{file.name}, with its images in {folders[0]}",
        fetch="a file in COCO's format",
    )


CROWDS = (
    "COCO: crowd annotations (iscrowd) and objects without pixels are left out and counted; DEXTR's released reader "
    "keeps crowds, the other papers do not say"
)


def _year(year: str) -> list[DataSet]:
    layout = f"annotations/instances_{{train,val}}{year}.json, {{train,val}}{year}/*.jpg"
    fetch = f"{year} train and val images, and {year} train/val annotations, from https://cocodataset.org/#download"
    return [
        _split(
            name=f"coco{year}/{part}",
            folder="coco",
            split=f"{part}{year}",
            variable="COCO_ROOT",
            layout=layout,
            fetch=fetch,
            images=IMAGES[f"{part}{year}"],
        )
        for part in ("train", "val")
    ]


register(
    *_year("2014"),
    *_year("2017"),
    DataSet(
        "coco_minival5k",
        images=5_000,
        parts=("coco2014/val",),
        combine=lambda parts: minival(parts[0]),
    ),
    *(
        _split(
            name=f"coco200/{split}",
            folder="coco200",
            split=split,
            variable="COCO200_ROOT",
            layout="annotations/instances_{train,val}2017.json, {train,val}2017/*.jpg",
            fetch="the 200 COCO images that this project is tried out on, with every instance of a thing",
            images=100,
        )
        for split in ("train2017", "val2017")
    ),
)

register_specification("coco_json", describe_coco_json)
