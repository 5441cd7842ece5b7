"""What the rows of a table run: recipe, data, metric and the models they build on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from datamodules.names import check_name
from experiments.evaluation.protocols import protocol


@dataclass(frozen=True)
class RowData:
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

    Args:
        own_metric, own_scale: of the records, where a table shows another one than the protocol's first.
        parents: the models that its training builds on, by role: `start`, which it goes on from, or what its method
            takes, such as an `extractor`.
        first_stage: the model that predicts before it and finds its inside points.
        released: the authors have published this row's model, so that its weights may stand in for a training.
        by_code: the code that the authors released trains such a model; False where they released none for it, and the
            reading `code` stands for all else.
        over: it is evaluated once for each of these values (of each key, in every combination).
    """

    recipe: str
    reading: str
    train: tuple[RowData, ...]
    test: RowData
    protocol: str
    own_metric: str = ""
    own_scale: float | None = None
    differs: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, RunSpec] = field(default_factory=dict)
    first_stage: RunSpec | None = None
    released: bool = False
    by_code: bool = True
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The entry of a record's metrics that a cell shows."""
        return self.own_metric or str(protocol(self.protocol).metrics[0].name)

    @property
    def scale(self) -> float:
        """What it is multiplied by."""
        return float(protocol(self.protocol).metric(self.metric).scale) if self.own_scale is None else self.own_scale

    @property
    def start(self) -> RunSpec | None:
        """The model whose training it continues."""
        return self.parents.get("start")

    @property
    def repeated(self) -> list[RunSpec]:
        """This run once for each value of `over`, as a run of its own."""
        return [
            replace(self, over={}, differs={**self.differs, **dict(zip(self.over, values))})
            for values in product(*self.over.values())
        ]

    @property
    def data(self) -> tuple[RowData, ...]:
        """The training data, then the test set."""
        return (*self.train, self.test)


@dataclass(frozen=True)
class Pair:
    """Two models of which a cell shows the gain; `first` and `second` in a table's file.

    Or the share, in per cent, that the second reaches of the first: EXITS' retention rate. `share_of` is then the first
    one's row.
    """

    before: RunSpec
    after: RunSpec
    share_of: str = ""


def slug(label: str) -> str:
    """`+ SBD data (ours)` -> `sbd-data-ours`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def check_keys(tree: Mapping[str, Any], needed: set[str], allowed: set[str], where: str) -> None:
    for key in tree:
        check_name(key, sorted(needed | allowed), f"{where}: no key")
    if missing := sorted(needed - set(tree)):
        raise ValueError(f"{where}: {', '.join(missing)} missing")
