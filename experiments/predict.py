"""Masks for people who only want masks: from extreme points, from an inside point and a box, or from clicks.

    python -m experiments.predict --run RUN image.jpg --points 12,80 95,14 180,77 90,160
    python -m experiments.predict --run RUN image.jpg --inside 95,80 --box 4,6,188,170
    python -m experiments.predict --run RUN image.jpg --positive 120,80 140,90 --negative 10,12
    python -m experiments.predict --run RUN image.jpg        all instances, of a run that finds them by itself

Which of the first three, the run's recipe says: it is what its simulated user gives before the first mask. Further
clicks, `--positive` on the object and `--negative` on the background, correct that mask where the run's evaluation
takes any. Writes image.mask.png (0 and 255) and image.overlay.png; of instances image.instances.json, and draws
those in image.overlay.png that have --threshold's score. That file has the form of COCO's results: `category` is the
class' name, `category_id` its id in the training data, left out where these are not there; `image_id` is 1, for a
picture of one's own has no number in a data set. From Python:

    predictor = Predictor.from_run("runs/3f2a...")
    mask = predictor(read_image("image.jpg"), [(12, 80), (95, 14), (180, 77), (90, 160)])

    session = predictor.session(read_image("image.jpg"), inside=(95, 80), box=(4, 6, 188, 170))
    mask = session.mask
    mask = session.click(120, 80)
    mask = session.click(10, 12, positive=False)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.images import read_image
from datamodules.mask_pictures import read_foreground
from datamodules.ranges import PROBABILITY
from experiments.console import one_sentence
from experiments.evaluation.instance_scorer import DRAWN
from experiments.interactive.instance_predictor import InstancePredictor, finds_instances
from experiments.interactive.predictor import Predictor
from experiments.options import Parser, box, file_to_write, point
from experiments.pictures import RGB, overlay, save_picture
from experiments.runs.models import finished_training
from experiments.runs.node import Node


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
    threshold = f"of the probability; default: the run's. Of instances: the score from which they are drawn, {DRAWN}"
    parser.add_argument("--threshold", type=PROBABILITY, help=threshold)
    parser.add_argument("--out", type=file_to_write, help="the mask's file, or that of instances; default: beside it")
    options = parser.parse_args(arguments)
    image = read_image(options.image)
    start = None if options.mask is None else read_foreground(options.mask)
    training = finished_training(options.run)
    if finds_instances(training):
        instances(training, image, options)
        return
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


def instances(training: Node, image: RGB, options: argparse.Namespace) -> None:
    """All instances on an image. Raises ValueError where clicks are given, which nobody would look at."""
    for name in ("points", "inside", "box", "positive", "negative", "mask"):
        if getattr(options, name) not in (None, [], ()):
            raise ValueError(f"run {training.hash} finds all instances by itself; leave out --{name}")
    threshold = DRAWN if options.threshold is None else options.threshold
    found = InstancePredictor.of(training)(image)
    out = options.out or options.image.with_suffix(".instances.json")
    picture = out.with_suffix("").with_suffix(".overlay.png")
    found.write(out, options.image.name)
    save_picture(found.drawn_on(image, threshold), picture)
    surer = sum(score >= threshold for score in found.scores)
    print(f"{len(found.scores)} instances, {surer} with a score of at least {threshold:g}: {out}, {picture}")


if __name__ == "__main__":
    one_sentence(main)
