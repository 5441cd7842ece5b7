"""`boxes:/path/boxes.json`: boxes of any COCO file as objects without masks (IOG, Table 8; Pixel-ImageNet)."""

from __future__ import annotations

from pathlib import Path

from datamodules.cache import with_pictures
from datamodules.catalog import DataSet, register_specification
from datamodules.index import ObjectIndex
from datamodules.readers.boxes import read_boxes
from datamodules.sets.coco import own_file


def boxes_name(file: Path | str, images: Path | str | None = None) -> str:
    """The name under which the catalog knows this file, with its images in this folder or, without, near it."""
    asked = "" if images is None else f"?images={Path(images).expanduser().absolute()}"
    return f"boxes:{Path(file).absolute()}{asked}"


def describe_boxes(place: str) -> DataSet:
    """`boxes:/path/boxes.json`, with `?images=/path` where the images are not found beside it, as for `coco_json:`.

    Only `id`, `image_id`, `bbox`, `category_id` and `iscrowd` of its annotations are read.
    """
    file, folders, crowds = own_file("boxes", place)

    def read(_: Path) -> ObjectIndex:
        return with_pictures(read_boxes(file, folders, f"boxes:{file.name}", crowds_are_objects=crowds), [file])

    return DataSet(
        f"boxes:{place}",
        read=read,
        folder=str(file.parent),
        sources=lambda _: [file],
        layout=f"{file.name}, with its images in {folders[0]}",
        fetch="a file in COCO's format with a bbox per annotation",
    )


register_specification("boxes", describe_boxes)
