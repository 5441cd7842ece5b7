"""Turn boxes or simulated points into masks, as COCO JSON (FAIRS-WS; IOG, Table 8 E, as Pixel-ImageNet was made).

    python -m experiments.label --run RUN --boxes boxes.json --images DIR --out labels.json
    python -m experiments.label --run RUN --boxes boxes.json --images DIR --first OTHER_RUN
    python -m experiments.label --run RUN --data coco2017/val --every 10

RUN is a run's folder or the beginning of its hash. With boxes it must need no more than a box says: outside points, or
the box's centre; one that needs an inside point has it found by `--first`, a run of outside points. With a data set the
points are simulated on its masks. The same command goes on where a killed one stopped. Masks go into labels.json of a
run of its own, which any training takes: `{name: coco2017/val, labelled: runs/<hash>/labels.json}`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.boxes import boxes_name
from datamodules.clicks.points import PointKind, Target
from datamodules.keys import rng
from experiments.evaluate import data_set
from experiments.execute import execute
from experiments.nodes import LABELS, Node, load_node
from experiments.runs import find_run, is_first_process
from experiments.scorer import sample_recipe
from experiments.sentences import one_sentence


def unsaid_by_boxes(node: Node) -> set[PointKind]:
    """The kinds of a method's first points that depend on more than the object's box; padding if it begins with none.

    Asked of its points: they are compared on two objects in the same box.
    """
    if node.config["model"]["init_args"].get("guidance", ...) is None:  # it sees the crop alone
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
    if node.first is not None:
        if unsaid_by_boxes(node.first):
            raise ValueError(
                f"--first {node.first.hash} needs more than a box, too; give a run of outside points alone"
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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--first", help="a run of outside points whose masks say where the inside point of --run is")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--boxes", type=Path, help="a COCO file, of which the boxes are read")
    what.add_argument("--data", help="a data set, whose masks the points are simulated on: a name, or {name: ...}")
    parser.add_argument("--images", type=Path, help="of --boxes: where the images lie; default: near the file")
    parser.add_argument("--every", type=int, help="every n-th object")
    parser.add_argument("--limit", type=int, help="this many objects, drawn by the data's seed")
    parser.add_argument("--threshold", type=float, help="of the probability; default: the recipe's")
    parser.add_argument("--out", type=Path, help="where to put a copy of labels.json")
    parser.add_argument("--devices", type=int, default=1)
    return parser.parse_args(arguments)


def node_of(options: argparse.Namespace) -> Node:
    """The label run that a command line asks for. Raises ValueError when it cannot be."""
    models = []
    for reference in filter(None, (options.run, options.first)):
        models.append(load_node(find_run(reference)).model)
        if models[-1].folder.record is None:
            raise ValueError(f"run {reference} is not finished: train it to its end first")
    if options.images is not None and options.boxes is None:
        raise ValueError("--images says where the images of --boxes lie; a data set knows its own")
    if options.boxes is not None:
        options.data = json.dumps(boxes_name(options.boxes, options.images))
    config = copy.deepcopy(models[0].config)
    config["evaluation"]["test"] = [data_set(options)]
    if options.threshold is not None:
        config["evaluation"]["threshold"] = options.threshold
    if options.devices > 1:
        config["trainer"].update(devices=options.devices, strategy="ddp")
    node = Node("label", config, tuple(models))
    if options.boxes is not None:
        check_boxes(node)
    return node


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    node = node_of(options)
    execute(node, str(options.boxes or options.data))
    if not is_first_process():
        return
    labels = node.folder.path / LABELS
    if options.out is not None:
        partial = options.out.with_name(f".{options.out.name}")
        shutil.copyfile(labels, partial)
        partial.replace(options.out)
    print(f"masks: {options.out or labels}, a few pictures: {node.folder.path / 'pictures'}")


if __name__ == "__main__":
    one_sentence(main)
