"""The mean field that turns soft masks into sharp targets: neighbours of like colour agree (EXITS, eq. 9; MAL).

Rounds work on flat pixels: a shift by (dx, dy) is one by dy * W + dx there, and what would wrap has the weight 0.
Logarithms are of base 2, whose power takes half the time of exp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

LEAST, MOST = 0.1, 0.9  # probabilities are clipped to these, before the first round and after every one
EPSILON = 1e-6  # of the normalisation; it matters, since both classes are small where neighbours disagree
SETTLING = (6, 16, 32)  # rounds after which settled pixels are looked for, until few enough are open
SPARSE = 0.2  # share of open pixels up to which gathering their neighbours is quicker than shifting all pixels
PATIENCE = 100  # looks for settled pixels, before all are taken as open


def mean_field(
    image: Tensor,
    probability: Tensor,
    box: Tensor | None = None,
    rounds: int = 100,
    window: int = 3,
    zeta: float = 0.1,
) -> Tensor:
    """Foreground probability after so many rounds in which every pixel asks its neighbours (sheet of MAL's code).

    q starts as clip(probability * box). In a round each class c has a_c(i) = sum_j k_ij log q_c(j) over the window, its
    centre with weight 1 and nothing beyond the border, k_ij = exp(-|I_i - I_j|^2 / (2 zeta^2)); the foreground's
    exp(a) is multiplied by the box, and q = clip(fg / (1e-6 + fg + bg)). There is no unary term: the probability only
    sets the start. Without gradient, in float32 whatever comes; MAL's target is the answer > 0.5.

    A round is monotone in every q. So a pixel at a bound is settled for good once it stays there whatever the pixels
    do that are not settled themselves; later rounds run on the open ones alone, and end where nothing moves.

    Args:
        image: (B, 3, H, W) as the network sees it, normalised by ImageNet's mean and deviation.
        probability: (B, 1, H, W) in [0, 1].
        box: (B, 1, H, W) in [0, 1], fractional where it was resized; None: everywhere 1.
        rounds: 100 in MAL's code.
        window: side of the neighbourhood in pixels, odd.
        zeta: deviation of the colour kernel in units of the normalised image; 0.1 is about 6 of 255 levels.
    Returns: (B, 1, H, W) float32 in [0.1, 0.9].
    Raises ValueError for shapes that disagree, an even window, a zeta that is not positive, or negative rounds.
    """
    if image.ndim != 4 or probability.shape != (len(image), 1, *image.shape[2:]):
        raise ValueError(
            "the mean field needs an image (B, C, H, W) and a probability (B, 1, H, W) of one size, got "
            f"{tuple(image.shape)} and {tuple(probability.shape)}; resize the image to the mask's grid"
        )
    if box is not None and box.shape != probability.shape:
        raise ValueError(f"the box is a mask of shape {tuple(probability.shape)}, got {tuple(box.shape)}")
    checked_settings(rounds, window, zeta)
    box = torch.ones_like(probability) if box is None else box
    planes = [plane.float() for plane in (image, probability, box)]
    with torch.inference_mode():  # what autograd notes of thousands of small operations costs time
        if image.device.type == "cpu":  # one object at a time stays in a core's cache, and need not wait for others
            answer = torch.full_like(planes[1], LEAST)
            for i, inside in enumerate(planes[2]):
                seen = (slice(i, i + 1), slice(None), *_window_of(inside, window // 2))
                answer[seen] = _after(rounds, *(plane[seen] for plane in planes), window=window, zeta=zeta)
        else:
            answer = _after(rounds, *planes, window=window, zeta=zeta)
    return answer.clone()  # made outside of inference mode, it may stand in a loss


def checked_settings(rounds: int, window: int, zeta: float) -> None:
    """Raises ValueError for what no mean field can be made with."""
    if rounds < 0 or window < 1 or window % 2 == 0 or not zeta > 0:
        raise ValueError(
            "a mean field has rounds >= 0, an odd window and zeta > 0, got "
            f"rounds={rounds}, window={window}, zeta={zeta}; MAL's are 100, 3 and 0.1"
        )


class MeanField(nn.Module):
    """`mean_field` as a recipe names it: (image, probability, box or None) -> foreground probability (B, 1, H, W)."""

    behaviour = 1

    def __init__(self, rounds: int = 100, window: int = 3, zeta: float = 0.1) -> None:
        super().__init__()
        checked_settings(rounds, window, zeta)
        self.rounds, self.window, self.zeta = rounds, window, zeta

    def forward(self, image: Tensor, probability: Tensor, box: Tensor | None = None) -> Tensor:
        """Shapes and units as in `mean_field`."""
        return mean_field(image, probability, box, self.rounds, self.window, self.zeta)


class Neighbours:
    """The window around every flat pixel of some images: shifts (K,) and colour weights (K, B * H * W), centre first.

    The weight of shift s at pixel i is that between i and i + s: 1 at the centre, 0 where i + s is another row's or
    another object's pixel. Behind the centre comes the half of the window that follows it and then, the other way
    round, the half before. Shifts that no two pixels have are left out.
    """

    def __init__(self, image: Tensor, window: int, zeta: float) -> None:
        objects, _, height, width = image.shape
        reach = window // 2
        steps = [(dy, dx) for dy in range(reach + 1) for dx in range(-reach if dy else 1, reach + 1)]
        steps = [(dy, dx) for dy, dx in steps if dy < height and abs(dx) < width]
        self.ahead = [dy * width + dx for dy, dx in steps]
        colours = image.transpose(0, 1).flatten(1)
        self.weights = colours.new_zeros(1 + 2 * len(steps), colours.shape[1])
        self.weights[0] = 1
        ahead, back = self.weights[1:].split(max(1, len(steps))) if steps else ([], [])
        for plane, other, s, (dy, dx) in zip(ahead, back, self.ahead, steps):
            apart = (colours[:, s:] - colours[:, :-s]).square_().sum(0)
            torch.exp(apart.mul_(-0.5 / zeta**2), out=plane[:-s])
            of_image = plane.view(objects, height, width)
            of_image[:, height - dy :] = 0
            of_image[:, :, width - dx if dx > 0 else 0 : width if dx > 0 else -dx] = 0
            other[s:] = plane[:-s]
        self.shifts = torch.tensor([0, *self.ahead, *(-s for s in self.ahead)], device=image.device)

    def places(self, at: Tensor) -> Tensor:
        """(K, m): flat pixels around the pixels `at` (m,); any pixel where there is none."""
        return (at + self.shifts[:, None]) % self.weights.shape[1]


class Rounds:
    """Rounds on probabilities with a rule that sums the logarithms of neighbours; all is written in place.

    The rule is made of three (2, n), foreground and background: it reads `logs`, begins with `constant` and writes
    `sums`.
    """

    def __init__(self, q: Tensor, constant: Tensor, rule: Callable[[Tensor, Tensor, Tensor], Callable[[], object]]):
        self.both = torch.stack([q, 1 - q])
        self._logs, self._sums, self._total = self.both.log2(), torch.empty_like(self.both), torch.empty_like(q)
        self._rule = rule(self._logs, constant, self._sums)

    def run(self, rounds: int) -> Tensor:
        """q (n,) after so many rounds more."""
        (q, rest), (object_, background) = self.both, self._sums
        one = q.new_ones(())
        for _ in range(rounds):
            self._rule()
            self._sums.exp2_()
            torch.add(object_, background, out=self._total).add_(EPSILON)
            torch.div(object_, self._total, out=q).clamp_(LEAST, MOST)
            torch.sub(one, q, out=rest)
            torch.log2(self.both, out=self._logs)
        return q.clone()


def _shifted(around: Neighbours, logs: Tensor, constant: Tensor, sums: Tensor) -> Callable[[], object]:
    """The rule for all pixels: for every shift two products, there and back, added to the centre's own logarithm."""
    terms = []
    for s, plane in zip(around.ahead, around.weights[1:]):
        terms.append((sums[:, :-s], plane[:-s], logs[:, s:]))
        terms.append((sums[:, s:], plane[:-s], logs[:, :-s]))

    def rule() -> None:
        torch.add(logs, constant, out=sums)
        for into, weight, neighbour in terms:
            into.addcmul_(weight, neighbour)

    return rule


def _gathered(places: Tensor, weights: Tensor, logs: Tensor, constant: Tensor, sums: Tensor) -> Callable[[], object]:
    """The rule for pixels that gather from each other: `places` (K, m) among them, and `weights` (K, m)."""
    terms = logs.new_empty(2, *weights.shape)
    flat, indices = terms.view(2, -1), places.flatten()

    def rule() -> None:
        torch.index_select(logs, 1, indices, out=flat)
        torch.sum(terms.mul_(weights), 1, out=sums).add_(constant)

    return rule


def _on_open(q: Tensor, at: Tensor, constant: Tensor, around: Neighbours) -> Rounds:
    """Rounds on the pixels `at` (m,) of q (n,) alone; what their settled neighbours add goes into the constant."""
    places, weights = around.places(at), around.weights[:, at]
    row = torch.full_like(q, -1, dtype=torch.int64)
    row[at] = torch.arange(len(at), device=at.device)
    rows = row[places]
    settled = q[places]
    settled = torch.stack([settled, 1 - settled]).log2_().mul_(weights * (rows < 0)).sum(1)
    rule = partial(_gathered, rows.clamp_min(0), weights * (rows >= 0))
    return Rounds(q[at], constant[:, at] + settled, rule)


def _open(before: Tensor, q: Tensor, box: Tensor, around: Neighbours) -> Tensor | None:
    """Flat pixels (m,) that can still move after a round from `before` (n,) to q (n,); None when they are many.

    They are those outside the largest set of pixels at a bound that holds itself there: each would stay in the next
    round even if all its neighbours outside the set were at the other bound. Found from the open pixels outwards: the
    round just done held the others, so only who has a neighbour that was opened is looked at again.
    """
    high = q >= MOST
    settled = (high | (q <= LEAST)) & (before == q)
    opened = (~settled).nonzero()[:, 0]
    for _ in range(PATIENCE):
        if len(opened) > SPARSE * len(q):
            return None
        if not len(opened):
            return (~settled).nonzero()[:, 0]
        near = torch.zeros_like(settled).index_fill_(0, around.places(opened).flatten(), True)
        at = near.logical_and_(settled).nonzero()[:, 0]
        places, weights, is_high = around.places(at), around.weights[:, at], high[at]
        up = torch.where(settled[places], high[places], ~is_high)  # neighbours taken to be at MOST, others at LEAST
        above, all_ = (weights * up).sum(0), weights.sum(0)
        object_ = (math.log2(LEAST) * all_ + math.log2(MOST / LEAST) * above).exp2_().mul_(box[at])
        background = (math.log2(MOST) * all_ - math.log2(MOST / LEAST) * above).exp2_()
        worst = object_ / (object_ + background + EPSILON)
        opened = at[torch.where(is_high, worst < MOST, worst > LEAST)]
        settled[opened] = False
    return None


def _window_of(box: Tensor, reach: int) -> tuple[slice, slice]:
    """Rows and columns of a box (1, H, W) and of all its neighbours; pixels outside are background in every round."""
    spans = []
    for axis in (2, 1):
        at = (box != 0).any(axis)[0].nonzero()
        first, last = (int(at[0]), int(at[-1])) if len(at) else (0, 0)
        spans.append(slice(max(0, first - reach), last + reach + 1))
    return spans[0], spans[1]


def _after(rounds: int, image: Tensor, probability: Tensor, box: Tensor, *, window: int, zeta: float) -> Tensor:
    """`mean_field` of float32 planes."""
    around = Neighbours(image, window, zeta)
    q, box = (probability * box).clamp(LEAST, MOST).flatten(), box.flatten()
    constant = torch.stack([box.log2(), torch.zeros_like(box)])  # in the exponent the box multiplies the foreground
    everywhere = Rounds(q, constant, partial(_shifted, around))
    done = 0
    for until in SETTLING:
        if until >= rounds:
            break
        before = everywhere.run(until - 1 - done)
        q, done = everywhere.run(1), until
        at = _open(before, q, box, around)
        if at is not None and len(at) <= SPARSE * len(q):
            if len(at):
                q[at] = _on_open(q, at, constant, around).run(rounds - done)
            return q.view_as(probability)
    return everywhere.run(rounds - done).view_as(probability)
