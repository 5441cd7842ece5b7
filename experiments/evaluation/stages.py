"""What an `evaluate` or `label` node predicts with: one network, or two, the first of which finds the inside point."""

from __future__ import annotations

from typing import Any

from experiments.runs.models import load_model
from experiments.runs.node import Node
from lightning_modules.interactive import Interactive
from lightning_modules.two_stage import TwoStage

SEEN = ("size", "relax", "view", "test_view", "long_side", "test_interpolation")


def load_interactive(node: Node) -> Interactive:
    """The network of a node, after that of a first stage if it has one.

    Raises ValueError when the two stages do not see the same crop.
    """
    second: Any = load_model(node.model)
    first_stage = node.parents.get("first_stage")
    if first_stage is None:
        return second  # type: ignore[no-any-return]
    seen, wanted = (run.config["data"]["init_args"]["sample"] for run in (first_stage, node))
    for key in SEEN:
        if seen.get(key) != wanted.get(key):
            raise ValueError(
                f"the two stages must see the same crop: data.sample.{key} is {seen.get(key)} of the first, run "
                f"{first_stage.hash}, and {wanted.get(key)} of the second, run {node.model.hash}"
            )
    first: Any = load_model(first_stage)
    return TwoStage(first, second)
