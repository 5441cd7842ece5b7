"""The rows of a label run: a JSON line per object while it is made, one labels.json in COCO's format when it is done.

Each process appends to a file of its own, whole batches at a time, so that a kill loses at most a batch. A run goes on
with the batches that are not whole yet, whatever number of processes it had before; the same objects share a batch, so
that a run in two parts gives what it would have given in one. Nothing is held but where each row lies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

LabelRow = dict[str, Any]


def whole_rows(part: Path) -> Iterator[tuple[int, int, LabelRow]]:
    """(where it begins, where it ends, row) of each line up to the first that is not whole."""
    with part.open("rb") as file:
        start = 0
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict):
                return
            yield start, start + len(line), row
            start += len(line)


def parts_of(folder: Path) -> list[Path]:
    """The files of all processes that ever worked on a run."""
    return sorted(folder.glob("labels.*.jsonl"))


def opened_part(folder: Path, rank: int) -> BinaryIO:
    """A process' file, to append to; a line that was cut off is dropped."""
    part, end = folder / f"labels.{rank}.jsonl", 0
    part.touch()
    for _, end, _ in whole_rows(part):  # noqa: B007
        pass
    os.truncate(part, end)
    return part.open("ab")


@dataclass
class Places:
    """Where the rows of a run lie: `part` (-1 where there is none) and `offset`, by the object's position."""

    parts: list[Path]
    part: NDArray[np.int16]
    offset: NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, size: int) -> Places:
        """Of the rows that are there of `size` objects; of two of an object the first counts."""
        places = cls(parts_of(folder), np.full(size, -1, np.int16), np.zeros(size, np.int64))
        for number, part in enumerate(places.parts):
            for start, _, row in whole_rows(part):
                if places.part[row["position"]] < 0:
                    places.part[row["position"]], places.offset[row["position"]] = number, start
        return places

    @property
    def done(self) -> NDArray[np.bool_]:
        """Whether there is a row, by position."""
        return self.part >= 0

    def rows(self) -> Iterator[LabelRow]:
        """All rows in the order of the objects, one at a time. Raises RuntimeError when one is missing."""
        if missing := int(np.count_nonzero(~self.done)):
            raise RuntimeError(f"{missing} of {len(self.part)} objects have no row; run the same command again")
        with ExitStack() as stack:
            files = [stack.enter_context(part.open("rb")) for part in self.parts]
            for part, offset in zip(self.part, self.offset):
                files[part].seek(offset)
                yield json.loads(files[part].readline())


class RemainingBatches(Sampler[list[int]]):
    """The batches of a process that are not done, each with the objects that it has in any run of these objects.

    As in EvaluationSampler batches are dealt out in turn, and a process without any repeats one.
    """

    def __init__(self, done: NDArray[np.bool_], batch_size: int, rank: int = 0, processes: int = 1) -> None:
        whole = np.logical_and.reduceat(done, np.arange(0, len(done), batch_size))
        left = np.flatnonzero(~whole)
        mine = left[left % processes == rank]
        self.size, self.batch_size, self.numbers = len(done), batch_size, mine if len(mine) else left[:1]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[int]]:
        for start in (self.numbers * self.batch_size).tolist():
            yield list(range(start, min(start + self.batch_size, self.size)))


@dataclass
class Summary:
    """What a record says of the rows that went by."""

    objects: int = 0
    empty: int = 0
    filled: int = 0
    scores: float = 0.0
    ious: float = 0.0
    compared: int = 0

    def watch(self, rows: Iterable[LabelRow]) -> Iterator[LabelRow]:
        """The same rows, counted."""
        for row in rows:
            self.objects += 1
            if row["segmentation"] is None:
                self.empty += 1
            else:
                self.scores += row["score"]
                self.filled += row.get("filled", False)  # older rows do not say it: nothing was ever filled
            if row["iou"] is not None:
                self.compared, self.ious = self.compared + 1, self.ious + row["iou"]
            yield row

    @property
    def metrics(self) -> dict[str, float]:
        """Of a record: `mean_iou` against the objects' own masks, where they have any; an empty label's is 0."""
        metrics: dict[str, float] = {"n": self.objects, "empty": self.empty}
        if self.filled:
            metrics["filled"] = self.filled
        if self.objects > self.empty:
            metrics["mean_score"] = self.scores / (self.objects - self.empty)
        if self.compared:
            metrics["mean_iou"] = self.ious / self.compared
        return metrics
