"""`python -m experiments.check_data [names ...]`: which data sets are there, whole, and how to get the missing ones.

The objects of each are listed and counted, which takes minutes for SBD, COCO and LVIS, once, and a part of the pictures
and masks is read as training does; --deep reads them all; --quick none, nor does it list sets never opened before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from datamodules.catalog import catalog, find
from datamodules.stock import Finding, in_want, take_stock
from experiments.console import TextTable, show
from experiments.options import Parser

COLOURS = {
    **{"whole": "green", "found": "green", "differs": "yellow", "unread": "cyan"},
    **{"missing": "dim", "broken": "red", "damaged": "red"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns 1 when one is broken or damaged, or was asked for and is unknown or missing."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="*", help="data sets, e.g. pascal/val or folder:/my/masks; default: all of them")
    parser.add_argument("--quick", action="store_true", help="do not list the objects of data sets not opened before")
    parser.add_argument("--deep", action="store_true", help="read all pictures and masks, not only some")
    try:
        arguments = parser.parse_args(argv)
        data_sets = [find(name) for name in arguments.names] or list(catalog().values())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    asked, console = bool(arguments.names), Console()
    findings = take_stock(data_sets, asked=asked, quick=arguments.quick, deep=arguments.deep)
    show(_table(findings), console)
    notes = [f"{finding.name}: {finding.notes}" for finding in findings if finding.notes]
    if any(" of " in finding.read for finding in findings) and not arguments.quick:
        notes.append("some of the images that have objects were read, with these; --deep reads them all")
    for sentence in [*notes, *in_want(data_sets, findings)]:
        show(sentence, console)
    wrong = ("broken", "damaged", "missing") if asked else ("broken", "damaged")
    return int(any(finding.state in wrong for finding in findings))


def _table(findings: Sequence[Finding]) -> TextTable:
    table = TextTable(title="data sets")
    for heading in ("data set", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("images", "objects", "images read"):
        table.add_column(heading, justify="right", overflow="fold")
    for finding in findings:
        state = Text(finding.state, COLOURS[finding.state])
        table.add_row(finding.name, state, finding.images, finding.objects, finding.read)
    return table


if __name__ == "__main__":
    sys.exit(main())
