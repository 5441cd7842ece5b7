"""COCO's splits by name, the 200 images of it that tests use, and any file in COCO's format."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_plus

import numpy as np

from datamodules.cache import with_pictures
from datamodules.catalog import DataSet, register, register_specification
from datamodules.index import ObjectIndex
from datamodules.readers.coco import read_coco
from datamodules.readers.image_files import ANYWHERE

IMAGES = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000, "test-dev2017": 20_288}
IMAGE_FOLDERS = ("images", "JPEGImages", "data", "imgs")  # CVAT and many more, labelme2coco, FiftyOne


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
        classes=80,
        note=CROWDS,
    )


def minival(val2014: ObjectIndex) -> ObjectIndex:
    """DEXTR's mini-val: all objects of the first 5,000 image ids in sorted order; they keep their ids of val2014."""
    first = np.arange(val2014.num_images) < 5000  # the reader sorts images by id
    left_out = tuple(f"{sentence} (in all of val2014)" for sentence in val2014.left_out)
    return replace(val2014.select_images(first), dataset="coco_minival5k", left_out=left_out)


class OwnFile(NamedTuple):
    """A file in COCO's format, where its images may lie, and whether its crowds are objects."""

    file: Path
    folders: list[Path]
    crowds_are_objects: bool


def own_file(kind: str, place: str) -> OwnFile:
    """The file that `<kind>:<place>` names, and where its images may lie: where `?images=/path` says, or near the file.

    Looked for are, next to the file and one folder up, a folder named as the file ends (`instances_train.json`:
    `train`), also in `images` (as CVAT has it), then `images` and what others call it, last those two places
    themselves; absolute names are taken as they are. A folder is what is typed, `+` and `%` included, `~` is the home
    folder. `?crowds=objects` takes crowds as objects. Raises ValueError for another `place`.
    """
    path, *options = re.split(r"[?&](images|crowds)=", place)
    asked = dict(zip(options[::2], options[1::2]))
    file, crowds = Path(path).expanduser().absolute(), asked.get("crowds", "")
    if not path or "" in asked.values() or crowds not in ("", "objects") or ("?" in path and not file.exists()):
        raise ValueError(
            f"expected {kind}:/path/annotations.json, ...json?images=/path or ?crowds=objects, got {kind}:{place}"
        )
    if "images" in asked:
        ways = asked["images"], unquote_plus(asked["images"])  # typed; encoded, as older runs have it
        folders = [Path(way).expanduser().absolute() for way in ways]
        return OwnFile(file, [next(filter(Path.is_dir, folders), folders[0])], bool(crowds))
    near = [file.parent, file.parent.parent]
    subsets = dict.fromkeys([file.stem.rpartition("_")[2], file.stem.removeprefix("instances_")])
    names = [name for subset in subsets for name in (subset, f"images/{subset}", f"{subset}/images")]
    places = [base / name for name in [*names, *IMAGE_FOLDERS, ""] for base in near]
    return OwnFile(file, [*places, ANYWHERE], bool(crowds))


def describe_coco_json(place: str) -> DataSet:
    """`coco_json:/path/annotations.json`, with `?images=/path` where the images are not found beside it.

    `?crowds=objects` takes crowds as objects.
    """
    file, folders, crowds = own_file("coco_json", place)
    name = f"coco_json:{file.name}"  # without the folder: ids are the same on every machine
    return DataSet(
        f"coco_json:{place}",
        read=lambda _: with_pictures(read_coco(file, folders, name, crowds_are_objects=crowds), [file]),
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


def _test_dev() -> DataSet:
    """The images that papers' test-dev numbers are about; a server alone has their annotations."""

    def image_list(root: Path) -> Path:
        return root / "annotations" / "image_info_test-dev2017.json"

    name = "coco2017/test-dev"
    return DataSet(
        name,
        read=lambda root: read_coco(image_list(root), [root / "test2017"], name, annotated=False),
        folder="coco",
        variable="COCO_ROOT",
        sources=lambda root: [image_list(root)],
        layout="annotations/image_info_test-dev2017.json, test2017/*.jpg",
        fetch="2017 test images, and 2017 testing image info, from https://cocodataset.org/#download",
        images=IMAGES["test-dev2017"],
        upload="https://cocodataset.org/#upload (test-dev2017, instance segmentation)",
    )


register(
    *_year("2014"),
    *_year("2017"),
    _test_dev(),
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
