"""Was a report edited by hand? Every number is computed again from the run records and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

from experiments.evaluation.evaluate import protocol_of
from experiments.reports.comparison_report import COMPARISON, again, as_lists
from experiments.reports.files import from_tree, numbers_of
from experiments.reports.grids import Grid, banner, grids
from experiments.reports.pages import cost
from experiments.reports.reading import html_grids, markdown_grids, squeezed
from experiments.reproduction.cells import NOT_RUN, QUOTED, Cell, TableResult, complete, main_run, measure, not_run
from experiments.reproduction.plan import Conditions, nodes_of
from experiments.reproduction.tables import Table, load_table
from experiments.runs.folder import CONFIG, RECORD, RunFolder, runs_root
from experiments.runs.node import Node
from experiments.runs.older import is_older
from experiments.runs.reading import load_node
from experiments.runs.records import Records

CHECKED = (
    "unit",
    "published",
    "state",
    "measured",
    "std",
    "n_objects",
    "difference",
    "seconds",
    "parts",
    "same_as",
    "never",
)


def check_report(report: Path, runs: Path) -> list[str]:
    """What is wrong with a report, one sentence each; empty when every number follows from its run records.

    Args:
        report: a report's JSON file, or a folder of reports.
        runs: the folder of the runs.
    """
    paths = sorted(report.glob("*.json")) if report.is_dir() else [report]
    if not paths or not paths[0].exists():
        return [f"no report in {report}: expected <table id>.json; make a table first"]
    return [f"{path}: {complaint}" for path in paths for complaint in _check_one(path, runs)]


def _check_one(path: Path, runs: Path) -> Iterator[str]:
    try:
        tree = json.loads(path.read_text())
        if tree.get("kind") == COMPARISON:
            yield from _changed_comparison(path, tree)
            return
        table = load_table(tree.get("file") or tree["id"])
        stated = from_tree(tree, table, runs)
        cells = complete(table, [_again(cell, stated) for cell in stated.cells if cell.state != QUOTED])
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        yield f"cannot be checked: {error}"
        return
    true = replace(stated, cells=cells)
    yield from _changed_records(tree, true.records)
    yield from _changed_cells(tree, stated, true)
    for other, read in ((path.with_suffix(".md"), markdown_grids), (path.with_suffix(".html"), html_grids)):
        if not other.exists():
            yield f"{other.name} is missing"
        else:
            yield from _changed_text(other, other.read_text(), read(other.read_text()), true)


def _changed_comparison(path: Path, tree: dict[str, Any]) -> Iterator[str]:
    for place, digest in tree["records"].items():
        if not Path(place).exists() or hashlib.sha256(Path(place).read_bytes()).hexdigest() != digest:
            yield f"record {place} is not the one the report was made from; compare the runs again"
    true = again(tree)
    if tree["grids"] != as_lists(true):
        yield "its numbers are not those of the runs' rows"
    for other, read in ((path.with_suffix(".md"), markdown_grids), (path.with_suffix(".html"), html_grids)):
        if not other.exists():
            yield f"{other.name} is missing"
        else:
            yield from _changed_tables(other, read(other.read_text()), true)


def _again(cell: Cell, result: TableResult) -> Cell:
    """The cell as its runs say it is."""
    table: Table = result.table
    if not cell.runs:
        if cell.measured is not None or cell.state != NOT_RUN:
            raise ValueError(f"{cell.row}, {cell.column}: a {cell.state} value without runs")
        return not_run(table, cell.row, cell.column, cell.reason)
    found = measure(
        table,
        cell.row,
        cell.column,
        runs=cell.runs,
        records=result.records,
        profile=result.profile,
        before_runs=cell.before_runs,
        metric=cell.metric,
        scale=cell.scale,
        other_start=cell.other_start,
    )
    expected = main_run(table.row(cell.row).cells.get(cell.column))
    if expected is not None and (cell.metric, cell.scale) != (expected.metric, expected.scale):
        says, should = f"{cell.metric} x {cell.scale}", f"{expected.metric} x {expected.scale}"
        raise ValueError(f"{cell.row}: shows {says}, the table file says {should}")
    return replace(found, reason=cell.reason or found.reason)


def _changed_records(tree: dict[str, Any], records: Records) -> Iterator[str]:
    for run, record in tree["records"].items():
        if records.digest(run) != record["sha256"]:
            yield f"record {records.path(run)} is not the one the report was made from; make the table again"
        yield from changed_run(records.read(run), RunFolder(records.root / run))


def changed_run(record: Mapping[str, Any], folder: RunFolder) -> Iterator[str]:
    """Of a run: files that are not those it made, results that it was not made from, metrics that rows do not give."""
    if not (folder.path / CONFIG).exists():  # of a report that was carried elsewhere with its records alone
        if CONFIG in record.get("files", {}):
            yield f"{folder.path / CONFIG} is missing"
        return
    try:
        node = load_node(folder)
    except (ValueError, OSError) as error:
        yield str(error)
        return
    yield from node.outdated()
    yield from folder.changed_evidence()
    if node.kind == "evaluate" and node.found is not None and not node.found.older:
        yield from _changed_metrics(node, record)


def _changed_metrics(evaluation: Node, record: Mapping[str, Any]) -> Iterator[str]:
    rows = evaluation.folder.path / "rows.csv"
    if not rows.exists():
        yield f"{rows} is missing: the numbers of run {evaluation.folder.name} cannot be computed again"
        return
    how, settings = protocol_of(evaluation.config)
    try:
        true = how.summarise(rows, settings)
    except (ValueError, KeyError, ArithmeticError) as error:
        yield f"{rows} gives no numbers: {type(error).__name__}: {error}"
        return
    metrics = record.get("metrics", {})
    wrong = [name for name in metrics if not _equal(metrics[name], true.get(name))]
    if wrong:
        name, others = wrong[0], f", and {len(wrong) - 1} more numbers differ" if len(wrong) > 1 else ""
        told = f"{name} is {metrics[name]}, its rows give {true.get(name)}"
        yield f"record {evaluation.folder.path / RECORD}: {told}{others}"


def _changed_cells(tree: dict[str, Any], stated: TableResult, true: TableResult) -> Iterator[str]:
    places = [(cell.row, cell.column) for cell in stated.cells]
    if places != [(cell.row, cell.column) for cell in true.cells]:
        yield "its cells are not those of the table file"
        return
    for cell, expected in zip(stated.cells, true.cells):
        for name in CHECKED:
            says, should = getattr(cell, name), getattr(expected, name)
            if not _equal(says, should):
                yield f"{cell.row}, {cell.column}: {name} is {says}, the run records and the table file give {should}"
    if tree.get("curves", {}) != numbers_of(true):
        yield "its curves are not those of the run records"
    if tree["banner"] != banner(true):
        yield "its banner is not that of its profile"


def _equal(a: object, b: object) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b))
    return a == b


def _changed_text(path: Path, text: str, found: list[list[list[str]]], true: TableResult) -> Iterator[str]:
    expected = grids(true)
    if "PROFILE" not in text or banner(true) not in unescape(text):
        yield f"{path.name}: the line about the profile is missing or changed"
    if cost(true) not in unescape(text):
        yield f"{path.name}: the line about the cost is missing or changed; it should say: {cost(true)}"
    yield from _changed_tables(path, found, expected)


def _changed_tables(path: Path, found: list[list[list[str]]], expected: Sequence[Grid]) -> Iterator[str]:
    if len(found) != len(expected):
        yield f"{path.name}: {len(found)} tables, expected {len(expected)}"
        return
    for grid, lines in zip(expected, found):
        yield from (f"{path.name}, {complaint}" for complaint in _changed_lines(grid, lines))


def _changed_lines(grid: Grid, found: list[list[str]]) -> Iterator[str]:
    expected = [squeezed(line) for line in (grid.header, *grid.lines)]
    if len(found) != len(expected):
        yield f"{grid.title}: {len(found) - 1} lines, expected {len(expected) - 1}"
        return
    for line, should in zip(found, expected):
        for column, says, truth in zip(expected[0], line, should):
            if says != truth:
                where = f"{grid.title}, {should[0]}, {column}"
                yield f"{where}: prints {says!r}, the run records and the table file give {truth!r}"
        if len(line) != len(should):
            yield f"{grid.title}, {should[0]}: {len(line)} cells, expected {len(should)}"


def foreign_runs(path: Path) -> tuple[list[str], int]:
    """Cells whose runs are not those that the table's rows name today, a sentence each; and how many have older runs.

    Runs of an older version have other names than today's. Reports with values changed on the command line and cells of
    released weights cannot be derived again.
    """
    tree = json.loads(path.read_text())
    if tree.get("kind") == COMPARISON or tree["profile"].endswith("-changed"):
        return [], 0
    older, table, conditions = 0, load_table(tree.get("file") or tree["id"]), Conditions(tree["profile"])
    complaints = []
    for cell in tree["cells"]:
        if not cell["runs"] or any(choice["name"] == "weights" for choice in tree["choices"].get(cell["row"], [])):
            continue
        if any(is_older(runs_root() / run) for run in cell["runs"]):
            older += 1
            continue
        after, before = nodes_of(table.row(cell["row"]).cells[cell["column"]], conditions, tree["seeds"])
        named = [[node.hash for node in after], [node.hash for node in before]]
        if named != [cell["runs"], cell.get("before_runs", cell.get("first_runs"))]:
            complaints.append(f"{path}: {cell['row']}, {cell['column']}: its runs are not those of this row today")
    return complaints, older
