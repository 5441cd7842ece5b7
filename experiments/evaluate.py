"""Evaluate a run on any data set.

    python -m experiments.evaluate --run RUN --data pascal/val --threshold 0.5
    python -m experiments.evaluate --run RUN --data davis345 --protocol clicks --rule ritm --clicks 20 --every 3
    python -m experiments.evaluate --run RUN --data coco2017/val --most 100 --network score_threshold=0.01

RUN is a run's folder or the beginning of its hash. A row per object, pictures and
a record are written into a run of its own. Options that are left out keep what the recipe says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from datamodules.ranges import COUNT, PROBABILITY, WHOLE
from experiments.composition.merging import parse_data, parse_override
from experiments.console import one_sentence
from experiments.evaluation.evaluate import protocol_of
from experiments.evaluation.instance_settings import LIMITS
from experiments.evaluation.protocols import PROTOCOLS
from experiments.evaluation.requests import evaluation_config, part_of_data
from experiments.launching.making import execute
from experiments.options import Parser
from experiments.reports.choices import choices_of
from experiments.runs.environment import is_rank_zero
from experiments.runs.models import finished_training
from experiments.runs.node import Node
from experiments.runs.records import left_out_in_words


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = Parser(__doc__)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--data", required=True, help="a data set's name, or {name: ..., min_area: ...}")
    parser.add_argument("--every", type=COUNT, help="every n-th object of the data set")
    parser.add_argument("--limit", type=COUNT, help="this many objects of the data set, drawn by the data's seed")
    parser.add_argument("--threshold", type=PROBABILITY, help="of the probability; default: the recipe's")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="default: the recipe's")
    parser.add_argument("--rule", help="of protocol clicks: where the next click goes, e.g. itis or ritm")
    parser.add_argument("--clicks", type=COUNT, help="of protocol clicks: clicks per object, first points included")
    parser.add_argument("--long-side", type=WHOLE, help="whole images are made smaller than this; 0 for never")
    parser.add_argument("--shown", help="of EXITS: who predicts, student, teacher or mean; default: the recipe's")
    parser.add_argument("--style", choices=["auto", "coco", "lvis"], help="of protocol instances: whose code counts")
    parser.add_argument(
        "--most", type=COUNT, help="of protocol instances: detections that count, of COCO 100, LVIS 300"
    )
    limits = f"of protocol instances: what the network keeps, of {', '.join(LIMITS)}"
    parser.add_argument("--network", nargs="+", type=limit, default=[], metavar="NAME=VALUE", help=limits)
    parser.add_argument("--devices", type=COUNT, default=1, help="processes; default: 1")
    return parser.parse_args(arguments)


def limit(text: str) -> tuple[str, Any]:
    """`score_threshold=0.05` as a name and its value."""
    try:
        return parse_override(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a limit of the network, NAME=VALUE: {error}") from None


def node_of(options: argparse.Namespace) -> Node:
    """The evaluation that a command line asks for. Raises ValueError when it cannot be."""
    training = finished_training(options.run)
    data = part_of_data(parse_data(options.data), options.every, options.limit)
    config = evaluation_config(
        training.config,
        data,
        protocol=options.protocol,
        threshold=options.threshold,
        rule=options.rule,
        clicks=options.clicks,
        long_side=options.long_side,
        shown=options.shown,
        style=options.style,
        most=options.most,
        network=dict(options.network) or None,
        devices=options.devices,
    )
    return Node("evaluate", config, {"model": training})


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    node = node_of(options)
    record = execute(node, options.data)
    if not is_rank_zero():
        return
    protocol, settings = protocol_of(node.config)
    print(protocol.table(record["metrics"], settings))
    for choice in choices_of(node):
        if choice.name in protocol.printed:
            print(f"{choice.name:>26}: {choice.value}")
    print(f"rows: {node.folder.path / 'rows.csv'}{left_out_in_words(record)}")


if __name__ == "__main__":
    one_sentence(main)
