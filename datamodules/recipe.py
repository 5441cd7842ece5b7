"""What a method wants to see of an object, as values of its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from datamodules.clicks.extreme import ExtremePoints
from datamodules.clicks.points import SimulatedPoints
from datamodules.views import Crop, FullImage, View, WholeImage, Window

# The views that a recipe calls by a word, and which of its other values each of them reads.
VIEWS: dict[str, tuple[type[View], dict[str, str]]] = {
    "crop": (Crop, {"relax": "relax"}),
    "full_image": (FullImage, {}),
    "window": (Window, {"short_side": "short_side", "place": "window"}),
    "whole_image": (WholeImage, {"long_side": "long_side"}),
}
VIEW_KEYS = ("view", "test_view", "relax", "short_side", "window", "long_side")
TRAINING_ONLY = (
    "train_points",
    "geometry",
    "interpolation",
    "warp_interpolation",
    "void_band",
    "flip",
    "rotation",
    "scale",
    "transforms",
)
TEST_ONLY = ("test_points", "test_interpolation")
LATER = ("supervision",)  # younger than runs that are kept: at its default it stays out of their names


@dataclass
class SampleRecipe:
    """What a method wants to see of an object.

    Args:
        size: the crop has size x size pixels.
        relax: margin around the object's box, in pixels of the image.
        view: `crop` on the object or the `full_image` (DEXTR's Table 3), both resized without keeping the aspect ratio;
            or a `window` of the image, which is scaled until its shorter side has `short_side` pixels (ITIS); or any
            other class of View.
        short_side: see `window`; 0 for `size`.
        window: `corner` begins at the image's first pixel, or ends where the object (or void) ends when that is farther
            than `size` (ITIS' code); `random` is any window that holds the object, or as much of it as fits.
        test_view: `same` as in training (the full image after windows), or the `whole_image`, its aspect ratio kept and
            one object per batch; or any other class of View.
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
        supervision: `mask`, the object's own; or `box`, all that weak supervision may see (EXITS): points are taken on
            the whole image, and the box that the four extreme ones span, filled, stands for the mask in every field of
            a sample but the full-size truth of evaluation. Unlabelled pixels follow an object's outline, so that none
            are known. At test nothing beyond the image lies in the box; in training it lies where the view shows it.
        transforms: albumentations transforms (class_path and init_args) on the crop and its masks, after the geometry.
            They may move pixels by an affine map at most; points are simulated on the mask as they leave it.
        extras: optional fields of the Batch that a method asks for: `others`, `clean_image`.
    """

    size: int = 512
    relax: int = 50
    view: View | Literal["crop", "full_image", "window"] = "crop"
    short_side: int = 0
    window: Literal["corner", "random"] = "corner"
    test_view: View | Literal["same", "whole_image"] = "same"
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
    supervision: Literal["mask", "box"] = "mask"
    transforms: list[dict[str, Any]] = field(default_factory=list)
    extras: list[Literal["others", "clean_image"]] = field(default_factory=list)

    @property
    def training_view(self) -> View:
        """What the network sees in training."""
        return views_of(vars(self))[0]

    @property
    def evaluation_view(self) -> View:
        """What the network sees at test."""
        return views_of(vars(self))[1]


def views_of(sample: Mapping[str, Any]) -> tuple[View, View]:
    """What the network sees in training and at test, by a recipe's values or the plain ones of a composed tree.

    Raises ValueError for a view that does not exist.
    """
    values = {key: sample[key] if key in sample else DEFAULTS[key] for key in VIEW_KEYS}
    training = _view(values["view"], values)
    return training, training.at_test() if values["test_view"] == "same" else _view(values["test_view"], values)


def seen_in_training(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a plain sample on which a training depends, the view as its class and what that reads."""
    values = _with_defaults(sample)
    unread = [*VIEW_KEYS, *TEST_ONLY, "warp_interpolation"]
    seen = {key: value for key, value in values.items() if key not in unread}
    if values["geometry"] == "chain":
        seen["warp_interpolation"] = values["warp_interpolation"] or values["interpolation"]
    return {**seen, "view": _named(views_of(sample)[0])}


def seen_in_evaluation(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a plain sample on which an evaluation depends, the view as its class and what that reads."""
    view = views_of(sample)[1]
    unread = [*VIEW_KEYS, *TRAINING_ONLY, *(("size", "masks", "test_interpolation") if view.whole else ())]
    seen = {key: value for key, value in _with_defaults(sample).items() if key not in unread}
    return {**seen, "view": _named(view)}


def _with_defaults(sample: Mapping[str, Any]) -> dict[str, Any]:
    """All values of a plain sample, without those LATER ones that change nothing."""
    values = {**DEFAULTS, **sample}
    return {key: value for key, value in values.items() if key not in LATER or value != DEFAULTS[key]}


def _named(view: View) -> dict[str, Any]:
    """A view by its name, one from elsewhere with its module, its `behaviour` where it says one, and what it reads."""
    kind = type(view)
    ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    behaviour = {"behaviour": kind.behaviour} if hasattr(kind, "behaviour") else {}
    return {"class": kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}", **behaviour, **view.values()}


def _view(view: Any, values: Mapping[str, Any]) -> View:
    """A view by its word, as a mapping with class_path, or made already."""
    if isinstance(view, View):
        return view
    if isinstance(view, Mapping):
        module, _, name = str(view["class_path"]).rpartition(".")
        try:
            made: View = getattr(import_module(module), name)(**(view.get("init_args") or {}))
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"no view can be made of {view}: {error}; class_path names module and class") from error
        return made
    if view not in VIEWS:
        raise ValueError(f"no view {view!r}; there are {', '.join(VIEWS)}, and classes as {{class_path: ...}}")
    kind, reads = VIEWS[view]
    return kind(**{name: values[key] for name, key in reads.items()})


def _plain(value: Any) -> Any:
    """A default as a composed tree has it."""
    if isinstance(value, SimulatedPoints):
        return {"class_path": f"{type(value).__module__}.{type(value).__name__}", "init_args": {}}
    return list(value) if isinstance(value, (tuple, list)) else value


DEFAULTS = {name: _plain(value) for name, value in vars(SampleRecipe()).items()}
