"""Average precision of instance masks: COCO's by pycocotools, LVIS' by hotcoco, whose traps are stepped around.

Truth and results are trees as COCO's files hold them: `images`, `annotations` and `categories`, and a list of
{image_id, category_id, segmentation, score}, masks as compressed run lengths. What is counted is the mask: a `bbox` of
a result is passed over, and an annotation's own `area` says whether an object is small.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hotcoco
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Entry = Mapping[str, Any]

AREAS = ("", "_small", "_medium", "_large")  # as both libraries count them: below 32 and 96 pixels squared
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
AT_ONCE = 255  # masks that pycocotools 2.0.11 measures in one call under NumPy 2: more overflow a byte
PARTS = 8  # of the categories, counted one after the other: pycocotools keeps what it matched on every image
COCO_MOST, LVIS_MOST = 100, 300  # detections, see `coco_ap` and `lvis_ap`


class AveragePrecision(NamedTuple):
    """`overall`: ap, ap50, ap75, ap_small, ..., ar, ar_small, ..., 0 to 1; None where no such object is annotated.

    `by_class`: the AP of each category by its name, likewise.
    """

    overall: dict[str, float | None]
    by_class: dict[str, float | None]


def coco_ap(truth: Entry, results: Sequence[Entry], most: int = COCO_MOST) -> AveragePrecision:
    """COCO's mask AP: mean over IoU 0.50:0.05:0.95, 101 recall points and categories; crowds are matched, not counted.

    Args:
        most: detections per image and category, as the official code cuts them; the best ones count. With other values
            than 100 pycocotools prints -1 for AP, which this does not.
    """
    with _silence():
        evaluation = COCOeval(_as_coco(truth, numbered(truth)), _as_coco(truth, _measured(results)), "segm")
        evaluation.params.maxDets = [most]
        category_ids, counted = list(evaluation.params.catIds), []
        for some in np.array_split(category_ids, max(1, min(PARTS, len(category_ids)))):
            evaluation.params.catIds = some.tolist()
            evaluation.evaluate()
            evaluation.accumulate()
            counted.append(evaluation.eval)
    precision = np.concatenate([part["precision"] for part in counted], axis=2)
    return _means(precision, np.concatenate([part["recall"] for part in counted], axis=1), category_ids, truth)


def lvis_ap(truth: Entry, results: Sequence[Entry], most: int = LVIS_MOST) -> AveragePrecision:
    """LVIS' mask AP: federated, with the means over rare, common and frequent categories.

    Detections of categories that are neither annotated in their image nor listed in its `neg_category_ids` are passed
    over, as are unmatched ones of its `not_exhaustive_category_ids`.

    Args:
        most: detections per image over all categories, as the official code cuts them; libraries that have its style
            cut per category, so the cut is made here, before.
    """
    with _silence():
        annotated = hotcoco.COCO({**truth, "annotations": numbered(truth)})
        found = annotated.load_res([_as_result(result) for result in best_of_each_image(results, most)])
        evaluation = hotcoco.COCOeval(annotated, found, "segm", lvis_style=True)
        evaluation.params.max_dets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    counted: Any = evaluation.eval
    return _means(counted["precision"], counted["recall"], evaluation.params.cat_ids, truth)


def is_lvis(truth: Entry) -> bool:
    """Whether annotations are federated: categories have a `frequency`, images say what is surely not on them."""
    images, categories = truth["images"], truth.get("categories") or ()
    return bool(
        categories
        and all("frequency" in category for category in categories)
        and any("neg_category_ids" in image for image in images)
    )


def best_of_each_image(results: Sequence[Entry], most: int) -> list[Entry]:
    """The `most` results of highest score of every image, of equal ones the first, in the order in which they came."""
    images = np.unique([result["image_id"] for result in results], return_inverse=True)[1]
    order = np.lexsort((-np.array([result["score"] for result in results], np.float64), images))
    starts = np.flatnonzero(np.diff(images[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return [results[i] for i in np.sort(order[rank < most]).tolist()]


def numbered(truth: Entry) -> list[dict[str, Any]]:
    """The annotations with ids from 1 on: to both libraries an object of id 0 that is found counts as not found."""
    return [
        {**entry, "id": number, "iscrowd": int(entry.get("iscrowd") or 0)}
        for number, entry in enumerate(truth.get("annotations") or (), 1)
    ]


def _as_result(result: Entry) -> dict[str, Any]:
    """Without a box: where there is one, the libraries take the mask's size from it."""
    return {key: result[key] for key in ("image_id", "category_id", "segmentation", "score")}


def _measured(results: Sequence[Entry]) -> list[dict[str, Any]]:
    """What pycocotools makes of results; its own fails on an empty list, and measures boxes, too."""
    masks = [result["segmentation"] for result in results]
    areas: list[int] = []
    for first in range(0, len(masks), AT_ONCE):
        areas += coco_mask.area(masks[first : first + AT_ONCE]).tolist()
    return [
        {**_as_result(result), "id": number, "area": float(area), "iscrowd": 0}
        for number, (result, area) in enumerate(zip(results, areas, strict=True), 1)
    ]


def _as_coco(truth: Entry, annotations: list[dict[str, Any]]) -> COCO:
    found = COCO()
    found.dataset = {**truth, "annotations": annotations}
    found.createIndex()
    return found


def _means(precision: NDArray, recall: NDArray, category_ids: Sequence[int], truth: Entry) -> AveragePrecision:
    """Means over what is annotated.

    Args:
        precision: (IoUs, recalls, categories, areas, 1), -1 where a category has no object of the size.
        recall: (IoUs, categories, areas, 1), likewise.
    """
    precision, recall = precision[..., -1], recall[..., -1]
    categories = {category["id"]: category for category in truth["categories"]}
    listed = [categories[number] for number in category_ids]
    overall = {f"ap{area}": _mean(precision[:, :, :, place]) for place, area in enumerate(AREAS)}
    overall |= {"ap50": _mean(precision[0, :, :, 0]), "ap75": _mean(precision[5, :, :, 0])}
    overall |= {f"ar{area}": _mean(recall[:, :, place]) for place, area in enumerate(AREAS)}
    for letter, name in FREQUENCIES.items():
        chosen = [k for k, category in enumerate(listed) if category.get("frequency") == letter]
        overall[f"ap_{name}"] = _mean(precision[:, :, chosen, 0])
    by_class = {str(category["name"]): _mean(precision[:, :, k, 0]) for k, category in enumerate(listed)}
    return AveragePrecision(overall, by_class)


def _mean(values: NDArray) -> float | None:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


@contextlib.contextmanager
def _silence() -> Any:
    """pycocotools prints how it gets on."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
