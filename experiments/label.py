"""Turn boxes or simulated points into masks, as COCO JSON (FAIRS-WS; IOG, Table 8 E, as Pixel-ImageNet was made).

    python -m experiments.label --run RUN --boxes boxes.json --images DIR --out labels.json
    python -m experiments.label --run RUN --boxes boxes.json --images DIR --first OTHER_RUN
    python -m experiments.label --run RUN --data coco2017/val --every 10

RUN is a run's folder or the beginning of its hash. With boxes it must need no more than a box says: outside points, or
the box's centre; one that needs an inside point has it found by `--first`, a run of outside points. With a data set the
points are simulated on its masks. The same command goes on where a killed one stopped. Masks go into labels.json of a
run of its own, which any training takes: `{name: coco2017/val, labelled: runs/<hash>/labels.json}`; what they are worth
stands beside it in quality.md (docs/labels.md).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from datamodules.files import whole_file
from datamodules.ranges import COUNT, PROBABILITY
from experiments.composition.merging import parse_data
from experiments.console import one_sentence
from experiments.evaluation.settings import LabelSettings
from experiments.labelling.quality_page import PAGE
from experiments.labelling.requests import label_node
from experiments.launching.making import execute
from experiments.options import Parser, file_to_write
from experiments.runs.environment import is_rank_zero
from experiments.runs.models import finished_training
from experiments.runs.naming import LABELS
from experiments.runs.node import Node
from experiments.runs.records import left_out_in_words


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = Parser(__doc__)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--first", help="a run of outside points whose masks say where the inside point of --run is")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--boxes", type=Path, help="a COCO file, of which the boxes are read")
    what.add_argument("--data", help="a data set, whose masks the points are simulated on: a name, or {name: ...}")
    parser.add_argument("--images", type=Path, help="of --boxes: where the images lie; default: near the file")
    parser.add_argument("--every", type=COUNT, help="every n-th object")
    parser.add_argument("--limit", type=COUNT, help="this many objects, drawn by the data's seed")
    parser.add_argument("--threshold", type=PROBABILITY, help="of the probability; default: the recipe's")
    parser.add_argument(
        "--empty",
        choices=get_args(get_type_hints(LabelSettings)["empty"]),
        help="what an object without a mask, or at most 2 pixels thin, gets; default: the recipe's, else nothing",
    )
    parser.add_argument("--shown", help="of EXITS: who predicts, student, teacher or mean; default: the recipe's")
    parser.add_argument("--out", type=file_to_write, help="where to put a copy of labels.json")
    parser.add_argument("--devices", type=COUNT, default=1, help="processes; default: 1")
    return parser.parse_args(arguments)


def node_of(options: argparse.Namespace) -> Node:
    """The label run that a command line asks for. Raises ValueError when it cannot be."""
    return label_node(
        finished_training(options.run),
        finished_training(options.first) if options.first else None,
        data=None if options.data is None else parse_data(options.data),
        boxes=options.boxes,
        images=options.images,
        every=options.every,
        limit=options.limit,
        threshold=options.threshold,
        empty=options.empty,
        shown=options.shown,
        devices=options.devices,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    node = node_of(options)
    record = execute(node, str(options.boxes or options.data))
    if not is_rank_zero():
        return
    labels = node.folder.path / LABELS
    if options.out is not None:
        with whole_file(options.out) as partial:
            shutil.copyfile(labels, partial)
    made = f"masks: {options.out or labels}, a few pictures: {node.folder.path / 'pictures'}"
    if (page := node.folder.path / PAGE).exists():  # runs of earlier versions have none
        made += f", their quality: {page}"
    empty = f"; {record['metrics']['empty']:,} objects got no mask" if record["metrics"]["empty"] else ""
    print(f"{made}{empty}{unlabelled_in_words(record)}")


def unlabelled_in_words(record: Mapping[str, Any]) -> str:
    """`; not labelled: 3 crowd annotations; 3 crowds are copied into labels.json as annotated`, as far as it is so."""
    crowds = record.get("crowds_copied", 0)  # records of earlier versions do not say it
    copied = f"; {crowds:,} {'crowd is' if crowds == 1 else 'crowds are'} copied into {LABELS} as annotated"
    return left_out_in_words(record).replace("left out", "not labelled", 1) + copied * (crowds > 0)


if __name__ == "__main__":
    one_sentence(main)
