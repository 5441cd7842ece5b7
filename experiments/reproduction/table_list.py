"""`make tables`: number, id, title and state of every table, from the table files and the reports made so far."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from experiments.console import TextTable, show
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
    for table in tables():
        grid.add_row(str(table.number), table.id, table.title, (state or table_state)(table))
    show(grid, console)


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
