"""What evaluations measured for the rows of a table, by protocol and model, over seeds, read from the run records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.evaluation.protocols import Measured, Metrics, Protocol, protocol, protocol_of_record
from experiments.reproduction.cells import Cell, TableResult


def models_of(cell: Cell) -> list[tuple[str, tuple[str, ...]]]:
    """The models that a cell shows, by name, and their evaluations: those of a pair `A -> B` are A and B."""
    if not cell.before_runs:
        return [(cell.row, cell.runs)]
    if cell.share_of:
        return [(cell.share_of, cell.before_runs), (cell.row, cell.runs)]
    first, _, second = cell.row.partition(" -> ")
    return [(first, cell.before_runs), (second or f"{first} (second)", cell.runs)]


def measured_models(result: TableResult) -> dict[str, Measured]:
    """By protocol all models that were measured: by row, or `row (columns)` where not all stand in the same columns."""
    columns: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    rows: dict[tuple[str, tuple[str, ...]], str] = {}
    for cell in result.measured_cells():
        for key in models_of(cell):
            columns.setdefault(key, []).append(cell.column)
            rows.setdefault(key, cell.row)
    found: dict[str, Measured] = {}
    for name in dict.fromkeys(name for key in columns for name in [_protocol_name(result, key[1])] if name):
        own = {key: names for key, names in columns.items() if _protocol_name(result, key[1]) == name}
        alike = len({tuple(dict.fromkeys(names)) for names in own.values()}) < 2
        models: dict[str, list[Metrics]] = {}
        for (label, runs), names in own.items():
            where = [] if alike else list(dict.fromkeys(names))
            shown = _labelled(label, where)
            if shown in models:  # the same model of another pair, trained or tested otherwise
                shown = _labelled(label, [rows[label, runs], *where])
            models[shown] = [result.records.read(run)["metrics"] for run in runs]
        found[name] = models
    return found


def shown_by_protocol(result: TableResult) -> Iterator[tuple[Protocol, Measured]]:
    """Each protocol of a table with what it measured."""
    for name, measured in measured_models(result).items():
        yield protocol(name), measured


def _protocol_name(result: TableResult, runs: Sequence[str]) -> str:
    """The protocol of a model's evaluations; empty where their records say of none."""
    record = result.records.read(runs[0])
    return "" if protocol_of_record(record) is None else str(record["scoring"]["protocol"])


def _labelled(label: str, where: Sequence[str]) -> str:
    return f"{label} ({', '.join(where)})" if where else label
