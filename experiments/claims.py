"""Test what the papers claim: make the rows that a claim sets against each other, and say whether it holds.

    make claims PROFILE=small DATASET=real_small      python -m experiments.claims --dataset real_small
    make claims PROFILE=miniature CLAIMS=dextr-points-over-boxes,iog-finenet SEEDS=3

Rows share their runs with `make reproduce-table-N`. Runs that are done are not made again: the same command goes on
where it stopped. `--list` says what the claims are and what is still to be made, and makes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.ranges import COUNT
from experiments.console import one_sentence
from experiments.launching.launchers import LAUNCHERS
from experiments.options import Parser, folder_to_write
from experiments.reports.claiming import ClaimsRequest, listed, test_claims


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("--profile", default="small", help="small (default), quick, miniature or paper")
    parser.add_argument("--dataset", help="an overlay of experiments/configs/data: what all rows train and test on")
    parser.add_argument(
        "--claims", type=names, default=(), help="only these, by name: dextr-points-over-boxes,iog-finenet"
    )
    parser.add_argument("--seeds", type=COUNT, default=1, help="how often what is random is repeated (seeds 0, 1, ...)")
    parser.add_argument("--devices", type=COUNT, default=1, help="processes per run, one GPU each where there are any")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local", help="default: local")
    parser.add_argument("--list", action="store_true", help="say what would be made, and make nothing")
    parser.add_argument("--reports", type=folder_to_write, default=Path("reports"), help="their folder")
    options, overrides = parser.parse_with_values(arguments)
    asked = {key: value for key, value in vars(options).items() if key != "list"}
    request = ClaimsRequest(**asked, overrides=overrides)
    if options.list:
        print(listed(request))
        return
    tested = test_claims(request)
    print(f"{tested.told}\nreport: {tested.page}")
    for name, problem in tested.failed.items():
        print(f"failed: {name}: {problem}", file=sys.stderr)
    if tested.failed:
        raise SystemExit(1)


def names(text: str) -> tuple[str, ...]:
    """`a,b` as names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    one_sentence(main)
