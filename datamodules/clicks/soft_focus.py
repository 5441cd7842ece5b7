"""The Soft Focus Generator of FAIRS (Sec. 3.1), and the focus of four extreme points.

Extreme points are the foci of an n-ellipse. Its potential is lowest at the focus, inside of the object more likely than
not; turned around and cut to the points' box it is a soft focus on the object, into which corrective clicks and then
the extreme points themselves are written as Gaussians.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.clicks.guidance import STD_PER_FWHM, GaussianMap, Guidance, Size, add_gaussians, positive
from datamodules.clicks.points import EXTREME_KINDS, PointKind, Points

Normalise = Literal["crop", "box"]
Polarity = Literal["paper", "swapped"]
Box = Literal["points", "crop"]
Power = Literal["last", "first"]

NEAREST = 1e-6  # pixels: a potential of 0, where all points coincide, is this


def soft_focus(
    points: Tensor,
    valid: Tensor,
    size: Size,
    *,
    raised: Tensor | None = None,
    lowered: Tensor | None = None,
    beta: float = 5.0,
    norm_order: float = 2.0,
    fwhm: float = 10.0,
    normalise: Normalise = "crop",
    power: Power = "last",
    box: Tensor | None = None,
) -> Tensor:
    """Soft focus map psi of FAIRS (Sec. 3.1, eqs. 1 to 3) for a batch of objects with any number of extreme points.

    The paper's names: beta 5 is `beta`, sigma 10 the deviation of the Gaussians (`fwhm` is 2.35 times it), and kappa 2,
    which nothing defines, may be `norm_order`.

    psi = max(min(pihat, 1 - g(lowered)), g(raised), g(extreme points)), in this order, so that no click
    erases an extreme point.
    pihat = N(1 / pi)^beta * B (eq. 1), with pi the sum of the distances to the extreme points, N the stretch to [0, 1]
    and B the points' box; g is `gaussian_map`. Eq. 2 is printed with a stray argument; this is its sensible reading.
    The paper does not stretch psi again, and neither do we.

    Args:
        points: (B, K, 2) as (x, y) in pixels of the crop of this size (H, W), extreme points and clicks.
        valid, raised, lowered: (B, K) bool: which of them are extreme points, clicks that raise a bump and clicks that
            dig a hole; anything else is padding.
        beta: how fast the focus decays (5).
        norm_order: of the norm of the distances in pi, 1 to infinity.
        fwhm: of the Gaussians, full width at half maximum in pixels; see `gaussian_map` for the paper's sigma.
        normalise: N sees the whole `crop`, as printed, or the `box` alone.
        power: beta comes `last`, after N, as printed; `first` is N((1 / pi)^beta), a wider focus: inside of a typical
            box it is 0.49 on average, where the printed one is 0.31.
        box: (B, 4) xyxy in pixels of the crop, both ends inclusive; without it the box of each object's extreme points.
    Returns: (B, 1, H, W) float32 in [0, 1]; without extreme points only what clicks raise.
    """
    pi = potential(points, valid, size, norm_order).clamp_(min=NEAREST)
    inside_y, inside_x = _lines(_box_of(points, valid) if box is None else box, valid, size)
    low, high = pi, pi
    if normalise == "box":
        outside = ~(inside_y & inside_x)
        low, high = pi.masked_fill(outside, math.inf), pi.masked_fill(outside, -math.inf)
    low, high = low.amin((2, 3), keepdim=True), high.amax((2, 3), keepdim=True)
    low, high = (torch.where(extreme.isfinite(), extreme, NEAREST) for extreme in (low, high))  # a box beyond the crop
    # N takes any factor away: with 1 at the focus, no power over- or underflows
    before, after = (1.0, beta) if power == "last" else (beta, 1.0)
    span = (1 - (low / high) ** before).clamp_(min=torch.finfo(torch.float32).tiny)
    focus = torch.div(low, pi, out=pi).pow_(before).sub_(1).div_(span).add_(1)
    focus.clamp_(min=0).pow_(after)  # outside of a box that alone is stretched N is below 0
    focus.mul_(inside_y.float()).mul_(inside_x.float())
    if lowered is not None and _may_hold(lowered):
        holes = add_gaussians(torch.zeros_like(focus), points, lowered[:, None], fwhm * STD_PER_FWHM)
        focus = torch.minimum(focus, 1 - holes)
    for drawn in (raised, valid):
        if drawn is not None:
            add_gaussians(focus, points, drawn[:, None], fwhm * STD_PER_FWHM)
    return focus


def potential(points: Tensor, valid: Tensor, size: Size, norm_order: float = 2.0) -> Tensor:
    """Potential pi of an n-ellipse (Sec. 3.1): the sum of a pixel's distances to its foci; convex, in pixels.

    Args:
        points, valid: (B, K, 2) as (x, y) in pixels of the crop of this size (H, W), and (B, K), False at padding.
        norm_order: of the distances' norm.
    Returns: (B, 1, H, W) float32; 0 without foci.
    """
    if points.device.type == "cpu":  # elsewhere asking would wait for the device
        points, valid = points[:, used := valid.any(0)], valid[:, used]
    # an offset of 0 in both directions takes padding out of the sum
    x = torch.arange(size[1], device=points.device, dtype=torch.float32) - points[:, :, 0:1].float()
    y = torch.arange(size[0], device=points.device, dtype=torch.float32) - points[:, :, 1:2].float()
    x, y = (torch.where(valid[..., None], offset, 0.0).abs_() for offset in (x, y))
    if norm_order == 2:
        x, y = x.square_(), y.square_()
    pi = torch.zeros(len(points), 1, *size, device=points.device)
    distance = torch.empty_like(pi)
    x, y = x.contiguous(), y.contiguous()
    for k in range(points.shape[1]):  # K is small: never holds K maps at once
        columns, rows = x[:, k, None, None, :], y[:, k, None, :, None]
        if norm_order == 2:
            pi += torch.add(rows, columns, out=distance).sqrt_()
        else:  # the longer offset as a factor: no power overflows
            longer, shorter = torch.maximum(rows, columns), torch.minimum(rows, columns)
            ratio = shorter / longer.clamp(min=NEAREST)
            pi += longer * (1 + ratio**norm_order) ** (1 / norm_order)
    return pi


class SoftFocus(Guidance):
    """FAIRS' guidance as a module: one channel for any number of extreme points and clicks; see `soft_focus`.

    Args:
        fwhm, std: the width of the Gaussians, given as one of the two; `std` is the paper's word, `fwhm` DEXTR's code.
        beta, norm_order, normalise, power: see `soft_focus`.
        polarity: whose clicks raise a bump. `paper`: eq. 3 raises at false positives, so negative clicks, and eq. 2
            lowers at false negatives, so positive ones, the reverse of "foreground is high"; each is then visible, as
            the false positives outside of the box are, where pihat is 0. `swapped`: positive clicks raise.
        box: B is the box of the extreme points as they are `given`, noise and all; or of `crop`, the box that the crop
            was made of, which a lost extreme point does not shrink (the paper does not say).
        relax: the margin around that box, in pixels of the image; only for `box: crop`.

    Clicks of other kinds are not drawn.
    """

    behaviour = 2  # 2: eq. 1 as printed, normalised before the power
    channels: ClassVar[int] = 1

    def __init__(
        self,
        fwhm: float | None = None,
        std: float | None = None,
        beta: float = 5.0,
        norm_order: float = 2.0,
        normalise: Normalise = "crop",
        power: Power = "last",
        polarity: Polarity = "paper",
        box: Box = "points",
        relax: float | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("normalise", normalise, Normalise),
            ("power", power, Power),
            ("polarity", polarity, Polarity),
            ("box", box, Box),
        ):
            if value not in get_args(known):
                raise ValueError(f"{name} of a soft focus is one of {', '.join(get_args(known))}, got {value!r}")
        if not norm_order >= 1:
            raise ValueError(f"the norm of a soft focus is of order 1 or more, up to .inf, got {norm_order}")
        if box == "crop" and relax is None:
            raise ValueError("box: crop needs the crop's margin as `relax`, in pixels of the image")
        self.fwhm = GaussianMap(fwhm=fwhm, std=std).fwhm
        self.beta = positive("beta", beta)
        self.norm_order = norm_order
        self.normalise = normalise
        self.power = power
        self.polarity = polarity
        self.box = box
        self.relax = relax or 0.0

    def blank(self, objects: int, size: Size, device: torch.device | str | None = None) -> Tensor:
        return torch.zeros(objects, 1, *size, device=device)

    def add(self, maps: Tensor, points: Points) -> Tensor:
        raise ValueError(
            "a soft focus depends on all of its clicks at once and cannot be added to; "
            "call the guidance with all clicks"
        )

    def forward(self, points: Points, size: Size) -> Tensor:
        raised, lowered = PointKind.NEGATIVE, PointKind.POSITIVE
        if self.polarity == "swapped":
            raised, lowered = lowered, raised
        return soft_focus(
            points.xy,
            points.of(*EXTREME_KINDS).valid,
            size,
            raised=points.kinds == raised,
            lowered=points.kinds == lowered,
            beta=self.beta,
            norm_order=self.norm_order,
            fwhm=self.fwhm,
            normalise=self.normalise,
            power=self.power,
            box=box_without_margin(points.scale, size, self.relax) if self.box == "crop" else None,
        )


def box_without_margin(scale: Tensor, size: Size, relax: float) -> Tensor:
    """(B, 4) xyxy of the box that crops of this size (H, W) were made of, in pixels of the crop.

    Args:
        scale: (B, 2), crop pixels per pixel of the image, along x and y.
        relax: the margin around the box, in pixels of the image.
    """
    margin = relax * scale.float() - 0.5 + 1e-3  # to the outer edge of the box's pixels; a bit against rounding
    far = scale.new_tensor([size[1] - 1, size[0] - 1], dtype=torch.float32)
    return torch.cat([margin, far - margin], dim=1)


def _box_of(points: Tensor, valid: Tensor) -> Tensor:
    """(B, 4) xyxy of each object's valid points; inside out without any."""
    points, drawn = points.float(), valid[..., None]
    least, most = torch.where(drawn, points, math.inf), torch.where(drawn, points, -math.inf)
    nothing = points.new_full((len(points), 1, 2), math.inf)  # so that K may be 0
    return torch.cat([torch.cat([least, nothing], 1).amin(1), torch.cat([most, -nothing], 1).amax(1)], dim=1)


def _lines(box: Tensor, valid: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """(B, 1, H, 1) and (B, 1, 1, W) bool: rows and columns with their middle in the box; at least one of a thin box."""
    inside = []
    for axis, length in ((1, size[0]), (0, size[1])):
        low, high = box[:, axis, None], box[:, axis + 2, None]
        middle = ((low + high) / 2).round()
        line = torch.arange(length, device=box.device)
        within = (line >= torch.minimum(low.ceil(), middle)) & (line <= torch.maximum(high.floor(), middle))
        inside.append(within & valid.any(1, keepdim=True))
    return inside[0][:, None, :, None], inside[1][:, None, None, :]


def _may_hold(drawn: Tensor) -> bool:
    """Whether any click is drawn; elsewhere than on a CPU asking costs more than drawing none."""
    return drawn.device.type != "cpu" or bool(drawn.any())


def focus(points: NDArray) -> NDArray[np.float64]:
    """The focus of four points, where their potential is least: their geometric median. (N, 4, 2) -> (N, 2).

    Four points have it in closed form: the crossing of the diagonals where they are the corners of a convex
    quadrilateral, else the point that lies between the others. So it is the best of the points and of the crossings of
    lines through two and two of them, exact but for rounding. Of several foci, of points on one line, their mean.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 3 or points.shape[1:] != (4, 2):
        raise ValueError(f"a focus is that of four extreme points, (N, 4, 2), got {points.shape}")
    candidates = [points]
    for i, j in combinations(range(1, 4), 2):
        (other,) = {1, 2, 3} - {i, j}
        candidates.append(_crossing(points[:, 0], points[:, other], points[:, i], points[:, j])[:, None])
    places = np.concatenate(candidates, axis=1)  # (N, 7, 2)
    distances = np.linalg.norm(places[:, :, None] - points[:, None], axis=-1).sum(axis=2)
    least = distances.min(axis=1, keepdims=True)
    best = (distances <= least * (1 + 1e-12))[..., None]
    return np.asarray(np.where(best, places, 0).sum(axis=1) / best.sum(axis=1))


def _crossing(a: NDArray, b: NDArray, c: NDArray, d: NDArray) -> NDArray[np.float64]:
    """Where the lines through a and b and through c and d meet, each (N, 2); a itself where they do not."""
    along, across, offset = b - a, d - c, c - a
    turn = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
    part = offset[:, 0] * across[:, 1] - offset[:, 1] * across[:, 0]
    return np.asarray(a + np.divide(part, turn, out=np.zeros_like(turn), where=turn != 0)[:, None] * along)
