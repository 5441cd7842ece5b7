"""What an evaluation by instances decides: whose style counts, how many detections, and which a network keeps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.names import by_name, check_name
from datamodules.ranges import COUNT, POSITIVE, PROBABILITY, Range
from experiments.composition.classes import import_class
from experiments.composition.tree import Tree
from experiments.console import Choice
from lightning_modules.metrics.average_precision import COCO_MOST, LVIS_MOST, is_lvis

MOST = {"coco": COCO_MOST, "lvis": LVIS_MOST}
COUNTED = {
    "coco": "{} per image and category, as COCO's code counts",
    "lvis": "{} per image over all categories, as LVIS' code counts",
}
# Arguments of networks that only say which detections are kept, and what they may be: no weight depends on them.
LIMITS: dict[str, Range | None] = {
    **dict.fromkeys(("score_threshold", "kept_threshold", "mask_threshold", "box_nms"), PROBABILITY),
    **dict.fromkeys(("detections", "most", "candidates"), COUNT),
    "sigma": POSITIVE,
    "decay": None,  # a word, which the network's class checks
}
LIMITS_IN_WORDS = {name: name.replace("_", " ") for name in LIMITS}
LIMITS_IN_WORDS |= dict.fromkeys(("detections", "most"), "detections kept per image")


@dataclass(frozen=True)
class InstanceSettings:
    """How detections are scored.

    Args:
        style: as COCO's code, as LVIS' (federated), or by the data: LVIS' where their images and categories have its
            fields.
        most: detections that count: per image and category in COCO's style, per image over all of them in LVIS'; None
            for the benchmark's own number, 100 and 300.
        network: arguments of the network among LIMITS that are others than in its training, which does not read them;
            an evaluation without any is named as it was before there were these.
    """

    style: Literal["auto", "coco", "lvis"] = "auto"
    most: int | None = None
    network: dict[str, int | float | str] | None = field(default=None, metadata={"unsaid": True})

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ValueError(f"evaluation.most is a number of detections, 1 or more, got {self.most}")
        for name, value in (self.network or {}).items():
            allowed = by_name(name, LIMITS, "evaluation.network changes what a network keeps of its detections, not")
            if allowed is not None:
                allowed.checked(value, f"evaluation.network.{name}")

    def counted(self, truth: Mapping[str, Any]) -> tuple[str, int]:
        """The style that counts of a truth as COCO's files hold it, `coco` or `lvis`, and the most detections."""
        style = ("lvis" if is_lvis(truth) else "coco") if self.style == "auto" else self.style
        return style, self.most or MOST[style]

    def limit(self, scored: Mapping[str, Any] | None = None) -> str:
        """The limit of detections in words: of what a record says was `scored`, else all that it may be."""
        if scored:
            return COUNTED[scored["style"]].format(scored["most"])
        styles = MOST if self.style == "auto" else (self.style,)
        return "; of LVIS ".join(COUNTED[style].format(self.most or MOST[style]) for style in styles)


def with_limits(model: Tree, limits: Mapping[str, Any] | None) -> Tree:
    """A method's tree whose network keeps other detections. Raises ValueError for a limit that the network has not."""
    if not limits:
        return model
    arguments = model.get("init_args") or {}
    network = arguments.get("network") or {}
    known = limits_of(network)
    for name in limits:
        check_name(name, known, f"evaluation.network: {_name(network)} has no limit")
    network = {**network, "init_args": {**(network.get("init_args") or {}), **limits}}
    return {**model, "init_args": {**arguments, "network": network}}


def limits_of(network: Tree) -> list[str]:
    """Those of LIMITS that the class of a network takes."""
    if "class_path" not in network:
        return []
    known = inspect.signature(import_class(network["class_path"])).parameters
    return [name for name in LIMITS if name in known]


def network_limits(model: Tree, changed: Mapping[str, Any] | None = None) -> Iterator[Choice]:
    """What a network keeps of its detections: those of its arguments that are thresholds, or numbers of detections.

    What a recipe leaves out has the class' default; a mask threshold that is no argument is the class' attribute.
    `changed`: by the evaluation; of these all are said.
    """
    changed = changed or {}
    network = (with_limits(model, changed).get("init_args") or {}).get("network") or {}
    if "class_path" not in network:
        return
    kind = import_class(network["class_path"])
    known = inspect.signature(kind).parameters.values()
    arguments = {each.name: each.default for each in known if each.default is not each.empty}
    arguments |= {"mask_threshold": kind.mask_threshold} if hasattr(kind, "mask_threshold") else {}
    for name, value in {**arguments, **(network.get("init_args") or {})}.items():
        if "threshold" in name or name in ("detections", "most", *changed):
            yield Choice(
                LIMITS_IN_WORDS.get(name, name.replace("_", " ")),
                str(value),
                "changed for this evaluation" if name in changed else "of the network",
            )


def _name(network: Tree) -> str:
    return str(network.get("class_path", "the method")).rpartition(".")[2]
