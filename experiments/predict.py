"""Masks from extreme points, or from clicks that say object or background, for people who only want masks.

    python -m experiments.predict --run RUN image.jpg --points 12,80 95,14 180,77 90,160
    python -m experiments.predict --run RUN image.jpg --positive 120,80 140,90 --negative 10,12

Which of the two, the run's recipe says: clicks where its evaluation begins without points. Writes image.mask.png (0 and
255) and image.overlay.png. From Python:

    predictor = Predictor.from_run("runs/3f2a...")
    mask = predictor(read_image("image.jpg"), [(12, 80), (95, 14), (180, 77), (90, 160)])

    session = predictor.session(read_image("image.jpg"))
    mask = session.click(120, 80)
    mask = session.click(10, 12, positive=False)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from datamodules import geometry
from datamodules.batch import Sample, collate
from datamodules.clicks.points import CORRECTIVE_KINDS, EXTREME_KINDS, NoPoints, PointKind, Points, Target
from datamodules.images import read_image
from datamodules.recipe import SampleRecipe
from datamodules.views import crop_image, size_within, view_box, whole_box
from experiments.click_benchmark import Paste
from experiments.evaluation import load_model, sample_recipe, stretched
from experiments.figures import overlay, save_picture
from experiments.nodes import load_node
from experiments.runs import find_run
from experiments.sentences import one_sentence
from lightning_modules.interactive import Interactive


class Predictor:
    """A method with the pre-processing and the threshold of its run.

    Args:
        model: any method of the suite, in eval mode.
        recipe: what it wants to see of an object.
        threshold: of the probability. stretch, paste: as in the run's evaluation; the latter is how whole images that
            were made smaller become large again.
    """

    def __init__(
        self, model: Interactive, recipe: SampleRecipe, threshold: float, stretch: bool = False, paste: str = "linear"
    ) -> None:
        self.model, self.recipe, self.threshold, self.stretch, self.paste = model, recipe, threshold, stretch, paste

    @property
    def begins_without_points(self) -> bool:
        """Whether the method takes clicks of both signs, as in its evaluation, rather than extreme points."""
        return isinstance(self.recipe.test_points, NoPoints)

    @property
    def takes_masks(self) -> bool:
        """Whether the network sees the last mask, so that it can start from one."""
        return getattr(self.model, "mask_channel", None) is not None

    @classmethod
    def from_run(cls, reference: str | Path) -> Predictor:
        """From a run's folder or the beginning of its hash. Raises ValueError when it is not a finished training."""
        folder = find_run(str(reference))
        node = load_node(folder).model
        folder = node.folder
        if folder.record is None:
            raise ValueError(f"run {folder.name} is not finished: train it to its end first")
        scoring = node.config["evaluation"]
        model = load_model(node, folder)
        return cls(
            model, sample_recipe(node.config), scoring["threshold"], scoring["stretch"],  # type: ignore[arg-type]
            scoring.get("paste", "linear"),
        )  # fmt: skip

    def session(self, image: NDArray[np.uint8], start: NDArray | None = None) -> Session:
        """One object of an RGB image, to be clicked; `start` (H, W) is a mask to begin with, object where > 0.

        Raises ValueError for a method of extreme points, and for a start that the network would not see.
        """
        return Session(self, image, start)

    def __call__(self, image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.bool_]:
        """The mask (H, W) of the object with these four extreme points (x, y), in any order, in an RGB image."""
        return self.probability(image, points) > self.threshold

    def probability(self, image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.float32]:
        """The same before the threshold: (H, W) in about [0, 1], 0 outside the box of the points."""
        if self.begins_without_points:
            raise ValueError("this run's method takes clicks, not extreme points; give --positive and --negative ones")
        clicked = extreme_order(np.asarray(points, np.float64), image.shape[:2])
        box = np.concatenate([clicked.min(0), clicked.max(0)]).astype(np.int64)
        crop_box = view_box(box, image.shape[:2], self.recipe)
        crop = crop_image(image, crop_box, self.recipe)
        scale = self.recipe.size / (crop_box[2:] - crop_box[:2] + 1)
        clicks = Points(
            torch.from_numpy(points_in_crop(clicked, crop_box, self.recipe.size))[None].float(),
            torch.tensor([EXTREME_KINDS]),
            torch.from_numpy(scale)[None].float(),
        )
        with torch.inference_mode():
            state = self.model.start(torch.from_numpy(crop).permute(2, 0, 1)[None], clicks)
            logits, _ = self.model.predict(state, clicks)
        probability = torch.sigmoid(logits.float())[0, 0].numpy()
        pasted = geometry.paste(probability, crop_box, image.shape[:2], box)
        return stretched(pasted, beyond=False) if self.stretch else pasted


class Session:
    """One object of one image, clicked until its mask is right; what the network knows of the image is kept.

    The image is shown whole, within the recipe's `long_side`, and a mask is what the click benchmark would see.
    """

    def __init__(self, predictor: Predictor, image: NDArray[np.uint8], start: NDArray | None = None) -> None:
        recipe, full = predictor.recipe, (int(image.shape[0]), int(image.shape[1]))
        if not predictor.begins_without_points:
            raise ValueError("this run's method takes four extreme points, not clicks; give --points")
        if recipe.test_view != "whole_image":
            raise ValueError("clicks need a run that is evaluated on whole images, as data.sample.test_view says")
        if start is not None and not predictor.takes_masks:
            raise ValueError("this run's network has no mask channel, so it cannot start from a mask; leave out --mask")
        if start is not None and start.shape != full:
            raise ValueError(f"the start mask needs the image's size {full}, got {start.shape}")
        size, box = size_within(full, recipe.long_side), whole_box(full)
        shown = image if size == full else geometry.resize(image, size, "area")
        nothing = np.zeros(size, np.uint8)
        to_crop = geometry.box_to_grid(box, size)
        sample = Sample(
            shown,
            nothing,
            nothing,
            *NoPoints()(Target(nothing), np.random.default_rng()),
            to_crop,
            box,
            box,
            full,
            object_id=0,
        )
        self._batch = collate([sample])
        self._model, self._points, self._state, self._full = predictor.model, self._batch.clicks, None, full
        self._paste = Paste(predictor.threshold, predictor.paste, predictor.stretch)
        self._previous: Tensor | None = None
        self.mask: NDArray[np.bool_] = np.zeros(full, bool)
        if start is not None:
            self.mask = start > 0
            previous = geometry.warp(self.mask.astype(np.uint8), to_crop, size, "nearest")
            self._previous = torch.from_numpy(previous)[None, None].float()
        self.points: list[tuple[float, float]] = []
        self.kinds: list[PointKind] = []

    def click(self, x: float, y: float, positive: bool = True) -> NDArray[np.bool_]:
        """The mask (H, W) after one more click in pixels of the image; positive means "this is object"."""
        return self.click_all([(x, y)] if positive else [], [] if positive else [(x, y)])

    def click_all(self, positive: ArrayLike, negative: ArrayLike = ()) -> NDArray[np.bool_]:
        """The mask (H, W) after several more clicks, (K, 2) each, and a single look of the network.

        Raises ValueError, and stays as it was, without any click and for one outside the image.
        """
        xy = [np.asarray(clicks, np.float64).reshape(-1, 2) for clicks in (positive, negative)]
        kinds = [kind for clicks, kind in zip(xy, CORRECTIVE_KINDS) for _ in clicks]
        clicked = inside(np.concatenate(xy), self._full)
        if not kinds:
            raise ValueError("expected at least one click, got none; give --positive x,y")
        # The outer half of a shrunken image's outermost pixel belongs to that pixel, as in the benchmark.
        last = np.array(self._batch.size[::-1]) - 1.0
        on_grid = geometry.apply(self._batch.to_crop[0].numpy(), clicked).clip(0, last)
        points = replace(
            self._points,
            xy=torch.cat([self._points.xy, torch.from_numpy(on_grid)[None].to(self._points.xy)], 1),
            kinds=torch.cat([self._points.kinds, torch.tensor([kinds])], 1),
        )
        with torch.inference_mode():
            if self._state is None:
                self._state = self._model.start(self._batch.image, points)
            logits, self._state = self._model.predict(self._state, points, self._previous)
        above = logits > self._paste.logit
        self._previous, self._points = above.float(), points
        self.points, self.kinds = [*self.points, *map(tuple, clicked.tolist())], [*self.kinds, *kinds]
        self.mask = self._paste.masks(logits, above, self._batch, [self._full])[0] > 0
        return self.mask


def inside(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Points (K, 2) that lie in an image of size (H, W). Raises ValueError when one does not."""
    height, width = size
    if not ((points >= 0) & (points <= [width - 1, height - 1])).all():
        raise ValueError(f"a point lies outside the image of {width} x {height} pixels: {points.tolist()}")
    return points


def extreme_order(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Four clicks as left, top, right, bottom, whatever order they came in. Raises ValueError for anything else."""
    if points.shape != (4, 2):
        raise ValueError(f"expected four points x,y (left, top, right, bottom of the object), got {len(points)}")
    x, y = inside(points, size).T
    _, click = linear_sum_assignment(np.stack([x, y, -x, -y]))  # one click a side, also when one is extreme in two
    return points[click]


def points_in_crop(points: NDArray[np.float64], crop_box: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Clicks as whole pixels of the resized crop, cut off as in the authors' demonstration."""
    x_min, y_min, x_max, y_max = crop_box
    extent = np.array([x_max - x_min + 1, y_max - y_min + 1])
    return np.floor((points - [x_min, y_min]) * size / extent).astype(np.int64)


def written(texts: Sequence[str]) -> list[tuple[float, float]]:
    """Points of a command line. Raises ValueError when they are not written x,y."""
    try:
        return [(float(x), float(y)) for x, y in (text.split(",") for text in texts)]
    except ValueError as error:
        raise ValueError(f"points are written x,y in pixels, got {' '.join(texts)}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--points", nargs=4, default=[], metavar="x,y", help="the four extreme points")
    parser.add_argument("--positive", nargs="+", default=[], metavar="x,y", help="clicks on the object")
    parser.add_argument("--negative", nargs="+", default=[], metavar="x,y", help="clicks on the background")
    parser.add_argument("--mask", type=Path, help="a mask to start from, for a network with a mask channel")
    parser.add_argument("--threshold", type=float, help="of the probability; default: the run's")
    parser.add_argument("--out", type=Path, help="the mask's file; default: beside the image")
    options = parser.parse_args(arguments)
    points, positive, negative = (written(texts) for texts in (options.points, options.positive, options.negative))
    if points and (positive or negative or options.mask):
        raise ValueError("expected extreme points (--points) or clicks (--positive, --negative, --mask), got both")
    image = read_image(options.image)
    start = None if options.mask is None else read_image(options.mask).max(axis=2)
    predictor = Predictor.from_run(options.run)
    if options.threshold is not None:
        predictor.threshold = options.threshold
    kinds: Sequence[int] = EXTREME_KINDS
    if positive or negative or options.mask or (predictor.begins_without_points and not points):
        session = predictor.session(image, start)
        mask = session.click_all(positive, negative)
        points, kinds = session.points, session.kinds
    else:
        mask = predictor(image, points)
    out = options.out or options.image.with_suffix(".mask.png")
    picture = out.with_suffix("").with_suffix(".overlay.png")
    save_picture((mask * np.uint8(255)), out)
    save_picture(overlay(image, mask, np.array(points), kinds), picture)
    print(f"{int(mask.sum()):,} pixels: {out}, {picture}")


if __name__ == "__main__":
    one_sentence(main)
