"""Re-make a published table: train and evaluate its rows, print published, measured and the difference.

    make reproduce-table-4                        python -m experiments.reproduce dextr-4
    make reproduce-table-dextr-4 PROFILE=miniature SEEDS=3 ROWS=3,4 DEVICES=4 LAUNCHER=slurm WEIGHTS=file.pth

Runs that are done are not made again: the same command goes on where it stopped. A row whose data is not there is
reported as not run, with the reason, and the others run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.ranges import COUNT
from experiments.console import one_sentence
from experiments.launching.launchers import LAUNCHERS
from experiments.options import Parser, folder_to_write, numbers_of_rows
from experiments.reports.files import print_report
from experiments.reports.remaking import TableRequest, remake


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
    made = remake(TableRequest(**vars(options), overrides=overrides))
    print_report(made.result)
    print(f"report: {made.paths.markdown}, {made.paths.html}, {made.paths.json}")
    if made.less:
        print(f"note: {made.less}")
    if not made.complete:
        raise SystemExit(1)


if __name__ == "__main__":
    one_sentence(main)
