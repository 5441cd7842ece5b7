"""Was a report edited by hand? Every number is computed again from the run records and compared.

python -m experiments.report_check reports/miniature/dextr-4.json      or `make check-report`, for all reports
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.console import one_sentence
from experiments.options import Parser
from experiments.reports.check import check_report, foreign_runs
from experiments.runs.folder import runs_root


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: every complaint a line, exit code 1 when there is one."""
    parser = Parser(__doc__)
    parser.add_argument("report", type=Path, help="a report's .json file, or a folder of reports")
    options = parser.parse_args(arguments)
    complaints = check_report(options.report, runs_root())
    if not complaints:
        reports = sorted(options.report.glob("*.json")) if options.report.is_dir() else [options.report]
        complaints = [complaint for report in reports for complaint in foreign_runs(report)]
    for complaint in complaints:
        print(complaint)
    if complaints:
        raise SystemExit(1)
    print(f"{options.report}: every number follows from its run records")


if __name__ == "__main__":
    one_sentence(main)
