"""Make one run: `python -m experiments.execute FOLDER`, the command behind every launcher."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments import focus_study
from experiments.evaluation import evaluate
from experiments.labelling import label
from experiments.nodes import Node, load_node
from experiments.runs import RunFolder, is_first_process
from experiments.select import select
from experiments.sentences import one_sentence, sentence
from experiments.training import own_wandb_run, train


def execute(node: Node, title: str = "") -> dict[str, Any]:
    """Make a node's run unless it is made already; its parents must be. Returns the record."""
    if node.config["threads"]:
        torch.set_num_threads(node.config["threads"])
    folder = node.folder
    first = is_first_process()  # the other processes of a group join what the first one holds
    with folder.locked() if first else contextlib.nullcontext():
        record = folder.record
        if record is not None:
            return record
        if first:
            folder.prepare(node.describe())
        title = title or f"{node.kind} {folder.name}"
        if node.kind == "train":
            with own_wandb_run():
                train(node.with_lists(), folder, title)
        elif node.kind == "weights":
            folder.finish(kind="weights", metrics={}, weights=str(node.weights), seconds=0.0, parents=[])
        elif node.kind == "select":
            if first:
                select(node, folder, title)
        elif node.kind == "study":
            if first:
                focus_study.make(node, folder, title)
        elif node.kind == "label":
            label(node.with_lists(), folder, title)
        else:
            evaluate(node.with_lists(), folder, title)
        if torch.distributed.is_initialized():  # from here on every process of the group finds the record
            torch.distributed.barrier()
    return folder.record or {}


@contextlib.contextmanager
def explained(folder: RunFolder) -> Iterator[None]:
    """Leave an error's sentence in the run's folder, for who waits for this process; the first of a group tells."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(FileExistsError), open(folder.problem, "x") as file:
            file.write(sentence(error))
        raise
    folder.problem.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder with its config.yaml")
    parser.add_argument("--title", default="", help="what progress lines call it")
    options = parser.parse_args(arguments)
    folder = RunFolder(options.folder)
    node = load_node(folder)
    with explained(folder):
        execute(node, options.title)


if __name__ == "__main__":
    one_sentence(main)
