"""The rows of an evaluation on disk, from which every number of a report is computed.

A row belongs to a unit, an object or an image, known by its `position`, which is the first value of the row. A unit may
have one row, several, or none. Rows are streamed, never held: memory does not grow with the data set.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

from datamodules.files import whole_file

ObjectRow = dict[str, str]
FIRST = "position"
csv.field_size_limit(1 << 30)  # run lengths of a ragged mask on a large image exceed Python's 128 KiB


class RowWriter:
    """One process' part of the rows, in the order of the units."""

    def __init__(self, folder: Path, rank: int, columns: Sequence[str]) -> None:
        if columns[0] != FIRST:
            raise ValueError(f"the first column of an evaluation's rows is {FIRST!r}, got {columns[0]!r}")
        self._file = part_of(folder, rank).open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(columns)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Rows of units that are whole; a unit without any has a row of its position alone."""
        self._rows.writerows(rows)

    def close(self) -> None:
        """The part is whole."""
        self._file.close()


def part_of(folder: Path, rank: int) -> Path:
    """Where a process writes."""
    return folder / f"rows.{rank}.csv"


def merge_rows(folder: Path, expected: int, processes: int) -> Path:
    """rows.csv from the parts of all processes, in the order of the units, each unit once.

    A process without units of its own repeats some: of two parts that hold a unit the first one's rows count. Raises
    RuntimeError when a unit is missing.
    """
    parts = [part_of(folder, rank) for rank in range(processes)]
    seen = 0
    with whole_file(folder / "rows.csv") as merged, ExitStack() as stack:
        readers = [csv.reader(stack.enter_context(part.open(newline=""))) for part in parts]
        out = csv.writer(stack.enter_context(merged.open("w", newline="")))
        headers = [next(reader) for reader in readers]
        out.writerow(headers[0])
        tagged = (_tagged(number, reader) for number, reader in enumerate(readers))
        for _, of_unit in groupby(heapq.merge(*tagged, key=lambda each: each[:2]), key=lambda each: each[0]):
            first, seen = None, seen + 1
            for _, number, row in of_unit:
                first = number if first is None else first
                if number == first and len(row) > 1:
                    out.writerow(row)
        if seen != expected:
            raise RuntimeError(
                f"{expected} units (objects, or images) were to be evaluated, {seen} have rows in {folder}"
            )
    for part in parts:
        part.unlink()
    return folder / "rows.csv"


def _tagged(part: int, reader: Iterator[list[str]]) -> Iterator[tuple[int, int, list[str]]]:
    for row in reader:
        yield int(row[0]), part, row


def read_rows(path: Path) -> Iterator[ObjectRow]:
    """The rows of a file, one at a time."""
    with path.open(newline="") as file:
        yield from csv.DictReader(file)
