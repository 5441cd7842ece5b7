"""What the rows of a table run: recipe, data, metric and the models they build on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from datamodules.names import nearest

METRICS = {  # protocol -> the entry of a record's metrics that a cell shows, and what it is multiplied by
    "object_iou": ("mean_iou", 100.0),
    "grabcut_error": ("error_rate", 100.0),
    "clicks": ("noc@0.85", 1.0),
    "oracle": ("mean_iou", 100.0),
    "focus": ("mean_shift", 1.0),
}

STUDIES = ("focus",)  # protocols that need no network, and so no training data


@dataclass(frozen=True)
class DataSet:
    """What a model is trained or tested on: a data set of the catalog, which part (see Selection), hard for whom.

    `labelled` is the model whose predictions, on this part, stand in for its masks.
    """

    name: str
    part: Mapping[str, Any] = field(default_factory=dict)
    hard: Hard | None = None
    labelled: RunSpec | None = None


@dataclass(frozen=True)
class Hard:
    """Objects on which another model, evaluated on the same data, has a `metric` (of its rows) below a bound."""

    below: float
    by: RunSpec
    metric: str = "iou"


@dataclass(frozen=True)
class RunSpec:
    """One trained and evaluated model: the recipe, what differs from it, the data, the protocol and the metric.

    `start` is the model whose training it continues, `first` the one that predicts before it and finds its inside
    points. `released` says that the authors have published this row's model, so that its weights may stand in for a
    training. `over`: it is evaluated once for each of these values (of each key, in every combination).
    """

    recipe: str
    reading: str
    train: tuple[DataSet, ...]
    test: DataSet
    protocol: str
    metric: str
    scale: float
    differs: Mapping[str, Any] = field(default_factory=dict)
    start: RunSpec | None = None
    released: bool = False
    first: RunSpec | None = None
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def repeated(self) -> list[RunSpec]:
        """This run once for each value of `over`, as a run of its own."""
        return [
            replace(self, over={}, differs={**self.differs, **dict(zip(self.over, values))})
            for values in product(*self.over.values())
        ]

    @property
    def data(self) -> tuple[DataSet, ...]:
        """The training data, then the test set."""
        return (*self.train, self.test)


@dataclass(frozen=True)
class Pair:
    """Two models of which a cell shows the gain of the second over the first."""

    first: RunSpec
    second: RunSpec


def slug(label: str) -> str:
    """`+ SBD data (ours)` -> `sbd-data-ours`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def check_keys(tree: Mapping[str, Any], needed: set[str], allowed: set[str], where: str) -> None:
    for key in tree:
        named(key, needed | allowed, f"{where}: no key")
    if missing := sorted(needed - set(tree)):
        raise ValueError(f"{where}: {', '.join(missing)} missing")


def named(name: str, known: Mapping[str, Any] | Iterable[str], complaint: str) -> Any:
    names = list(known)
    if name not in names:
        near = nearest(str(name), names, most=2) or names
        raise ValueError(f"{complaint} {name!r}; nearest: {', '.join(near)}")
    return known[name] if isinstance(known, Mapping) else name
