"""What a row decided where its paper is silent, contradicted by its code, or reduced by a profile."""

from __future__ import annotations

from typing import Any

from datamodules.catalog import find, root_of
from experiments.nodes import Node
from experiments.results import Choice

READINGS = {
    "code": "its published value was made by the released code",
    "paper": "there is no released code behind its published value",
}


def choices_of(evaluation: Node) -> list[Choice]:
    """The choices of a row, from the composed tree and the records of its runs."""
    config = evaluation.config
    model, sample = config["model"]["init_args"], config["data"]["init_args"]["sample"]
    scoring, network = config["evaluation"], config["model"]["init_args"]["network"]["init_args"]
    (parent,) = evaluation.parents
    record = parent.folder.record or {}
    found = [
        Choice("reading", config["reading"], READINGS.get(config["reading"], "")),
        Choice("threshold", f"{scoring['threshold']:g}", "the paper names none; the sweep shows the others"),
        Choice("maps stretched before the threshold", _yes(scoring["stretch"]), "the released code saves 8-bit images"),
        Choice("network", f"{_name(config['model']['init_args']['network'])}, {network.get('backbone')}"),
        Choice("guidance", _class(model["guidance"])),
        Choice("simulated points", f"training {_rule(sample['train_points'])}, test {_rule(sample['test_points'])}"),
        Choice("loss", _class(model["loss"])),
        Choice("crop", f"{sample['size']} px, margin {sample['relax']} px of the image, {sample['view']}"),
        Choice("geometry of training", sample["geometry"], "evaluation always runs the published chain"),
    ]
    if scoring["protocol"] == "grabcut_error":
        given = (root_of(find("grabcut"), config["data"]["init_args"]["root"]) / "boundary_GT_rect").is_dir()
        own = "the objects' own: boundary_GT_rect is not there, so the published value was counted in other boxes"
        found.append(Choice("boxes of the error rate", "the benchmark's" if given else own))
    if parent.kind == "weights":
        return [*found, Choice("weights", str(parent.weights), "released weights stand in for the training")]
    optimizer = model["optimizer"]
    trainer = config["trainer"]
    length = f"{trainer['max_epochs']} epochs" if trainer["max_epochs"] != -1 else f"{trainer['max_steps']} steps"
    schedule = f"{_class(optimizer)}, {_name(model['schedule'])}, {length}"
    found.append(Choice("optimisation", f"{schedule}, batch {config['data']['init_args']['batch_size']}"))
    if record:
        found.append(Choice("initial weights", record.get("initial_weights", "")))
        found.append(Choice("batch statistics", record.get("batch_statistics", "")))
    return found


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _name(node: dict[str, Any]) -> str:
    return str(node["class_path"]).rpartition(".")[2]


def _class(node: dict[str, Any] | None) -> str:
    if node is None:
        return "none"
    arguments = ", ".join(f"{name} {value}" for name, value in node.get("init_args", {}).items())
    return f"{_name(node)} ({arguments})" if arguments else _name(node)


def _rule(points: dict[str, Any]) -> str:
    return f"{points['rule']} {points['pixels']:g} px" if points["pixels"] else str(points["rule"])
