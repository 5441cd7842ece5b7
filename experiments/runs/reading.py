"""A run's folder, read: the node that it describes, whoever made it and whenever."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from experiments.composition.classes import import_class, refuse_foreign
from experiments.runs.folder import CONFIG, RunFolder
from experiments.runs.identity import behaviours_of, class_name
from experiments.runs.node import LISTS, Found, Node
from experiments.runs.older import by_role, changed_since, modern


def load_node(folder: RunFolder, below: tuple[Path, ...] = ()) -> Node:
    """The node that a run folder describes, also one that an older version of the suite made.

    `below`: the runs that build on this one. Raises ValueError when it is among them, when this is no run, when it
    names classes that nobody here has asked for, when its config.yaml is not what it was made by, and when a run that
    it builds on is not beside it.
    """
    if folder.path.resolve() in below:
        raise ValueError(f"run {folder.path} builds on itself; its {CONFIG} was changed by hand")
    told = folder.config
    if not isinstance(told["config"].get("evaluation"), dict) or not isinstance(told.get("format", 1), int):
        raise ValueError(f"{folder.path / CONFIG} was not written by this suite: see its evaluation and format")
    content, older = modern(told, folder.path.name)
    if not isinstance(content["config"].get("model"), dict) or "class_path" not in content["config"]["model"]:
        raise ValueError(f"{folder.path / CONFIG} does not say which method the run is about: model has no class_path")
    refuse_foreign(content["config"], f"{folder.path / CONFIG}")
    folder.check(CONFIG)
    places, named, lists = content.get("places", {}), content.get("parents", {}), tuple[Node, ...]()

    def loaded(name: str) -> Node:
        place = Path(places[name]) if name in places else folder.path.parent / name
        run = load_node(RunFolder(place), (*below, folder.path.resolve()))
        if name in places and run.hash != name:
            raise ValueError(f"{folder.path} was made from run {name} in {places[name]}, where another run lies now")
        return run

    if isinstance(named, list):
        parents, lists = by_role(content["kind"], [loaded(name) for name in named])
    else:
        lists = tuple(loaded(name) for name in named.get(LISTS, ()))
        parents = {role: loaded(name) for role, name in named.items() if role != LISTS}
    now = behaviours_of(content["config"])
    then = content.get("behaviours", {})
    if not then and "behaviour" in content:  # before, that of the method alone was kept
        then = {class_name(import_class(content["config"]["model"]["class_path"])): content["behaviour"]}
    older = older or changed_since(content["run"], then, now)
    node = Node(
        kind=content["kind"],
        config=content["config"],
        parents=parents,
        lists=lists,
        weights=content.get("weights"),
        rule=content.get("rule"),
    )
    as_it_was = replace(node, config=copy.deepcopy(node.config)).content
    return replace(node, found=Found(folder, content["run"], as_it_was, older))
