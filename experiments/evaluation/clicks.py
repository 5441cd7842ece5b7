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
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.clicks.points import Click, PointKind, Points
from datamodules.clicks.rules import RULES, ClickRule
from datamodules.images import read_image
from datamodules.index import ObjectIndex
from datamodules.keys import rng
from datamodules.names import by_name
from experiments.composition.tree import Tree
from experiments.evaluation.pasting import Paste, checked_box
from experiments.evaluation.scorer import Scorer
from experiments.evaluation.simulated_user import SimulatedUser
from experiments.pictures import contact_sheet, overlay, save_picture
from lightning_modules.interactive import Interactive
from lightning_modules.metrics.clicks import noc

CLICK_DRAWS = 0xC11C  # keeps the draws of clicks apart from those of samples

FIRST_OF_TIES = ("ritm",)  # its authors click the first of equally good pixels in raster order, others any of them

PICTURED_CLICKS = (1, 3, 5, 10, 20)


def click_rule(name: str) -> ClickRule:
    """The rule of this name. Raises ValueError with the nearest one."""
    return by_name(name, RULES, "click rule")


def click_through(
    model: Interactive, batch: Batch, users: Sequence[SimulatedUser], paste: Paste,
    each: Callable[[Callable[[SimulatedUser], Any], Iterable[SimulatedUser]], Iterable[Any]] = map,
) -> None:  # fmt: skip
    """Let the users of a batch's objects click until they are through; their curves are full afterwards.

    Objects of a batch advance together. A mask without error is final, so that its network need not run again.

    Args:
        each: `map`, or a thread pool's.
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
            above = logits > paste.logit
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


class ClickScorer(Scorer):
    """Protocol `clicks`: a row per object with its curve, its clicks and what a click costs."""

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path) -> None:
        super().__init__(model, index, config, folder)
        self.clicks = clicks = checked(config)
        self.rule, self.draws = click_rule(clicks["rule"]), clicks["rule"] not in FIRST_OF_TIES
        self.seed = clicks.get("seed", config["data"]["init_args"]["seed"])
        self.paste = Paste(
            self.evaluation["threshold"],
            self.evaluation.get("paste", "cubic"),
            self.evaluation["stretch"],
            checked_box(self.evaluation),
        )
        bare = len(index) - int(np.count_nonzero(index.start_file >= 0))
        if clicks["start"] == "mask" and bare:
            raise ValueError(
                f"evaluation.clicks.start is `mask`, but {bare:,} of {len(index):,} objects of {index.dataset} have no "
                "start mask; use `nothing`, or a data set of masks to refine"
            )

    @property
    def columns(self) -> list[str]:
        """Names of the row's values; `first` counts the clicks before the first mask."""
        targets = [f"noc@{target:g}" for target in self.clicks["targets"]]
        start = ["iou_0"] if self.clicks["start"] == "mask" else []
        curve = [f"iou_{t}" for t in range(1, self.clicks["most"] + 1)]
        return [*self.described, "first", *start, *curve, *targets, "seconds_network", "seconds_other", "clicks"]

    def score(self, batch: Batch) -> list[list[Any]]:
        """Click through the batch's objects."""
        started = time.perf_counter()
        users = list(self.pool.map(lambda i: self._user(batch, i), range(len(batch))))
        click_through(self.model, batch, users, self.paste, self.pool.map if len(batch) > 1 else map)
        network = sum(user.seconds_network for user in users)
        other = (time.perf_counter() - started - network) / sum(max(1, user.rounds) for user in users)
        rows = []
        for i, user in enumerate(users):
            curve, position = user.curve(), self.position(int(batch.object_id[i]))
            needed = [int(noc(curve, target, user.most)) for target in self.clicks["targets"]]
            ious = [*([] if user.start_iou is None else [user.start_iou]), *curve]
            per_call = user.seconds_network / max(1, user.network_calls)
            rows.append([
                *self.description(position), user.first_clicks, *ious, *needed, round(per_call, 5), round(other, 5),
                user.written(),
            ])  # fmt: skip
            if position in self.pictured:
                self._picture(position, user, curve)
        return rows

    def _user(self, batch: Batch, i: int) -> SimulatedUser:
        object_id = int(batch.object_id[i])
        position = self.position(object_id)
        assert batch.rle is not None
        encoded, valid = batch.rle[i], batch.clicks.valid[i].cpu().numpy()
        to_image = cv2.invertAffineTransform(batch.to_crop[i].cpu().numpy())
        user = SimulatedUser(
            mask=coco_mask.decode(encoded.mask),
            void=None if encoded.void is None else coco_mask.decode(encoded.void),
            rule=self.rule,
            first=geometry.apply(to_image, batch.points[i].cpu().numpy()[valid]),
            first_kinds=batch.point_kinds[i].cpu().numpy()[valid],
            most=self.clicks["most"],
            corrections=self.clicks["corrections"],
            start=self.index.start_mask(position) if self.clicks["start"] == "mask" else None,
            draws=lambda t: rng(self.seed, object_id, t, CLICK_DRAWS) if self.draws else None,
        )
        if position in self.pictured:
            user.keep_pictures((user.first_clicks, *PICTURED_CLICKS))
        return user

    def _picture(self, position: int, user: SimulatedUser, curve: Sequence[float]) -> None:
        """The masks after 1, 3, 5, 10 and 20 clicks side by side, where there are as many."""
        image, kinds = read_image(self.index.image_path(position)), [int(kind) for kind in user.kinds]
        pictures, captions = [], []
        for t, (prediction, clicks, iou) in sorted(user.pictures.items()):
            points = np.array(user.clicks[:clicks], float)
            pictures.append(overlay(image, prediction, points, kinds[:clicks], truth=user.mask))
            captions.append(f"{t} click{'s' * (t != 1)}, IoU {100 * iou:.1f}")
        if not pictures:  # nothing was ever predicted
            pictures, captions = [overlay(image, user.prediction, truth=user.mask)], [f"IoU {100 * curve[-1]:.1f}"]
        file = self.picture_file(position, curve[-1])
        save_picture(contact_sheet(pictures, captions, columns=len(pictures)), file)


def checked(config: Tree) -> Tree:
    """The section evaluation.clicks of a recipe. Raises ValueError when it has none, or values that do not exist."""
    clicks: Tree | None = config["evaluation"].get("clicks")
    if clicks is None:
        raise ValueError(
            f"recipe {config['method']} has no section evaluation.clicks (rule, most, corrections, start, targets): "
            "a run of it cannot be evaluated by clicks"
        )
    if clicks["start"] not in ("nothing", "mask"):
        raise ValueError(f"evaluation.clicks.start is {clicks['start']!r}; there are: nothing, mask")
    if clicks["most"] < 1 or (clicks["corrections"] or 0) < 0:
        raise ValueError(f"evaluation.clicks needs at least one click, got most {clicks['most']}, corrections "
                         f"{clicks['corrections']}")  # fmt: skip
    click_rule(clicks["rule"])
    return clicks
