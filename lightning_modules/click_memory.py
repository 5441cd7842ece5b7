"""The clicks that every object was given, kept across epochs: the state of iterative training (ITIS, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.clicks.points import PointKind
from datamodules.columns import ID_BITS, offsets_of
from lightning_modules.click_columns import Columns, Note, Remembered, exchanged, from_all, processes

__all__ = ["ClickMemory", "Remembered"]

LOG = 16_384  # notes that wait, as Python objects of 10 MB, for a merge, which copies all columns
EXCHANGED = 131_072  # objects that travel at once; then all columns are copied as well


class ClickMemory:
    """Clicks, and on demand the last prediction, of every object that was trained on, keyed by object id.

    The paper adds clicks to an object from epoch to epoch, where its last prediction was wrong (Sec. 3.2); the authors'
    code keeps both in pixels of its fixed crop. Ours are pixels of the full image, so that crops and flips are free.

    Held are sorted columns, 21 bytes per object and 9 per click: 91 MiB for 860,000 objects with 10 clicks each. A mask
    costs 8 bytes and its run lengths, which of true masks take 360 bytes on average in COCO, 1,660 in DAVIS' frames.

    An object gains one state per epoch. What is gathered is settled and in a process the first note counts; of what
    several processes noted since they last gathered, the highest epoch does, and in one epoch the lowest rank. Our
    sampler repeats no object within an epoch, and torch's repeats the first ones on a higher rank: so the order of
    notes, merges, gathers in the middle of an epoch and the number of processes do not change the state.
    """

    def __init__(self, *, masks: bool = False) -> None:
        self.masks = masks
        self._held = Columns.of({}, masks)
        self._log: dict[int, Note] = {}  # later than what is held, first note first

    def __len__(self) -> int:
        return len(self._held.ids) + int((self._held.find(_ids(list(self._log))) < 0).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, and of the clicks and masks that wait to be merged with them."""
        waiting = sum(note.xy.nbytes + note.kinds.nbytes + len(note.mask or b"") for note in self._log.values())
        return sum(column.nbytes for column in self._held.columns().values()) + self._held.fresh.nbytes + waiting

    def recall(self, object_ids: ArrayLike) -> list[Remembered | None]:
        """The last states of these objects, (n,) of int64: this process' own and, as of the last gather, all others'.

        None for an object that was never noted.
        """
        ids = _ids(object_ids)
        return [
            Remembered(note.xy.copy(), note.kinds.copy(), note.mask)
            if (note := self._log.get(key))
            else self._held.row(at)
            if at >= 0
            else None
            for key, at in zip(ids.tolist(), self._held.find(ids).tolist())
        ]

    def epochs(self, object_ids: ArrayLike) -> NDArray[np.int64]:
        """The epoch in which each of these objects, (n,), got its state; -1 for one that was never noted."""
        ids = _ids(object_ids)
        at = self._held.find(ids)
        known = np.full(len(ids), -1, np.int64)
        known[at >= 0] = self._held.epochs[at[at >= 0]]
        if self._log:
            known = np.array([self._log[key].epoch if key in self._log else e for key, e in zip(ids.tolist(), known)])
        return known

    def note(
        self,
        epoch: int,
        object_ids: ArrayLike,
        clicks: Sequence[tuple[ArrayLike, ArrayLike]],
        masks: Sequence[bytes] | None = None,
    ) -> None:
        """Keep what a step of `epoch` left behind; an object that has a state of this or a later epoch stays as it is.

        Args:
            epoch: of the training, from 0.
            object_ids: (n,) int64, not negative.
            clicks: per object all its clicks, (K, 2) as (x, y) in pixels of the full image and (K,) PointKind; K may
                be 0, padding is refused.
            masks: per object the COCO run lengths of its full-size prediction: needed where masks are kept, unused
                elsewhere.

        Raises ValueError, and keeps nothing of the step, when lengths disagree or a value is none of these.
        """
        ids = _ids(object_ids)
        kept = list(masks or []) if self.masks else [None] * len(ids)
        if not len(ids) == len(clicks) == len(kept):
            raise ValueError(f"expected clicks and masks of {len(ids)} objects, got {len(clicks)} and {len(kept)}")
        if not all(isinstance(counts, bytes) for counts in kept if self.masks):
            raise ValueError("masks are the bytes of COCO's compressed run lengths")
        if not 0 <= epoch < 2**31:
            raise ValueError(f"an epoch is at least 0 and below 2^31, got {epoch}")
        if not len(ids):
            return
        noted = [_clicks(*pair) for pair in clicks]
        xy, kinds = (np.concatenate(column) for column in zip(*noted))  # copies: the step's own arrays may change
        if (wrong := _wrong_clicks(xy, kinds)) is not None:
            raise ValueError(wrong)
        ends = offsets_of([len(k) for _, k in noted]).tolist()
        known = self.epochs(ids).tolist()
        kinds = kinds.astype(np.int8)
        for i, key in enumerate(ids.tolist()):
            if known[i] < epoch and (key not in self._log or self._log[key].epoch < epoch):  # the step may repeat it
                rows = slice(ends[i], ends[i + 1])
                self._log[key] = Note(epoch, xy[rows], kinds[rows], kept[i])
        if len(self._log) >= LOG:
            self._merge()

    def gather(self) -> None:
        """Let all processes hold the same: what any of them noted since the last gather.

        Collective: every process must call it, at the end of an epoch and before a checkpoint. What travels is only
        what is new, in pieces of about 130,000 objects; without torch.distributed nothing does.
        """
        self._merge()
        fresh = self._held.fresh
        if processes() > 1:
            total = sum(int(part[0]) for part in from_all(np.array([fresh.sum()])))
            pieces = -(-total // EXCHANGED)
            for piece in range(pieces):
                self._exchange(piece * 2**63 // pieces, ((piece + 1) * 2**63 - 1) // pieces)
        self._held = self._held.settled()

    def _exchange(self, first: int, last: int) -> None:
        """Gather the objects with ids from `first` to `last`; as ids are hashes, equal ranges hold about as many."""
        start, end = np.searchsorted(self._held.ids, first), np.searchsorted(self._held.ids, last, side="right")
        own = self._held.take(start + np.flatnonzero(self._held.fresh[start:end]))
        self._held = self._held.overwritten(exchanged(own))

    def _merge(self) -> None:
        if self._log:
            self._held, self._log = self._held.overwritten(Columns.of(self._log, self.masks)), {}

    def state_dict(self) -> dict[str, Tensor]:
        """The columns as plain tensors, which share memory with this object and are never written to again.

        Complete only after `gather`, which all processes must call (in `on_save_checkpoint`), also where only one of
        them writes the file. It may happen in the middle of an epoch: what was noted stays noted in that epoch.
        """
        self._merge()
        return {name: torch.from_numpy(column) for name, column in self._held.columns().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Hold what `state_dict` gave, and nothing else; every process, however many there are now, loads all of it.

        Raises ValueError in one sentence, and changes nothing, when the state is not one that this class writes.
        """
        columns = _checked(state, self._held.columns())
        self._held, self._log = Columns.of_columns(columns, self.masks).settled(), {}


def _ids(object_ids: ArrayLike) -> NDArray[np.int64]:
    """(n,) int64. Raises ValueError for anything that is no list of 63-bit ids."""
    ids = np.asarray(object_ids)
    if ids.ndim != 1 or (len(ids) and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > ID_BITS)):
        raise ValueError(f"object ids are 63-bit integers (n,), got {ids.dtype} of shape {ids.shape}")
    return ids.astype(np.int64)


def _clicks(xy: ArrayLike, kinds: ArrayLike) -> tuple[NDArray[np.float32], NDArray]:
    points, kinds = np.asarray(xy, np.float32), np.asarray(kinds)
    if kinds.ndim != 1 or points.shape != (len(kinds), 2):
        raise ValueError(f"expected clicks (K, 2) with kinds (K,), got {points.shape} with {kinds.shape}")
    return points, kinds


def _wrong_clicks(xy: NDArray, kinds: NDArray) -> str | None:
    """What keeps these from being clicks, if anything."""
    if len(kinds) and not 0 <= kinds.min() <= kinds.max() <= max(PointKind):
        return f"kinds of clicks go from 0 to {max(PointKind):d}, without padding, got {kinds.min()} to {kinds.max()}"
    return None if np.isfinite(xy).all() else "a click is not finite"


def _checked(state: Mapping[str, Tensor], like: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The columns of a state, of the types and names of these."""
    if set(state) != set(like):
        raise ValueError(
            f"expected a click memory of {sorted(like)}, got {sorted(state)}; is it of a run that keeps other masks?"
        )
    columns = {}
    for name, column in like.items():
        value = state[name]
        if not isinstance(value, Tensor) or value.dtype != torch.from_numpy(column[:0]).dtype:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the click memory is broken: {name} should be {column.dtype}, is {got}")
        if value.ndim != column.ndim or tuple(value.shape[1:]) != column.shape[1:]:
            raise ValueError(f"the click memory is broken: {name} has the shape {tuple(value.shape)}")
        columns[name] = np.ascontiguousarray(value.detach().cpu().numpy())
    ids, epochs = columns["ids"], columns["epochs"]
    wrong = _wrong_clicks(columns["xy"], columns["kinds"])
    if len(epochs) != len(ids) or len(columns["xy"]) != len(columns["kinds"]):
        wrong = "its columns differ in length"
    elif len(ids) and (ids[0] < 0 or epochs.min() < 0 or (ids[1:] <= ids[:-1]).any()):
        wrong = "ids do not rise from 0 on or an epoch is negative"
    for offsets, block in ("offsets", "xy"), ("rle_offsets", "rle"):
        if offsets in columns and not _spans(columns[offsets], len(ids), len(columns[block])):
            wrong = f"{offsets} do not span {len(ids)} objects and {len(columns[block])} rows of {block}"
    if wrong:
        raise ValueError(f"the click memory is broken: {wrong}")
    return columns


def _spans(offsets: NDArray[np.int64], rows: int, total: int) -> bool:
    return len(offsets) == rows + 1 and offsets[0] == 0 and offsets[-1] == total and bool((np.diff(offsets) >= 0).all())
