"""Point retrieval: from four extreme points to many, by a random walk on what a transformer attends to (EXITS, Sec. 3).

The nodes of the graph are the n = h * w tokens of a crop, row by row. Everything is batched over objects, without
gradient, and in float32 whatever comes (float64 stays): differences of scores that count are of the order 1e-4.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.keys import rng
from lightning_modules.weak_losses import dice, precise

First = Literal["columns", "rows"]
Pool = Literal["average", "bilinear"]
Outside = Literal["cell", "half"]
Grid = tuple[int, int]

NODES = 1024  # of the paper's crop of 512 px and patches of 16: what its thresholds are for
TINY = 1e-12
DROPOUT = 0x64726F70  # in the key of its draws, which are then no other's of the same object and epoch


@torch.no_grad()
def sinkhorn(similarity: Tensor, rounds: int = 3, first: First = "columns") -> Tensor:
    """A similarity (B, n, n), not negative, made doubly stochastic by dividing by its sums in turn.

    The paper does not say how often. A round divides by the sums of both, the `first` ones first; so after rounds of
    columns and then rows every row sums to 1 but for rounding, and columns come closer to it with every round. Rows
    and columns of zeros alone stay zero.
    """
    _square(similarity)
    a = precise(similarity).clone()
    axes = {"columns": (1, 2), "rows": (2, 1)}[first]
    for axis in axes * rounds:
        a.div_(a.sum(axis, keepdim=True).add_(TINY))
    return a


@torch.no_grad()
def transition(similarity: Tensor, rounds: int = 3, first: First = "columns") -> Tensor:
    """Transition matrices T = (A + A^T) / 2 (B, n, n) of A = sinkhorn(similarity) (eq. 2); symmetric."""
    a = sinkhorn(similarity, rounds, first)
    return (a + a.mT).div_(2)


@torch.no_grad()
def walk_scores(transitions: Tensor, seeds: Tensor, hops: int) -> Tensor:
    """Where walks from the seeds are after so many hops: the mean over seeds j of (T^hops)(j, i) (eq. 3, 4).

    T^hops is never formed: hops products of vectors and T.

    Args:
        transitions: (B, n, n), `transition`'s.
        seeds: (B, n) bool, or several sets of them per object, (B, k, n).
        hops: alpha in the paper, at least 0.
    Returns: scores of the seeds' shape, about 1 in sum; 0 where there are no seeds.
    """
    transitions = precise(transitions)
    scores = seeds.to(transitions.dtype)
    scores = (scores / scores.sum(-1, keepdim=True).clamp_min(1)).view(len(seeds), -1, seeds.shape[-1])
    with torch.autocast(transitions.device.type, enabled=False):
        for _ in range(hops):
            scores = scores @ transitions
    return scores.view(seeds.shape)


def inward(points: Tensor, delta: float) -> Tensor:
    """Extreme points moved into the object by `delta`, as P_FG is (Sec. 3.2 of the paper prints a y axis that rises).

    Args:
        points: (B, 4, 2): left, top, right, bottom, each (x, y) in pixels of the crop, y downwards; of a flipped crop,
            left is what lies left there.
        delta: in pixels of the crop, at least 0. Opposite points meet in the middle rather than cross.
    Returns: (B, 4, 2).
    """
    if points.ndim != 3 or points.shape[1:] != (4, 2):
        raise ValueError(
            f"point retrieval needs extreme points (B, 4, 2): left, top, right, bottom, got {tuple(points.shape)}"
        )
    moved = precise(points).clone()
    for low, high, axis in ((0, 2, 0), (1, 3, 1)):
        step = ((moved[:, high, axis] - moved[:, low, axis]) / 2).clamp(0, delta)
        moved[:, low, axis] += step
        moved[:, high, axis] -= step
    return moved


def nodes_of(points: Tensor, grid: Grid, stride: float) -> Tensor:
    """(B, n) bool: the nodes that hold points (B, K, 2), (x, y) in pixels of the crop; several points may share one.

    Pixels have their centres at whole numbers, so that a node covers -0.5 <= x < stride - 0.5: at whole pixels
    floor(x / stride), and flipped points fall on flipped nodes. Points beyond the crop belong to its border's nodes.
    """
    height, width = grid
    x, y = ((precise(points) + 0.5) / stride).floor().long().unbind(-1)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    nodes = torch.zeros(len(points), height * width, dtype=torch.bool, device=points.device)
    return nodes.scatter_(1, index, True)


def background_nodes(box: Tensor, grid: Grid, outside: Outside = "cell") -> Tensor:
    """(B, n) bool: the nodes beside the box.

    Args:
        outside: which these are, as the paper does not say: those whose whole `cell` holds no pixel of the box, so that
            cells which its border cuts are none; or those of which less than half does (`half`).
        box: (B, 1, H, W), more than 0 at pixels of the object's box, wrapped parts of it included; H and W multiples
            of the grid's (h, w).
    """
    if box.ndim != 4 or box.shape[2] % grid[0] or box.shape[3] % grid[1]:
        raise ValueError(
            f"the box is a mask (B, 1, H, W) of whole cells of a grid of {grid}, got {tuple(box.shape)}; "
            "take a crop whose side is a multiple of the patch"
        )
    inside = (box > 0).float()
    if outside == "half":
        return (F.adaptive_avg_pool2d(inside, grid) < 0.5).flatten(1)
    return (F.adaptive_max_pool2d(inside, grid) == 0).flatten(1)


def grid_of(nodes: int, size: tuple[int, int]) -> tuple[Grid, int]:
    """The grid (h, w) of so many square cells that make up a crop of `size` (H, W), and their side in pixels."""
    height, width = size
    stride = math.isqrt(height * width // nodes) if nodes else 0
    if not stride or height % stride or width % stride or (height // stride) * (width // stride) != nodes:
        raise ValueError(
            f"a crop of {height} x {width} px does not consist of {nodes} square cells; the similarity is of another "
            "crop or patch size than the box: use the extractor's"
        )
    return (height // stride, width // stride), stride


@dataclass
class Retrieved:
    """The points of a batch of objects, each set (B, n) bool over nodes; the sets of an object are disjoint.

    `seeds` are P_FG, `outside` P_BG, `inside` all other nodes (P_Box); `foreground` and `background`, parts of
    `inside`, are the pseudo points. `score` (B, n) is pi_f - pi_b; `found` (B,) bool, whether there are pseudo points.
    """

    seeds: Tensor
    outside: Tensor
    inside: Tensor
    foreground: Tensor
    background: Tensor
    score: Tensor
    found: Tensor


class PointRetrieval(nn.Module):
    """The walk from the extreme points and from what lies beside the box, as a recipe names it (EXITS, Sec. 3.2).

    A node in the box is pseudo foreground where pi_f - pi_b >= tau_foreground, pseudo background where it is
    <= tau_background (eq. 5). An object without background nodes has pi_b = 0.

    Args:
        layer: of the transformer whose attention is the similarity, counted from 1; who asks for it reads this. 0 asks
            for the likeness of the final tokens instead: for a small transformer that began at random (not in the
            paper).
        rounds, first: of `sinkhorn`; the paper says neither.
        alpha: hops of the walk.
        delta: how far extreme points are moved inwards, in sides of a node. The paper does not say; a half is 8 px of
            its crop of 512 px.
        outside: which nodes are beside the box, see `background_nodes`.
        tau_foreground, tau_background: thresholds for `nodes` nodes. Scores sum to 1, so that with n nodes these are
            multiplied by nodes / n.
    """

    behaviour = 1

    def __init__(
        self,
        layer: int = 10,
        rounds: int = 3,
        first: First = "columns",
        alpha: int = 3,
        delta: float = 0.5,
        tau_foreground: float = 1e-3,
        tau_background: float = -1e-4,
        nodes: int = NODES,
        outside: Outside = "cell",
    ) -> None:
        super().__init__()
        if outside not in get_args(Outside):
            raise ValueError(f"nodes lie outside of the box by one of {get_args(Outside)}, got {outside!r}")
        self.outside = outside
        if layer < 0 or rounds < 0 or alpha < 1 or delta < 0 or nodes < 1:
            raise ValueError(
                "point retrieval takes alpha from 1, layer, rounds and delta from 0 and at least one node, got "
                f"layer={layer}, alpha={alpha}, rounds={rounds}, delta={delta}, nodes={nodes}"
            )
        if first not in get_args(First):
            raise ValueError(f"sinkhorn's rounds begin with one of {get_args(First)}, got {first!r}")
        if not tau_background < tau_foreground:
            raise ValueError(
                "tau_background must lie below tau_foreground, or a node is both, got "
                f"{tau_background:g} and {tau_foreground:g}"
            )
        self.layer, self.rounds, self.first, self.alpha, self.delta = layer, rounds, first, alpha, delta
        self.tau_foreground, self.tau_background, self.nodes = tau_foreground, tau_background, nodes

    def but(self, **changed: Any) -> PointRetrieval:
        """The same walk with other values of these arguments."""
        own = {name: getattr(self, name) for name in inspect.signature(PointRetrieval).parameters}
        return PointRetrieval(**{**own, **changed})

    @torch.no_grad()
    def forward(self, similarity: Tensor, points: Tensor, box: Tensor) -> Retrieved:
        """The points of a batch.

        Args:
            similarity: (B, n, n), not negative: attention from row to column, without the class token.
            points: (B, 4, 2), the extreme points of the crop as in `inward`.
            box: (B, 1, H, W), 1 in the object's box, of the crop's size.
        """
        _square(similarity)
        n = similarity.shape[-1]
        grid, stride = grid_of(n, (box.shape[-2], box.shape[-1]))
        seeds = nodes_of(inward(points, self.delta * stride), grid, stride)
        outside = background_nodes(box, grid, self.outside) & ~seeds
        walks = transition(similarity, self.rounds, self.first)
        pi_f, pi_b = walk_scores(walks, torch.stack([seeds, outside], dim=1), self.alpha).unbind(1)
        score, inside, scale = pi_f - pi_b, ~(seeds | outside), self.nodes / n
        foreground = inside & (score >= self.tau_foreground * scale)
        background = inside & (score <= self.tau_background * scale)
        found = (foreground | background).any(1)
        return Retrieved(
            seeds=seeds,
            outside=outside,
            inside=inside,
            foreground=foreground,
            background=background,
            score=score,
            found=found,
        )


def kept(
    retrieved: Retrieved, rate: float, object_ids: Tensor, epoch: int, seed: int, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """Labels Y and what is labelled, K, after point dropout (Sec. 3.2, eq. 6 and 7), each (B, n) float32 of 0 and 1.

    Pseudo points, foreground and background alike, are dropped with the probability `rate` and leave both Y and K;
    seeds and outside nodes stay. The draws depend on (seed, epoch, object id) alone.

    Args:
        rate: share of pseudo points that is dropped, in [0, 1]; 0.9 in the paper.
        object_ids: (B,) int64.
        exact: keep round((1 - rate) * count) of an object's pseudo foreground, and of its background, not one by one.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of point dropout is a share in [0, 1], got {rate}")
    count = retrieved.seeds.shape[1]
    draws = [rng(seed, epoch, key, DROPOUT).random(count, "float32") for key in object_ids.tolist()]
    chance = torch.from_numpy(np.array(draws, np.float32).reshape(-1, count)).to(
        retrieved.seeds.device
    )  # in [0, 1), one for each node
    foreground, background = (
        points
        & (_rank(chance, points) < ((1 - rate) * points.sum(1, keepdim=True)).round() if exact else chance >= rate)
        for points in (retrieved.foreground, retrieved.background)
    )
    labels = retrieved.seeds | foreground
    return labels.float(), (labels | retrieved.outside | background).float()


def point_loss(probability: Tensor, labels: Tensor, labelled: Tensor, grid: Grid, pool: Pool = "average") -> Tensor:
    """Dice loss of the points (eq. 8, without its second term): dice(M * K, Y) of every object, (B,).

    Args:
        probability: (B, 1, S, S), the mask's, brought to the grid (h, w) as M.
        labels, labelled: (B, n), Y and K of `kept`.
        pool: `average` over each cell. `bilinear` reads only the four central pixels of a cell of 4 x 4. The paper
            does not say which.
    """
    if pool not in get_args(Pool):
        raise ValueError(f"a mask is brought to the points' grid by one of {get_args(Pool)}, got {pool!r}")
    if labels.shape != (len(probability), grid[0] * grid[1]) or labelled.shape != labels.shape:
        raise ValueError(
            f"labels of {len(probability)} objects on a grid of {grid} have the shape "
            f"{(len(probability), grid[0] * grid[1])}, got {tuple(labels.shape)} and {tuple(labelled.shape)}"
        )
    mask = precise(probability)
    if pool == "average":
        mask = F.adaptive_avg_pool2d(mask, grid)
    else:
        mask = F.interpolate(mask, size=grid, mode="bilinear", align_corners=False)
    return dice(mask.flatten(1) * labelled, labels)


def _square(similarity: Tensor) -> None:
    if similarity.ndim != 3 or similarity.shape[1] != similarity.shape[2]:
        raise ValueError(
            f"a similarity is (B, n, n) between the n nodes of each object, got {tuple(similarity.shape)}; "
            "leave the class token out and average the heads"
        )


def _rank(chance: Tensor, points: Tensor) -> Tensor:
    """(B, n): how many of an object's `points` have a smaller chance; of other nodes, at least all its points do."""
    return chance.masked_fill(~points, 2).argsort(dim=1).argsort(dim=1)
