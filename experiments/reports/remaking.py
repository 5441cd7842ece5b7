"""A table made again: what is wrong with the request said first, then its runs, then its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import LightningModule

from experiments.composition.building import build_part
from experiments.launching.graph import make_runs
from experiments.reports.earlier import lost, shown_before, still_finished
from experiments.reports.files import Paths, write_report
from experiments.reports.gathering import choices_by_row, environment_line, pictures_of
from experiments.reproduction.cells import TableResult, table_result
from experiments.reproduction.plan import Conditions
from experiments.reproduction.planned import PlannedCell, changed_values, planned_cells
from experiments.reproduction.tables import load_table
from experiments.runs.files import file_digest
from experiments.runs.folder import runs_root
from experiments.runs.identity import starts_from_files
from experiments.runs.models import load_model
from experiments.runs.records import Records

REDUCTIONS = {
    "quick": ("smaller network, crop and schedule",),
    "small": ("small network and crop, half an hour on two CPU cores",),
    "miniature": ("drawn data, reduced network, half a minute per training",),
}


@dataclass(frozen=True)
class TableRequest:
    """What is to be made of which table.

    Attributes:
        table: its number, id or file.
        overrides: values of all its recipes, `key=value`; those that change a result make it a changed profile.
        seeds: how often what is random is repeated.
        rows: only these, counted from 1; empty for all.
        devices: processes per run.
        launcher: `local` or `slurm`.
        weights: a file of official weights, for rows that are a released model, or for those of `rows`.
        reports: folder of the reports, one below it for each profile.
    """

    table: str
    profile: str = "paper"
    overrides: Sequence[str] = ()
    seeds: int = 1
    rows: Sequence[int] = ()
    devices: int = 1
    launcher: str = "local"
    weights: str | None = None
    reports: Path = Path("reports")


@dataclass(frozen=True)
class Remade:
    """A report, its files, what it shows less than the one before it, and whether all that could run did."""

    result: TableResult
    paths: Paths
    less: str
    complete: bool


def remake(request: TableRequest) -> Remade:
    """Plan, make and report. Raises ValueError where the request cannot be met, before anything is trained."""
    started = _now()
    table = load_table(request.table)
    if not any(column.name in row.cells for row, column in table.to_measure):
        raise ValueError(f"{table.id} has published values only: its rows do not say yet what to run")
    changed = changed_values(request.overrides)
    profile = f"{request.profile}-changed" if changed else request.profile
    if request.weights is not None:
        file_digest(request.weights)  # a wrong path ends here, not after the first training
    conditions = Conditions(
        request.profile,
        (*in_processes(request.devices), *request.overrides),
        request.weights,
        any_row=bool(request.rows),
    )
    seeds = range(request.seeds)
    cells = planned_cells(table, conditions, seeds, request.rows)
    check_before(cells)
    complete = make_runs(table.id, cells, request.devices, request.launcher)
    folder = request.reports / profile
    before = shown_before(folder / f"{table.id}.json")
    cells += still_finished(table, before, cells, conditions, seeds)
    records = Records(runs_root())
    result = table_result(
        table,
        profile,
        [cell.result(table, records, profile) for cell in cells],
        runs_root(),
        seeds=list(seeds),
        started=started,
        finished=_now(),
        environment=environment_line(),
        reduction=", ".join([*REDUCTIONS.get(request.profile, ()), *changed]),
        choices=choices_by_row(cells, by_code={cell.row for cell in cells if cell.by_code}),
        pictures=pictures_of(cells, folder / table.id),
    )
    return Remade(result, write_report(result, folder), lost(before, result), complete)


def check_before(cells: Sequence[PlannedCell]) -> None:
    """What a training would end with, or a report could not say after days of it. Raises ValueError.

    Weights and first weights that are somebody's files are tried on their networks.
    """
    runs = {run.hash: run for cell in cells for node in cell.nodes for run in node.with_ancestors()}
    for run in runs.values():
        if run.weights:
            load_model(run)
    files = [run.config["model"] for run in runs.values() if run.kind == "train" and run.folder.record is None]
    for model in {repr(model): model for model in files if starts_from_files(model)}.values():
        build_part(LightningModule, model)
    choices_by_row(cells)


def in_processes(devices: int) -> list[str]:
    """Values of a training by a group of processes."""
    if devices == 1:
        return []
    synchronised = "true" if torch.cuda.is_available() else "false"  # what PyTorch has no CPU version of
    return [f"trainer.devices={devices}", "trainer.strategy=ddp", f"trainer.sync_batchnorm={synchronised}"]


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M")
