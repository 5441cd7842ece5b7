"""`folder:/path`: any folder of images and masks as a data set, one object per mask file."""

from __future__ import annotations

from pathlib import Path

from datamodules.cache import with_pictures
from datamodules.catalog import DataSet, register_specification
from datamodules.index import ObjectIndex
from datamodules.readers.folders import first_folder, read_pairs

LAYOUT = "img/ or images/ with the images, gt/ or masks/ with one mask per object, named as its image"


def image_folder(root: Path) -> Path:
    return first_folder(root, ["img", "images"])


def mask_folder(root: Path) -> Path:
    return first_folder(root, ["gt", "masks"])


def _read(root: Path) -> ObjectIndex:
    return read_pairs(image_folder(root), mask_folder(root), f"folder:{root.name}")


def describe_folder(place: str) -> DataSet:
    """The data set in this folder. A mask is what its file shows on black, or on nothing; see `read_pairs`."""
    if not place:
        raise ValueError("expected folder:/path of a folder with img/ and gt/ (or images/ and masks/), got no path")
    root = Path(place).expanduser().absolute()
    return DataSet(
        f"folder:{place}",
        read=lambda root: with_pictures(_read(root), [image_folder(root), mask_folder(root)]),
        folder=str(root),
        sources=lambda root: [image_folder(root), mask_folder(root)],
        layout=LAYOUT,
        fetch="your own images and masks",
    )


register_specification("folder", describe_folder)
