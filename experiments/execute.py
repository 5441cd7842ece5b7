"""Make one run: `python -m experiments.execute FOLDER`, the command behind every launcher."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only

from experiments.evaluation import evaluate
from experiments.nodes import Node, load_node
from experiments.runs import RunFolder
from experiments.sentences import one_sentence
from experiments.training import train


def execute(node: Node, title: str = "") -> dict[str, Any]:
    """Make a node's run unless it is made already; its parents must be. Returns the record."""
    if node.config["threads"]:
        torch.set_num_threads(node.config["threads"])
    folder = node.folder
    first = rank_zero_only.rank == 0  # the other processes of a group join what the first one holds
    with folder.locked() if first else contextlib.nullcontext():
        record = folder.record
        if record is not None:
            return record
        if first:
            folder.prepare(node.describe())
        title = title or f"{node.kind} {folder.name}"
        if node.kind == "train":
            train(node, folder, title)
        elif node.kind == "weights":
            folder.finish(kind="weights", metrics={}, weights=str(node.weights), seconds=0.0, parents=[])
        else:
            evaluate(node, folder, title)
    return folder.record or {}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder with its config.yaml")
    parser.add_argument("--title", default="", help="what progress lines call it")
    options = parser.parse_args(arguments)
    execute(load_node(RunFolder(options.folder)), options.title)


if __name__ == "__main__":
    one_sentence(main)
