"""Guidance: what the network sees of the clicks, drawn on the device for a whole batch.

Points are (B, K, 2) as (x, y) in pixels of the crop, valid (B, K) is False at padding; maps are (B, 1, H, W).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _squared_offsets(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(B, K, W) and (B, K, H): squared distances of the columns and rows from each point."""
    height, width = size
    x = torch.arange(width, device=points.device, dtype=torch.float32) - points[..., 0:1].float()
    y = torch.arange(height, device=points.device, dtype=torch.float32) - points[..., 1:2].float()
    return x.square_(), y.square_()


def gaussian_map(
    points: Tensor, valid: Tensor, size: tuple[int, int], fwhm: float = 10.0, *, stretch: bool = False
) -> Tensor:
    """Guidance map of DEXTR (Sec. 3.4): the maximum over one Gaussian per click, for a batch of objects.

    Args:
        points: (B, K, 2) as (x, y) in pixels of the crop of this size (H, W).
        valid: (B, K) bool, False at padding; an object may have no valid point.
        fwhm: full width at half maximum in pixels of the crop. The paper calls its 10 a standard deviation; the
            authors' code, which made the numbers, uses it as this width (deviation 4.25).
        stretch: scale each map to a maximum of exactly 1, as the authors' code does; it matters for clicks between
            pixels, whose Gaussian peaks below 1 on the grid.
    Returns: (B, 1, H, W) in [0, 1]; exactly 1 at a click on the pixel grid, 0 everywhere without clicks.
    """
    x, y = _squared_offsets(points, size)
    rate = -4.0 * math.log(2.0) / fwhm**2
    columns, rows = (x * rate).exp_(), (y * rate).exp_() * valid[..., None]
    guidance = points.new_zeros((len(points), *size), dtype=torch.float32)
    for k in range(points.shape[1]):  # K is small: one product per click never holds K maps at once
        torch.maximum(guidance, rows[:, k, :, None] * columns[:, k, None, :], out=guidance)
    if stretch:
        low, high = guidance.amin((1, 2), keepdim=True), guidance.amax((1, 2), keepdim=True)
        guidance = (guidance - low) / (high - low + 1e-10)
    return guidance[:, None]


def distance_map(points: Tensor, valid: Tensor, size: tuple[int, int], truncate: float = 255.0) -> Tensor:
    """Distance to the nearest click, cut at `truncate` pixels and divided by it: the map of iFCN (DEXTR, Sec. 4.1).

    DEXTR's paper does not say where it cuts; 255 is iFCN's value. Returns (B, 1, H, W) in [0, 1]; 1 without clicks.
    """
    x, y = _squared_offsets(points, size)
    squared = points.new_full((len(points), *size), truncate**2, dtype=torch.float32)
    y = torch.where(valid[..., None], y, y.new_tensor(math.inf))
    for k in range(points.shape[1]):
        torch.minimum(squared, y[:, k, :, None] + x[:, k, None, :], out=squared)
    return (squared.sqrt_() / truncate)[:, None]


class Guidance(nn.Module):
    """A guidance encoder: `forward(points, valid, size)` gives (B, `channels`, H, W) in [0, 1]."""

    channels = 1

    def forward(self, points: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
        """See the functions of this module."""
        raise NotImplementedError


class GaussianMap(Guidance):
    """DEXTR's map as a module; see `gaussian_map`. Its width is given as `fwhm` or as `std`, not both."""

    def __init__(self, fwhm: float | None = None, std: float | None = None, stretch: bool = False) -> None:
        super().__init__()
        if (fwhm is None) == (std is None):
            raise ValueError(f"a Gaussian map needs either fwhm or std, got fwhm={fwhm} and std={std}")
        self.fwhm = fwhm if std is None else std * math.sqrt(8 * math.log(2))
        self.stretch = stretch

    def forward(self, points: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
        return gaussian_map(points, valid, size, self.fwhm, stretch=self.stretch)  # type: ignore[arg-type]


class DistanceMap(Guidance):
    """iFCN's map as a module; see `distance_map`."""

    def __init__(self, truncate: float = 255.0) -> None:
        super().__init__()
        self.truncate = truncate

    def forward(self, points: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
        return distance_map(points, valid, size, self.truncate)
