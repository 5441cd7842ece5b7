"""Files of the points that people clicked: made of published annotation, or simulated as a stand-in for it.

    python -m datamodules.human_points voc-extreme FILE_OR_FOLDER --out DATA_ROOT/pascal_ext/points.json
    python -m datamodules.human_points simulate pascal/val --type inside --annotators 5 --out points.json

Their format is that of datamodules/clicks/recorded.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.distance import as_bytes
from datamodules.clicks.errors import pixels_of
from datamodules.clicks.extreme import extreme_points, tight_box
from datamodules.clicks.inside_outside import inside_point, perturbed
from datamodules.clicks.recorded import Type, write_points
from datamodules.index import ObjectIndex
from datamodules.keys import rng
from datamodules.ranges import COUNT, POSITIVE, PROBABILITY, WHOLE
from datamodules.readers.mask_files import with_progress
from datamodules.readers.voc_extreme import match_to_objects, read_voc_extreme
from datamodules.selection import open_objects

Record = tuple[str, int, NDArray[np.float32]]
INSIDE_SPREAD, EXTREME_SPREAD = 0.1, 0.05


def simulated(
    index: ObjectIndex, type: Type, annotators: int = 1, spread: float | None = None, seed: int = 0
) -> Iterator[Record]:
    """What careless people would click on every object, each annotator another draw; keyed by seed and object.

    Args:
        type: `inside`: a pixel of the object within `spread` of its thickest place; `extreme`: a pixel of the object's
            boundary, the nearest to an extreme point that moved by a normal deviate of this deviation.
        spread: as a share of the longer side of the object's box, at least one pixel. 0.1 inside (the largest radius of
            IOG's Table 7, 50 of 512 pixels, is that much of a crop), 0.05 for extreme points. Our choice, both.
    Yields (native id, annotator, points (1 or 4, 2) in pixels of the image).
    """
    share = spread if spread is not None else INSIDE_SPREAD if type == "inside" else EXTREME_SPREAD
    for i in with_progress(range(len(index)), f"points on {index.dataset}"):
        mask = index.read_mask(i).mask
        x_min, y_min, x_max, y_max = tight_box(mask).tolist()
        reach = max(1.0, share * max(x_max - x_min + 1, y_max - y_min + 1))
        for annotator in range(annotators):
            draw = rng(seed, annotator, int(index.object_id[i]))
            if type == "inside":
                points = perturbed(inside_point(mask), mask, reach, draw)[None]
            else:
                points = on_boundary(extreme_points(mask) + draw.normal(0, reach, (4, 2)), mask)
            yield index.native_id[i], annotator, points


def on_boundary(points: NDArray, mask: NDArray) -> NDArray[np.float32]:
    """The pixels of the object's boundary that are nearest to points (n, 2): the object's, beside what is not."""
    padded = np.pad(as_bytes(np.asarray(mask) > 0), 1)
    boundary = pixels_of(((padded - cv2.erode(padded, np.ones((3, 3), np.uint8))) > 0)[1:-1, 1:-1])
    distances = ((points[:, None] - boundary[None]) ** 2).sum(-1)
    return boundary[distances.argmin(1)].astype(np.float32)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a file of points. Returns 1, with a sentence, for what cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.human_points",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("voc-extreme", help="the extreme clicks of Papadopoulos et al. (ICCV 2017)")
    convert.add_argument("clicks", type=Path, help="the published file, or the folder of one per image (.mat, .json)")
    convert.add_argument("--masks", nargs="+", default=["sbd/train", "sbd/val"], help="data sets with the objects")
    convert.add_argument("--first-pixel", type=int, choices=(0, 1), default=1, help="what the file calls it")
    convert.add_argument("--min-iou", type=PROBABILITY, default=0.5, help="of the clicks' box and the object's box")
    draw = commands.add_parser("simulate", help="a stand-in: the points of simulated annotators")
    draw.add_argument("data", help="a data set")
    draw.add_argument("--type", choices=("inside", "extreme"), default="inside")
    draw.add_argument("--annotators", type=COUNT, default=1)
    draw.add_argument("--spread", type=POSITIVE, help="share of the longer side of an object's box")
    draw.add_argument("--seed", type=WHOLE, default=0)
    for command in (convert, draw):
        command.add_argument("--root", type=Path, help="the data root, instead of DATA_ROOT")
        command.add_argument("--out", type=Path, required=True, help="the JSON to write")
    options = parser.parse_args(argv)
    try:
        if options.command == "simulate":
            index = open_objects(options.data, options.root)
            records = simulated(index, options.type, options.annotators, options.spread, options.seed)
            source = f"simulated by datamodules.human_points, {options.annotators} annotators, seed {options.seed}"
            written = write_points(options.out, options.type, records, dataset=options.data, source=source)
            told = f"{len(written):,} simulated records"
        else:
            clicks = read_voc_extreme(options.clicks, options.first_pixel)
            index = open_objects(options.masks, options.root)
            found, unmatched = match_to_objects(clicks, index, options.min_iou)
            source = "extreme clicks of Papadopoulos et al. (ICCV 2017)"
            written = write_points(options.out, "extreme", found, dataset=" + ".join(options.masks), source=source)
            told = f"{len(written):,} objects with extreme points; {unmatched:,} clicked objects have no mask"
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{told}, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
