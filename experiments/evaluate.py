"""Evaluate a run on any data set.

    python -m experiments.evaluate --run RUN --data pascal/val --threshold 0.5
    python -m experiments.evaluate --run RUN --data davis345 --protocol clicks --rule ritm --clicks 20 --every 3

RUN is a run's folder or the beginning of its hash. A row per object, pictures and
a record are written into a run of its own. Options that are left out keep what the recipe says.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

from experiments.click_benchmark import checked
from experiments.compose import Tree, parse_value
from experiments.evaluation import SCORERS
from experiments.execute import execute
from experiments.nodes import Node, load_node
from experiments.object_rows import click_table
from experiments.runs import find_run, is_first_process
from experiments.sentences import one_sentence


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--data", required=True, help="a data set's name, or {name: ..., min_area: ...}")
    parser.add_argument("--every", type=int, help="every n-th object of the data set")
    parser.add_argument("--limit", type=int, help="this many objects of the data set, drawn by the data's seed")
    parser.add_argument("--threshold", type=float, help="of the probability; default: the recipe's")
    parser.add_argument(
        "--protocol", choices=list(SCORERS), help="default: clicks where the recipe has it, else object_iou"
    )
    parser.add_argument("--rule", help="of protocol clicks: where the next click goes, e.g. itis or ritm")
    parser.add_argument("--clicks", type=int, help="of protocol clicks: clicks per object, first points included")
    parser.add_argument("--long-side", type=int, help="whole images are made smaller than this; 0 for never")
    parser.add_argument("--devices", type=int, default=1)
    return parser.parse_args(arguments)


def configured(trained: Tree, options: argparse.Namespace) -> Tree:
    """The composed tree of a training with what the command line says of this evaluation."""
    config = copy.deepcopy(trained)
    evaluation = config["evaluation"]
    protocol = options.protocol or ("clicks" if evaluation["protocol"] == "clicks" else "object_iou")
    evaluation.update(test=[data_set(options)], protocol=protocol)
    if options.threshold is not None:
        evaluation["threshold"] = options.threshold
    if protocol == "clicks":
        checked(config)
        evaluation["clicks"].update(_given(rule=options.rule, most=options.clicks))
        checked(config)
    elif options.rule or options.clicks is not None:
        raise ValueError(f"--rule and --clicks are of `--protocol clicks`, not of {protocol}")
    if options.long_side is not None:
        config["data"]["init_args"]["sample"]["long_side"] = options.long_side
    if options.devices > 1:
        config["trainer"].update(devices=options.devices, strategy="ddp")
    return config


def data_set(options: argparse.Namespace) -> str | Tree:
    """What `--data`, `--every` and `--limit` select, as a recipe would say it."""
    named = parse_value(options.data)
    wanted = _given(every=options.every, limit=options.limit)
    if not wanted:
        return named  # type: ignore[no-any-return]
    return {**(named if isinstance(named, dict) else {"name": named}), **wanted}


def _given(**values: Any) -> Tree:
    return {name: value for name, value in values.items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    training = load_node(find_run(options.run)).model
    if training.folder.record is None:
        raise ValueError(f"run {options.run} is not finished: train it to its end first")
    config = configured(training.config, options)
    node = Node("evaluate", config, (training,))
    record = execute(node, options.data)
    if not is_first_process():
        return
    if config["evaluation"]["protocol"] == "clicks":
        print(click_table(record["metrics"], config["evaluation"]["clicks"]))
    else:
        for name, value in record["metrics"].items():
            print(f"{name:>20} {value:.4f}")
    print(f"rows: {node.folder.path / 'rows.csv'}")


if __name__ == "__main__":
    one_sentence(main)
