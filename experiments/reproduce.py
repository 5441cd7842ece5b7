"""Re-make a published table: train and evaluate its rows, print published, measured and the difference.

    make reproduce-table-4                        python -m experiments.reproduce dextr-4
    make reproduce-table-dextr-4 PROFILE=miniature SEEDS=3 ROWS=3,4 DEVICES=4 LAUNCHER=slurm WEIGHTS=file.pth

Runs that are done are not made again: the same command goes on where it stopped. A row whose data is not there is
reported as not run, with the reason, and the others run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from datamodules.ranges import COUNT
from experiments.console import one_sentence
from experiments.launching.graph import make_runs
from experiments.launching.launchers import LAUNCHERS
from experiments.options import Parser, folder_to_write, numbers_of_rows
from experiments.reports.earlier import lost, shown_before, still_finished
from experiments.reports.files import print_report, write_report
from experiments.reports.gathering import choices_by_row, environment_line, pictures_of
from experiments.reproduction.cells import table_result
from experiments.reproduction.plan import Conditions
from experiments.reproduction.planned import changed_values, planned_cells
from experiments.reproduction.tables import load_table
from experiments.runs.files import file_digest
from experiments.runs.folder import runs_root
from experiments.runs.records import Records

REDUCTIONS = {
    "quick": ("smaller network, crop and schedule",),
    "small": ("small network and crop, tens of minutes on two CPU cores, random start",),
    "miniature": ("drawn data, reduced network, half a minute per training",),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("table", help="number or id; `make tables` lists them")
    parser.add_argument("--profile", default="paper", help="paper (default), quick, small or miniature")
    parser.add_argument("--seeds", type=COUNT, default=1, help="how often what is random is repeated (seeds 0, 1, ...)")
    parser.add_argument("--rows", type=numbers_of_rows, default=(), help="only these rows, e.g. 3,4 (counted from 1)")
    parser.add_argument("--devices", type=COUNT, default=1, help="processes per run, one GPU each where there are any")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local", help="default: local")
    parser.add_argument(
        "--weights", help="official weights: for rows that are a released model, or for those of --rows"
    )
    parser.add_argument("--reports", type=folder_to_write, default=Path("reports"), help="their folder")
    options, overrides = parser.parse_with_values(arguments)
    started = time.strftime("%Y-%m-%d %H:%M")
    table = load_table(options.table)
    if not any(column.name in row.cells for row, column in table.to_measure):
        raise ValueError(f"{table.id} has published values only: its rows do not say yet what to run")
    changed = changed_values(overrides)
    profile = f"{options.profile}-changed" if changed else options.profile
    if options.weights is not None:
        file_digest(options.weights)  # a wrong path ends here, not after the first training
    if options.devices > 1:
        synchronised = "true" if torch.cuda.is_available() else "false"  # what PyTorch has no CPU version of
        overrides = [
            f"trainer.devices={options.devices}",
            "trainer.strategy=ddp",
            f"trainer.sync_batchnorm={synchronised}",
            *overrides,
        ]
    conditions = Conditions(options.profile, tuple(overrides), options.weights, any_row=bool(options.rows))
    seeds = range(options.seeds)
    cells = planned_cells(table, conditions, seeds, options.rows)
    choices_by_row(cells)  # what a report cannot say ends here, not after days of training
    complete = make_runs(table, cells, options.devices, options.launcher)
    before = shown_before(options.reports / profile / f"{table.id}.json")
    cells += still_finished(table, before, cells, conditions, seeds)
    records = Records(runs_root())
    result = table_result(
        table,
        profile,
        [cell.result(table, records, profile) for cell in cells],
        runs_root(),
        seeds=list(seeds),
        started=started,
        finished=time.strftime("%Y-%m-%d %H:%M"),
        environment=environment_line(),
        reduction=", ".join([*REDUCTIONS.get(options.profile, ()), *changed]),
        choices=choices_by_row(cells, by_code={cell.row for cell in cells if cell.by_code}),
        pictures=pictures_of(cells, options.reports / profile / table.id),
    )
    paths = write_report(result, options.reports / profile)
    print_report(result)
    print(f"report: {paths.markdown}, {paths.html}, {paths.json}")
    if less := lost(before, result):
        print(f"note: {less}")
    if not complete:
        raise SystemExit(1)


if __name__ == "__main__":
    one_sentence(main)
