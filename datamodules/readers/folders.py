"""Folders of images and of mask files: DAVIS, GrabCut, Berkeley and a user's own pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.index import MaskKind, ObjectIndex
from datamodules.mask_pictures import foreground_from
from datamodules.readers.mask_files import Annotation, index_label_maps, with_progress

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".avif"),
)


def read_pairs(
    image_folder: Path,
    mask_folder: Path,
    dataset: str,
    *,
    threshold: int | None = None,
    void_value: int = -1,
    image_of: Callable[[str], str] = lambda stem: stem,
    ids_of: str | None = None,
) -> ObjectIndex:
    """One object per mask file; a mask belongs to the image with the same name (whatever the suffixes).

    Args:
        threshold: values from here on are the object. None: what a file shows on black is, so that 0/1, 0/255, 1-bit,
            palette and transparent masks mean the same; soft ones count from the middle, as `foreground_from` says.
        void_value: the value of pixels nobody labelled, -1 without.
        image_of: the name of a mask's image where it is not its own (Berkeley's 189011a belongs to 189011).
    Raises FileNotFoundError for missing folders and partners, ValueError for masks that do not fit their images, and
    for those that show several objects.
    """
    images, masks = files_by_name(image_folder), files_by_name(mask_folder)
    owners = {mask: mask if mask in images else image_of(mask) for mask in masks}
    if alone := sorted(mask for mask, image in owners.items() if image not in images):
        raise FileNotFoundError(
            f"mask {masks[alone[0]]} has no image in {image_folder} ({len(alone)} such masks); expected "
            f"{image_of(alone[0])}.jpg or another image of that name"
        )
    if bare := sorted(set(images) - set(owners.values())):
        raise FileNotFoundError(
            f"image {images[bare[0]]} has no mask in {mask_folder} ({len(bare)} such images); expected {bare[0]}.png"
        )

    def annotation(mask: str) -> Annotation:
        value = threshold or foreground_from(masks[mask])
        return Annotation(images[owners[mask]], masks[mask], [mask], [value], [-1])

    return index_label_maps(
        list(images.values()),
        (annotation(mask) for mask in with_progress(sorted(masks), dataset)),
        dataset,
        kind=MaskKind.FOREGROUND,
        void_value=void_value,
        ids_of=ids_of,
    )


def files_by_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name without suffix, sorted. Raises when there are none, or two of one name."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} is missing")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):  # macOS leaves ._copies
            if path.stem in files:
                raise ValueError(f"{files[path.stem]} and {path} have one name; remove one of them")
            files[path.stem] = path
    if not files:
        raise FileNotFoundError(f"no pictures in {folder}; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return files


def first_folder(root: Path, names: Sequence[str]) -> Path:
    """The first of these folders that exists below `root`; the first name where none does."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])
