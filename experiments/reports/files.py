"""A table's report: Markdown, HTML and JSON in a folder, and a table on the console."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.console import Choice, TextTable, show
from experiments.pictures import Picture
from experiments.reports.grids import banner, grids
from experiments.reports.measured import shown_by_protocol
from experiments.reports.pages import html_page, markdown_page
from experiments.reproduction.cells import NOT_RUN, OFF, QUOTED, REDUCED, REPRODUCED, Cell, TableResult
from experiments.reproduction.tables import Table
from experiments.runs.files import write_atomically
from experiments.runs.records import Records

COLOURS = {REPRODUCED: "green", OFF: "red", REDUCED: "yellow", NOT_RUN: "dim", QUOTED: "dim"}


@dataclass(frozen=True)
class Paths:
    """The files of a report."""

    markdown: Path
    html: Path
    json: Path


def write_report(result: TableResult, folder: Path) -> Paths:
    """Writes `<id>.md`, `<id>.html` and `<id>.json`, and the pictures into `<id>/`; draws the curves."""
    name = result.table.id
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _gather(result, folder)
    paths = Paths(folder / f"{name}.md", folder / f"{name}.html", folder / f"{name}.json")
    write_atomically(paths.markdown, markdown_page(result, pictures))
    write_atomically(paths.html, html_page(result, pictures, folder))
    tree = as_tree(replace(result, pictures=tuple(pictures)))
    write_atomically(paths.json, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    return paths


def print_report(result: TableResult, console: Console | None = None) -> None:
    """The table on the console: published, measured and the difference."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 140
    grid = grids(result)[0]
    shown = TextTable(title=f"{result.table.id}: {result.table.title}")
    for column in grid.header:
        shown.add_column(column, justify="right" if column in grid.numbers else "left", no_wrap=column in grid.numbers)
    for line in grid.lines:
        shown.add_row(*line, style=COLOURS.get(line[grid.header.index("State")], ""))
    show(banner(result), console, "bold" if result.profile == "paper" else "bold yellow")
    show(shown, console)


def as_tree(result: TableResult) -> dict[str, Any]:
    """The result as JSON: every cell with its runs, every record with its path and the hash of its content."""
    records, table = result.records, result.table
    runs = records.with_parents(result.runs)
    return {
        "id": table.id,
        "number": table.number,
        "file": None if table.file is None else str(table.file),
        "title": table.title,
        "profile": result.profile,
        "banner": banner(result),
        "reduction": result.reduction,
        "seeds": list(result.seeds),
        "started": result.started,
        "finished": result.finished,
        "environment": result.environment,
        "cells": [asdict(cell) for cell in result.cells],
        "choices": {row: [asdict(choice) for choice in choices] for row, choices in result.choices.items()},
        "pictures": [{**asdict(picture), "path": picture.path.as_posix()} for picture in result.pictures],
        "curves": numbers_of(result),
        "records": {run: {"path": str(records.path(run)), "sha256": records.digest(run)} for run in runs},
    }


def numbers_of(result: TableResult) -> dict[str, Any]:
    """What the protocols of a table give as numbers beside its cells: curves, by model."""
    return {name: value for how, measured in shown_by_protocol(result) for name, value in how.numbers(measured).items()}


def from_tree(tree: dict[str, Any], table: Table, runs_root: Path) -> TableResult:
    """The result written by `as_tree`."""
    cells = tuple(_cell(cell) for cell in tree["cells"])
    choices = {row: [Choice(**choice) for choice in found] for row, found in tree["choices"].items()}
    pictures = tuple(Picture(p["caption"], Path(p["path"]), p["row"]) for p in tree["pictures"])
    return TableResult(
        table=table,
        profile=tree["profile"],
        cells=cells,
        records=Records(runs_root),
        seeds=tuple(tree["seeds"]),
        started=tree["started"],
        finished=tree["finished"],
        environment=tree["environment"],
        reduction=tree["reduction"],
        choices=choices,
        pictures=pictures,
    )


def _cell(tree: dict[str, Any]) -> Cell:
    tree = {"before_runs" if name == "first_runs" else name: value for name, value in tree.items()}  # as it was called
    lists = {name: tuple(tree[name]) for name in ("runs", "before_runs", "parts", "same_as")}
    return Cell(**{**tree, **lists})


def _gather(result: TableResult, folder: Path) -> Sequence[Picture]:
    """Copies the pictures next to the report, adds the curves, and returns them with paths from the folder."""
    home = folder / result.table.id
    if result.pictures:
        home.mkdir(exist_ok=True)
    found = []
    for number, picture in enumerate(result.pictures, start=1):
        path = picture.path
        if path.parent != home:
            path = home / f"{number:02d}-{picture.path.name}"
            shutil.copyfile(picture.path, path)
        found.append(replace(picture, path=path.relative_to(folder)))
    drawn = [replace(picture, path=picture.path.relative_to(folder)) for picture in _curves(result, home)]
    return [*found, *drawn]


def _curves(result: TableResult, home: Path) -> Iterator[Picture]:
    """The curves that the records hold, drawn into `home`."""
    for how, measured in shown_by_protocol(result):
        yield from how.pictures(measured, home)
