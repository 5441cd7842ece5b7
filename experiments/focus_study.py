"""How far FAIRS' focus moves when a user misses the extreme points (Sec. 4.2, Fig. 3d).

    python -m experiments.focus_study --data coco_mval800 --draws 10000 --out reports/focus

All four extreme points of an object on its crop are moved in x and in y; the figure shows how far they moved, taken
together, and how far the focus of their potential did. OUT gets focus.png, and focus.csv with a row per draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from datamodules.ranges import COUNT, POSITIVE, WHOLE
from datamodules.recipe import SampleRecipe
from datamodules.selection import open_objects
from experiments.composition.merging import parse_value
from experiments.console import one_sentence
from experiments.evaluation.focus import Noise, study
from experiments.options import Parser, folder_to_write


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("--data", required=True, help="a data set's name, or {name: ..., min_area: ...}")
    parser.add_argument("--draws", type=COUNT, default=10_000, help="in all; default: 10,000")
    parser.add_argument("--noise", choices=get_args(Noise), default="integers", help="default: integers")
    parser.add_argument("--spread", type=POSITIVE, default=10.0, help="pixels of the crop; default: 10")
    parser.add_argument("--size", type=COUNT, default=512, help="of the crop; default: 512")
    parser.add_argument("--relax", type=WHOLE, default=50, help="margin in pixels of the image; default: 50")
    parser.add_argument("--seed", type=WHOLE, default=0, help="of the draws; default: 0")
    parser.add_argument("--out", type=folder_to_write, required=True, help="folder of the figure and of the draws")
    options = parser.parse_args(arguments)
    metrics = study(
        open_objects([parse_value(options.data)], seed=options.seed),
        SampleRecipe(size=options.size, relax=options.relax),
        draws=options.draws,
        noise=options.noise,
        spread=options.spread,
        seed=options.seed,
        folder=options.out,
    )
    print(f"{metrics['n']:,} objects, {metrics['draws']:,} draws of {options.noise}, in pixels of the crop")
    for what in ("error", "shift", "object_shift"):
        mean, median, low, high = (metrics[f"{name}_{what}"] for name in ("mean", "median", "p10", "p90"))
        print(f"  {what:<13} mean {mean:.2f}, median {median:.2f}, 10-90 % {low:.2f}-{high:.2f}")
    print(f"figure: {options.out / 'focus.png'}")


if __name__ == "__main__":
    one_sentence(main)
