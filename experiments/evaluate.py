"""Evaluate a run on any data set.

    python -m experiments.evaluate --run RUN --data pascal/val --threshold 0.5

RUN is a run's folder or the beginning of its hash. A row per object, pictures and
a record are written into a run of its own.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence

from experiments.compose import parse_value
from experiments.execute import execute
from experiments.nodes import Node, load_node
from experiments.runs import find_run, is_first_process
from experiments.sentences import one_sentence


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--data", required=True, help="a data set's name, or {name: ..., min_area: ...}")
    parser.add_argument("--threshold", type=float, help="of the probability; default: the recipe's")
    parser.add_argument("--protocol", choices=["object_iou", "grabcut_error"], default="object_iou")
    parser.add_argument("--devices", type=int, default=1)
    options = parser.parse_args(arguments)
    training = load_node(find_run(options.run))
    if training.kind == "evaluate":
        (training,) = training.parents
    if training.folder.record is None:
        raise ValueError(f"run {options.run} is not finished: train it to its end first")
    config = copy.deepcopy(training.config)
    config["evaluation"].update(test=[parse_value(options.data)], protocol=options.protocol)
    if options.threshold is not None:
        config["evaluation"]["threshold"] = options.threshold
    if options.devices > 1:
        config["trainer"].update(devices=options.devices, strategy="ddp")
    node = Node("evaluate", config, (training,))
    record = execute(node, options.data)
    if not is_first_process():
        return
    for name, value in record["metrics"].items():
        print(f"{name:>20} {value:.4f}")
    print(f"rows: {node.folder.path / 'rows.csv'}")


if __name__ == "__main__":
    one_sentence(main)
