"""What a method wants to see of an object, as values of its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.extreme import band_points, extreme_points, jittered_points


@dataclass
class PointRule:
    """How the four extreme points are simulated, in pixels of the crop.

    exact: the extreme points themselves. band: DEXTR's code, any object pixel within `pixels` of its side.
    jitter: DEXTR's paper, the extreme points moved by up to `pixels` in x and y.
    """

    rule: Literal["exact", "band", "jitter"] = "exact"
    pixels: float = 0.0

    def __call__(self, mask: NDArray, draw: np.random.Generator) -> NDArray[np.float32]:
        """(4, 2) points, left, top, right, bottom, of a non-empty (H, W) mask."""
        if self.rule == "exact":
            return extreme_points(mask)
        if self.rule == "band":
            return band_points(mask, round(self.pixels), draw)
        return jittered_points(mask, self.pixels, draw)


@dataclass
class SampleRecipe:
    """What a method wants to see of an object.

    Args:
        size: the crop is resized to size x size pixels, aspect ratio not kept.
        relax: margin around the object's box, in pixels of the image.
        view: `crop` on the object, or the `full_image` resized (DEXTR's Table 3).
        geometry: `fused`, one affine map from image to crop; or `chain`, the published steps one by one: flip and warp
            the whole float image, crop it, resize the crop. Evaluation always runs the chain, without augmentation.
        interpolation: of images; masks are nearest.
        flip, rotation, scale: probability; degrees either way; range of the factor. All drawn per object and epoch.
        train_points, test_points: see PointRule.
        transforms: albumentations transforms (class_path and init_args) on the crop and its masks, after the geometry.
            They may move pixels by an affine map at most; points are simulated on the mask as they leave it.
        extras: optional fields of the Batch that a method asks for: `others`, `clean_image`.
    """

    size: int = 512
    relax: int = 50
    view: Literal["crop", "full_image"] = "crop"
    geometry: Literal["fused", "chain"] = "fused"
    interpolation: Literal["linear", "cubic"] = "linear"
    test_interpolation: Literal["linear", "cubic"] = "cubic"
    flip: float = 0.5
    rotation: float = 20.0
    scale: tuple[float, float] = (0.75, 1.25)
    train_points: PointRule = field(default_factory=PointRule)
    test_points: PointRule = field(default_factory=PointRule)
    transforms: list[dict[str, Any]] = field(default_factory=list)
    extras: list[Literal["others", "clean_image"]] = field(default_factory=list)
