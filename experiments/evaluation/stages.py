"""What an `evaluate` or `label` node predicts with: one network, or two, the first of which finds the inside point."""

from __future__ import annotations

from typing import Any

from datamodules.recipe import seen_in_evaluation, views_of
from experiments.composition.building import sample_of
from experiments.runs.models import load_model
from experiments.runs.node import Node
from lightning_modules.interactive import Interactive
from lightning_modules.two_stage import TwoStage

SEEN = ("view", "size", "test_interpolation")


def load_interactive(node: Node) -> Interactive:
    """The network of a node, after that of a first stage if it has one.

    Raises ValueError when the two stages do not see the same crop.
    """
    second: Any = load_model(node.model, node.config["model"])
    first_stage = node.parents.get("first_stage")
    if first_stage is None:
        return second
    samples = [sample_of(run.config) for run in (first_stage, node)]
    seen, wanted = map(seen_in_evaluation, samples)
    if any(seen.get(key) != wanted.get(key) for key in SEEN):
        sees, should = (f"{views_of(s)[1].in_words(s['size'])}, {s.get('test_interpolation')}" for s in samples)
        raise ValueError(
            f"the two stages must see the same crop: data.sample means {sees} of the first, run {first_stage.hash}, "
            f"and {should} of the second, run {node.model.hash}"
        )
    first: Any = load_model(first_stage)
    return TwoStage(first, second)
