"""AP of many detections beside the library's own time, and what an evaluation by instances holds in memory."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments.evaluation.detection_files import COLUMNS, read_detections, read_truth, write_detections
from experiments.evaluation.instance_scorer import InstanceScorer
from experiments.evaluation.rows import RowWriter, merge_rows, read_rows
from lightning_modules.metrics.average_precision import coco_ap
from lightning_modules.networks.detections import Detections
from tests.bench.measure import Figure, apart

SIZE = (120, 160)
CATEGORIES = 80
FEW, MANY = 100, 1_000  # images
DETECTIONS = 100  # of an image


def drawn_masks(count: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    """Ellipses of all sizes, as compressed run lengths."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = []
    for _ in range(count):
        across, down, half_x, half_y = draw.random(4) * (SIZE[1], SIZE[0], 40, 30) + (0, 0, 2, 2)
        inside = np.square((x - across) / half_x) + np.square((y - down) / half_y) <= 1
        encoded = coco_mask.encode(np.asfortranarray(inside, np.uint8))
        masks.append({"size": list(SIZE), "counts": encoded["counts"].decode()})
    return masks


def drawn_files(folder: Path, images: int, detections: int = DETECTIONS, objects: int = 7) -> tuple[Path, Path]:
    """Truth and results of so many images, as COCO val2017 has them: seven objects and a hundred detections each."""
    draw = np.random.default_rng(0)
    stock = drawn_masks(500, draw)
    areas = [int(coco_mask.area(mask)) for mask in stock]
    tree: dict[str, list] = {
        "images": [{"id": k, "height": SIZE[0], "width": SIZE[1]} for k in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CATEGORIES + 1)],
        "annotations": [],
    }
    found = []
    for image in range(images):
        for number in range(max(objects, detections)):
            which, category = int(draw.integers(len(stock))), int(draw.integers(1, CATEGORIES + 1))
            one = {"image_id": image, "category_id": category, "segmentation": stock[which]}
            if number < objects:
                more = {"id": len(tree["annotations"]) + 1, "area": areas[which], "bbox": [0, 0, 1, 1], "iscrowd": 0}
                tree["annotations"].append({**one, **more})
            if number < detections:
                found.append({**one, "score": round(float(draw.random()), 5)})
    truth, results = folder / "truth.json", folder / "detections.json"
    truth.write_text(json.dumps(tree))
    results.write_text(json.dumps(found))
    return truth, results


def own_time(truth: Path, results: Path) -> float:
    """The library's AP of these files, as its documentation has it, in seconds of processor time."""
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(str(truth))
        evaluation = COCOeval(annotated, annotated.loadRes(str(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return time.process_time() - started


def our_time(truth: Path, results: Path) -> float:
    """Ours, with what is checked of both files."""
    started = time.process_time()
    tree = read_truth(truth)
    coco_ap(tree, read_detections(results, tree))
    return time.process_time() - started


class Pictured:
    """As much of an evaluation's truth as a scorer asks for: images of one size, one class."""

    upload, categories, index = "", ("thing",), None

    def __init__(self, images: int) -> None:
        self.images = range(images)

    def category_id(self, label: int) -> int:
        return label + 1

    def image_id(self, place: int) -> int:
        return place


def streamed(images: int, folder: Path) -> None:
    """Rows of so many images with a hundred detections each, and detections.json from them."""
    draw = np.random.default_rng(0)
    masks = torch.from_numpy(np.stack([coco_mask.decode(mask) > 0 for mask in drawn_masks(DETECTIONS, draw)]))
    found = Detections(torch.linspace(1, 0.1, DETECTIONS), torch.zeros(DETECTIONS, dtype=torch.int64), masks)
    scorer = InstanceScorer(None, Pictured(images), [0], {}, folder)  # type: ignore[arg-type]
    scorer.pictured = set()
    part = RowWriter(folder, 0, COLUMNS)
    for place in range(images):
        part.write(scorer.rows_of_image(0, place, SIZE, found))
    part.close()
    write_detections(folder / "detections.json", read_rows(merge_rows(folder, images, 1)))


def peak(images: int, scratch: Path) -> float:
    """MiB by which the memory's peak rises while so many images are shown and their detections written."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return float(apart(lambda: streamed(images, Path(folder)))["peak"])


def growth(score: Callable[[Path, Path], float], few: int, many: int, scratch: Path) -> float:
    """MiB that reading and scoring the files of a thousand images more takes, from the peaks of few and of many."""
    peaks = []
    for images in (few, many):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            files = drawn_files(Path(folder), images)
            peaks.append(float(apart(lambda: score(*files))["peak"]))  # noqa: B023 called before the next ones
    return 1_000 * (peaks[1] - peaks[0]) / max(many - few, 1)


def instance_figures(scratch: Path, images: int) -> Iterator[Figure]:
    """Our AP beside pycocotools', each once: they take minutes; then memory of few and of many images.

    Showing images and writing what is found takes the same memory for any number of them. AP does not: pycocotools
    holds all detections, and what it matched on each image.
    """
    few, many = min(FEW, images), min(MANY, images)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = drawn_files(Path(folder), images)
        own, ours = own_time(*files), our_time(*files)
    yield Figure(
        f"AP of {images:,} images x {DETECTIONS} detections",
        ours / own,
        "of pycocotools' own time",
        target=1.1,
        reference=f"pycocotools from files {own:.1f} s",
        ratio=ours / own,
        note=f"{ours:.1f} s, files checked",
    )
    low, high = peak(few, scratch), peak(many, scratch)
    yield Figure(
        f"evaluation by instances until detections.json is there, {few:,} to {many:,} images",
        high - low,
        "MiB more",
        target=8,
        reference=f"{few:,} images: {low:.1f} MiB",
        note=f"peak of {many:,} images: {high:.1f} MiB, {many * DETECTIONS:,} detections",
    )
    ours, own = (growth(score, few, many, scratch) for score in (our_time, own_time))
    yield Figure(
        f"AP from files, each 1,000 images x {DETECTIONS} detections",
        ours,
        "MiB more",
        target=300,
        reference=f"pycocotools from files {own:.0f} MiB",
        note="it grows with images: all detections are held",
    )
