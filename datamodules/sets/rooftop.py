"""Rooftop (Sun et al., ECCV 2014): outlines of roofs in 65 aerial images of villages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from datamodules.catalog import DataSet, register
from datamodules.images import image_size
from datamodules.index import ObjectIndex
from datamodules.masks import rle_of_polygons
from datamodules.readers.folders import files_by_name
from datamodules.readers.mask_files import with_progress
from datamodules.readers.run_lengths import Encoded, index_run_lengths


def read_rooftop(root: Path, split: str) -> ObjectIndex:
    """The roofs of a split, `train` or `test`: `<split>/NAME.jpg` and `<split>/NAME.mat`; native ids are `NAME/k`.

    A .mat holds the cell `gt` with an outline (n, 2) per roof, k = 1, 2, ..., as x, y in pixels, filled as COCO's
    polygons are. This is how the release describes itself and how others read it; it was not at hand, and whether its
    pixels count from 0, as taken here, or from 1 is not known. Images without a .mat have no object, and are counted.

    Raises FileNotFoundError for a missing folder, or outlines without an image, ValueError for a .mat of another kind.
    """
    folder = root / split
    images, outlines = files_by_name(folder), _outlines(folder)
    if not outlines:
        raise FileNotFoundError(f"no outlines in {folder}; expected NAME.mat with the cell gt beside every NAME.jpg")
    if alone := sorted(set(outlines) - set(images)):
        raise FileNotFoundError(f"{outlines[alone[0]]} has no image beside it ({len(alone)} such files)")
    bare = sorted(set(images) - set(outlines))
    left_out = [f"{len(bare)} images without outlines, the first is {bare[0]}"] if bare else []
    name = f"rooftop/{split}"
    roofs = _roofs(images, outlines, name)
    return index_run_lengths(list(images.values()), roofs, name, categories=("roof",), left_out=left_out)


def _outlines(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.mat")) if not path.name.startswith(".")}


def _roofs(images: Mapping[str, Path], outlines: Mapping[str, Path], name: str) -> Iterator[Encoded]:
    places = {stem: place for place, stem in enumerate(images)}
    for stem in with_progress(sorted(outlines), name):
        size = image_size(images[stem])
        for k, ring in enumerate(_rings(outlines[stem]), start=1):
            yield Encoded(places[stem], f"{stem}/{k}", 0, rle_of_polygons([ring], size))


def _rings(path: Path) -> list[NDArray[np.float64]]:
    """The outlines of a .mat, each (2n,) as x, y, x, y, ..."""
    try:
        cell = loadmat(str(path), variable_names=["gt"])["gt"]
        rings = [np.asarray(ring, np.float64) for ring in (cell.ravel() if cell.dtype == object else [cell])]
    except Exception as error:  # scipy raises a dozen kinds, from zlib's to TypeError
        raise ValueError(f"{path} has no cell gt with outlines ({error}); fetch it again") from None
    rings = [ring for ring in rings if ring.size]
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
            raise ValueError(f"an outline in {path} is {ring.shape}; expected (n, 2) numbers, x and y of every corner")
    return [ring.ravel() for ring in rings]


def _split(split: str) -> DataSet:
    return DataSet(
        f"rooftop/{split}",
        read=lambda root: read_rooftop(root, split),
        folder="Rooftop",
        variable="ROOFTOP_ROOT",
        sources=lambda root: [root / split],
        layout="{train,test}/NAME.jpg and NAME.mat",
        fetch="Rooftop.zip, the polygonal object data set of EPFL's CVLab (65 images in both splits)",
    )


register(_split("train"), _split("test"))
