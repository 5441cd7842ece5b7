"""The columns that a click memory holds, and how processes exchange them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from datamodules.columns import offsets_of

COPIED = 262_144  # clicks, or bytes of masks, copied at once: their indices take more memory than they do


class Remembered(NamedTuple):
    """The last state of one object: copies, the caller's to change."""

    xy: NDArray[np.float32]  # (K, 2) in pixels of the full image
    kinds: NDArray[np.int8]  # (K,) PointKind, without padding
    mask: bytes | None  # COCO run lengths ("counts") of the last full-size prediction, where masks are kept


class Note(NamedTuple):
    """What one step left behind of an object; see `Remembered`."""

    epoch: int
    xy: NDArray[np.float32]
    kinds: NDArray[np.int8]
    mask: bytes | None


class Rows(NamedTuple):
    """Rows of any length in blocks that share their offsets (n + 1,)."""

    offsets: NDArray[np.int64]
    blocks: tuple[NDArray, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """States of objects, sorted by id. No array is ever written to once it is here."""

    ids: NDArray[np.int64]  # (n,) strictly increasing
    epochs: NDArray[np.int32]  # (n,)
    fresh: NDArray[np.bool_]  # (n,) noted by this process since the last gather
    clicks: Rows  # xy (total, 2) float32, kinds (total,) int8
    rle: Rows | None  # bytes (total,) uint8

    @classmethod
    def of(cls, log: Mapping[int, Note], masks: bool) -> Columns:
        """Notes as columns, all of them fresh."""
        ids = np.array(sorted(log), np.int64)
        notes = [log[key] for key in ids.tolist()]
        xy = np.concatenate([np.zeros((0, 2), np.float32), *(note.xy for note in notes)])
        kinds = np.concatenate([np.zeros(0, np.int8), *(note.kinds for note in notes)])
        rle = [note.mask or b"" for note in notes]
        return cls(
            ids,
            np.array([note.epoch for note in notes], np.int32),
            np.ones(len(ids), bool),
            Rows(offsets_of([len(note.kinds) for note in notes]), (xy, kinds)),
            Rows(offsets_of([len(counts) for counts in rle]), (np.frombuffer(bytearray().join(rle), np.uint8),))
            if masks
            else None,
        )

    @classmethod
    def of_columns(cls, columns: Mapping[str, NDArray], masks: bool) -> Columns:
        """The inverse of `columns`, all of it fresh."""
        return cls(
            columns["ids"],
            columns["epochs"],
            np.ones(len(columns["ids"]), bool),
            Rows(columns["offsets"], (columns["xy"], columns["kinds"])),
            Rows(columns["rle_offsets"], (columns["rle"],)) if masks else None,
        )

    def columns(self) -> dict[str, NDArray]:
        """All columns by name but `fresh`."""
        xy, kinds = self.clicks.blocks
        columns: dict[str, NDArray] = {
            "ids": self.ids,
            "epochs": self.epochs,
            "offsets": self.clicks.offsets,
            "xy": xy,
            "kinds": kinds,
        }
        if self.rle:
            columns |= {"rle_offsets": self.rle.offsets, "rle": self.rle.blocks[0]}
        return columns

    def settled(self) -> Columns:
        """The same, none of it fresh."""
        return Columns(self.ids, self.epochs, np.zeros(len(self.ids), bool), self.clicks, self.rle)

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of these objects, -1 where there is none."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def row(self, at: int) -> Remembered:
        start, end = self.clicks.offsets[at : at + 2].tolist()
        xy, kinds = self.clicks.blocks
        mask = None
        if self.rle:
            first, last = self.rle.offsets[at : at + 2].tolist()
            mask = self.rle.blocks[0][first:last].tobytes()
        return Remembered(xy[start:end].copy(), kinds[start:end].copy(), mask)

    def take(self, rows: NDArray) -> Columns:
        """Only these rows, in this order."""
        return Columns(
            self.ids[rows],
            self.epochs[rows],
            self.fresh[rows],
            _placed([(self.clicks, rows)]),
            _placed([(self.rle, rows)]) if self.rle else None,
        )

    def overwritten(self, new: Columns) -> Columns:
        """These objects and the new ones, whose state counts where both have one."""
        known = self.find(new.ids)
        keep = np.ones(len(self.ids), bool)
        keep[known[known >= 0]] = False
        kept, all_new = np.flatnonzero(keep), np.arange(len(new.ids))
        ids = np.concatenate([self.ids[kept], new.ids])
        order = np.argsort(ids, kind="stable")
        return Columns(
            ids[order],
            np.concatenate([self.epochs[kept], new.epochs])[order],
            np.concatenate([self.fresh[kept], new.fresh])[order],
            _placed([(self.clicks, kept), (new.clicks, all_new)], order),
            _placed([(self.rle, kept), (new.rle, all_new)], order) if self.rle and new.rle else None,
        )


def _placed(sources: Sequence[tuple[Rows, NDArray]], order: NDArray | None = None) -> Rows:
    """Rows of one or several sources, laid end to end and then ordered, in pieces so that the indices stay small."""
    lengths = np.concatenate([np.diff(rows.offsets)[taken] for rows, taken in sources])
    order = np.arange(len(lengths)) if order is None else order
    offsets = offsets_of(lengths[order])
    places = np.empty(len(order), np.int64)
    places[order] = offsets[:-1]
    blocks = tuple(np.empty((offsets[-1], *block.shape[1:]), block.dtype) for block in sources[0][0].blocks)
    done = 0
    for rows, taken in sources:
        ends = np.cumsum(lengths[done : done + len(taken)])
        cuts = np.searchsorted(ends, np.arange(COPIED, ends[-1], COPIED)).tolist() if len(ends) else []
        for first, last in pairwise([0, *cuts, len(taken)]):
            now = slice(done + first, done + last)
            source = _stretches(rows.offsets[taken[first:last]], lengths[now])
            target = _stretches(places[now], lengths[now])
            for block, values in zip(blocks, rows.blocks):
                block[target] = values[source]
        done += len(taken)
    return Rows(offsets, blocks)


def _stretches(starts: NDArray, lengths: NDArray) -> NDArray[np.int64]:
    """start, start + 1, ..., start + length - 1 for each of them, end to end."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)


def _first_of_newest(parts: Sequence[Columns]) -> Columns:
    """One state per object: of the highest epoch, and there of the first part."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.lexsort((-np.concatenate([part.epochs for part in parts]).astype(np.int64), ids))  # stable
    order = order[np.diff(ids[order], prepend=-1) != 0]
    rle = [part.rle for part in parts if part.rle]
    return Columns(
        ids[order],
        np.concatenate([part.epochs for part in parts])[order],
        np.zeros(len(order), bool),
        _chosen([part.clicks for part in parts], order),
        _chosen(rle, order) if rle else None,
    )


def _chosen(parts: Sequence[Rows], order: NDArray) -> Rows:
    joined = _placed([(part, np.arange(len(part.offsets) - 1)) for part in parts])
    return _placed([(joined, order)])


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def exchanged(own: Columns) -> Columns:
    """What all processes hold, an object once: of the highest epoch, and there of the lowest rank. All must call it."""
    gathered = {name: from_all(column) for name, column in own.columns().items()}
    parts = [{name: column[rank] for name, column in gathered.items()} for rank in range(processes())]
    return _first_of_newest([Columns.of_columns(part, own.rle is not None) for part in parts])


def from_all(column: NDArray) -> list[NDArray]:
    """The column (n, ...) of every process, of any length each; padded to the longest while it travels."""
    on_gpu = "nccl" in (backend := dist.get_backend()) and "gloo" not in backend  # NCCL moves GPU memory alone
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    length = torch.tensor([len(column)], device=device)
    lengths = [torch.zeros_like(length) for _ in range(processes())]
    dist.all_gather(lengths, length)
    sizes = [int(n) for n in lengths]
    padded = torch.zeros((max(sizes), *column.shape[1:]), dtype=torch.from_numpy(column[:0]).dtype, device=device)
    padded[: len(column)] = torch.from_numpy(column).to(device)
    received = [torch.empty_like(padded) for _ in sizes]
    if max(sizes):
        dist.all_gather(received, padded)
    return [part[:size].cpu().numpy() for part, size in zip(received, sizes)]
