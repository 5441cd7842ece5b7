"""A `label` node: every object through `start` and `predict`, its mask in its image, as run lengths on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from datamodules.batch import Batch
from datamodules.coco_names import Names
from datamodules.index import MaskKind, ObjectIndex
from datamodules.masks import pieces
from datamodules.objects import loader_options
from datamodules.samples import ObjectSamples
from datamodules.selection import open_objects
from experiments.composition.building import sample_recipe
from experiments.composition.tree import Tree
from experiments.console import duration
from experiments.evaluation.scorer import PICTURES, ObjectScorer, run_through
from experiments.evaluation.settings import LabelSettings, MaskSettings, as_plain, read_settings
from experiments.evaluation.stages import load_interactive
from experiments.evaluation.walk_pictures import pictured_walks, save_walks
from experiments.labelling.coco_file import write_labels
from experiments.labelling.quality import Quality, spread
from experiments.labelling.quality_page import in_one_line, warn, write_quality
from experiments.labelling.rows import Places, RemainingBatches, Summary, opened_part, parts_of
from experiments.labelling.standing import check_quadrilaterals, filled_box, filled_quadrilateral, is_thin
from experiments.pictures import overlay, save_picture
from experiments.runs.environment import is_rank_zero
from experiments.runs.folder import RunFolder
from experiments.runs.identity import answers_of, behaviour_of, data_in_evaluation
from experiments.runs.naming import LABELS
from experiments.runs.node import Kind, Made, Node
from lightning_modules.metrics.masks import object_iou

BEHAVIOUR = 2  # 2: masks are pasted as evaluation.paste says; only ITIS' recipe says other than cubic


class Labeller(ObjectScorer):
    """A mask for every object that has none yet; rows go to disk batch by batch."""

    def __init__(self, model: Any, index: ObjectIndex, config: Tree, folder: Path, done: NDArray[np.bool_]) -> None:
        super().__init__(model, index, config, folder)
        settings = read_settings(LabelSettings, config["evaluation"])
        self.paste, self.empty = settings.pasting, settings.empty
        self.done, self.known = done, int(np.count_nonzero(done))
        self.pictured = set(range(min(PICTURES, len(index))))  # the first ones: people look while it runs
        self.compared = np.asarray(index.mask_kind) != MaskKind.BOX
        walks = getattr(model, "extractor", None) is not None  # an EXITS that was taught at points
        self.walked = set(spread(index)) if walks else set()

    @property
    def columns(self) -> list[str]:
        """Names of a row's values. `iou` and `parts`, the pieces of its own mask, are None where an object has none;
        segmentation and score where its label is empty.
        """
        return ["position", "object_id", "segmentation", "area", "score", "iou", "parts", "filled"]

    def on_test_start(self) -> None:
        """Open this process' part of the rows."""
        self._file = opened_part(self.folder, self.global_rank)
        self._labelled, self._begun = 0, time.monotonic()
        self._shown = self._begun
        if self.known and self.trainer.is_global_zero:
            print(f"  {self.known:,} of {len(self.index):,} objects are labelled already", flush=True)

    def test_dataloader(self) -> DataLoader:
        """The batches that are not whole, dealt out to the processes."""
        data = self.config["data"]["init_args"]
        objects = ObjectSamples(self.index, sample_recipe(self.config), train=False, seed=data["seed"])
        batches = RemainingBatches(
            self.done, self.config["evaluation"]["batch_size"], self.trainer.global_rank, self.trainer.world_size
        )
        return DataLoader(objects, batch_sampler=batches, **loader_options(data["workers"]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Write the rows of a batch at once; every 15 seconds say how far it is."""
        rows = (dict(zip(self.columns, values)) for values in self.rows_of(batch))
        self._file.write("".join(f"{json.dumps(row)}\n" for row in rows).encode())
        self._file.flush()
        self._labelled += len(batch)
        now = time.monotonic()
        if self.trainer.is_global_zero and now - self._shown > 15:
            self._shown = now
            made = min(self._labelled * self.trainer.world_size, len(self.index) - self.known)
            rate = made / (now - self._begun)
            left = duration((len(self.index) - self.known - made) / rate)
            so_far = f"{self.known + made:,} of {len(self.index):,} objects"
            print(f"  labelled {so_far}, {rate:.1f} a second, {left} left", flush=True)

    def on_test_end(self) -> None:
        """Close the part."""
        self._file.close()

    def score(self, batch: Batch) -> Iterable[list[Any]]:
        """Predict a batch, encode its masks in threads."""
        probability = self.probabilities(batch)
        if any(self.position(key) in self.walked for key in batch.object_id.tolist()):
            similarity = self.model.similarity(batch.image, self.model.points.retrieval.layer)
            found = self.model.retrieved(batch.image, batch.clicks, batch.mask, similarity=similarity)
            save_walks(self, batch, found, similarity, self.walked, probability, self.paste.threshold)
        return self.pool.map(lambda i: self._row(batch, i, probability[i]), range(len(batch)))

    def _row(self, batch: Batch, i: int, probability: NDArray[np.float32]) -> list[Any]:
        object_id = int(batch.object_id[i])
        position = self.position(object_id)
        size = int(batch.image_size[i, 0]), int(batch.image_size[i, 1])
        window, pasted = self.paste.pasted(probability, batch, i)
        inside = pasted > self.paste.threshold
        filled = self.empty != "nothing" and (is_thin(self.index.box[position]) or not inside.any())
        mask = np.zeros(size, np.uint8, order="F")
        if filled:
            mask[:] = self._standing(batch, i, size)
            inside = mask[window] > 0
        else:
            mask[window] = inside
        iou, parts, truth = None, None, None
        if self.compared[position]:
            truth, void = self.truth(batch, i)
            iou, parts = round(object_iou(mask, truth, void), 6), pieces(truth)
        if position in self.pictured:
            picture = overlay(self.index.read_image(position), mask, *self.clicked(batch, i), truth=truth)
            save_picture(picture, self.folder / "pictures" / f"{position:07d}.png")
        if not filled and not inside.any():
            return [position, object_id, None, 0, None, iou, parts, False]
        encoded = coco_mask.encode(mask)
        area = int(coco_mask.area(encoded))
        return [
            position,
            object_id,
            {"size": encoded["size"], "counts": encoded["counts"].decode()},
            area,
            round(float(np.clip(pasted[inside], 0, 1).sum() / area), 4),
            iou,
            parts,
            filled,
        ]

    def _standing(self, batch: Batch, i: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """What stands in for an object's mask."""
        if self.empty == "box":
            return filled_box(batch.box[i].cpu().numpy(), size)
        return filled_quadrilateral(*self.clicked(batch, i), size)


class Labelling(Kind):
    """A mask for every object of a data set: labels.json, which any training takes, and pictures."""

    def identity(self, node: Node) -> Tree:
        """How masks are pasted, how the data class shows objects, precision, and the method's behaviour."""
        config = node.config
        empty = read_settings(LabelSettings, config["evaluation"]).empty
        standing = {} if empty == "nothing" else {"empty": empty}  # else runs made before it could be said stay known
        return {
            "masks": {**as_plain(read_settings(MaskSettings, config["evaluation"])), **standing},
            "sample": data_in_evaluation(config["data"]),
            "seed": config["data"]["init_args"]["seed"],
            "precision": config["trainer"]["precision"],
            "behaviour": [behaviour_of(config), BEHAVIOUR],
            **({"answers": answers} if (answers := answers_of(config["model"])) else {}),
        }

    def checked(self, node: Node) -> None:
        """See Kind."""
        if read_settings(LabelSettings, node.config["evaluation"]).empty == "quadrilateral":
            check_quadrilaterals(node)

    def reads(self, config: Tree) -> list[Any]:
        """The objects to be labelled."""
        return list(config["evaluation"]["test"])

    def files(self, node: Node) -> list[str]:
        """The masks."""
        return [LABELS]

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind: rows go on where they stopped."""
        started, data = time.perf_counter(), node.config["data"]["init_args"]
        (spec,) = node.opened["evaluation"]["test"]
        index = open_objects([spec], data["root"], data["seed"])
        done = Places.of(folder.path, len(index)).done
        left, processes = int(np.count_nonzero(~done)), None
        if left:
            labeller = Labeller(load_interactive(node), index, node.opened, folder.path, done)
            trainer = run_through(labeller, node.model.hash)
            processes = trainer.world_size
        if not is_rank_zero():
            return None
        labelled, summary = time.perf_counter() - started, Summary()
        settings, names = read_settings(LabelSettings, node.config["evaluation"]), Names.of(index, spec, data["root"])
        about = {
            "run": node.hash,
            "data": spec,
            "method": node.config.get("method"),
            "parents": node.parent_hashes,
            "threshold": settings.threshold,
            "empty": settings.empty,
        }
        areas, kept = names.boxes[:, 2] * names.boxes[:, 3], pictured_walks(folder.path)
        quality = Quality(areas, index.category, len(index.categories), kept)
        rows = quality.watch(summary.watch(Places.of(folder.path, len(index)).rows()))
        write_labels(folder.path / LABELS, rows, index, about, names)
        write_quality(folder.path, quality, index, {**about, "crowds": names.num_crowds})
        figures = quality.figures
        metrics = {**summary.metrics, "objects_per_second": left / labelled if left else None}
        if figures["all"]["compared"]:
            metrics["mean_iou_class"] = figures["all"]["miou_class"]
        print(f"  {title}: {described(metrics)}", flush=True)
        print(f"  quality: {in_one_line(figures)}", flush=True)
        warn(figures, settings.threshold)
        return Made(
            metrics,
            facts={
                "scoring": as_plain(settings),
                "left_out": list(index.left_out),
                "crowds_copied": names.num_crowds,
                "devices": {"processes": processes},
            },
        )

    def tidy(self, folder: RunFolder) -> None:
        """The parts of the processes."""
        for part in parts_of(folder.path):
            part.unlink()


def described(metrics: dict[str, Any]) -> str:
    """A record's metrics in a few words."""
    made, empty, iou = metrics["n"] - metrics["empty"], metrics["empty"], metrics.get("mean_iou")
    words = [f"{made:,} masks", f"{empty:,} objects without any" if empty else ""]
    words.append("" if iou is None else f"mean IoU {100 * iou:.1f} with the objects' own masks")
    return ", ".join(filter(None, words))
