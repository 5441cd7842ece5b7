"""`make tables`: number, id, title and state of every table, from the table files and the reports made so far."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from experiments.composition.compose import absent_files
from experiments.console import TextTable, show
from experiments.reproduction.plan import Conditions, first_trained_of, model_as_written
from experiments.reproduction.tables import Table, tables

PROFILES = ("paper", "quick", "small", "miniature")


def print_tables(state: Callable[[Table], str] | None = None, console: Console | None = None) -> None:
    """Prints all tables; `state` says how far one is (default: `table_state`)."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 130  # a pipe has no width; rich would fold at 80
    grid = TextTable(title="make reproduce-table-<number or id>", expand=True)
    grid.add_column("number", justify="right", no_wrap=True, min_width=6)
    grid.add_column("id", no_wrap=True, min_width=18)
    grid.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column("state", min_width=21, max_width=40)
    wanted: dict[str, list[str]] = {}
    for table in tables():
        grid.add_row(str(table.number), table.id, table.title, (state or table_state)(table))
        for name in wanted_files(table):
            wanted.setdefault(name, []).append(str(table.number))
    show(grid, console)
    for name, numbers in sorted(wanted.items()):
        those = ", ".join(numbers)
        show(f"{name} is not set: tables {those} start from other first weights than published (docs/data.md)", console)


def wanted_files(table: Table) -> list[str]:
    """Environment variables that its published first weights are to be named by, and that are not set."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    models = {repr((one.recipe, one.reading, one.differs)): one for cell in cells for one in first_trained_of(cell)}
    paper = Conditions("paper")
    return sorted({name for one in models.values() for name in absent_files(model_as_written(one, paper))})


def table_state(table: Table, reports: Path = Path("reports")) -> str:
    """What its reports say, best profile first; without one, whether its rows say what to run."""
    said = [line for profile in PROFILES if (line := _report_state(reports / profile / f"{table.id}.json", profile))]
    if said:
        return "; ".join(said)
    ready = sum(column.name in row.cells for row, column in table.to_measure)
    if not ready:
        return "published values only"
    return "ready" if ready == len(table.to_measure) else f"ready: {ready} of {len(table.to_measure)} values"


def _report_state(path: Path, profile: str) -> str:
    if not path.exists():
        return ""
    try:
        states = [cell["state"] for cell in json.loads(path.read_text())["cells"] if cell["state"] != "quoted"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"{profile}: {path} cannot be read, make the table again"
    done = sum(state != "not run" for state in states)
    if profile == "paper":
        return f"paper: reproduced {states.count('reproduced')}/{len(states)}"
    return f"{profile}: {done}/{len(states)} measured"
