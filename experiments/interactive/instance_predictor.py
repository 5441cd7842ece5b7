"""Instances for people who only want instances: a finished run on an image of theirs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules.catalog import open_index
from datamodules.coco_names import Names
from datamodules.files import whole_file
from datamodules.instances import ImageSample, collate_images
from datamodules.resizing import Resizing
from datamodules.selection import Selection
from experiments.composition.building import build_part
from experiments.composition.classes import import_class
from experiments.pictures import RGB, instances_on
from experiments.runs.models import load_model
from experiments.runs.node import Node


@dataclass(frozen=True)
class FoundInstances:
    """What is found on an image, the best first: n class names and scores, and masks (n, H, W).

    `category_ids`: what the training data call these classes in files; None for one that nobody knows.
    """

    names: list[str]
    category_ids: list[int | None]
    scores: list[float]
    masks: NDArray[np.bool_]

    def drawn_on(self, image: RGB, threshold: float) -> RGB:
        """The image with the instances of at least this score."""
        shown = sum(score >= threshold for score in self.scores)
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores)]
        return instances_on(image, list(self.masks[:shown]), captions[:shown])

    def write(self, file: Path, image: str) -> None:
        """All of them in the form of COCO's results, each with its `file_name` and the name of its `category`.

        `category_id` is that of the training data; where these cannot be opened there is none. `image_id` is 1: a
        picture of one's own has no number in any data set.
        """
        results = []
        for name, number, score, mask in zip(self.names, self.category_ids, self.scores, self.masks):
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            segmentation = {"size": [*map(int, encoded["size"])], "counts": encoded["counts"].decode()}
            named = {"image_id": 1, "file_name": image, "category": name}
            named |= {} if number is None else {"category_id": number}
            results.append({**named, "segmentation": segmentation, "score": float(f"{score:.7g}")})
        with whole_file(file) as partial:
            partial.write_text(json.dumps(results, indent=1) + "\n")


class InstancePredictor:
    """A method that detects instances, with its run's way of showing images.

    Args:
        model: its `detect(batch)` gives the Detections of each image; in eval mode.
        resize: the size of images at test; `multiple`: what sides of the grid are multiples of.
        classes: their names, in the order of labels.
        category_ids: what they are called in files, by name.
    """

    def __init__(
        self,
        model: Any,
        resize: Resizing,
        classes: list[str],
        multiple: int = 32,
        category_ids: Mapping[str, int] | None = None,
    ) -> None:
        self.model, self.resize, self.classes, self.multiple = model, resize, classes, multiple
        self.category_ids = category_ids or {}

    @classmethod
    def of(cls, training: Node) -> InstancePredictor:
        """From a finished training."""
        data, model = training.config["data"]["init_args"], load_model(training)
        named = ((training.folder.record or {}).get("said") or {}).get("classes") or ()
        resize: Resizing = build_part(Resizing, data["test_resize"])
        return cls(model, resize, list(named), data.get("multiple", 32), category_ids_of(training) if named else None)

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
        numbers = [self.category_ids.get(name) for name in names]
        return FoundInstances(names, numbers, found.scores.tolist(), found.masks.cpu().numpy())


def category_ids_of(training: Node) -> dict[str, int]:
    """The ids of a run's classes in the annotation files of its training data, by name.

    None are known where the data cannot be opened, neither where they lay nor where the environment says, or where two
    of the data sets call a class by different ids.
    """
    data = training.config["data"]["init_args"]
    for root in dict.fromkeys((data.get("root"), None)):
        with contextlib.suppress(OSError, ValueError):
            return _category_ids(data["train"], root)
    return {}


def _category_ids(specs: list[Any], root: str | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in dict.fromkeys(Selection.of(spec).name for spec in specs):
        index = open_index(name, root)
        names = Names.of(index, name, root)
        for place, category in enumerate(index.categories):
            if found.setdefault(category, names.category(place)) != names.category(place):
                return {}
    return found


def finds_instances(training: Node) -> bool:
    """Whether a run detects instances of classes by itself, without points."""
    return hasattr(import_class(training.config["model"]["class_path"]), "detect")
