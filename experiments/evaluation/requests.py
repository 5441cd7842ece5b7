"""What a user asks of a finished run's evaluation, as the composed tree that says so."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from typing import Any

from datamodules.catalog import find
from experiments.composition.building import sample_of
from experiments.composition.tree import Tree
from experiments.evaluation.evaluate import protocol_of
from experiments.evaluation.protocols import protocol as find_protocol
from experiments.runs.identity import answers_of


def evaluation_config(
    trained: Tree,
    data: str | Tree,
    *,
    protocol: str | None = None,
    threshold: float | None = None,
    rule: str | None = None,
    clicks: int | None = None,
    long_side: int | None = None,
    shown: str | None = None,
    style: str | None = None,
    most: int | None = None,
    network: Tree | None = None,
    devices: int = 1,
) -> Tree:
    """The composed tree of a training with what is asked of its evaluation; None keeps what the recipe says.

    Args:
        trained: the training's tree.
        data: the data set, see `part_of_data`.
        protocol: by default the recipe's own, or what it says of other data sets.
        threshold: of the probability.
        rule, clicks: of protocol clicks: where the next click goes, and how many an object gets.
        long_side: whole images are made smaller than this; 0 for never.
        shown: see `showing`.
        style, most, network: of protocol instances, see its settings: whose code counts, how many detections, and what
            the network keeps of them. Limits of the recipe that `network` does not name stay.
        devices: processes.
    Raises ValueError for clicks or limits of another protocol, and for what does not exist.
    """
    config = with_users_data(copy.deepcopy(trained), data)
    evaluation = config["evaluation"]
    own = evaluation["protocol"]
    name = protocol or find_protocol(own).elsewhere or own
    evaluation.update(test=[data], protocol=name)
    if threshold is not None:
        if name == "instances":
            raise ValueError(
                "--threshold is of the probability of a mask, which protocol instances does not read; what a network "
                "keeps is changed by --network, score_threshold=0.05 say"
            )
        evaluation["threshold"] = threshold
    if rule or clicks is not None:
        if name != "clicks":
            raise ValueError(f"--rule and --clicks are of `--protocol clicks`, not of {name}")
        if evaluation.get("clicks") is not None:
            evaluation["clicks"].update(_given(rule=rule, most=clicks))
    if limits := _given(style=style, most=most, network=network):
        if name != "instances":
            raise ValueError(f"--style, --most and --network are of `--protocol instances`, not of {name}")
        if network:
            limits["network"] = {**(evaluation.get("network") or {}), **network}
        evaluation.update(limits)
    protocol_of(config)  # what does not exist is refused here
    if long_side is not None:
        sample_of(config)["long_side"] = long_side
    return on_devices(showing(config, shown), devices)


def showing(config: Tree, shown: str | None) -> Tree:
    """The tree with another of a method's networks predicting, EXITS' `teacher` say, in place; None for the recipe's.

    Raises ValueError for a method that has one network alone.
    """
    if shown is None:
        return config
    if "shown" not in answers_of(config["model"]):
        raise ValueError(
            f"--shown chooses among a method's networks, and {config['method']} has one alone; leave it out"
        )
    config["model"]["init_args"]["shown"] = shown
    return config


def with_users_data(config: Tree, data: str | Tree) -> Tree:
    """The tree with this data set where the environment says it lies, in place: a run's own root does not win over it.

    Without DATA_ROOT, and the data set's own variable, it is looked for where the training's data lay.
    """
    arguments = config["data"]["init_args"]
    own = arguments.get("root")
    if own is None:
        return config
    said = next((name for name in ("DATA_ROOT", *_variables(data)) if os.environ.get(name)), None)
    if said is not None:
        arguments["root"] = None
        place = f"{said}={os.environ[said]}"
        print(f"note: data are looked for where {place} says, not in {own}, the run's own place", file=sys.stderr)
    return config


def _variables(data: str | Tree) -> set[str]:
    """The variables that say where a data set, and those it is made of, lie; none for a name that does not exist."""
    names, found = [data if isinstance(data, str) else str(data.get("name"))], set()
    with contextlib.suppress(ValueError):
        while names:
            data_set = find(names.pop())
            names += data_set.parts
            found.add(data_set.variable)
    return found - {""}


def on_devices(config: Tree, devices: int) -> Tree:
    """The tree with so many processes, in place."""
    if devices > 1:
        config["trainer"].update(devices=devices, strategy="ddp")
    return config


def part_of_data(named: str | Tree, every: int | None = None, limit: int | None = None) -> str | Tree:
    """A part of a data set, as a recipe would say it."""
    wanted = _given(every=every, limit=limit)
    if not wanted:
        return named
    return {**(named if isinstance(named, dict) else {"name": named}), **wanted}


def _given(**values: Any) -> Tree:
    return {name: value for name, value in values.items() if value is not None}
