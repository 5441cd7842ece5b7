"""The protocols by name, and what a protocol has to answer.

A new one is a module with a class like these and a line of PROTOCOLS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from datamodules.names import by_name
from experiments.composition.classes import import_class
from experiments.composition.tree import Tree
from experiments.console import DASH, Choice, Grid
from experiments.evaluation.settings import NoSettings
from experiments.pictures import Picture
from experiments.runs.node import Node

Metrics = Mapping[str, Any]  # of a record: numbers; None where there is none, as of a target that is never reached
Measured = Mapping[str, Sequence[Metrics]]  # by a model's name, the metrics of its evaluations, one per seed

# By name, so that reading a table imports no network; `focus` is a study of points, which needs none.
PROTOCOLS = {
    "object_iou": "experiments.evaluation.objects.ObjectIoU",
    "grabcut_error": "experiments.evaluation.objects.GrabCutError",
    "clicks": "experiments.evaluation.clicks.Clicks",
    "oracle": "experiments.evaluation.oracle.Oracle",
    "retrieval": "experiments.evaluation.retrieval.Retrieval",
    "ellipse": "experiments.evaluation.guesses.Ellipse",
    "grabcut": "experiments.evaluation.guesses.GrabCut",
    "instances": "experiments.evaluation.instances.Instances",
}
STUDIES = {"focus": "experiments.evaluation.focus.Focus"}


@dataclass(frozen=True)
class Metric:
    """An entry of a record's metrics, or all that begin with a `name` that ends in `*`.

    Args:
        scale: what a table multiplies it by.
        higher_is_better: its direction.
    """

    name: str
    scale: float = 100.0
    higher_is_better: bool = True

    def covers(self, name: str) -> bool:
        """Whether this is the entry."""
        return name.startswith(self.name[:-1]) if self.name.endswith("*") else name == self.name


class Protocol(ABC):
    """One way to evaluate a finished run, and what is said of the outcome.

    `metrics`: what it measures; a table's cell shows the first unless it names another. `settings`: a dataclass of what
    it reads of a recipe's section `evaluation`. `behaviour`: raised when a fix changes results. `elsewhere`: the
    protocol of a run on other data sets, where that is another one. `files`: what its scorer writes beside the rows,
    from which metrics are computed, too: a record has their digests. `by_object`: whether its rows say what every
    single object reaches, so that two runs can be set against each other object by object. `printed`: the choices that
    stand under its numbers on a console, too, by name.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    settings: ClassVar[type] = NoSettings
    behaviour: ClassVar[int] = 1
    elsewhere: ClassVar[str] = ""
    by_object: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ()
    printed: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def scorer(self, node: Node, folder: Path) -> Any:
        """A `scorer.Scorer` that runs the network of an `evaluate` node and writes rows into `folder`."""

    @abstractmethod
    def summarise(self, rows: Path, settings: Any) -> dict[str, Any]:
        """A record's metrics, added in the order of the rows: any number of processes gives the same digits.

        `n` says over how many rows they are; the record says beside them how many units (objects, images) were seen.
        """

    def checked(self, config: Tree) -> None:
        """Raises ValueError for values that do not exist; asked before anything is trained."""
        return

    def measures(self, settings: Any) -> set[str] | None:
        """The names of all metrics that a record will have; None where nobody can say."""
        return None

    def metric(self, name: str) -> Metric:
        """The metric of this name, by default with the first one's scale and direction."""
        first = self.metrics[0]
        return next((m for m in self.metrics if m.covers(name)), Metric(name, first.scale, first.higher_is_better))

    def describe(self, metrics: Metrics, settings: Any) -> str:
        """One line for the console."""
        first = self.metrics[0]
        return f"{first.name} {first.scale * metrics[first.name]:.2f} over {metrics['n']:,}"

    def table(self, metrics: Metrics, settings: Any) -> str:
        """Some lines for the console."""
        return "\n".join(f"{name:>20} {value:.4f}" for name, value in metrics.items() if value is not None)

    def choices(self, evaluation: Node) -> list[Choice]:
        """What an evaluation decided where its paper is silent."""
        return []

    def without_number(self, name: str, record: Mapping[str, Any]) -> tuple[str, str]:
        """What a cell shows for a metric that is None in this record, and why: a target that was never reached."""
        return DASH, f"there is no {name}"

    def grids(self, measured: Measured) -> Iterator[Grid]:
        """What a report shows of it beside the cells."""
        return iter(())

    def pictures(self, measured: Measured, folder: Path) -> Iterator[Picture]:
        """Curves, drawn into `folder`."""
        return iter(())

    def numbers(self, measured: Measured) -> dict[str, Any]:
        """What a report's JSON holds beside the cells."""
        return {}


def protocol_names() -> list[str]:
    """All that a table's row may name."""
    return [*PROTOCOLS, *STUDIES]


@cache
def protocol(name: str) -> Any:
    """The protocol of this name. Raises ValueError with the nearest one."""
    return import_class(by_name(name, {**PROTOCOLS, **STUDIES}, "no evaluation.protocol"))()


def protocol_of_record(record: Mapping[str, Any]) -> Any:
    """The protocol that an evaluation's record was made by; None where it says of none."""
    name = (record.get("scoring") or {}).get("protocol")
    return protocol(name) if name in {**PROTOCOLS, **STUDIES} else None
