"""What a forward pass said, as the simulated user sees it, and one more click where it was wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from datamodules import geometry
from datamodules.batch import Batch
from datamodules.clicks.points import Click, PointKind, Points, and_one
from datamodules.clicks.rules import ClickRule, next_clicks
from lightning_modules.click_memory import Remembered


@dataclass
class Seen:
    """What a forward pass saw and said, on the CPU: all that the simulated user looks at."""

    object_id: NDArray[np.int64]
    mask: NDArray[np.uint8]  # (B, H, W) of 0 and 1
    void: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    xy: NDArray[np.float32]  # (B, K, 2) in crop pixels
    kinds: NDArray[np.int64]
    to_crop: NDArray[np.float64]
    image_size: NDArray[np.int64]

    @classmethod
    def of(cls, batch: Batch, points: Points, logits: Tensor) -> Seen:
        """Logits are (B, 1, H, W); an object is where they are above 0."""
        return cls(
            object_id=batch.object_id.cpu().numpy(),
            mask=_plane(_above_half(batch.mask)),
            void=_plane(_above_half(batch.void)),
            prediction=_plane(logits.detach() > 0),
            xy=points.xy.cpu().numpy(),
            kinds=points.kinds.cpu().numpy(),
            to_crop=batch.to_crop.cpu().numpy(),
            image_size=batch.image_size.cpu().numpy(),
        )

    def clicks(self, i: int) -> NDArray[np.float32]:
        """(K, 2) the clicks of one object, without padding."""
        return self.xy[i][self.kinds[i] != PointKind.PADDING]

    def next_clicks(self, rule: ClickRule, draws: list[np.random.Generator] | None = None) -> list[Click | None]:
        """One click per object, None where nothing is to be corrected; without draws the first of equal pixels."""
        voids = [void if void.any() else None for void in self.void]
        earlier = [self.clicks(i) for i in range(len(self.object_id))]
        return next_clicks(
            rule, list(self.mask), list(self.prediction), voids=voids, clicks=earlier, draws=draws, pool=pool()
        )

    def in_image(
        self, i: int, held: Remembered | None, click: Click | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """All clicks of an object in full-image pixels: those it began with, and its next one.

        Remembered ones stay as they are, whatever became of them on this crop's grid.
        """
        to_image = cv2.invertAffineTransform(self.to_crop[i])
        if held is None:
            xy, kinds = geometry.apply(to_image, self.clicks(i)), self.kinds[i][self.kinds[i] != PointKind.PADDING]
        else:
            xy, kinds = held.xy.astype(np.float64), held.kinds.astype(np.int64)
        if click is not None:
            xy, kinds = and_one(xy, kinds, geometry.apply(to_image, np.array([[click.x, click.y]])), click.kind)
        return xy.astype(np.float32), kinds.astype(np.int8)

    def run_lengths(self, i: int) -> bytes:
        """The prediction of an object on its full image, as COCO's compressed counts."""
        height, width = (int(side) for side in self.image_size[i])
        to_image = cv2.invertAffineTransform(self.to_crop[i])
        full = geometry.warp(self.prediction[i], to_image, (height, width), "nearest")
        return bytes(coco_mask.encode(np.asfortranarray(full))["counts"])


def appended(points: Points, clicks: list[Click | None]) -> Points:
    """One more click for every object, padding where there is none."""
    xy = [[click.x, click.y] if click else [0, 0] for click in clicks]
    kinds = [click.kind if click else PointKind.PADDING for click in clicks]
    return points.with_more(torch.tensor(xy)[:, None], torch.tensor(kinds)[:, None])


@contextlib.contextmanager
def as_tested(network: nn.Module) -> Iterator[None]:
    """The network in eval mode and without gradients; afterwards every part is in its own mode, frozen ones too."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _plane(found: Tensor) -> NDArray[np.uint8]:
    """(B, H, W) of 0 and 1 from a bool (B, 1, H, W), without a copy on the CPU."""
    plane: NDArray = found[:, 0].cpu().numpy()
    return plane.view(np.uint8)


def _above_half(plane: Tensor) -> Tensor:
    """Where a plane of 0 and 1, or of anything between, is above one half; whole numbers stay, which is much faster."""
    return plane > 0.5 if plane.is_floating_point() else plane != 0


@cache
def pool() -> ThreadPoolExecutor:
    """The simulated users' threads. They belong to the process: a module that held them could not be copied."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


os.register_at_fork(after_in_child=pool.cache_clear)  # a fork has none of its parent's threads
