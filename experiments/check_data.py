"""`python -m experiments.check_data [names ...]`: which data sets are there, whole, and how to get the missing ones.

The objects of each are listed and counted, which takes minutes for SBD, COCO and LVIS, once; --quick leaves out those
that were never opened before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from datamodules.catalog import DataSet, catalog, find, how_to_get, index_folder, missing_sources, open_index
from experiments.console import TextTable, show
from experiments.options import Parser


class Finding(NamedTuple):
    """One row of the table.

    `state`: whole (as many as there should be), found (nobody knows how many there should be), differs, unread (there,
    but its objects were never listed), missing, broken. `notes`: what was left out, or is wrong.
    """

    name: str
    state: str
    images: str = ""
    objects: str = ""
    notes: str = ""


COLOURS = {"whole": "green", "found": "green", "differs": "yellow", "unread": "cyan", "missing": "dim", "broken": "red"}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns 1 when a data set that was asked for is unknown, missing or broken."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="*", help="data sets, e.g. pascal/val or folder:/my/masks; default: all of them")
    parser.add_argument("--quick", action="store_true", help="do not list the objects of data sets not opened before")
    try:
        arguments = parser.parse_args(argv)
        data_sets = [find(name) for name in arguments.names] or list(catalog().values())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    findings = [examine(data_set, build=not arguments.quick or bool(arguments.names)) for data_set in data_sets]
    console = Console()
    show(_table(findings), console)
    notes = [f"{finding.name}: {finding.notes}" for finding in findings if finding.notes]
    for sentence in [*notes, *_how_to_get(data_sets, findings)]:
        show(sentence, console)
    return int(bool(arguments.names) and any(finding.state in ("missing", "broken") for finding in findings))


def examine(data_set: DataSet, build: bool) -> Finding:
    """What is there of a data set; with `build` its objects are listed even if that was never done."""
    try:
        if missing_sources(data_set):
            return Finding(data_set.name, "missing", _of(None, data_set.images), _of(None, data_set.objects))
    except (ValueError, OSError) as error:
        return Finding(data_set.name, "broken", notes=str(error))
    if not build and not (index_folder(data_set) / "index.json").exists():
        note = f"never listed yet; `python -m experiments.check_data {data_set.name}` does"
        return Finding(data_set.name, "unread", _of(None, data_set.images), _of(None, data_set.objects), note)
    try:
        index = open_index(data_set.name)
    except (ValueError, OSError) as error:
        return Finding(data_set.name, "broken", notes=str(error))
    annotations = len(index) + index.num_left_out
    counts = [(index.num_images, data_set.images), (annotations, data_set.objects)]
    official = [(count, expected) for count, expected in counts if expected is not None]
    whole = all(count == expected for count, expected in official)
    state = "found" if not official else "whole" if whole else "differs"
    expected = data_set.objects if annotations != data_set.objects else None
    notes = "; ".join(f"left out: {sentence}" for sentence in index.left_out)
    return Finding(data_set.name, state, _of(index.num_images, data_set.images), _of(len(index), expected), notes)


def _of(count: int | None, expected: int | None) -> str:
    """`1,449`, or with an official count that differs `1,400 of 1,449`; what is not known is a dash."""
    if count is None:
        return "-" if expected is None else f"- of {expected:,}"
    return f"{count:,}" if expected in (None, count) else f"{count:,} of {expected:,}"


def _table(findings: Sequence[Finding]) -> TextTable:
    table = TextTable(title="data sets")
    for heading, side in (("data set", "left"), ("state", "left"), ("images", "right"), ("objects", "right")):
        table.add_column(heading, justify=side, overflow="fold")
    for finding in findings:
        table.add_row(finding.name, Text(finding.state, COLOURS[finding.state]), finding.images, finding.objects)
    return table


def _how_to_get(data_sets: Sequence[DataSet], findings: Sequence[Finding]) -> list[str]:
    """One paragraph for each place that has to be filled, naming the data sets that wait for it."""
    waiting: dict[str, tuple[list[str], Path]] = {}
    for data_set, finding in zip(data_sets, findings):
        for lacking, path in missing_sources(data_set) if finding.state == "missing" else []:
            names, _ = waiting.setdefault(how_to_get(lacking), ([], path))
            if data_set.name not in names:
                names.append(data_set.name)
    return [
        f"for {', '.join(names)} ({path} is missing):\n    {sentence}" for sentence, (names, path) in waiting.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
