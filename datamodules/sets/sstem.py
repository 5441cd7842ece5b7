"""ssTEM (Gerhard et al., 2013): mitochondria in 20 sections of a fly's nerve cord, seen by an electron microscope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex, predicted_from
from datamodules.masks import read_label_map
from datamodules.readers.folders import files_by_name
from datamodules.readers.mask_files import with_progress
from datamodules.readers.run_lengths import Encoded, index_run_lengths

EIGHT = np.ones((3, 3), int)  # pixels that touch at a corner are of one object


def read_sstem(root: Path) -> ObjectIndex:
    """The mitochondria of stack 1, section by section: `raw/NN.tif` (8-bit gray) and `mitochondria/NN.png` (binary).

    `root` is the folder `stack1` of the release, or the one above it. The maps do not tell mitochondria apart: each
    area that is connected over sides or corners is an object, `NN/k`, k = 1, 2, ... in raster order, so that two which
    touch are one, and one that a section shows twice is two. The names of the files are the release's own, their
    pixels were not at hand: white is taken as mitochondrion. IOG does not say how many objects it counts; a
    re-implementation has 388.

    Raises FileNotFoundError for missing files, ValueError for maps that are not binary or do not fit their image.
    """
    stack = _stack(root)
    images, maps = files_by_name(stack / "raw"), files_by_name(stack / "mitochondria")
    if unpaired := sorted(set(images) ^ set(maps)):
        raise FileNotFoundError(
            f"{unpaired[0]} is in one of {stack / 'raw'} and {stack / 'mitochondria'} only ({len(unpaired)} such "
            "names); expected raw/NN.tif and mitochondria/NN.png of every section"
        )
    pairs = [(image, maps[name]) for name, image in images.items()]
    return index_run_lengths([image for image, _ in pairs], _areas(pairs), "sstem", categories=("mitochondrion",))


def _stack(root: Path) -> Path:
    return root / "stack1" if (root / "stack1").is_dir() else root


def _areas(pairs: Sequence[tuple[Path, Path]]) -> Iterator[Encoded]:
    for number, (image, path) in enumerate(with_progress(pairs, "sstem")):
        values = read_label_map(path)
        labels, count = ndimage.label(values >= predicted_from(values, path), EIGHT)
        for k in range(1, count + 1):
            yield Encoded(number, f"{image.stem}/{k}", 0, coco_mask.encode(np.asfortranarray(labels == k, np.uint8)))


register(
    DataSet(
        "sstem",
        read=read_sstem,
        folder="ssTEM",
        variable="SSTEM_ROOT",
        sources=lambda root: [_stack(root) / "raw", _stack(root) / "mitochondria"],
        layout="stack1/raw/NN.tif, stack1/mitochondria/NN.png",
        fetch="https://github.com/unidesigner/groundtruth-drosophila-vnc (non-commercial licence; figshare 856713)",
        images=20,
    )
)
