"""What a method wants to see of an object, as values of its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.clicks.extreme import ExtremePoints
from datamodules.clicks.points import SimulatedPoints


@dataclass
class SampleRecipe:
    """What a method wants to see of an object.

    Args:
        size: the crop has size x size pixels.
        relax: margin around the object's box, in pixels of the image.
        view: `crop` on the object or the `full_image` (DEXTR's Table 3), both resized without keeping the aspect ratio;
            or a `window` of the image, which is scaled until its shorter side has `short_side` pixels (ITIS).
        short_side: see `window`; 0 for `size`.
        window: `corner` begins at the image's first pixel, or ends where the object (or void) ends when that is farther
            than `size` (ITIS' code); `random` is any window that holds the object, or as much of it as fits.
        test_view: `same` as in training, or the `whole_image`, its aspect ratio kept and one object per batch.
        long_side: whole images with a longer side than this are made smaller; 0 leaves them as they are.
        geometry: `fused`, one affine map from image to crop; or `chain`, the published steps one by one: flip and warp
            the whole float image, crop it, resize the crop. Evaluation always runs the chain, without augmentation.
        interpolation: of images in the crop's resize, or in the fused map.
        warp_interpolation: of images in the chain's flip, scale and rotate, when it is another than that.
        masks: `hard`, nearest; or `soft`: the crop of mask and void is resized linearly as in IOG's code, so that they
            are float32 of 0..1 and whoever reads them says from which value on. Points are simulated where it is > 0.5.
        void_band: pixels of the image on either side of the object's boundary that training leaves without label, as
            IOG does on COCO; the paper gives no width.
        flip, rotation, scale: probability; degrees either way; range of the factor. All drawn per object and epoch.
        train_points, test_points: what the user clicks before the first prediction.
        transforms: albumentations transforms (class_path and init_args) on the crop and its masks, after the geometry.
            They may move pixels by an affine map at most; points are simulated on the mask as they leave it.
        extras: optional fields of the Batch that a method asks for: `others`, `clean_image`.
    """

    size: int = 512
    relax: int = 50
    view: Literal["crop", "full_image", "window"] = "crop"
    short_side: int = 0
    window: Literal["corner", "random"] = "corner"
    test_view: Literal["same", "whole_image"] = "same"
    long_side: int = 0
    geometry: Literal["fused", "chain"] = "fused"
    interpolation: Literal["linear", "cubic"] = "linear"
    test_interpolation: Literal["linear", "cubic"] = "cubic"
    warp_interpolation: Literal["linear", "cubic"] | None = None
    masks: Literal["hard", "soft"] = "hard"
    void_band: int = 0
    flip: float = 0.5
    rotation: float = 20.0
    scale: tuple[float, float] = (0.75, 1.25)
    train_points: SimulatedPoints = field(default_factory=ExtremePoints)
    test_points: SimulatedPoints = field(default_factory=ExtremePoints)
    transforms: list[dict[str, Any]] = field(default_factory=list)
    extras: list[Literal["others", "clean_image"]] = field(default_factory=list)


ONLY_IN_EVALUATION = ("test_points", "test_interpolation", "test_view", "long_side")


def seen_in_training(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What of these values shapes a training."""
    return {key: value for key, value in sample.items() if key not in ONLY_IN_EVALUATION}


def seen_in_evaluation(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What of them an evaluation sees, beside its training."""
    return {key: value for key, value in sample.items() if key in ONLY_IN_EVALUATION}


def training_view_in_words(sample: Mapping[str, Any]) -> str:
    """The part of an image that training sees."""
    if sample["view"] == "window":
        short = sample["short_side"] or sample["size"]
        return f"{sample['window']} window of {sample['size']} px, the image's shorter side resized to {short} px"
    return f"{sample['size']} px, margin {sample['relax']} px of the image, {sample['view']}"


def evaluation_view_in_words(sample: Mapping[str, Any]) -> str:
    """The part of an image that an evaluation sees."""
    if sample.get("test_view") != "whole_image":
        return training_view_in_words(sample)
    long_side = sample.get("long_side")
    return f"the whole image, {f'its longer side at most {long_side} px' if long_side else 'at its own size'}"
