"""What EXITS is taught at points, and what four points say of an object: its box, how large it is."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.clicks.points import EXTREME_KINDS, PointKind, Points
from datamodules.ranges import PROBABILITY, Range
from lightning_modules.point_retrieval import PointRetrieval, Retrieved, kept, point_loss
from lightning_modules.weak_losses import projection


class PointSupervision:
    """What is taught at the points that a random walk finds from the extreme points (Sec. 3.2.2, eq. 8).

    A frozen similarity extractor says by its attention how alike two places of the crop are. From the extreme points
    and from all that lies outside of their box a walk of a few hops reaches the others; a place reached from the first
    more than from the second becomes a point of the object, and the other way round. A random part of these is left
    out at every visit (point dropout). Where the walk finds nothing, the box says what it says in MAL.

    Args:
        retrieval: the walk and its thresholds.
        taught: `propagated` points and the initial ones; or the `initial` ones alone (Table 5), for which eq. 8 always
            adds the box's loss.
        dropout: how much of the found points is left out, of object and background apart; 0.9.
        exact: exactly this share of each is left out; otherwise every point has this chance.
        box_weight: lambda_mil, of the box's loss within the point loss; not in the paper.
        pool: how the prediction comes to the grid of the nodes; the paper does not say.
        seed: of the dropout.
    """

    behaviour = 1  # raise when a fix changes results: runs made before are then made again

    def __init__(
        self,
        retrieval: PointRetrieval,
        taught: Literal["propagated", "initial"] = "propagated",
        dropout: float = 0.9,
        exact: bool = False,
        box_weight: float = 1.0,
        pool: Literal["average", "bilinear"] = "average",
        seed: int = 0,
    ) -> None:
        PROBABILITY.checked(dropout, "dropout of points")
        Range(0).checked(box_weight, "box_weight of points")
        self.retrieval, self.taught = retrieval, taught
        self.dropout, self.exact, self.box_weight = dropout, exact, box_weight
        self.pool, self.seed = pool, seed

    def __call__(self, found: Retrieved, student: Tensor, box: Tensor, object_id: Tensor, epoch: int) -> Tensor:
        """(B,) the point loss of the student's probabilities (B, 1, S, S) with the boxes on the same grid."""
        alone = torch.ones_like(found.found) if self.taught == "initial" else ~found.found
        rate = 1.0 if self.taught == "initial" else self.dropout
        labels, known = kept(found, rate, object_id, epoch, self.seed, self.exact)
        side = math.isqrt(labels.shape[1])  # crops are square
        points = point_loss(student, labels, known, (side, side), self.pool)
        return points + alone * self.box_weight * projection(student, box)


class Span(NamedTuple):
    """Boxes that points span: their first and last corner (B, 2), in pixels of the crop."""

    low: Tensor
    high: Tensor


def spanned(points: Points) -> Span:
    """The boxes of the points that say where an object ends. Raises ValueError for an object without any."""
    ends = points.of(*EXTREME_KINDS, PointKind.OUTSIDE)
    if not bool(ends.valid.any(1).all()):
        raise ValueError("the box is spanned by extreme or outside points, got an object without any")
    valid = ends.valid[..., None]
    inf = float("inf")
    return Span(ends.xy.masked_fill(~valid, inf).amin(1), ends.xy.masked_fill(~valid, -inf).amax(1))


def box_areas(points: Points) -> Tensor:
    """(B,) areas of the boxes in pixels of the image, by which the decoder chooses its scale."""
    low, high = spanned(points)
    sides: Tensor = (high - low) / points.scale.to(points.xy)
    # whole pixels again, wherever the crop lies: areas of exactly 32 x 32 and 96 x 96 fall to one side always
    return sides.mul(64).round().div(64).prod(1)


def extreme_points_of(points: Points) -> Tensor:
    """(B, 4, 2) left, top, right, bottom. Raises ValueError for an object that has not all four of them."""
    found = torch.stack([points.kinds == kind for kind in EXTREME_KINDS], 1)  # (B, 4, K)
    if not bool(found.any(2).all()):
        raise ValueError("EXITS begins with all four extreme points, got an object with fewer")
    place = found.int().argmax(2)
    return points.xy.gather(1, place[..., None].expand(-1, -1, 2))
