"""PASCAL_EXT: objects of PASCAL on which people clicked extreme points (DEXTR, Tables 1 and 5; FAIRS, Table 2).

The masks are SBD's, the points lie in `points.json` in the format of datamodules/clicks/recorded.py;
`python -m datamodules.human_points voc-extreme` makes it of the published clicks (Papadopoulos et al., ICCV 2017). The
papers count 5,623 images: as far as we know those of SBD that are in the detection list `train` of PASCAL VOC 2012.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex, concatenate
from datamodules.readers.point_files import called, recorded_objects

POINTS = "points.json"


def clicked_objects(sbd: ObjectIndex, root: Path) -> ObjectIndex:
    """The objects of SBD that `root / points.json` has points of, on their images; they keep their ids of SBD.

    Raises ValueError where it has none of them; points on objects that SBD does not have are counted.
    """
    clicked = recorded_objects(root / POINTS)
    index = sbd.select(called(sbd, clicked))
    if not len(index):
        raise ValueError(f"{root / POINTS} has points on no object of SBD; those are called like {sbd.native_id[0]!r}")
    unknown = len(clicked) - len(index)
    left_out = (f"{unknown:,} objects with points that SBD does not have",) if unknown else ()
    index = index.select_images(np.isin(np.arange(index.num_images), index.image))
    return replace(index, left_out=left_out)


register(
    DataSet(
        "pascal/ext",
        folder="pascal_ext",
        variable="PASCAL_EXT_ROOT",
        sources=lambda root: [root / POINTS],
        layout=f"{POINTS}, and SBD in its own place",
        fetch="the extreme clicks of Papadopoulos et al., convert them by `python -m datamodules.human_points`",
        images=5_623,
        parts=("sbd/train", "sbd/val"),
        combine=lambda parts: concatenate(parts, "pascal/ext"),
        note="PASCAL_EXT: people's clicks belong to the object of SBD whose box has the best IoU with theirs, from 0.5 "
        "on (--min-iou of the conversion); objects without clicks are left out, nobody has published the pairs",
        cut=clicked_objects,
    )
)
