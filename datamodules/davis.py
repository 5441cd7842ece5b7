"""DAVIS 2016: videos with one mask per frame, all moving objects together; read frame by frame."""

from __future__ import annotations

from pathlib import Path

from datamodules.catalog import DataSet, register
from datamodules.index import MaskKind, ObjectIndex
from datamodules.readers.mask_files import Annotation, index_label_maps, with_progress


def read_davis2016(root: Path, split: str) -> ObjectIndex:
    """The frames of a DAVIS 2016 split as objects, in the order of its list; native ids are `sequence/frame`.

    `root` is the folder with JPEGImages, Annotations and ImageSets. Raises FileNotFoundError and ValueError naming the
    file that is missing or not as it should be.
    """
    pairs = _frames(root, split)
    name = f"davis2016/{split}"
    annotations = (
        Annotation(image, mask, [f"{mask.parent.name}/{mask.stem}"], [1], [-1])
        for image, mask in with_progress(pairs, name)
    )
    return index_label_maps([image for image, _ in pairs], annotations, name, kind=MaskKind.FOREGROUND)


def _frames(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Image and mask of every frame; a line of the list holds both, as paths below `root` that begin with a slash."""
    path = _list(root, split)
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if not lines or any(len(line) != 2 for line in lines):
        raise ValueError(f"{path} must have an image and a mask per line: /JPEGImages/480p/... /Annotations/480p/...")
    return [(root / image.lstrip("/"), root / mask.lstrip("/")) for image, mask in lines]


def _list(root: Path, split: str) -> Path:
    return root / "ImageSets" / "480p" / f"{split}.txt"


def _sources(root: Path, split: str) -> list[Path]:
    path = _list(root, split)
    if not path.exists():
        return [path]
    return [path, *sorted({mask.parent for _, mask in _frames(root, split)})]


def _split(split: str, images: int | None) -> DataSet:
    return DataSet(
        f"davis2016/{split}",
        read=lambda root: read_davis2016(root, split),
        folder="DAVIS",
        variable="DAVIS_ROOT",
        sources=lambda root: _sources(root, split),
        layout="JPEGImages/480p, Annotations/480p, ImageSets/480p/{train,val}.txt",
        fetch="DAVIS-data.zip (DAVIS 2016, 480p) from https://davischallenge.org/davis2016/code.html",
        images=images,
    )


register(_split("train", None), _split("val", 1_376))
