"""What a table's report showed before it is written anew: fewer rows never replace more of them without a word."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.reproduction.cells import TableResult
from experiments.reproduction.plan import Conditions
from experiments.reproduction.planned import PlannedCell
from experiments.reproduction.tables import Table

Shown = Mapping[tuple[str, str], int]  # by row and column, over how many runs a value was measured


def shown_before(report: Path) -> Shown:
    """What a report's JSON file shows as measured; nothing where there is none that can be read."""
    try:
        cells = json.loads(report.read_text())["cells"]
        return {(cell["row"], cell["column"]): len(cell["runs"]) for cell in cells if cell["runs"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def still_finished(
    table: Table, before: Shown, cells: Sequence[PlannedCell], conditions: Conditions, seeds: Sequence[int]
) -> list[PlannedCell]:
    """Cells that were shown, are not asked for this time, and whose runs are all finished under today's conditions.

    They stay in the report: rows may be made one after the other.
    """
    asked = {(cell.row, cell.column) for cell in cells}
    conditions = replace(conditions, any_row=False)  # typed weights are of the rows that are asked for
    found = [
        PlannedCell(table, row.label, column.name, conditions, seeds)
        for row, column in table.to_measure
        if (row.label, column.name) in before.keys() - asked and column.name in row.cells
    ]
    return [cell for cell in found if not cell.problem and all(node.folder.record for node in cell.nodes)]


def lost(before: Shown, result: TableResult) -> str:
    """What this report shows less than the one before it, as a sentence; empty where nothing."""
    now = {(cell.row, cell.column): len(cell.runs) for cell in result.cells}
    fewer = [(place, count) for place, count in before.items() if now.get(place, 0) < count]
    if not fewer:
        return ""
    named = ", ".join(f"{row} ({column}): {now.get((row, column), 0)} of {n} runs" for (row, column), n in fewer)
    return f"this report shows less than the one before it: {named}; those runs are kept, their own command shows them"
