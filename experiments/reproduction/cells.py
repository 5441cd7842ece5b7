"""From run records to the cells of a table: what was measured, how far from the published value, and how we call that.

A record is `runs/<hash>/record.json`, written by the run itself. Nothing here is typed in by hand: a cell keeps the
hashes of its runs, and `measure` computes all its numbers from their records, so that `report_check` can do it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.console import Choice
from experiments.evaluation.protocols import protocol, protocol_of_record
from experiments.pictures import Picture
from experiments.reproduction.specs import Pair, RunSpec
from experiments.reproduction.tables import Table, Value
from experiments.runs.records import Records

REPRODUCED, OFF, REDUCED = "reproduced", "off", "reduced profile"
OTHER_START = "other start"  # from other first weights than the published ones, so neither reproduced nor off

NOT_RUN, QUOTED, UNPUBLISHED = "not run", "quoted", "no published value"

TOLERANCE = {"clicks": 0.1, "fraction": 0.005}  # in the unit of the column; everything else 0.5 (points)


@dataclass(frozen=True)
class Cell:
    """One value of a table. `runs` has one evaluation per seed; of a difference, `before_runs` has those subtracted."""

    row: str
    column: str
    unit: str
    published: Value
    state: str
    reason: str = ""
    metric: str = ""
    scale: float = 1.0
    runs: tuple[str, ...] = ()
    before_runs: tuple[str, ...] = ()
    measured: float | None = None  # mean over seeds
    std: float | None = None  # over seeds, None with one seed
    n_objects: int | None = None
    difference: float | None = None  # measured - published
    seconds: float = 0.0  # of the runs and all they build on, each once
    parts: tuple[float, ...] = ()  # of a difference: the mean of its first and of its second model
    same_as: tuple[str, ...] = ()  # rows that became the same runs in this profile
    other_start: str = ""  # in words, where the published first weights were not there
    never: str = ""  # in place of `measured` where a run never came that far: '>20'
    share_of: str = ""  # of a share: the row of the model that is 100 %, whose evaluations are `before_runs`

    @property
    def n_seeds(self) -> int:
        return len(self.runs)


@dataclass(frozen=True)
class TableResult:
    """All that a report says. `table_result` completes the cells and should be used to make one."""

    table: Table
    profile: str
    cells: tuple[Cell, ...]
    records: Records
    seeds: tuple[int, ...]
    started: str
    finished: str
    environment: str
    reduction: str = ""  # what the profile reduced, in a few words for the banner
    choices: Mapping[str, Sequence[Choice]] = field(default_factory=dict)  # by row label; "" is for all rows
    pictures: Sequence[Picture] = ()

    def cell(self, row: str, column: str) -> Cell:
        return next(cell for cell in self.cells if (cell.row, cell.column) == (row, column))

    @property
    def runs(self) -> list[str]:
        """The evaluations of all cells, in reading order."""
        return list(dict.fromkeys(run for cell in self.cells for run in (*cell.before_runs, *cell.runs)))

    def measured_cells(self) -> Iterator[Cell]:
        return (cell for cell in self.cells if cell.runs)


def judge(published: Value, measured: Value, std: float | None, unit: str, profile: str, other_start: str = "") -> str:
    """The state of a measured value. Only at the published size, schedule and start can one be reproduced or off."""
    if profile != "paper":
        return REDUCED
    if other_start and published is not None:
        return OTHER_START
    if isinstance(measured, str):
        return UNPUBLISHED if published is None else REPRODUCED if measured == published else OFF
    assert measured is not None
    if not isinstance(published, int | float):
        return UNPUBLISHED
    allowed = max(TOLERANCE.get(unit, 0.5), 2 * (std or 0.0))
    return REPRODUCED if abs(measured - published) <= allowed + 1e-9 else OFF


def measure(
    table: Table,
    row: str,
    column: str,
    runs: Sequence[str],
    records: Records,
    profile: str,
    *,
    before_runs: Sequence[str] = (),
    metric: str = "",
    scale: float | None = None,
    reason: str = "",
    other_start: str = "",
) -> Cell:
    """The cell of these evaluations, one per seed, computed from their records.

    Args:
        runs: hashes of the evaluations; of a pair, those of its second model.
        before_runs: of a pair, the evaluations of its first model, in the same order of seeds.
        metric, scale: which entry of the records' metrics, and its factor; default: as the table file says.
        reason: anything the reader must know, such as "made by older code".
        other_start: where first weights were not the published ones: in words, which.
    """
    of_table = table.row(row).cells.get(column)
    spec, share_of = main_run(of_table), of_table.share_of if isinstance(of_table, Pair) else ""
    metric, scale = _metric(spec, metric, scale, f"{table.id}, {row}, {column}")
    if before_runs and len(before_runs) != len(runs):
        raise ValueError(f"{row}: {len(before_runs)} seeds of the first model, {len(runs)} of the second; need as many")
    if not runs:
        raise ValueError(f"{row}, {column}: no runs given; say why with `not_run`")
    published, unit = table.row(row).published.get(column), table.column(column).unit
    found = {run: records.metric(run, metric) for run in (*runs, *before_runs)}
    if None in found.values():  # one seed without a number leaves a mean without meaning
        record = records.read(runs[0])
        how = protocol_of_record(record) or protocol(spec.protocol if spec else "clicks")
        shown, why = how.without_number(metric, record)
        state = judge(published, shown, None, unit, profile, other_start)
        lost, seeds = sum(found[run] is None for run in runs), len(runs)
        which = f"with {lost} of {seeds} seeds " if 0 < lost < seeds else ""
        return Cell(
            row=row,
            column=column,
            unit=unit,
            published=published,
            state=state,
            reason="; ".join(filter(None, [which + why, reason])),
            metric=metric,
            scale=scale,
            runs=tuple(runs),
            before_runs=tuple(before_runs),
            n_objects=_units(records.read(runs[0])),
            other_start=other_start,
            share_of=share_of,
            never=shown,
            seconds=records.seconds([*before_runs, *runs]),
        )
    values, before = ([scale * float(found[run] or 0) for run in part] for part in (runs, before_runs))
    parts = (fmean(before), fmean(values)) if before else ()
    if share_of and 0.0 in before:
        why = f"{share_of} reaches 0, of which nothing is a share"
        return replace(not_run(table, row, column, why), metric=metric, scale=scale, share_of=share_of)
    if before:
        values = [100 * b / a if share_of else b - a for a, b in zip(before, values)]
    mean, std = fmean(values), stdev(values) if len(values) > 1 else None
    state = judge(published, mean, std, unit, profile, other_start)
    if state == REPRODUCED and tuple(runs) == tuple(before_runs):
        state = OFF  # the gain of a model over itself is 0, which reproduces nothing
    sizes = [_units(records.read(run)) for run in (*runs, *before_runs)]
    if len(set(sizes)) > 1:
        unequal = f"numbers of objects (or images) differ between runs: {', '.join(sorted(map(str, set(sizes))))}"
        reason = "; ".join(filter(None, [reason, unequal]))
    return Cell(
        row=row,
        column=column,
        unit=unit,
        published=published,
        state=state,
        reason=reason,
        metric=metric,
        scale=scale,
        runs=tuple(runs),
        before_runs=tuple(before_runs),
        other_start=other_start,
        measured=mean,
        std=std,
        n_objects=sizes[0],
        difference=mean - published if isinstance(published, int | float) else None,
        seconds=records.seconds([*before_runs, *runs]),
        parts=parts,
        share_of=share_of,
    )


def not_run(table: Table, row: str, column: str, reason: str) -> Cell:
    """A cell nobody measured, and why."""
    unit = table.column(column).unit
    return Cell(row, column, unit, published=table.row(row).published.get(column), state=NOT_RUN, reason=reason)


def table_result(
    table: Table,
    profile: str,
    cells: Iterable[Cell],
    runs_root: Path,
    *,
    seeds: Sequence[int],
    started: str,
    finished: str,
    environment: str,
    reduction: str = "",
    choices: Mapping[str, Sequence[Choice]] | None = None,
    pictures: Sequence[Picture] = (),
) -> TableResult:
    """The result of a table: quoted cells are added, missing ones are named, equal runs are marked."""
    return TableResult(
        table=table,
        profile=profile,
        cells=complete(table, cells),
        records=Records(Path(runs_root)),
        seeds=tuple(seeds),
        started=started,
        finished=finished,
        environment=environment,
        reduction=reduction,
        choices=dict(choices or {}),
        pictures=tuple(pictures),
    )


def _units(record: Mapping[str, Any]) -> int | None:
    """How many objects, or images, an evaluation saw; of a study, and before records said it, how many rows it had."""
    units: int | None = record.get("units", record["metrics"].get("n"))
    return units


def complete(table: Table, cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """All cells of the table in reading order, with rows that became the same runs marked."""
    given = {(cell.row, cell.column): cell for cell in cells}
    measured = {(row.label, column.name) for row, column in table.to_measure}
    if unknown := set(given) - measured:
        row_label, name = sorted(unknown)[0]
        raise ValueError(f"{table.id} has no own cell ({row_label!r}, {name!r}); own rows: {_own_rows(table)}")
    found = []
    for row in table.rows:
        for column in table.columns:
            key = (row.label, column.name)
            if key not in measured:
                published = row.published.get(column.name)
                found.append(
                    Cell(row=row.label, column=column.name, unit=column.unit, published=published, state=QUOTED)
                )
            elif key in given:
                found.append(given[key])
            else:
                why = "left out" if column.name in row.cells else "the table file does not say yet what to run"
                found.append(not_run(table, *key, why))
    return tuple(replace(cell, same_as=_same_runs(cell, found)) for cell in found)


def _same_runs(cell: Cell, cells: Sequence[Cell]) -> tuple[str, ...]:
    if not cell.runs:
        return ()

    def identity(of: Cell) -> tuple[object, ...]:
        return of.column, of.metric, of.runs, of.before_runs

    both = (cell.row,) if cell.runs == cell.before_runs else ()
    others = (other.row for other in cells if other.row != cell.row and identity(other) == identity(cell))
    return (*both, *others)


def main_run(spec: RunSpec | Pair | None) -> RunSpec | None:
    """The run whose metric a cell shows: of a pair, the one after the gain."""
    return spec.after if isinstance(spec, Pair) else spec


def _metric(spec: RunSpec | None, metric: str, scale: float | None, where: str) -> tuple[str, float]:
    if spec is not None:
        return metric or spec.metric, spec.scale if scale is None else scale
    if not metric:
        raise ValueError(f"{where}: the table file names no run for it; say which metric of the records it shows")
    return metric, 1.0 if scale is None else scale


def _own_rows(table: Table) -> str:
    return ", ".join(row.label for row in table.rows if row.own)
