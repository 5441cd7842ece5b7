"""Guidance: what the network sees of the clicks, drawn on the device for a whole batch.

The functions are pure: points (B, K, 2) as (x, y) in pixels of the crop, valid (B, K) False at padding, a map
(B, 1, H, W) out. The modules are what recipes name: they sort the clicks by kind into channels, and draw further clicks
into maps that exist. A map is the maximum of its clicks' Gaussians or the minimum of their distances, so clicks drawn
one by one or all at once, in any order, give the same bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from datamodules.clicks.points import PointKind, Points

Tail = Literal["plateau", "zero"]
Size = tuple[int, int]

NORMAL_PEAK = 1 / math.sqrt(2 * math.pi)  # of a normal density, times its deviation
UNDERFLOW = 104.0  # exp(-104) is 0 in single precision
STD_PER_FWHM = 1 / math.sqrt(8 * math.log(2))


def gaussian_map(points: Tensor, valid: Tensor, size: Size, fwhm: float = 10.0, *, stretch: bool = False) -> Tensor:
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
    guidance = _filled(len(points), 1, size, 0.0, points.device)
    guidance = add_gaussians(guidance, points, valid[:, None], fwhm * STD_PER_FWHM)
    return min_max_scaled(guidance) if stretch else guidance


def truncated_gaussian_map(
    points: Tensor,
    valid: Tensor,
    size: Size,
    std: float = 10.0,
    radius: float = 20.0,
    tail: Tail = "plateau",
    amplitude: float = 25.0,
) -> Tensor:
    """Guidance map of ITIS: `amplitude` times a normal density of the distance to the nearest click, cut at `radius`.

    Args:
        points, valid, size: as for `gaussian_map`.
        std, radius: in pixels of the crop; 10 and 20 in the paper.
        tail: what lies `radius` pixels and more from every click. The paper sets it to zero; the authors' code clamps
            the distance instead, so that a plateau of 0.13498 remains, which the released weights saw.
        amplitude: 25 brings the peak to 0.99736, in the authors' code; the paper does not name it.
    Returns: (B, 1, H, W); the tail's value everywhere without clicks.
    """
    encoder = TruncatedGaussians(std, radius, tail, amplitude)
    return encoder.draw(_filled(len(points), 1, size, encoder.far, points.device), points, valid[:, None])


def distance_map(points: Tensor, valid: Tensor, size: Size, truncate: float = 255.0) -> Tensor:
    """Distance to the nearest click, cut at `truncate` pixels and divided by it: the map of iFCN (DEXTR, Sec. 4.1).

    DEXTR's paper does not say where it cuts; 255 is iFCN's value and that of ITIS' code. Returns (B, 1, H, W) in
    [0, 1]; 1 without clicks.
    """
    return _add_distances(_filled(len(points), 1, size, 1.0, points.device), points, valid[:, None], truncate)


class Guidance(nn.Module, ABC):
    """A guidance encoder: the clicks of a batch of objects -> maps (B, `channels`, H, W), float32."""

    channels: ClassVar[int] = 1

    @abstractmethod
    def blank(self, objects: int, size: Size, device: torch.device | str | None = None) -> Tensor:
        """The maps (objects, `channels`, H, W) without clicks."""

    @abstractmethod
    def add(self, maps: Tensor, points: Points) -> Tensor:
        """Draw more clicks into maps that the caller owns: they are changed in place and returned.

        Clicks that are drawn again change nothing; `points.since(k)` are those behind the first k.
        """

    def forward(self, points: Points, size: Size) -> Tensor:
        """All clicks on crops of `size` (H, W)."""
        return self.add(self.blank(len(points.xy), size, points.xy.device), points)


class ClickMaps(Guidance):
    """One map for each group of kinds. A subclass says how a click is drawn, and possibly which kinds share a map.

    Clicks of kinds in no group are not drawn.
    """

    groups: ClassVar[tuple[tuple[PointKind, ...], ...]] = (tuple(kind for kind in PointKind if kind >= 0),)
    far: float = 0.0  # of a pixel without clicks

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.channels = len(cls.groups)

    @abstractmethod
    def draw(self, maps: Tensor, xy: Tensor, drawn: Tensor) -> Tensor:
        """Into maps (B, C, H, W), in place: the clicks xy (B, K, 2), each into the channels of `drawn` (B, C, K)."""

    def blank(self, objects: int, size: Size, device: torch.device | str | None = None) -> Tensor:
        return _filled(objects, self.channels, size, self.far, device)

    def add(self, maps: Tensor, points: Points) -> Tensor:
        if maps.shape[:2] != (len(points.xy), self.channels):
            raise ValueError(
                f"{type(self).__name__} draws {len(points.xy)} objects into maps (B, C, H, W) of {self.channels} "
                f"channels, got maps of shape {tuple(maps.shape)}; begin with blank()"
            )
        return self.draw(maps, points.xy, torch.stack([points.of(*group).valid for group in self.groups], dim=1))


SIGNS = ((PointKind.NEGATIVE,), (PointKind.POSITIVE,))  # channels in the order of ITIS' released code


class GaussianMap(ClickMaps):
    """DEXTR's map as a module; see `gaussian_map`. Its width is given as `fwhm` or as `std`, not both."""

    def __init__(self, fwhm: float | None = None, std: float | None = None, stretch: bool = False) -> None:
        super().__init__()
        if fwhm is not None and std is None:
            self.fwhm = positive("fwhm", fwhm)
        elif std is not None and fwhm is None:
            self.fwhm = positive("std", std) / STD_PER_FWHM
        else:
            raise ValueError(f"a Gaussian map needs either fwhm or std, got fwhm={fwhm} and std={std}")
        self.stretch = stretch

    def draw(self, maps: Tensor, xy: Tensor, drawn: Tensor) -> Tensor:
        return add_gaussians(maps, xy, drawn, self.fwhm * STD_PER_FWHM)

    def add(self, maps: Tensor, points: Points) -> Tensor:
        if self.stretch:  # one more click can move the maximum that all the others were divided by
            raise ValueError(
                "a stretched Gaussian map depends on all of its clicks at once and cannot be added to; "
                "call the guidance with all clicks, or set stretch: false"
            )
        return super().add(maps, points)

    def forward(self, points: Points, size: Size) -> Tensor:
        maps = super().add(self.blank(len(points.xy), size, points.xy.device), points)
        return min_max_scaled(maps) if self.stretch else maps


class TruncatedGaussians(ClickMaps):
    """ITIS' click map as a module; see `truncated_gaussian_map`. All clicks share one map."""

    def __init__(
        self, std: float = 10.0, radius: float = 20.0, tail: Tail = "plateau", amplitude: float = 25.0
    ) -> None:
        super().__init__()
        if tail not in get_args(Tail):
            raise ValueError(f"the tail of a truncated Gaussian is one of {', '.join(get_args(Tail))}, got {tail!r}")
        self.std, self.radius = positive("std", std), positive("radius", radius)
        self.peak = positive("amplitude", amplitude) * NORMAL_PEAK / std
        self.far = self.peak * math.exp(-0.5 * (radius / std) ** 2) if tail == "plateau" else 0.0

    def draw(self, maps: Tensor, xy: Tensor, drawn: Tensor) -> Tensor:
        return add_gaussians(maps, xy, drawn, std=self.std, peak=self.peak, radius=self.radius, far=self.far)


class SignedGaussians(TruncatedGaussians):
    """ITIS' two channels: the negative clicks, then the positive ones."""

    groups = SIGNS


class DistanceMap(ClickMaps):
    """iFCN's map as a module; see `distance_map`. All clicks share one map."""

    far = 1.0

    def __init__(self, truncate: float = 255.0) -> None:
        super().__init__()
        self.truncate = positive("truncate", truncate)

    def draw(self, maps: Tensor, xy: Tensor, drawn: Tensor) -> Tensor:
        return _add_distances(maps, xy, drawn, self.truncate)


class SignedDistances(DistanceMap):
    """Two channels of distances, as in iFCN and ITIS' baseline: to the negative clicks, then to the positive ones."""

    groups = SIGNS


def _filled(objects: int, channels: int, size: Size, value: float, device: torch.device | str | None) -> Tensor:
    return torch.full((objects, channels, *size), value, dtype=torch.float32, device=device)


def positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"the {name} of a guidance map must be positive, got {value}")
    return value


def min_max_scaled(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W), each plane from its own lowest and highest value to 0 and 1."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low + 1e-10)


def _squared_offsets(xy: Tensor, drawn: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(B, 1, K, W) and (B, C, K, H): squared distances of columns and rows from each click, inf where not drawn."""
    x = torch.arange(size[1], device=xy.device, dtype=torch.float32) - xy[:, None, :, 0:1].float()
    y = torch.arange(size[0], device=xy.device, dtype=torch.float32) - xy[:, None, :, 1:2].float()
    return x.square_(), torch.where(drawn[..., None], y.square_(), math.inf)


Strokes = Iterator[tuple[Tensor, Any, Any]]


def _strokes(maps: Tensor, xy: Tensor, drawn: Tensor, reach: float) -> Strokes:
    """Click after click, the part of the maps (B, C, H, W) to touch, as a view, and where its lines lie.

    The lines are indices into (B, C, K, H) and (B, 1, K, W), so that rows and columns combine to values of the part.
    What lies `reach` pixels off a click must keep its value. Both ways give the same bits.
    """
    return (boxes_around if maps.device.type == "cpu" else whole_planes)(maps, xy, drawn, reach)


def boxes_around(maps: Tensor, xy: Tensor, drawn: Tensor, reach: float) -> Strokes:
    """The box around each click alone: fewest pixels, and no temporary maps, which cost a CPU more than the clicks."""
    places = xy.tolist()
    for b, c, k in drawn.nonzero().tolist():
        x, y = places[b][k]
        columns, rows = _box(x, reach, maps.shape[3]), _box(y, reach, maps.shape[2])
        yield maps[b, c, rows, columns], (b, c, k, rows, None), (b, 0, k, None, columns)


def whole_planes(maps: Tensor, xy: Tensor, drawn: Tensor, reach: float) -> Strokes:
    """The k-th clicks of all objects at once: few kernels, and the device is never asked which clicks are padding."""
    every = slice(None)
    for k in range(xy.shape[1]):  # K is small: one product per click never holds K maps at once
        yield maps, (every, every, k, every, None), (every, every, k, None)


def _box(at: float, reach: float, length: int) -> slice:
    """All whole numbers of [0, length) within `reach` of `at`, and one or two more against rounding."""
    return slice(int(min(max(at - reach - 1, 0), length)), int(min(max(at + reach + 2, 0), length)))


def add_gaussians(
    maps: Tensor,
    xy: Tensor,
    drawn: Tensor,
    std: float,
    peak: float = 1.0,
    radius: float = math.inf,
    far: float = 0.0,
) -> Tensor:
    """Maximum of the maps and peak * exp(-d^2 / 2 std^2) of each click where d < radius, and `far` elsewhere."""
    rate = -0.5 / std**2
    x, y = _squared_offsets(xy, drawn, maps.shape[2:])
    # exponentials of the lines, not of their boxes: a product has the same bits however large the box is
    columns, rows = (x * rate).exp_(), (y * rate).exp_().mul_(peak)
    for part, of_rows, of_columns in _strokes(maps, xy, drawn, min(radius, math.sqrt(UNDERFLOW / -rate))):
        gaussian = rows[of_rows] * columns[of_columns]
        if radius < math.inf:
            gaussian = torch.where(y[of_rows] + x[of_columns] < radius**2, gaussian, far)
        torch.maximum(part, gaussian, out=part)
    return maps


def _add_distances(maps: Tensor, xy: Tensor, drawn: Tensor, truncate: float) -> Tensor:
    """Minimum of the maps, which are 1 at most, and d / truncate of each click."""
    x, y = _squared_offsets(xy, drawn, maps.shape[2:])
    for part, of_rows, of_columns in _strokes(maps, xy, drawn, truncate):
        torch.minimum(part, (y[of_rows] + x[of_columns]).sqrt_().div_(truncate), out=part)
    return maps
