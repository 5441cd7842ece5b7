"""Which data sets are there and whole, what of them would stop a training, and how to get the missing ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.catalog import DataSet, how_to_get, index_folder, missing_sources, open_index
from datamodules.inspection import in_short, inspect

ASKED, OTHER = 500, 50  # pictures that are read of a data set that was asked for, and of each in a look at all


class Finding(NamedTuple):
    """One row of the table.

    `state`: whole (as many as there should be), found (nobody knows how many there should be), differs, unread (there,
    but its objects were never listed), missing, broken (it cannot be listed, or has no object), damaged (training would
    stop at some of its pictures or masks). `read`: how many pictures were opened. `notes`: what was left out, or is
    wrong.
    """

    name: str
    state: str
    images: str = ""
    objects: str = ""
    read: str = ""
    notes: str = ""


def take_stock(data_sets: Sequence[DataSet], *, asked: bool, quick: bool = False, deep: bool = False) -> list[Finding]:
    """What is there of each.

    Args:
        asked: they were asked for by name, so that more of each is read, and its objects are listed in any case.
        quick: no picture is read, and the objects of sets never opened before are not listed.
        deep: all pictures and masks are read.
    """
    most = None if deep else 0 if quick else ASKED if asked else OTHER
    return [examine(data_set, build=asked or not quick, most=most) for data_set in data_sets]


def examine(data_set: DataSet, build: bool, most: int | None = 0) -> Finding:
    """What is there of a data set; with `build` its objects are listed even if that was never done.

    `most`: how many of its pictures are read, with the masks on them; None for all.
    """
    try:
        if missing_sources(data_set):
            return Finding(data_set.name, "missing", _of(None, data_set.images), _of(None, data_set.objects))
    except (ValueError, OSError) as error:
        return Finding(data_set.name, "broken", notes=str(error))
    if not build and not (index_folder(data_set) / "index.json").exists():
        note = f"never listed yet; `python -m experiments.check_data {data_set.name}` does"
        return Finding(data_set.name, "unread", _of(None, data_set.images), _of(None, data_set.objects), notes=note)
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
    notes = [f"left out: {sentence}" for sentence in index.left_out]
    looked = inspect(index, most)
    if looked.turned:
        notes.append(f"{len(looked.turned):,} turned as their EXIF orientation says: {in_short(looked.turned)}")
    if not len(index):
        state = "broken"
        notes.append("no object is left to train on")
    if looked.unreadable:
        state = "damaged"
        notes.append(f"{len(looked.unreadable):,} things that training would stop at: {in_short(looked.unreadable)}")
    counts_shown = _of(index.num_images, data_set.images), _of(len(index), expected), _of(looked.images, looked.of)
    return Finding(data_set.name, state, *counts_shown, notes="; ".join(notes))


def in_want(data_sets: Sequence[DataSet], findings: Sequence[Finding]) -> list[str]:
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


def _of(count: int | None, expected: int | None) -> str:
    """`1,449`, or with an official count that differs `1,400 of 1,449`; what is not known is a dash."""
    if count is None:
        return "-" if expected is None else f"- of {expected:,}"
    return f"{count:,}" if expected in (None, count) else f"{count:,} of {expected:,}"
