"""Masks for people who only want masks: from extreme points, from an inside point and a box, or from clicks.

    python -m experiments.predict --run RUN image.jpg --points 12,80 95,14 180,77 90,160
    python -m experiments.predict --run RUN image.jpg --inside 95,80 --box 4,6,188,170
    python -m experiments.predict --run RUN image.jpg --positive 120,80 140,90 --negative 10,12

Which of the three, the run's recipe says: it is what its simulated user gives before the first mask. Further clicks,
`--positive` on the object and `--negative` on the background, correct that mask where the run's evaluation takes any.
Writes image.mask.png (0 and 255) and image.overlay.png. From Python:

    predictor = Predictor.from_run("runs/3f2a...")
    mask = predictor(read_image("image.jpg"), [(12, 80), (95, 14), (180, 77), (90, 160)])

    session = predictor.session(read_image("image.jpg"), inside=(95, 80), box=(4, 6, 188, 170))
    mask = session.mask
    mask = session.click(120, 80)
    mask = session.click(10, 12, positive=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.images import read_image
from datamodules.ranges import PROBABILITY
from experiments.console import one_sentence
from experiments.interactive.predictor import Predictor
from experiments.options import Parser, box, file_to_write, point
from experiments.pictures import overlay, save_picture


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    xy: dict[str, Any] = {"type": point, "metavar": "x,y"}
    parser.add_argument("--points", nargs="+", default=[], **xy, help="the extreme points (DEXTR, FAIRS)")
    parser.add_argument("--inside", default=(), **xy, help="a point well inside of the object (IOG)")
    corners = "two opposite corners of a loose box around it (IOG)"
    parser.add_argument("--box", type=box, default=(), metavar="x0,y0,x1,y1", help=corners)
    parser.add_argument("--positive", nargs="+", default=[], **xy, help="clicks on the object")
    parser.add_argument("--negative", nargs="+", default=[], **xy, help="clicks on the background")
    parser.add_argument("--mask", type=Path, help="a mask to start from, for a network with a mask channel")
    parser.add_argument("--threshold", type=PROBABILITY, help="of the probability; default: the run's")
    parser.add_argument("--out", type=file_to_write, help="the mask's file; default: beside the image")
    options = parser.parse_args(arguments)
    image = read_image(options.image)
    start = None if options.mask is None else read_image(options.mask).max(axis=2)
    predictor = Predictor.from_run(options.run)
    if options.threshold is not None:
        predictor.threshold = options.threshold
    session = predictor.session(image, start, points=options.points, inside=options.inside, box=options.box)
    if options.positive or options.negative or not session.kinds:
        session.click_all(options.positive, options.negative)
    out = options.out or options.image.with_suffix(".mask.png")
    picture = out.with_suffix("").with_suffix(".overlay.png")
    save_picture((session.mask * np.uint8(255)), out)
    save_picture(overlay(image, session.mask, np.array(session.points), session.kinds), picture)
    print(f"{int(session.mask.sum()):,} pixels: {out}, {picture}")


if __name__ == "__main__":
    one_sentence(main)
