"""A table's cells and the evaluations that measure them, known before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.composition.merging import parse_override
from experiments.reproduction.cells import Cell, measure, not_run
from experiments.reproduction.plan import Conditions, NoData, check_data, nodes_of
from experiments.reproduction.tables import Table
from experiments.runs.environment import git_commit
from experiments.runs.identity import NOT_IDENTITY
from experiments.runs.node import Node
from experiments.runs.records import Records


class PlannedCell:
    """A cell and the evaluations that measure it, or the reason why there are none."""

    def __init__(self, table: Table, row: str, column: str, conditions: Conditions, seeds: Sequence[int]) -> None:
        self.row, self.column, self.problem = row, column, ""
        try:  # naming a run opens its data: what is missing or broken is known before anything is trained
            self.second, self.first = nodes_of(table.row(row).cells[column], conditions, seeds)
            check_data(self.nodes)
        except NoData as error:
            self.problem, self.second, self.first = str(error), [], []

    @property
    def nodes(self) -> list[Node]:
        """All its evaluations."""
        return [*self.first, *self.second]

    def result(self, table: Table, records: Records, profile: str) -> Cell:
        """The cell as measured."""
        lacking = [node for node in self.nodes if node.folder.record is None]
        if self.problem or lacking:
            reason = self.problem or f"run {lacking[0].hash} has no record yet"
            return not_run(table, self.row, self.column, reason)
        notes = filter(None, [older_code(self.nodes), random_start(self.nodes)])
        return measure(
            table, self.row, self.column, [node.hash for node in self.second], records, profile,
            first_runs=[node.hash for node in self.first], reason="; ".join(notes),
        )  # fmt: skip


def older_code(nodes: Sequence[Node]) -> str:
    """A note when a record was written by another commit than today's."""
    now = git_commit()
    made = {str((run.folder.record or {}).get("git")) for node in nodes for run in node.with_ancestors()}
    return f"made by other code than today's {now}: {', '.join(sorted(made))}" if made - {str(now)} else ""


def random_start(nodes: Sequence[Node]) -> str:
    """A note when a training was to start from pretrained weights and there were none."""
    for training in (run for node in nodes for run in node.with_ancestors() if run.kind == "train"):
        wanted = training.config["model"]["init_args"]["network"]["init_args"].get("pretrained")
        if wanted and str((training.folder.record or {}).get("initial_weights")).startswith("random"):
            return f"started from random weights: {wanted} was not there"
    return ""


def changed_values(overrides: Sequence[str]) -> list[str]:
    """The values typed on the command line that change results: with any, a table is not the published one.

    Raises ValueError for those that have an option of their own.
    """
    changed = []
    for key, value in map(parse_override, overrides):
        if key in ("profile", "seed", "reading"):
            option = {"seed": "--seeds", "profile": "--profile"}.get(key, "the table file: a row says its reading")
            raise ValueError(f"{key} cannot be typed as a value of a table; use {option}")
        group, _, name = key.replace("init_args.", "").partition(".")
        harmless = key in ("threads", "channels_last") or name in NOT_IDENTITY.get(group, ())
        if not harmless or key == "evaluation.test":
            changed.append(f"{key}={value}")
    return changed
