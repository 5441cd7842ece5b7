"""A table's cells and the evaluations that measure them, known before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.names import hint
from experiments.composition.compose import absent_files
from experiments.composition.merging import parse_override
from experiments.evaluation.evaluate import protocol_of
from experiments.reproduction.cells import Cell, main_run, measure, not_run
from experiments.reproduction.plan import Conditions, NoData, check_data, first_trained_of, model_as_written, nodes_of
from experiments.reproduction.specs import Pair, RunSpec
from experiments.reproduction.tables import Table
from experiments.runs.environment import git_commit
from experiments.runs.identity import ASIDE, MACHINE, wanted_starts
from experiments.runs.node import Node
from experiments.runs.records import Records
from lightning_modules.networks.first_weights import IMAGENET

# Values that change no result, by section: a table with them typed is still the published one.
HARMLESS = {"trainer": MACHINE, "data": (*ASIDE, "val", "val_batch_size"), "evaluation": ("batch_size",)}
# First weights that stand in for a file that nobody named, in words.
OTHERS = {"imagenet": "ImageNet", "": "random weights"}


class PlannedCell:
    """A cell and the evaluations that measure it, or the reason why there are none."""

    def __init__(self, table: Table, row: str, column: str, conditions: Conditions, seeds: Sequence[int]) -> None:
        self.row, self.column, self.problem = row, column, ""
        self.by_code = made_by_code(table, row, column)
        self.other_start = absent_start(table.row(row).cells[column], conditions)
        try:  # naming a run opens its data: what is missing or broken is known before anything is trained
            self.after, self.before = nodes_of(table.row(row).cells[column], conditions, seeds)
            check_data(self.nodes)
        except NoData as error:
            self.problem, self.after, self.before = str(error), [], []
        check_metric(table, row, column, self.after)

    @property
    def nodes(self) -> list[Node]:
        """All its evaluations."""
        return [*self.before, *self.after]

    def result(self, table: Table, records: Records, profile: str) -> Cell:
        """The cell as measured."""
        lacking = [run for node in self.nodes for run in node.with_ancestors() if run.folder.record is None]
        if self.problem or lacking:
            reason = self.problem or f"run {lacking[0].hash} has no record yet"
            return not_run(table, self.row, self.column, reason)
        other_start = random_start(self.nodes) or self.other_start
        notes = filter(None, [older_code(self.nodes), other_start, changed_run(self.nodes)])
        return measure(
            table,
            self.row,
            self.column,
            [node.hash for node in self.after],
            records,
            profile,
            before_runs=[node.hash for node in self.before],
            reason="; ".join(notes),
            other_start=other_start,
        )


def planned_cells(
    table: Table, conditions: Conditions, seeds: Sequence[int], rows: Sequence[int] = ()
) -> list[PlannedCell]:
    """The cells of a table's own rows, or of those of these numbers, counted from 1.

    Raises ValueError for a number that there is not, and where nothing of the rows is run.
    """
    runs = {row.label for row, column in table.to_measure if column.name in row.cells}
    numbers = {number: row.label for number, row in enumerate(table.rows, 1) if row.label in runs}
    if beyond := [number for number in rows if not 1 <= number <= len(table.rows)]:
        raise ValueError(f"--rows {beyond[0]}: {table.id} has rows 1 to {len(table.rows)}")
    if rows and not set(rows) & set(numbers):
        asked, some = ", ".join(map(str, rows)), ", ".join(map(str, numbers))
        raise ValueError(f"--rows {asked}: nothing of {table.id} is run for it; rows that are run: {some}")
    wanted = [label for number, label in numbers.items() if not rows or number in rows]
    return [
        PlannedCell(table, row.label, column.name, conditions, seeds)
        for row, column in table.to_measure
        if column.name in row.cells and row.label in wanted
    ]


def older_code(nodes: Sequence[Node]) -> str:
    """A note when a record was written by another commit than today's."""
    now = git_commit()
    made = {str((run.folder.record or {}).get("git")) for node in nodes for run in node.with_ancestors()}
    return f"made by other code than today's {now}: {', '.join(sorted(made))}" if made - {str(now)} else ""


def random_start(nodes: Sequence[Node]) -> str:
    """A note when a training was to start from pretrained weights and there were none, or only some."""
    for training in (run for node in nodes for run in node.with_ancestors() if run.kind == "train"):
        wanted = wanted_starts(training.config["model"])
        source = str((training.folder.record or {}).get("initial_weights"))
        if wanted and source.startswith("random"):
            return f"started from random weights: {', '.join(map(str, wanted.values()))} was not there"
        if "random" in source and not {*wanted.values()} <= {*IMAGENET}:
            return f"published start not whole: {source}"
    return ""


def absent_start(cell: RunSpec | Pair, conditions: Conditions) -> str:
    """A note when the published first weights are a file that nobody has named, so that a cell starts from others."""
    trained = first_trained_of(cell)
    absent = {
        name: other for spec in trained for name, other in absent_files(model_as_written(spec, conditions)).items()
    }
    said = (f"{name} not set, {OTHERS.get(other, other)} instead" for name, other in sorted(absent.items()))
    return f"published start not there: {', '.join(said)}" if absent else ""


def made_by_code(table: Table, row: str, column: str) -> bool:
    """Whether the authors' released code made the published value of a cell, which must have one."""
    spec = main_run(table.row(row).cells[column])
    assert spec is not None
    return spec.reading == "code" and spec.by_code and table.row(row).published.get(column) is not None


def changed_run(nodes: Sequence[Node]) -> str:
    """A note when a run is no longer what it was made: its files, or what it was made from, were changed."""
    return next((wrong for node in nodes for run in node.with_ancestors() for wrong in run.outdated()), "")


def check_metric(table: Table, row: str, column: str, nodes: Sequence[Node]) -> None:
    """Raises ValueError when the evaluations of a cell will not measure what it shows: before they are made."""
    spec = main_run(table.row(row).cells[column])
    assert spec is not None
    for node in nodes[:1]:
        how, settings = protocol_of(node.config)
        measured = how.measures(settings)
        if measured is not None and spec.metric not in measured:
            raise ValueError(
                f"{table.id}, {row}, {column}: protocol {spec.protocol} does not measure {spec.metric!r} with these "
                f"values; {hint(spec.metric, sorted(measured))}"
            )


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
        if key not in ("threads", "channels_last") and name not in HARMLESS.get(group, ()):
            changed.append(f"{key}={value}")
    return changed
