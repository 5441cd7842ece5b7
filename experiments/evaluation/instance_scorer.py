"""What protocol `instances` runs: a network over whole images, a row per detection, its masks as run lengths."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from datamodules.image_data import image_evaluation_loader
from datamodules.images import read_image
from datamodules.instances import ImageBatch
from datamodules.resizing import Resizing
from experiments.composition.building import build_part
from experiments.composition.tree import Tree
from experiments.evaluation.detection_files import COLUMNS, DETECTIONS, TRUTH, read_truth, write_detections
from experiments.evaluation.instance_settings import InstanceSettings
from experiments.evaluation.rows import read_rows
from experiments.evaluation.scorer import PICTURES, Scorer
from experiments.evaluation.settings import read_settings
from experiments.evaluation.truth import Truth
from experiments.pictures import instances_on, save_picture
from lightning_modules.interactive import NotFinite
from lightning_modules.networks.detections import Detections

DRAWN = 0.3  # the score from which detections are drawn; of an image without any of these, the best one


class InstanceScorer(Scorer):
    """A row per detection; an image without any has its position alone.

    Args:
        model: `detect(batch)` gives the Detections of each image.
        truth: the images, and what they and their categories are called.
        labels: (n,) the place among the data's categories of each class that the model tells apart.
    """

    def __init__(self, model: Any, truth: Truth, labels: list[int], config: Tree, folder: Path) -> None:
        super().__init__(model, config, folder)
        self.truth, self.labels, self.index = truth, labels, truth.index
        last = self.units - 1
        self.pictured = {int(i) for i in np.linspace(0, last, min(PICTURES, self.units))}

    @property
    def units(self) -> int:
        """Images."""
        return len(self.truth.images)

    @property
    def columns(self) -> list[str]:
        """Names of a row's values."""
        return list(COLUMNS)

    @cached_property
    def category_ids(self) -> list[int]:
        """What each class of the model is called in files."""
        return [self.truth.category_id(place) for place in self.labels]

    @property
    def facts(self) -> Tree:
        """What the record says besides: the style and the limit that counted, or where results are scored instead."""
        if self.truth.upload:
            return {"upload": self.truth.upload}
        settings = read_settings(InstanceSettings, self.config["evaluation"])
        style, most = settings.counted(read_truth(self.folder / TRUTH))
        return {"scored": {"style": style, "most": most}}

    def loader(self, rank: int, processes: int) -> DataLoader:
        """One image at a time: what a network finds may hang on the grid that images of a batch share."""
        data = self.config["data"]["init_args"]
        return image_evaluation_loader(
            self.truth.images,
            build_part(Resizing, data["test_resize"]),
            batch_size=1,
            workers=data["workers"],
            rank=rank,
            processes=processes,
            multiple=data.get("multiple", 32),
        )

    def on_test_start(self) -> None:
        """Say first what is true: data that nothing can be scored against are refused before anything is detected."""
        super().on_test_start()
        if self.trainer.is_global_zero:
            self.truth.write(self.folder / TRUTH)

    def score(self, batch: ImageBatch) -> Iterator[list[Any]]:
        """Detect, encode."""
        places, sizes = batch.position.tolist(), batch.original_size.tolist()
        for i, found in enumerate(self.model.detect(batch)):
            yield from self.rows_of_image(i, places[i], tuple(sizes[i]), found)

    def rows_of_image(self, i: int, place: int, size: tuple[int, int], found: Detections) -> list[list[Any]]:
        scores, labels = found.scores.float().cpu().numpy(), found.labels.cpu().numpy()
        masks: NDArray[np.bool_] = found.masks.cpu().numpy()
        if not np.isfinite(scores).all():
            raise NotFinite(float(scores[~np.isfinite(scores)][0]), i)
        if len(masks) and masks.shape[1:] != size:
            raise ValueError(
                f"{self.truth.images.path(place)} is {size} (H, W), the network's masks of it are {masks.shape[1:]}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.labels):
            raise ValueError(f"the network tells of class {labels.max()}, and it was trained on {len(self.labels)}")
        if place in self.pictured:
            self._picture(place, size, scores, labels, masks)
        image, rows = self.truth.image_id(place), []
        for score, label, mask in zip(scores, labels, masks):
            counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
            # Seven digits: what float32 holds, whichever machine prints it.
            rows.append([place, image, self.category_ids[label], f"{score:.7g}", *size, counts])
        return rows or [[place]]

    def in_words(self, batch: ImageBatch, place: int) -> str:
        """See Scorer."""
        return f"image {self.truth.images.path(int(batch.position[place]))}"

    def _picture(self, place: int, size: tuple[int, int], scores: NDArray, labels: NDArray, masks: NDArray) -> None:
        shown = max(int((scores >= DRAWN).sum()), min(1, len(scores)))
        names = [self.truth.categories[self.labels[label]] for label in labels[:shown]]
        captions = [f"{name} {score:.2f}" for name, score in zip(names, scores)]
        picture = instances_on(read_image(self.truth.images.path(place), size), list(masks[:shown]), captions)
        save_picture(picture, self.folder / "pictures" / f"{place:07d}-instances.png")

    def finish(self, rows: Path) -> None:
        """detections.json from all rows."""
        write_detections(self.folder / DETECTIONS, read_rows(rows))
