"""Make one node's run: the one place that writes records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from experiments.console import sentence
from experiments.evaluation.evaluate import evaluate
from experiments.evaluation.focus import make as study
from experiments.evaluation.selecting import select
from experiments.labelling.labeller import label
from experiments.runs.environment import is_first_process
from experiments.runs.folder import RunFolder
from experiments.runs.node import Node
from experiments.training.logs import own_wandb_run
from experiments.training.train import train


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
                study(node, folder, title)
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
