"""Protocols `ellipse` and `grabcut`: what a box alone says, without a network; a floor for methods of weak supervision.

    python -m experiments.evaluate --run RUN --data coco200/val2017 --protocol grabcut

RUN says how objects are shown, and which box is the user's.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.batch import Batch
from experiments.console import Choice
from experiments.evaluation.objects import opened_objects
from experiments.evaluation.oracle import Oracle, OracleScorer
from experiments.evaluation.protocols import Metrics
from experiments.evaluation.stages import load_interactive
from experiments.pictures import RGB
from experiments.runs.node import Node

ROUNDS = 5  # of grabCut, each a fit of two mixtures of colours and a cut
AROUND = 0.5  # of the box' longer side: how much of its surroundings grabCut sees


class Guess(Oracle):
    """A mask made from the image and the object's box by a rule."""

    behaviour = 1
    words = ""

    def scorer(self, node: Node, folder: Path) -> GuessScorer:  # type: ignore[override]
        """See Protocol."""
        return GuessScorer(self, load_interactive(node), opened_objects(node), node.opened, folder)

    def describe(self, metrics: Metrics, settings: Any) -> str:
        """See Protocol."""
        return f"mean IoU {100 * metrics['mean_iou']:.1f} of {self.words}, over {metrics['n']:,}"

    def choices(self, evaluation: Node) -> list[Choice]:
        """See Protocol."""
        return [Choice("mask", self.words, "no network is asked")]

    @abstractmethod
    def mask(self, image: RGB, box: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A mask (H, W) of 0 and 1 from an image and the object's box xyxy."""


class Ellipse(Guess):
    """The box filled as an ellipse."""

    words = "the ellipse in the object's box"

    def mask(self, image: RGB, box: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels whose centres lie in the ellipse that touches all sides of the box."""
        height, width = image.shape[:2]
        x_min, y_min, x_max, y_max = (float(side) for side in box)
        half_x, half_y = (x_max - x_min + 1) / 2, (y_max - y_min + 1) / 2
        x = (np.arange(width) - (x_min + x_max) / 2) / half_x
        y = (np.arange(height) - (y_min + y_max) / 2) / half_y
        return (np.square(x)[None] + np.square(y)[:, None] <= 1).astype(np.uint8)


class GrabCut(Guess):
    """OpenCV's grabCut, begun with the box (Rother et al., 2004); the box itself where it finds nothing."""

    words = f"OpenCV's grabCut from the object's box, {ROUNDS} rounds"

    def mask(self, image: RGB, box: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Cut from the box and half of its longer side around it: far away pixels say little of what is near."""
        height, width = image.shape[:2]
        x_min, y_min, x_max, y_max = (int(side) for side in box)
        margin = int(AROUND * max(x_max - x_min, y_max - y_min)) + 2
        rows = slice(max(0, y_min - margin), min(height, y_max + margin + 1))
        columns = slice(max(0, x_min - margin), min(width, x_max + margin + 1))
        inside = np.zeros((height, width), np.uint8)
        inside[y_min : y_max + 1, x_min : x_max + 1] = 1
        labels = np.where(inside[rows, columns] > 0, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        if (labels == cv2.GC_BGD).any():  # without background there is nothing to tell apart
            models = np.zeros((1, 65)), np.zeros((1, 65))
            nowhere = (0, 0, 0, 0)  # the labels say where the object may be
            cv2.setRNGSeed(0)
            window = np.ascontiguousarray(image[rows, columns][..., ::-1])
            cv2.grabCut(window, labels, nowhere, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
            found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
            if found.any():
                inside[rows, columns] = found
        return inside


class GuessScorer(OracleScorer):
    """A row per object with the IoU of what is guessed."""

    def __init__(self, guess: Guess, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.guess = guess

    def mask(self, batch: Batch, i: int, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """By the image and the box; the truth is not looked at."""
        image = self.index.read_image(self.position(int(batch.object_id[i])))
        return self.guess.mask(image, batch.box[i].cpu().numpy())
