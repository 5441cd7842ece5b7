"""The networks of finished runs."""

from __future__ import annotations

from pytorch_lightning import LightningModule

from experiments.composition.building import build_part
from experiments.composition.tree import Tree
from experiments.console import say_once
from experiments.runs.folder import find_run
from experiments.runs.identity import answers_of, without_starts
from experiments.runs.node import Node
from experiments.runs.reading import load_node


def load_model(node: Node, asked: Tree | None = None) -> LightningModule:
    """The network of a finished `train` or `weights` node, in eval mode on the CPU.

    `asked`: the method as the tree of an evaluation has it, whose arguments that training does not read count.
    """
    method = node.config["model"]
    method = {**method, "init_args": {**(method.get("init_args") or {}), **answers_of(asked or method)}}
    model: LightningModule = build_part(LightningModule, without_starts(method))
    node.load_into(model)
    return model.eval()


def finished_training(reference: str) -> Node:
    """The training, or its stand-in, that a run is or is about. Raises ValueError when there is none, or unfinished."""
    node = read_run(reference).model
    if node.folder.record is None:
        raise ValueError(f"run {reference} is not finished: train it to its end first")
    return node


def read_run(reference: str) -> Node:
    """A run by folder or by the beginning of its hash; says it when an older version of the suite made it."""
    node = load_node(find_run(reference))
    for run in node.with_ancestors():
        if run.found is not None and run.found.older:
            say_once(f"note: {run.found.older}")
    return node
