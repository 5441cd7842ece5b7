"""IOG's clicks: one inside the object at its thickest place, four outside at the corners of a loose box (Sec. 3.1).

The user clicks two opposite corners of the box and the other two follow; either diagonal gives the same four, so all
four count as clicked. Masks are (H, W) of 0 and not 0, points (x, y) in whole pixels of the mask. An empty mask raises
ValueError.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.clicks.errors import Depth, binary, pixels_of
from datamodules.clicks.extreme import tight_box
from datamodules.clicks.guidance import STD_PER_FWHM, ClickMaps, Size, add_gaussians, min_max_scaled, positive
from datamodules.clicks.points import CORRECTIVE_KINDS, Clicked, PointKind, Points, SimulatedPoints, Target

INITIAL_KINDS = (PointKind.INSIDE, PointKind.OUTSIDE)
Inside = Literal["centre", "box_centre", "none"]


def inside_point(mask: NDArray) -> NDArray[np.float32]:
    """(2,): the object's pixel farthest from everything else, the first in raster order among equals.

    What lies beyond the mask's edge is not the object, so that an object which is cut off is not clicked at the edge.
    """
    depth = Depth(binary(_not_empty(mask)))
    return depth.where(depth.squared == depth.maximum)[0].astype(np.float32)


def box_centre(mask: NDArray) -> NDArray[np.float32]:
    """(2,): the middle pixel of the object's box, the upper left of several; it may lie beside the object (Table 8)."""
    box = tight_box(_not_empty(mask))
    return ((box[:2] + box[2:]) // 2).astype(np.float32)


def outside_points(mask: NDArray, relax: float = 10.0) -> NDArray[np.float32]:
    """(4, 2): the corners of the object's box grown by `relax`: upper left, lower left, upper right, lower right.

    Args:
        relax: the paper's 10 pixels, of the crop (512) as in the authors' code; the paper does not say of what. Recipes
            scale it with the crop, and a fraction is rounded (half up), since the network only knows whole pixels.
    A corner beyond the mask is moved to x = 0, y = 0, x = W or y = H: one pixel farther than the last one on two sides
    only, as in the code.
    """
    margin = math.floor(relax + 0.5)
    x_min, y_min, x_max, y_max = tight_box(_not_empty(mask)).tolist()
    left, right = max(x_min - margin, 0), min(x_max + margin, mask.shape[1])
    top, bottom = max(y_min - margin, 0), min(y_max + margin, mask.shape[0])
    return np.array([[left, top], [left, bottom], [right, top], [right, bottom]], np.float32)


def perturbed(
    point: NDArray, mask: NDArray, radius: float, draw: np.random.Generator, stay_inside: bool = True
) -> NDArray[np.float32]:
    """A pixel at most `radius` from the point, all equally likely: what a less careful user clicks (Sec. 4.5).

    Drawn from the object's pixels, or from all pixels of the mask where it need not stay inside; the paper leaves this
    open. The point itself where there are none.
    """
    x, y = (int(v) for v in point)
    reach = math.floor(radius)
    left, top = max(x - reach, 0), max(y - reach, 0)
    part = binary(mask[top : y + reach + 1, left : x + reach + 1])
    rows, columns = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    near = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    pixels = pixels_of(near & part if stay_inside else near, (left, top))
    return pixels[draw.integers(len(pixels))].astype(np.float32) if len(pixels) else np.array([x, y], np.float32)


class InsideOutside(SimulatedPoints):
    """IOG's five points: inside, and the corners (x_min, y_min), (x_min, y_max), (x_max, y_min), (x_max, y_max).

    Args:
        relax: of the box, in pixels of the crop; see `outside_points`.
        inside: `centre`, the object's thickest place; `box_centre`, of its box, for data without masks (Table 8, B and
            C); `none`, the corners alone (A and D).
        radius: the inside point moves by up to so many pixels of the crop; 0, 10, 30 and 50 in Table 7. A value for
            training; the authors' code has none.
        stay_inside: a moved point must lie on the object; otherwise anywhere on the crop. Our choice, see `perturbed`.
    """

    def __init__(
        self, relax: float = 10.0, inside: Inside = "centre", radius: float = 0.0, stay_inside: bool = True
    ) -> None:
        if inside not in get_args(Inside):
            raise ValueError(f"the inside point is one of {', '.join(get_args(Inside))}, got {inside!r}")
        if not (relax >= 0 and radius >= 0):
            raise ValueError(f"relax and radius of IOG's points must be at least 0, got {relax} and {radius}")
        self.relax = relax
        self.inside = inside
        self.radius = radius
        self.stay_inside = stay_inside

    def __call__(self, target: Target, draw: np.random.Generator) -> Clicked:
        outside = outside_points(target.mask, self.relax)
        if self.inside == "none":
            return with_kinds(None, outside)
        point = inside_point(target.mask) if self.inside == "centre" else box_centre(target.mask)
        if self.radius > 0:
            point = perturbed(point, target.mask, self.radius, draw, self.stay_inside)
        return with_kinds(point, outside)


def with_kinds(inside: NDArray | None, outside: NDArray) -> Clicked:
    """The inside point (2,), where there is one, then the outside points (4, 2), and their kinds."""
    points = outside if inside is None else np.concatenate([inside[None], outside])
    kinds = [PointKind.INSIDE] * (len(points) - len(outside)) + [PointKind.OUTSIDE] * len(outside)
    return points.astype(np.float32), np.array(kinds, np.int64)


class InsideOutsideMaps(ClickMaps):
    """IOG's two channels: the inside point with all positive clicks, the outside points with all negative ones.

    A channel is the maximum of its clicks' Gaussians, 0 at pixels far from all of them.

    Args:
        fwhm: full width at half maximum in pixels of the crop; DEXTR's, whose paper calls it a deviation.
        peak: of a Gaussian; 255 as in the authors' code, which feeds RGB of 0..255 beside it.
        stretch: as in the authors' code, the initial maps are scaled to 0..`peak`, over both channels at once. It only
            matters where no click is on a pixel of the crop or where no pixel is far from all clicks.
        whole_numbers: as in the authors' code, which keeps them as bytes, all maps of an object are cut to whole
            numbers from its first corrective click on.
    """

    groups: ClassVar[tuple[tuple[PointKind, ...], ...]] = (
        (PointKind.INSIDE, PointKind.POSITIVE),
        (PointKind.OUTSIDE, PointKind.NEGATIVE),
    )

    def __init__(
        self, fwhm: float = 10.0, peak: float = 255.0, stretch: bool = False, whole_numbers: bool = False
    ) -> None:
        super().__init__()
        self.fwhm, self.peak = positive("fwhm", fwhm), positive("peak", peak)
        self.stretch, self.whole_numbers = stretch, whole_numbers

    def draw(self, maps: Tensor, xy: Tensor, drawn: Tensor) -> Tensor:
        return add_gaussians(maps, xy, drawn, std=self.fwhm * STD_PER_FWHM, peak=self.peak)

    def add(self, maps: Tensor, points: Points) -> Tensor:
        """See Guidance; clicks may come one by one or together. Stretched maps take corrective clicks only."""
        if self.stretch and bool(points.of(*INITIAL_KINDS).valid.any()):
            raise ValueError(
                "stretched maps take corrective clicks only, since the initial ones decide how they are stretched; "
                "call the guidance with all clicks, or add points.since(those that were drawn)"
            )
        maps = super().add(maps, points)
        if self.whole_numbers:
            corrected = points.of(*CORRECTIVE_KINDS).valid.any(1)[:, None, None, None]
            maps.copy_(torch.where(corrected, maps.trunc(), maps))
        return maps

    def forward(self, points: Points, size: Size) -> Tensor:
        maps = self.blank(len(points.xy), size, points.xy.device)
        maps = super().add(maps, points.of(*INITIAL_KINDS))
        if self.stretch:
            maps = self.peak * min_max_scaled(maps.flatten(1, 2)[:, None]).view_as(maps)  # both channels as one map
        return self.add(maps, points.of(*CORRECTIVE_KINDS))


class OutsideMaps(InsideOutsideMaps):
    """The outside points and all negative clicks, one channel: what a box says without a click inside (Table 8, D)."""

    groups = ((PointKind.OUTSIDE, PointKind.NEGATIVE),)


def _not_empty(mask: NDArray) -> NDArray:
    if not mask.any():
        raise ValueError(
            f"inside and outside points need a non-empty mask, got an empty one of size {mask.shape}; "
            "filter empty objects in the reader"
        )
    return mask
