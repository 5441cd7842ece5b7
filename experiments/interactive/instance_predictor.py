"""Instances for people who only want instances: a finished run on an image of theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.files import whole_file
from datamodules.instances import ImageSample, collate_images
from datamodules.resizing import Resizing
from experiments.composition.building import build_part
from experiments.composition.classes import import_class
from experiments.pictures import RGB, instances_on
from experiments.runs.models import load_model
from experiments.runs.node import Node


@dataclass(frozen=True)
class FoundInstances:
    """What is found on an image, the best first: n class names and scores, and masks (n, H, W)."""

    names: list[str]
    labels: list[int]
    scores: list[float]
    masks: NDArray[np.bool_]

    def drawn_on(self, image: RGB, threshold: float) -> RGB:
        """The image with the instances of at least this score."""
        shown = sum(score >= threshold for score in self.scores)
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores)]
        return instances_on(image, list(self.masks[:shown]), captions[:shown])

    def write(self, file: Path, image: str) -> None:
        """All of them as COCO's results; `category_id` counts the run's classes from 1."""
        results = []
        for name, label, score, mask in zip(self.names, self.labels, self.scores, self.masks):
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            segmentation = {"size": [*map(int, encoded["size"])], "counts": encoded["counts"].decode()}
            named = {"image_id": 1, "file_name": image, "category_id": label + 1, "category": name}
            results.append({**named, "segmentation": segmentation, "score": float(f"{score:.7g}")})
        with whole_file(file) as partial:
            partial.write_text(json.dumps(results, indent=1) + "\n")


class InstancePredictor:
    """A method that detects instances, with its run's way of showing images.

    Args:
        model: its `detect(batch)` gives the Detections of each image; in eval mode.
        resize: the size of images at test; `multiple`: what sides of the grid are multiples of.
        classes: their names, in the order of labels.
    """

    def __init__(self, model: Any, resize: Resizing, classes: list[str], multiple: int = 32) -> None:
        self.model, self.resize, self.classes, self.multiple = model, resize, classes, multiple

    @classmethod
    def of(cls, training: Node) -> InstancePredictor:
        """From a finished training."""
        data, model = training.config["data"]["init_args"], load_model(training)
        named = ((training.folder.record or {}).get("said") or {}).get("classes") or ()
        resize: Resizing = build_part(Resizing, data["test_resize"])
        return cls(model, resize, list(named), data.get("multiple", 32))

    def __call__(self, image: RGB) -> FoundInstances:
        """All instances on an image (H, W, 3)."""
        sample = ImageSample(
            image=image,
            place=self.resize.placed((int(image.shape[0]), int(image.shape[1])), None),
            fill=self.resize.fill,
            position=0,
            masks=None,
            boxes=np.zeros((0, 4)),
            labels=np.zeros(0, np.int64),
        )
        with torch.inference_mode():
            (found,) = self.model.detect(collate_images([sample], self.multiple))
        labels = found.labels.tolist()
        names = [self.classes[k] if k < len(self.classes) else f"class {k + 1}" for k in labels]
        return FoundInstances(names, labels, found.scores.tolist(), found.masks.cpu().numpy())


def finds_instances(training: Node) -> bool:
    """Whether a run detects instances of classes by itself, without points."""
    return hasattr(import_class(training.config["model"]["class_path"]), "detect")
