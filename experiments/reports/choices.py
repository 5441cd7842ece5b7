"""What a row decided where its paper is silent, contradicted by its code, or reduced by a profile.

Nothing here knows a method: a protocol says how it evaluates, a DataModule what its data are, and every argument of a
method is said by its name, in the words of its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datamodules.words import Said, class_of, data_set_in_words, in_words
from experiments.composition.tree import Tree
from experiments.console import Choice
from experiments.evaluation.evaluate import protocol_of
from experiments.runs.node import Node

READINGS = {
    "code": "the released code's values where it and the paper differ",
    "paper": "there is no released code behind it",
}
BY_CODE = "its published value was made by the released code"


def choices_of(evaluation: Node, by_code: bool = False) -> list[Choice]:
    """The choices of a row, from the composed tree, and from the records of its runs as far as they are made.

    `by_code`: the released code made its published value.
    """
    config = evaluation.config
    how, _ = protocol_of(config)
    if evaluation.kind == "study":
        return how.choices(evaluation)
    training = evaluation.model
    found = [
        Choice("reading", config["reading"], BY_CODE if by_code else READINGS.get(config["reading"], "")),
        *how.choices(evaluation),
        *_said(config["data"], "evaluation_choices"),
        *_method(config["model"]),
    ]
    if "first_stage" in evaluation.parents:
        first = evaluation.parents["first_stage"].hash
        found.append(Choice("inside points", f"of the masks of run {first}", "the first of two stages"))
    if training.kind == "weights":
        found.append(Choice("weights", str(training.weights), "released weights stand in for the training"))
        return found
    return [*found, *_training(training)]


def _method(model: Tree) -> list[Choice]:
    """Every argument of a method: classes each on a line, the plain values together."""
    arguments: Mapping[str, Any] = model.get("init_args") or {}
    plain = {name: value for name, value in arguments.items() if isinstance(value, (int, float, str))}
    own = in_words({"class_path": model["class_path"], "init_args": plain})
    parts = {name: value for name, value in arguments.items() if name not in plain}
    return [
        Choice("method", own),
        *(Choice(name.replace("_", " "), in_words(value, without=("seed",))) for name, value in parts.items()),
    ]


def _training(training: Node) -> list[Choice]:
    """How a network was trained, and what its record says of it."""
    trainer, data = training.config["trainer"], training.config["data"]["init_args"]
    length = f"{trainer['max_epochs']} epochs" if trainer["max_epochs"] != -1 else f"{trainer['max_steps']} steps"
    found = [*_said(training.config["data"], "training_choices")]
    found.append(Choice("length of training", f"{length}, batch {data['batch_size']}"))
    for role, run in training.parents.items():
        name = "training continues" if role == "start" else role.replace("_", " ")
        found.append(Choice(name, f"run {run.hash}"))
    if record := training.folder.record:
        said = [record.get("initial_weights", ""), *started_in_words(record)]
        found.append(Choice("initial weights", ", ".join(said)))
        if adapted := record.get("adapted"):
            found.append(Choice("backbone", adapted, "ImageNet's weights were trained at stride 32, without dilation"))
        found.append(Choice("batch statistics", record.get("batch_statistics", "")))
        found += [
            Choice(name.replace("_", " "), words)
            for name, words in (record.get("said") or {}).items()
            if isinstance(words, str)
        ]
    return found


def started_in_words(record: Mapping[str, Any]) -> list[str]:
    """Of each file of first weights where it came from, its licence and its content, as far as a record has them."""
    said = []
    for file in (record.get("first_weights") or {}).values():
        licence = file.get("licence", "unknown")
        known = [file.get("source", ""), "" if licence == "unknown" else licence, f"SHA-256 {file['sha256'][:12]}"]
        said.append(", ".join(filter(None, known)))
    return said


def _said(data: Tree, name: str) -> list[Choice]:
    """What a DataModule says of itself; of one that says nothing, its data sets."""
    arguments = data.get("init_args") or {}
    say = getattr(class_of(data), name, None)
    if say is None:
        known = {"training_choices": "training data"}.get(name)
        said: list[Said] = [(known, ", ".join(map(data_set_in_words, arguments["train"])), "")] if known else []
    else:
        said = say(arguments)
    return [Choice(*each) for each in said]
