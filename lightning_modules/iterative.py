"""Where the clicks of a training step come from: fresh ones, the memory of earlier epochs, or errors within the batch.

All three start from the clicks that the data simulated for the batch. What they add are corrections of the network's
own errors, found by a click rule on the crop's grid, in a thread pool, after the forward pass that made the error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.clicks.points import PointKind, Points
from datamodules.clicks.rules import RULES
from datamodules.keys import rng
from datamodules.names import check_name
from lightning_modules.click_memory import ClickMemory, Remembered
from lightning_modules.corrections import Seen, appended, pool

COIN, ROUNDS, DRAW = 0xC014, 0x2045, 0xD2A3  # keep the draws of resets, of rounds and of clicks apart

Segment = Callable[[Tensor, Points, Tensor | None], Tensor]  # image, clicks, last masks -> logits (B, 1, H, W)


class Start(NamedTuple):
    """What a forward pass begins with: clicks in crop pixels and the masks (B, 1, H, W) of the last prediction.

    Masks hold 0 and 1, and -1 where an object has none yet; None when nobody asks for masks.
    """

    points: Points
    masks: Tensor | None = None


class FreshClicks:
    """No iteration: every epoch new clicks from the heuristics alone, as iFCN trains. The baseline of ITIS' Fig. 5."""

    def before(self, batch: Batch, epoch: int, step: int, segment: Segment) -> Start:
        """The clicks as the data simulated them."""
        return Start(batch.clicks)

    def after(self, batch: Batch, start: Start, logits: Tensor, epoch: int) -> None:
        """Nothing is learned from a forward pass."""

    def settle(self) -> None:
        """Nothing is under way."""

    def gather(self) -> None:
        """Nothing is kept."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


class EpochMemory(FreshClicks):
    """ITIS' iterative training (Sec. 3.2): an object gains one click per epoch, where its last mask was wrong.

    The paper adds the click at the start of the next epoch; here it is found when the epoch's pass is made and kept,
    which is the same click, from the same prediction.

    An object seen for the first time, or whose coin says so, begins anew with the clicks that the data simulated and
    without a mask. The coin is keyed by (seed, epoch, object), so shuffling, processes and resumption do not change it.

    Clicks are kept in full-image pixels: `to_crop` brings them into whatever flip and crop comes next, where those that
    fall outside are not shown but stay in memory. With `masks`, the last prediction is kept beside them as run lengths
    of the full image; what the crop did not show counts as background.

    Args:
        reset_probability: 0.3 in the paper.
        coin: tossed for every object in `each_epoch` (the paper), or `once` (the released code, whose graph holds one
            toss per process: the same 30 % of the objects begin anew in every epoch, the others never).
        rule: of the corrective click; see `rules.RULES`.
        masks: keep the predictions, for a network with a mask channel.
        seed: of the coins, and of ties between equally good clicks.
    """

    def __init__(
        self,
        reset_probability: float = 0.3,
        coin: Literal["each_epoch", "once"] = "each_epoch",
        rule: str = "itis",
        masks: bool = False,
        seed: int = 0,
    ) -> None:
        check_name(rule, RULES, "no click rule")
        self.reset_probability = reset_probability
        self.coin = coin
        self.rule = rule
        self.masks = masks
        self.seed = seed
        self.memory = ClickMemory(masks=masks)
        self._held: list[Remembered | None] = []
        self._noted: Future | None = None

    def resets(self, object_id: int, epoch: int) -> bool:
        """Whether an object begins anew in this epoch."""
        key = (self.seed, object_id, COIN) if self.coin == "once" else (self.seed, epoch, object_id, COIN)
        return bool(rng(*key).random() < self.reset_probability)

    def before(self, batch: Batch, epoch: int, step: int, segment: Segment) -> Start:
        """Remembered clicks (and masks), or the simulated ones of objects that begin anew."""
        self.settle()
        ids = batch.object_id.cpu().numpy()
        found = self.memory.recall(ids)
        self._held = [None if self.resets(int(key), epoch) else old for key, old in zip(ids, found)]
        masks = self._masks(batch) if self.masks else None
        return Start(self._points(batch), masks)

    def after(self, batch: Batch, start: Start, logits: Tensor, epoch: int) -> None:
        """Find each object's next click and remember it, beside the backward pass; objects without finite logits wait.

        `settle` waits for the outcome.
        """
        seen = Seen.of(batch, start.points, logits)
        finite = torch.isfinite(logits.detach().flatten(1).sum(1)).cpu().numpy()  # a sum is finite when all are
        self._noted = _notes().submit(self._note, seen, self._held, finite, epoch)

    def settle(self) -> None:
        """Wait until what the last step learned is in memory."""
        if self._noted is not None:
            self._noted.result()
            self._noted = None

    def gather(self) -> None:
        """Let every process know what the others learned. All of them must call it."""
        self.settle()
        self.memory.gather()

    def state_dict(self) -> dict[str, Any]:
        """The memory; `gather` first."""
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """On any number of processes."""
        self.memory.load_state_dict(state)

    def _points(self, batch: Batch) -> Points:
        """The simulated clicks, or the remembered ones where there are any, on the pixels of the crop they fall in."""
        clicks, to_crop = batch.clicks, batch.to_crop.cpu().numpy()
        corner = np.array(batch.size[::-1]) - 1
        shown: dict[int, tuple[NDArray, NDArray]] = {}
        for i, held in enumerate(self._held):
            if held is not None:
                xy = np.rint(geometry.apply(to_crop[i], held.xy))
                inside = ((xy >= 0) & (xy <= corner)).all(1)
                shown[i] = (xy[inside], held.kinds[inside])
        longest = max([clicks.xy.shape[1], *(len(xy) for xy, _ in shown.values())])
        xys = clicks.xy.new_zeros((len(batch), longest, 2))
        kinds = clicks.kinds.new_full((len(batch), longest), PointKind.PADDING)
        xys[:, : clicks.xy.shape[1]], kinds[:, : clicks.kinds.shape[1]] = clicks.xy, clicks.kinds
        for i, (xy, kind) in shown.items():
            kinds[i] = PointKind.PADDING
            xys[i, : len(xy)] = torch.from_numpy(xy).to(xys)
            kinds[i, : len(xy)] = torch.from_numpy(kind).to(kinds)
        return replace(clicks, xy=xys, kinds=kinds)

    def _masks(self, batch: Batch) -> Tensor:
        """(B, 1, H, W) of 0 and 1: the remembered masks on this crop's grid; -1 for objects without."""
        masks = np.full((len(batch), 1, *batch.size), -1, np.int8)
        to_crop, sizes = batch.to_crop.cpu().numpy(), batch.image_size.cpu().numpy()

        def bring(i: int) -> None:
            held = self._held[i]
            if held is not None and held.mask is not None:
                full = coco_mask.decode({"size": sizes[i].tolist(), "counts": held.mask})
                masks[i, 0] = geometry.warp(full, to_crop[i], batch.size, "nearest")

        list(pool().map(bring, range(len(batch))))
        return torch.from_numpy(masks).to(batch.image.device)

    def _note(self, seen: Seen, held: list[Remembered | None], finite: NDArray, epoch: int) -> None:
        draws = [rng(self.seed, epoch, int(key), DRAW) for key in seen.object_id]
        clicks = seen.next_clicks(RULES[self.rule], draws)
        learned = list(pool().map(lambda i: seen.in_image(i, held[i], clicks[i]), np.flatnonzero(finite)))
        masks = list(pool().map(seen.run_lengths, np.flatnonzero(finite))) if self.masks else None
        self.memory.note(epoch, seen.object_id[finite], learned, masks)


class WithinBatch(FreshClicks):
    """RITM's iterative training, for comparison: several clicks within one step, and no memory between epochs.

    For each batch n ~ U{0..most} rounds are drawn; a round is a forward pass in eval mode without gradients, after
    which every object gains one click. The step's loss is that of the pass after the last round.

    Args:
        most: rounds; 3 in RITM.
        rule: RITM clicks at random among the inner half of the larger error.
        masks: hand the last round's prediction on, for a network with a mask channel.
        seed: of the number of rounds and of the clicks.
    """

    def __init__(self, most: int = 3, rule: str = "ritm_training", masks: bool = False, seed: int = 0) -> None:
        check_name(rule, RULES, "no click rule")
        self.most = most
        self.rule = rule
        self.masks = masks
        self.seed = seed

    def before(self, batch: Batch, epoch: int, step: int, segment: Segment) -> Start:
        """The simulated clicks and those of the rounds."""
        rounds = int(rng(self.seed, epoch, step, ROUNDS).integers(self.most + 1))
        unknown = torch.full_like(batch.mask, -1, dtype=torch.int8) if self.masks else None
        start = Start(batch.clicks, unknown)
        for n in range(rounds):
            logits = segment(batch.image, start.points, start.masks)
            seen = Seen.of(batch, start.points, logits)
            draws = [rng(self.seed, epoch, int(key), n, DRAW) for key in seen.object_id]
            clicks = seen.next_clicks(RULES[self.rule], draws)
            masks = (logits > 0).to(torch.int8) if self.masks else None
            start = Start(appended(start.points, clicks), masks)
        return start


@cache
def _notes() -> ThreadPoolExecutor:
    """One thread that waits for the others' clicks while the step goes on."""
    return ThreadPoolExecutor(1)


os.register_at_fork(after_in_child=_notes.cache_clear)  # as for `pool`
