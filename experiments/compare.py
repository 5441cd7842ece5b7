"""Compare trained runs click for click, on the same objects.

    python -m experiments.compare --runs RUN RUN RUN --data coco200/val2017 davis345 --clicks 10 --rule itis

Every run goes through the click benchmark on every data set, as `experiments.evaluate --protocol clicks` does it: the
first points of its method count as clicks, then one rule clicks for all. What is evaluated already is not made again.
Writes compare.md, compare.html and compare.json; the first run is the one that the others are compared with.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datamodules.ranges import COUNT
from experiments.console import one_sentence
from experiments.options import Parser, folder_to_write
from experiments.reports.compared import evaluated
from experiments.reports.comparison_report import write


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = Parser(__doc__)
    parser.add_argument("--runs", nargs="+", required=True, metavar="RUN", help="folders, or beginnings of hashes")
    parser.add_argument("--data", nargs="+", required=True, help="data sets by name, or {name: ..., min_area: ...}")
    parser.add_argument("--names", nargs="+", help="what the report calls the runs; default: their methods")
    parser.add_argument("--clicks", type=COUNT, default=10, help="per object, first points included")
    parser.add_argument("--rule", default="itis", help="where the next click goes, e.g. itis, ritm or iog")
    parser.add_argument("--every", type=COUNT, help="every n-th object of each data set")
    parser.add_argument("--objects", type=COUNT, default=8, help="objects of each data set that are shown")
    parser.add_argument("--out", type=folder_to_write, default=Path("reports/compare"), help="the report's folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    how = {"clicks": options.clicks, "rule": options.rule}
    runs = evaluated(options.runs, options.data, names=options.names, every=options.every, **how)
    print(f"report: {write(runs, options.out, objects=options.objects, **how)}")


if __name__ == "__main__":
    one_sentence(main)
