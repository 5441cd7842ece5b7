"""Whether a method can begin with what a box says."""

from __future__ import annotations

import contextlib

import numpy as np

from datamodules.clicks.points import PointKind, Target
from datamodules.keys import rng
from experiments.composition.building import sample_recipe
from experiments.composition.classes import import_class
from experiments.runs.node import Node


def unsaid_by_boxes(node: Node) -> set[PointKind]:
    """The kinds of a method's first points that depend on more than the object's box; padding if it begins with none.

    Asked of its points: they are compared on two objects in the same box.
    """
    model = node.config["model"]
    alone = getattr(import_class(model["class_path"]), "sees_box_alone", False)
    if alone or (model.get("init_args") or {}).get("guidance", ...) is None:
        return set()
    filled = np.zeros((96, 96), np.uint8)
    filled[20:70, 30:80] = 1
    corner = filled.copy()
    corner[20:60, 40:80] = 0
    recipe = sample_recipe(node.config)
    for rule in (recipe.test_points, recipe.train_points):  # points that people recorded are of the same kinds
        with contextlib.suppress(ValueError, OSError):
            (one, kinds), (other, _) = (rule(Target(mask), rng(0)) for mask in (filled, corner))
            unsaid = {PointKind(kind) for kind, a, b in zip(kinds, one, other) if (a != b).any()}
            return unsaid if len(kinds) else {PointKind.PADDING}
    return {PointKind.PADDING}


def check_boxes(node: Node) -> None:
    """Raise ValueError, saying what to give, when a run cannot begin with what a box says."""
    missing = unsaid_by_boxes(node.model)
    if "first_stage" in node.parents:
        first_stage = node.parents["first_stage"]
        if unsaid_by_boxes(first_stage):
            raise ValueError(
                f"--first {first_stage.hash} needs more than a box, too; give a run of outside points alone"
            )
        missing -= {PointKind.INSIDE}
    if missing == {PointKind.INSIDE}:
        raise ValueError(
            f"run {node.model.hash} begins with an inside point, which a box does not say; give --first RUN, a run of "
            "outside points alone, whose masks say where inside"
        )
    if missing:
        kinds = ", ".join(sorted(kind.name.lower() for kind in missing - {PointKind.PADDING}))
        begins = f"points that a box does not say ({kinds})" if kinds else "clicks that follow its own predictions"
        raise ValueError(
            f"run {node.model.hash} begins with {begins}; label boxes with a run of outside points, or let points be "
            "simulated on the masks of a data set with --data"
        )
