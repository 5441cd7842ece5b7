"""What a user asks of a labelling, as the node that makes it."""

from __future__ import annotations

import copy
from pathlib import Path

from datamodules.sets.boxes import boxes_name
from experiments.composition.tree import Tree
from experiments.evaluation.requests import on_devices, part_of_data, showing, with_users_data
from experiments.labelling.boxes import check_boxes
from experiments.runs.node import Node


def label_node(
    training: Node,
    first_stage: Node | None = None,
    *,
    data: str | Tree | None = None,
    boxes: Path | None = None,
    images: Path | None = None,
    every: int | None = None,
    limit: int | None = None,
    threshold: float | None = None,
    empty: str | None = None,
    shown: str | None = None,
    devices: int = 1,
) -> Node:
    """The labels of a data set's objects, or of the boxes of a COCO file, by a finished training.

    Args:
        first_stage: the training whose masks say where the inside point of the other is.
        data: the data set; `boxes`, in place of it, a COCO file whose images lie in `images` or near it.
        every, limit: see `part_of_data`. threshold: of the probability; None for the recipe's.
        empty: what an object without a mask gets, see `LabelSettings`; None for what the recipe says.
        shown: who predicts, see `showing`.
    Raises ValueError for boxes that say too little for the method to begin with.
    """
    if images is not None and boxes is None:
        raise ValueError("--images says where the images of --boxes lie; a data set knows its own")
    named = data if boxes is None else boxes_name(boxes, images)
    assert named is not None
    config = with_users_data(copy.deepcopy(training.config), named)
    config["evaluation"]["test"] = [part_of_data(named, every, limit)]
    if threshold is not None:
        config["evaluation"]["threshold"] = threshold
    if empty is not None:
        config["evaluation"]["empty"] = empty
    showing(config, shown)
    stages = {"model": training} | ({} if first_stage is None else {"first_stage": first_stage})
    node = Node("label", on_devices(config, devices), stages)
    if boxes is not None:
        check_boxes(node)
    return node
