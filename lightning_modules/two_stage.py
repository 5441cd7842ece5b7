"""Prediction from a box in two stages (IOG, Table 8 E): a first model finds the inside point that the second needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.clicks.inside_outside import inside_point
from datamodules.clicks.points import PointKind, Points
from lightning_modules.corrections import pool
from lightning_modules.interactive import Interactive, finite


class TwoStageState(NamedTuple):
    """What is known of a batch of objects after the first stage: the inside points (B, 2), the second model's state."""

    inside: Tensor
    second: Any


class TwoStage(nn.Module):
    """The first model predicts from the outside points, the second from these and from the first mask's inside point.

    To the outside an `Interactive` like its two. An inside point that comes with the others is not looked at: boxes
    know none. Corrective clicks go to the second model.

    Args:
        first, second: methods of the suite, in eval mode; both see the same crop.
        threshold: of the first model's probability, exceeded inside; the paper names none.
    """

    def __init__(self, first: Interactive, second: Interactive, threshold: float = 0.5) -> None:
        super().__init__()
        self.first, self.second, self.threshold = first, second, threshold

    def start(self, image: Tensor, points: Points) -> TwoStageState:
        """Run the first model, click, let the second start. Raises ValueError for an object without outside points."""
        outside = points.of(PointKind.OUTSIDE)
        if not bool(outside.valid.any(1).all()):
            raise ValueError("two-stage prediction begins with a box, got an object without outside points")
        logits, _ = self.first.predict(self.first.start(image, outside), outside)
        masks = (torch.sigmoid(finite(logits).float()) > self.threshold)[:, 0].cpu().numpy()
        found = np.stack(list(pool().map(_click, masks, box_centres(outside).cpu().numpy())))
        inside = torch.from_numpy(found).to(points.xy)
        return TwoStageState(inside, self.second.start(image, with_inside(points, inside)))

    def predict(
        self, state: TwoStageState, points: Points, previous_mask: Tensor | None = None
    ) -> tuple[Tensor, TwoStageState]:
        """Logits (B, 1, H, W) of the second model."""
        logits, second = self.second.predict(state.second, with_inside(points, state.inside), previous_mask)
        return logits, state._replace(second=second)


def box_centres(outside: Points) -> Tensor:
    """(B, 2): the middle between each object's outermost points, a whole pixel (the upper left of several)."""
    valid = outside.valid[..., None]
    low = outside.xy.masked_fill(~valid, float("inf")).amin(1)
    high = outside.xy.masked_fill(~valid, -float("inf")).amax(1)
    return ((low + high) / 2).floor()


def with_inside(points: Points, inside: Tensor) -> Points:
    """The clicks with these inside points (B, 2) as a first column, in place of any that are among them."""
    others = points.kinds.masked_fill(points.kinds == PointKind.INSIDE, PointKind.PADDING)
    first = torch.full_like(points.kinds[:, :1], int(PointKind.INSIDE))
    return replace(points, xy=inside[:, None], kinds=first).with_more(points.xy, others)


def _click(mask: NDArray[np.bool_], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where a mask (H, W) is thickest; the box's centre where the first model found nothing."""
    return inside_point(mask) if mask.any() else centre
