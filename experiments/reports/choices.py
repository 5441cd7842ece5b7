"""What a row decided where its paper is silent, contradicted by its code, or reduced by a profile."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from datamodules.catalog import find, root_of
from datamodules.recipe import views_of
from datamodules.views import View
from experiments.composition.tree import Tree
from experiments.evaluation.clicks import FIRST_OF_TIES, click_rule
from experiments.reproduction.cells import Choice
from experiments.runs.node import Node

READINGS = {
    "code": "its published value was made by the released code",
    "paper": "there is no released code behind its published value",
}


def choices_of(evaluation: Node) -> list[Choice]:
    """The choices of a row, from the composed tree and the records of its runs."""
    config = evaluation.config
    if evaluation.kind == "study":
        return _study(evaluation)
    model, sample = config["model"]["init_args"], config["data"]["init_args"]["sample"]
    scoring, network = config["evaluation"], config["model"]["init_args"]["network"]["init_args"]
    parent = evaluation.model
    swept = len(scoring["thresholds"]) > 1 and scoring["protocol"] != "clicks"
    found = [
        Choice("reading", config["reading"], READINGS.get(config["reading"], "")),
        Choice("threshold", f"probability > {scoring['threshold']:g}",
               "the paper names none; the sweep shows the others" if swept else ""),
        Choice("maps stretched before the threshold", _yes(scoring["stretch"]),
               "the released code saves 8-bit images" if scoring["stretch"] else ""),
        Choice("network", f"{_name(config['model']['init_args']['network'])}, {network.get('backbone')}"),
        Choice("guidance", _class(model["guidance"])),
    ]  # fmt: skip
    if "mask_channel" in model:
        found.append(Choice("mask channel", _class(model["mask_channel"]) + " of the last prediction"
                            if model["mask_channel"] else "none"))  # fmt: skip
    found += [*_test(evaluation), Choice("loss", _class(model["loss"]))]
    if scoring["protocol"] == "grabcut_error":
        given = (root_of(find("grabcut"), config["data"]["init_args"]["root"]) / "boundary_GT_rect").is_dir()
        own = "the objects' own: boundary_GT_rect is not there, so the published value was counted in other boxes"
        found.append(Choice("boxes of the error rate", "the benchmark's" if given else own))
    if evaluation.first is not None:
        found.append(Choice("inside points", f"of the masks of run {evaluation.first.hash}", "the first of two stages"))
    if parent.kind == "weights":
        return [*found, Choice("weights", str(parent.weights), "released weights stand in for the training")]
    return [*found, *_training(parent, sample)]


def _study(study: Node) -> list[Choice]:
    """What a study of simulated points was made of."""
    asked, record = study.config["evaluation"]["study"], study.folder.record or {}
    objects = record.get("metrics", {}).get("n")
    return [
        Choice("objects", f"{', '.join(map(data_set, study.config['evaluation']['test']))}, {objects} objects",
               "the paper names none; the shift depends on their shapes"),
        Choice("view", f"crop of {asked['size']} px, margin {asked['relax']} px of the image", "in every profile"),
        Choice("draws", f"{asked['draws']:,} of U[-{asked['spread']:g}, {asked['spread']:g}], {asked['noise']}",
               "the error is the sum of the four Euclidean displacements: the paper does not define it"),
    ]  # fmt: skip


def _training(training: Node, sample: Tree) -> list[Choice]:
    """How a network was trained."""
    config, model = training.config, training.config["model"]["init_args"]
    trainer, data = config["trainer"], config["data"]["init_args"]
    found = [
        Choice("training data", ", ".join(map(data_set, data["train"]))),
        Choice("points at training", _points(sample["train_points"])),
        Choice("view at training", _seen(views_of(sample)[0], sample)),
        Choice("geometry of training", sample["geometry"], "evaluation always runs the published chain"),
    ]
    if "iteration" in model:
        found.append(Choice("clicks added in training", _class(model["iteration"], without=("seed",))))
    values = {name: value for name, value in model.items() if isinstance(value, (int, float, str))}
    found.append(Choice("method", _class({"class_path": config["model"]["class_path"], "init_args": values})))
    length = f"{trainer['max_epochs']} epochs" if trainer["max_epochs"] != -1 else f"{trainer['max_steps']} steps"
    schedule = f"{_class(model['optimizer'])}, {_class(model['schedule'])}, {length}"
    found.append(Choice("optimisation", f"{schedule}, batch {data['batch_size']}"))
    if training.start is not None:
        found.append(Choice("training continues", f"run {training.start.hash}"))
    if record := training.folder.record:
        found.append(Choice("initial weights", record.get("initial_weights", "")))
        found.append(Choice("batch statistics", record.get("batch_statistics", "")))
    return found


def _test(evaluation: Node) -> list[Choice]:
    """How objects were evaluated; of the click benchmark all that a number of clicks means nothing without."""
    config = evaluation.config
    sample, scoring = config["data"]["init_args"]["sample"], config["evaluation"]
    inside = {
        "tight": "dropped outside of the object's own box", "clicked": "dropped outside of the box of the first clicks",
        "crop": "kept wherever it is",
    }[scoring["box"]]  # fmt: skip
    view = Choice("network's view at test", _seen(views_of(sample)[1], sample), f"its mask is {inside}")
    if scoring["protocol"] != "clicks":
        return [Choice("points at test", _points(sample["test_points"])), view]
    clicks, record = scoring["clicks"], evaluation.folder.record or {}
    most, objects = clicks["most"], record.get("metrics", {}).get("n")
    ties = "the first in raster order" if clicks["rule"] in FIRST_OF_TIES else "drawn per object and round"
    rule = " ".join(str(click_rule(clicks["rule"]).__doc__).split("\n\n")[0].split())
    corrected = {None: "as many as the clicks allow", 0: "none"}.get(clicks["corrections"])
    counted = "" if objects is None else f", {objects:,} objects"
    targets = ", ".join(f"{100 * target:g}" for target in clicks["targets"])
    return [
        Choice("objects", f"{', '.join(map(data_set, scoring['test']))}{counted}",
               " and ".join([*record.get("left_out", ())]) + " left out" if record.get("left_out") else ""),
        Choice("click rule", f"{clicks['rule']}; of equally good pixels {ties}", rule),
        Choice("first click", _first_click(sample["test_points"], clicks["start"])),
        Choice("clicks per object", f"{most}, all given: no early stop",
               f"an object that never reaches a target counts {most}; one that does at the last click counts the same"),
        Choice("corrections", corrected or f"at most {clicks['corrections']}", "then the last mask stays"),
        Choice("targets", f"IoU >= {targets} %, compared in float32"),
        Choice("void pixels", "neither counted nor clicked"),
        view,
        Choice("test-time augmentation, zoom-in", "none"),
    ]  # fmt: skip


def _first_click(points: Tree, start: str) -> str:
    if _name(points) != "NoPoints":
        return f"{_name(points)} ({_points(points)}) given at once, they count as clicks"
    return "by the rule, on the start mask" if start == "mask" else "by the rule, on an empty prediction"


def _seen(view: View, sample: Tree) -> str:
    soft = ", soft masks" if sample.get("masks") == "soft" and not view.whole else ""
    return f"{view.in_words(sample['size'])}{soft}"


def data_set(spec: str | Tree) -> str:
    """`pascal/val`, `pascal/val (every 10)`."""
    if isinstance(spec, str):
        return spec
    part = ", ".join(f"{name} {value}" for name, value in spec.items() if name != "name")
    return f"{spec['name']} ({part})" if part else str(spec["name"])


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _name(node: dict[str, Any]) -> str:
    return str(node["class_path"]).rpartition(".")[2]


def _class(node: dict[str, Any] | None, without: Collection[str] = ()) -> str:
    if node is None:
        return "none"
    given = {name: value for name, value in node.get("init_args", {}).items() if name not in without}
    arguments = ", ".join(f"{name} {value}" for name, value in given.items())
    return f"{_name(node)} ({arguments})" if arguments else _name(node)


def _points(node: dict[str, Any]) -> str:
    """`band 5 px, 3 or 4 points` for extreme points, for others the class with what differs from its defaults."""
    arguments = node["init_args"]
    if "points" in arguments:  # of another rule, and then some more
        return f"{_points(arguments['points'])}; {_class(node, without=('points',))}"
    if "rule" not in arguments:
        return _class(node)
    counts, pixels = [*arguments.get("counts", [4])], arguments.get("pixels")
    moved = f"{arguments['rule']} {pixels:g} px" if pixels else str(arguments["rule"])
    return moved if counts == [4] else f"{moved}, {' or '.join(map(str, counts))} points"
