"""Separated COCO: objects of COCO val2017 that something in front cuts into several parts (Zhan et al., BMVC 2022).

The published list, `separated_coco.pkl`, is looked for beside COCO's annotations. It is a pickle of plain lists, one
per object: the image's file name, the class, a score that nobody needs, the corners of the box, the mask as run
lengths. It is read without running what a pickle may hold. Without the list the objects of val2017 stand in whose mask
has two or more parts, each at least 5 % of it; the name of the index then says so.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex
from datamodules.masks import pieces

LIST = "annotations/separated_coco.pkl"
STAND_IN = "separated_coco (stand-in: two or more parts of 5 % of the mask)"
NEAR = 2.0  # pixels by which a corner of the list may lie beside the annotation's: some of them are rounded


class Listed(NamedTuple):
    """An object of the list: its image's name, its class, its box as corners xyxy."""

    image: str
    category: str
    box: tuple[float, float, float, float]


class PlainUnpickler(pickle.Unpickler):
    """Lists, numbers, words and bytes; nothing that has to be imported, and so nothing that runs."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain lists are read")


def read_separated(file: Path) -> list[Listed]:
    """The published list. Raises ValueError saying what is wrong with the file."""
    try:
        entries = PlainUnpickler(io.BytesIO(file.read_bytes())).load()
        return [_listed(entry) for entry in entries]
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} is not the list of Separated COCO: {error}; expected a pickle of lists (file name, class, score, "
            "box, mask)"
        ) from None


def _listed(entry: Any) -> Listed:
    image, category, _, box, *_ = entry
    if not (isinstance(image, str) and isinstance(category, str) and len(box) == 4):
        raise ValueError(f"an entry is {str(entry)[:80]}")
    x_min, y_min, x_max, y_max = map(float, box)
    return Listed(image.rpartition("/")[2], category, (x_min, y_min, x_max, y_max))


def separated(val: ObjectIndex, root: Path) -> ObjectIndex:
    """The objects of COCO val2017 that are separated: by the list below `root`, or by their parts."""
    if (root / LIST).is_file():
        found, missing = matched(val, read_separated(root / LIST))
        if not len(found):
            raise ValueError(f"{root / LIST} lists no object of {val.dataset}")
        left_out = (f"{missing:,} listed objects that {val.dataset} does not have",) if missing else ()
        index, name = val.select(found), "separated_coco"
    else:
        keep = np.array([pieces(val.read_mask(i).mask) >= 2 for i in range(len(val))], bool)
        if not keep.any():
            raise ValueError(f"no object of {val.dataset} has a mask of several parts")
        index, name, left_out = val.select(keep), STAND_IN, ()
    index = index.select_images(np.isin(np.arange(index.num_images), index.image))
    return replace(index, dataset=name, left_out=left_out)


def matched(val: ObjectIndex, listed: list[Listed]) -> tuple[NDArray[np.int64], int]:
    """Positions of the listed objects, ascending, and how many of them the index has not.

    An object is that of the same image and class whose corners lie nearest, each within NEAR pixels.
    """
    images: dict[str, int] = {path.rpartition("/")[2]: k for k, path in enumerate(val.image_paths)}
    classes = {name: k for k, name in enumerate(val.categories)}
    corners = val.box.astype(np.float64) + np.array([0, 0, 1, 1])  # the list's boxes end where the last pixel does
    firsts = np.searchsorted(val.image, np.arange(val.num_images + 1))
    found, missing = set(), 0
    for each in listed:
        k = images.get(each.image)
        of_image = range(0) if k is None else range(firsts[k], firsts[k + 1])
        alike = [i for i in of_image if val.category[i] == classes.get(each.category, -2)]
        away = [float(np.abs(corners[i] - np.array(each.box)).max()) for i in alike]
        if away and min(away) <= NEAR:
            found.add(alike[int(np.argmin(away))])
            continue
        missing += 1
    return np.array(sorted(found), np.int64), missing


register(
    DataSet(
        "separated_coco",
        folder="coco",
        variable="COCO_ROOT",
        sources=lambda root: [root / LIST] if (root / LIST).is_file() else [],
        layout=f"{LIST} beside COCO's own annotations; without it objects of several parts stand in",
        fetch="the list of Separated COCO (Zhan et al., BMVC 2022)",
        parts=("coco2017/val",),
        combine=lambda parts: parts[0],
        cut=separated,
        note="Separated COCO: without its published list the objects of val2017 whose mask has two or more parts of at "
        "least 5 % of its area each stand in",
    )
)
