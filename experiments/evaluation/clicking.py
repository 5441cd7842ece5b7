"""The click benchmark: for every object a simulated user clicks on the largest error, up to 20 times (ITIS, Sec. 4).

A method is known by `start` and `predict` alone. The first points are the evaluation sample's: four extreme points for
DEXTR, none for ITIS, whose first click the rule places on an empty prediction. They count as clicks. The conventions:

- all objects get all clicks; the IoU after fewer clicks than a method's first points is 0, there being no mask yet;
- a round in which the rule finds nothing to click counts, and changes nothing;
- a method that takes no more corrections keeps its last mask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.clicks.points import Click, PointKind, Points
from datamodules.clicks.rules import RULES, ClickRule
from datamodules.names import by_name
from experiments.evaluation.pasting import Paste
from experiments.evaluation.simulated_user import SimulatedUser
from lightning_modules.interactive import Interactive, finite

FIRST_OF_TIES = ("ritm",)  # its authors click the first of equally good pixels in raster order, others any of them


def click_rule(name: str) -> ClickRule:
    """The rule of this name. Raises ValueError with the nearest one."""
    return by_name(name, RULES, "no click rule")


def click_through(
    model: Interactive,
    batch: Batch,
    users: Sequence[SimulatedUser],
    paste: Paste,
    each: Callable[[Callable[[SimulatedUser], Any], Iterable[SimulatedUser]], Iterable[Any]] = map,
) -> None:
    """Let the users of a batch's objects click until they are through; their curves are full afterwards.

    Objects of a batch advance together. A mask without error is final, so that its network need not run again.

    Args:
        each: `map`, or a thread pool's.
    Raises NotFinite for an answer that is no number.
    """
    sizes = [(int(user.mask.shape[0]), int(user.mask.shape[1])) for user in users]
    points, previous, state = batch.clicks, _start_masks(batch, users), None
    active = [bool(valid) for valid in points.valid.any(1)]
    while True:
        if any(active):
            started = time.perf_counter()
            state = model.start(batch.image, points) if state is None else state
            logits, state = model.predict(state, points, previous)
            if logits.is_cuda:
                torch.cuda.synchronize(logits.device)  # what follows is not the network's time
            seconds = (time.perf_counter() - started) / sum(active)
            above = finite(logits, active) > paste.logit
            previous = _held(previous, above.float(), active)
            for user, prediction, new in zip(users, paste.masks(logits, above, batch, sizes), active, strict=True):
                if new:
                    user.seconds_network, user.network_calls = user.seconds_network + seconds, user.network_calls + 1
                    user.sees(prediction)
        turns = [user.may_click for user in users]
        if not any(turns):
            return
        asked = iter(each(SimulatedUser.next_click, [user for user, turn in zip(users, turns) if turn]))
        clicks = [next(asked) if turn else None for turn in turns]
        active = [click is not None for click in clicks]
        if any(active):
            points = _appended(points, clicks, users, batch)


def _held(previous: Tensor | None, masks: Tensor, active: Sequence[bool]) -> Tensor:
    """The new masks (B, 1, H, W) of the active objects, the previous ones of the others; empty where there are none."""
    if all(active):
        return masks
    chosen = torch.tensor(active, device=masks.device)[:, None, None, None]
    return torch.where(chosen, masks, torch.zeros_like(masks) if previous is None else previous)


def _start_masks(batch: Batch, users: Sequence[SimulatedUser]) -> Tensor | None:
    """The objects' start masks on the crops' grid, (B, 1, H, W); None where they start from nothing."""
    if users[0].start is None:
        return None
    matrices = batch.to_crop.cpu().numpy()
    masks = [geometry.warp(user.prediction, grid, batch.size, "nearest") for user, grid in zip(users, matrices)]
    return torch.from_numpy(np.stack(masks)[:, None]).float().to(batch.image.device)


def _appended(points: Points, clicks: Sequence[Click | None], users: Sequence[SimulatedUser], batch: Batch) -> Points:
    """The clicks with one column more: each object's new one in pixels of its crop, padding without.

    A click in the outer half of a shrunken image's outermost pixel is moved to that pixel's centre.
    """
    xy, kinds = np.zeros((len(users), 1, 2)), np.full((len(users), 1), PointKind.PADDING, np.int64)
    matrices, last = batch.to_crop.cpu().numpy(), np.array(batch.size[::-1]) - 1.0
    for i, click in enumerate(clicks):
        if click is not None:
            place = geometry.apply(matrices[i], np.array([[click.x, click.y]]))[0]
            at_rim = (place >= -0.5) & (place <= last + 0.5)
            xy[i, 0] = np.where(at_rim, np.clip(place, 0, last), place)
            kinds[i, 0] = users[i].kinds[-1]
    return points.with_more(torch.from_numpy(xy), torch.from_numpy(kinds))
