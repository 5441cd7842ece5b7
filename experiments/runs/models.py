"""The networks of finished runs."""

from __future__ import annotations

import copy
from typing import Any

from pytorch_lightning import LightningModule

from datamodules.recipe import seen_in_evaluation, views_of
from experiments.composition.building import build_part
from experiments.runs.folder import RunFolder, find_run
from experiments.runs.node import Node, load_node
from lightning_modules.interactive import Interactive
from lightning_modules.two_stage import TwoStage


def load_model(node: Node, folder: RunFolder) -> LightningModule:
    """The network of a finished `train` or `weights` node, in eval mode on the CPU."""
    config = copy.deepcopy(node.config["model"])
    network = config["init_args"]["network"]["init_args"]
    if "pretrained" in network:  # its weights are about to be replaced
        network["pretrained"] = False
    model: LightningModule = build_part(LightningModule, config)
    node.load_into(model)
    return model.eval()


def load_interactive(node: Node) -> Interactive:
    """What an `evaluate` or `label` node predicts with: its network, after that of a first stage if it has one.

    Raises ValueError when the two stages do not see the same crop.
    """
    second: Any = load_model(node.model, node.model.folder)
    if node.first is None:
        return second  # type: ignore[no-any-return]
    samples = [run.config["data"]["init_args"]["sample"] for run in (node.first, node)]
    seen, wanted = map(seen_in_evaluation, samples)
    if any(seen.get(key) != wanted.get(key) for key in ("view", "size", "test_interpolation")):
        first, second = (f"{views_of(s)[1].in_words(s['size'])}, {s.get('test_interpolation')}" for s in samples)
        raise ValueError(
            f"the two stages must see the same crop: data.sample means {first} of the first, run {node.first.hash}, "
            f"and {second} of the second, run {node.model.hash}"
        )
    return TwoStage(load_model(node.first, node.first.folder), second)  # type: ignore[arg-type]


def finished_training(reference: str) -> Node:
    """The training, or its stand-in, that a run is or is about. Raises ValueError when there is none, or unfinished."""
    node = load_node(find_run(reference)).model
    if node.folder.record is None:
        raise ValueError(f"run {reference} is not finished: train it to its end first")
    return node
