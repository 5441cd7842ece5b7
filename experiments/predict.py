"""Masks from extreme points, for people who only want masks.

    python -m experiments.predict --run RUN image.jpg --points 12,80 95,14 180,77 90,160

Writes image.mask.png (0 and 255) and image.overlay.png. From Python:

    predictor = Predictor.from_run("runs/3f2a...")
    mask = predictor(read_image("image.jpg"), [(12, 80), (95, 14), (180, 77), (90, 160)])
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from datamodules import geometry
from datamodules.clicks.points import EXTREME_KINDS, Points
from datamodules.images import read_image
from datamodules.recipe import SampleRecipe
from datamodules.views import crop_image, view_box
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
        threshold: of the probability. stretch: as in the run's evaluation.
    """

    def __init__(self, model: Interactive, recipe: SampleRecipe, threshold: float, stretch: bool = False) -> None:
        self.model, self.recipe, self.threshold, self.stretch = model, recipe, threshold, stretch

    @classmethod
    def from_run(cls, reference: str | Path) -> Predictor:
        """From a run's folder or the beginning of its hash. Raises ValueError when it is not a finished training."""
        folder = find_run(str(reference))
        node = load_node(folder)
        if node.kind == "evaluate":
            (node,) = node.parents
            folder = node.folder
        if folder.record is None:
            raise ValueError(f"run {folder.name} is not finished: train it to its end first")
        scoring = node.config["evaluation"]
        model = load_model(node, folder)
        return cls(model, sample_recipe(node.config), scoring["threshold"], scoring["stretch"])  # type: ignore[arg-type]

    def __call__(self, image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.bool_]:
        """The mask (H, W) of the object with these four extreme points (x, y), in any order, in an RGB image."""
        return self.probability(image, points) > self.threshold

    def probability(self, image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.float32]:
        """The same before the threshold: (H, W) in about [0, 1], 0 outside the box of the points."""
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


def extreme_order(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Four clicks as left, top, right, bottom, whatever order they came in. Raises ValueError for anything else."""
    if points.shape != (4, 2):
        raise ValueError(f"expected four points x,y (left, top, right, bottom of the object), got {len(points)}")
    height, width = size
    if (points < 0).any() or (points > [width - 1, height - 1]).any():
        raise ValueError(f"a point lies outside the image of {width} x {height} pixels: {points.tolist()}")
    x, y = points.T
    _, click = linear_sum_assignment(np.stack([x, y, -x, -y]))  # one click a side, also when one is extreme in two
    return points[click]


def points_in_crop(points: NDArray[np.float64], crop_box: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Clicks as whole pixels of the resized crop, cut off as in the authors' demonstration."""
    x_min, y_min, x_max, y_max = crop_box
    extent = np.array([x_max - x_min + 1, y_max - y_min + 1])
    return np.floor((points - [x_min, y_min]) * size / extent).astype(np.int64)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--run", required=True, help="a run's folder or the beginning of its hash")
    parser.add_argument("--points", nargs=4, required=True, metavar="x,y", help="the four extreme points")
    parser.add_argument("--threshold", type=float, help="of the probability; default: the run's")
    parser.add_argument("--out", type=Path, help="the mask's file; default: beside the image")
    options = parser.parse_args(arguments)
    try:
        points = [[float(number) for number in point.split(",")] for point in options.points]
    except ValueError as error:
        raise ValueError(f"points are written x,y in pixels, got {' '.join(options.points)}") from error
    image = read_image(options.image)
    predictor = Predictor.from_run(options.run)
    if options.threshold is not None:
        predictor.threshold = options.threshold
    mask = predictor(image, points)
    out = options.out or options.image.with_suffix(".mask.png")
    picture = out.with_suffix("").with_suffix(".overlay.png")
    save_picture((mask * np.uint8(255)), out)
    save_picture(overlay(image, mask, np.array(points)), picture)
    print(f"{int(mask.sum()):,} pixels: {out}, {picture}")


if __name__ == "__main__":
    one_sentence(main)
