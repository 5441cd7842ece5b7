"""The rows of an evaluation: one line per object on disk, from which every number of a report is computed.

Rows are streamed, never held: memory does not grow with the data set.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

Row = dict[str, str]


def merge_rows(folder: Path, expected: int, processes: int) -> Path:
    """rows.csv from the parts of all processes, in the order of the index, each object once.

    Every process wrote its part in that order. Raises RuntimeError when an object is missing.
    """
    parts = [folder / f"rows.{rank}.csv" for rank in range(processes)]
    merged, written = folder / ".rows.csv", 0
    with ExitStack() as stack:
        readers = [csv.DictReader(stack.enter_context(part.open(newline=""))) for part in parts]
        out = stack.enter_context(merged.open("w", newline=""))
        writer = csv.DictWriter(out, list(readers[0].fieldnames or ()))
        writer.writeheader()
        in_order = heapq.merge(*readers, key=_position)
        for _, same in groupby(in_order, key=_position):  # a process without objects of its own repeats some
            writer.writerow(next(same))
            written += 1
    if written != expected:
        raise RuntimeError(f"{expected} objects were to be evaluated, {written} rows were written in {folder}")
    merged.replace(folder / "rows.csv")
    for part in parts:
        part.unlink()
    return folder / "rows.csv"


def _position(row: Row) -> int:
    return int(row["position"])


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one at a time."""
    with path.open(newline="") as file:
        yield from csv.DictReader(file)
