"""AP of drawn rectangles, known by hand; what the evaluators of COCO and LVIS answered (tests/golden/stage2_*.json)."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import faster_coco_eval
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lightning_modules.metrics import average_precision
from lightning_modules.metrics.average_precision import best_of_each_image, coco_ap, is_lvis, lvis_ap, numbered
from tests.conftest import GOLDEN, square

COCO_STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
LVIS = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
    "APr": "ap_rare",
    "APc": "ap_common",
    "APf": "ap_frequent",
    "AR@300": "ar",
    "ARs@300": "ar_small",
    "ARm@300": "ar_medium",
    "ARl@300": "ar_large",
}


def rectangle(x: int, y: int, width: int, height: int, size: int = 64) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(square(size, (x, y), (height, width))))
    return {"size": [size, size], "counts": encoded["counts"].decode()}


def annotation(number: int, category: int, x: int, y: int, side: int = 10, image: int = 7, **more: Any) -> dict:
    named = {"id": number, "image_id": image, "category_id": category, "area": side * side, "iscrowd": 0}
    return {**named, "bbox": [x, y, side, side], "segmentation": rectangle(x, y, side, side), **more}


def result(category: int, x: int, y: int, score: float, side: int = 10, image: int = 7) -> dict[str, Any]:
    mask = rectangle(x, y, side, side)
    return {"image_id": image, "category_id": category, "segmentation": mask, "score": score}


def truth(*annotations: dict, categories: tuple[int, ...] = (1, 2), images: tuple[int, ...] = (7,)) -> dict[str, Any]:
    return {
        "images": [{"id": image, "height": 64, "width": 64} for image in images],
        "categories": [{"id": number, "name": f"class {number}"} for number in categories],
        "annotations": list(annotations),
    }


def federated(tree: dict[str, Any], negative: tuple[int, ...] = (), not_exhaustive: tuple[int, ...] = ()) -> dict:
    said = {"neg_category_ids": list(negative), "not_exhaustive_category_ids": list(not_exhaustive)}
    letters = ("f", "r", "c")
    categories = [{**c, "frequency": letters[k % 3]} for k, c in enumerate(tree["categories"])]
    return {**tree, "images": [{**image, **said} for image in tree["images"]], "categories": categories}


def golden_tree(name: str) -> Any:
    return json.loads((GOLDEN / f"stage2_{name}.json").read_text())


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    with np.load(GOLDEN / "stage2.npz", allow_pickle=False) as arrays:
        keys = ("coco_segm_stats", "lvis_keys", "lvis_vals")
        return {key: arrays[key] for key in keys}


def as_printed(value: float | None) -> float:
    return -1.0 if value is None else value


def test_coco_is_what_the_official_code_prints(official):
    annotated, found = golden_tree("coco_gt"), golden_tree("coco_pred")
    by_most = {most: coco_ap(annotated, found, most).overall for most in (1, 10, 100)}
    ours = [by_most[100][name] for name in COCO_STATS] + [by_most[most]["ar"] for most in (1, 10, 100)]
    ours += [by_most[100][f"ar_{size}"] for size in ("small", "medium", "large")]
    assert np.allclose([as_printed(value) for value in ours], official["coco_segm_stats"], atol=1e-5)


def test_lvis_is_what_the_patched_official_code_prints(official):
    ours = lvis_ap(golden_tree("lvis_gt"), golden_tree("lvis_pred")).overall
    expected = dict(zip(official["lvis_keys"].tolist(), official["lvis_vals"].tolist()))
    assert set(expected) == set(LVIS)
    for key, value in expected.items():
        assert as_printed(ours[LVIS[key]]) == pytest.approx(value, abs=1e-5), key


def test_one_of_two_objects_found_is_half_an_ap_but_for_the_grid_of_recalls():
    annotated = truth(annotation(1, 1, 0, 0), annotation(2, 1, 30, 30))
    found = coco_ap(annotated, [result(1, 0, 0, 0.9)])
    assert found.overall["ap"] == pytest.approx(51 / 101)
    assert found.by_class == {"class 1": pytest.approx(51 / 101), "class 2": None}


def test_nothing_found_is_zero_and_nothing_annotated_is_no_number():
    for ap in (coco_ap, lvis_ap):
        found = ap(federated(truth(annotation(1, 2, 0, 0, side=40))), []).overall
        assert found["ap"] == found["ap50"] == found["ar"] == found["ap_medium"] == found["ap_rare"] == 0
        assert found["ap_small"] is found["ap_large"] is found["ap_frequent"] is None
        assert all(value is None for value in ap(federated(truth()), [result(1, 0, 0, 0.5)]).overall.values())


def test_an_object_of_id_0_that_is_found_counts_as_found():
    for ap in (coco_ap, lvis_ap):
        found = ap(federated(truth(annotation(0, 1, 0, 0))), [result(1, 0, 0, 0.9)])
        assert found.overall["ap"] == pytest.approx(1)
    assert [entry["id"] for entry in numbered(truth(annotation(0, 1, 0, 0), annotation(0, 1, 9, 9)))] == [1, 2]


def test_category_ids_may_begin_at_0_and_have_gaps():
    annotated = truth(annotation(1, 0, 0, 0), annotation(2, 90, 30, 30), categories=(0, 17, 90))
    for ap in (coco_ap, lvis_ap):
        found = ap(federated(annotated), [result(0, 0, 0, 0.9), result(90, 0, 0, 0.8), result(17, 5, 5, 0.7)])
        assert found.by_class == {"class 0": pytest.approx(1), "class 17": None, "class 90": 0}


@pytest.mark.parametrize("most", [1, 3, 100, 150])
def test_any_limit_of_detections_gives_a_true_ap(most):
    objects = [annotation(k + 1, 1, 12 * (k % 5), 12 * (k // 5)) for k in range(5)]
    found = [result(1, 12 * (k % 5), 12 * (k // 5), 0.9 - k / 10) for k in range(5)]
    recalled = min(most, 5) / 5
    expected = (np.linspace(0, 1, 101) <= recalled + 1e-9).mean()
    assert coco_ap(truth(*objects), found, most).overall["ap"] == pytest.approx(expected)
    assert lvis_ap(federated(truth(*objects)), found, most).overall["ap"] == pytest.approx(expected)


def test_hundreds_of_results_are_measured():
    found = [result(1, 0, 0, 0.9), *(result(1, 40, 40, 0.5) for _ in range(600))]
    assert coco_ap(truth(annotation(1, 1, 0, 0)), found).overall["ap_small"] == pytest.approx(1)


def test_what_is_found_in_a_crowd_counts_neither_as_right_nor_as_wrong():
    annotated = truth(annotation(1, 1, 0, 0), annotation(2, 1, 20, 20, side=40, iscrowd=1))
    found = [result(1, 22, 22, 0.9), result(1, 40, 40, 0.8), result(1, 0, 0, 0.7)]
    for ap in (coco_ap, lvis_ap):
        assert ap(federated(annotated), found).overall["ap"] == pytest.approx(1)
    crowds = truth(annotation(1, 1, 0, 0, iscrowd=1))
    assert coco_ap(crowds, found).overall["ap"] is None


def test_the_mask_says_how_large_a_result_is_not_its_box():
    """A false one that is large by its box alone would be no mistake among small objects."""
    annotated = truth(annotation(1, 1, 0, 0))
    wrong = result(1, 40, 40, 0.9) | {"bbox": [0, 0, 64, 64]}
    found = coco_ap(annotated, [wrong, result(1, 0, 0, 0.5)])
    assert found.overall["ap_small"] == pytest.approx(0.5)


def test_lvis_passes_over_what_nobody_looked_for():
    annotated = truth(annotation(1, 1, 0, 0), annotation(2, 2, 20, 20, image=8), images=(7, 8))
    found = [result(2, 40, 40, 0.9), result(2, 20, 20, 0.5, image=8)]  # class 2 is not annotated on image 7
    assert lvis_ap(federated(annotated), found).by_class["class 2"] == pytest.approx(1)
    looked_for = federated(annotated, negative=(2,))
    looked_for["images"][1]["neg_category_ids"] = []
    assert lvis_ap(looked_for, found).by_class["class 2"] == pytest.approx(0.5)
    more = [result(1, 40, 40, 0.9), result(1, 0, 0, 0.5)]
    assert lvis_ap(federated(annotated), more).by_class["class 1"] == pytest.approx(0.5)
    assert lvis_ap(federated(annotated, not_exhaustive=(1,)), more).by_class["class 1"] == pytest.approx(1)
    assert is_lvis(looked_for)
    assert not is_lvis(annotated)


def test_the_best_of_each_image_are_kept_in_their_order_of_equal_ones_the_first():
    scores = {1: [0.2, 0.9, 0.5, 0.5], 2: [0.1]}
    found = [{"image_id": image, "score": score, "k": k} for image, s in scores.items() for k, score in enumerate(s)]
    kept = [(one["image_id"], one["k"]) for one in best_of_each_image(found, 2)]
    assert kept == [(1, 1), (1, 2), (2, 0)]
    assert best_of_each_image([], 2) == []


def by_other_library(annotated: dict, found: list, most: int, lvis: bool) -> list[float]:
    """[AP, AP of the rare ones] by faster-coco-eval, which shares no code with what we use."""
    tree = faster_coco_eval.COCO({**annotated, "annotations": [dict(entry) for entry in annotated["annotations"]]})
    evaluation = faster_coco_eval.COCOeval_faster(
        tree, tree.loadRes([dict(one) for one in found]), "segm", lvis_style=lvis
    )
    evaluation.params.maxDets = [most]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    rare = [k for k, category in enumerate(annotated["categories"]) if category.get("frequency") == "r"]
    return [float(part[part > -1].mean()) for part in (precision, precision[:, :, rare])]


def scene(seed: int, images: int = 6, objects: int = 5, categories: int = 4) -> tuple[dict, list]:
    """Objects and what a network that misses by some pixels finds of them, with other things."""
    draw = np.random.default_rng(seed)
    numbers = tuple(range(1, categories + 1))
    annotations, found = [], []
    for image in range(1, images + 1):
        for _ in range(objects):
            x, y, side, category = (*draw.integers(0, 40, 2), draw.integers(6, 20), draw.integers(1, categories + 1))
            annotations.append(annotation(len(annotations) + 1, int(category), int(x), int(y), int(side), image=image))
            for _ in range(draw.integers(0, 3)):
                dx, dy, grown = draw.integers(0, 4, 3)
                score = round(float(draw.random()), 4)
                found.append(result(int(category), int(x + dx), int(y + dy), score, int(side + grown), image=image))
    tree = federated(truth(*annotations, categories=numbers, images=tuple(range(1, images + 1))))
    for image in tree["images"]:
        image["neg_category_ids"] = [int(draw.integers(1, categories + 1))]
        image["not_exhaustive_category_ids"] = [int(draw.integers(1, categories + 1))]
    return tree, found


@pytest.mark.parametrize("seed", range(3))
def test_another_library_finds_the_same(seed):
    annotated, found = scene(seed)
    for most in (2, 100):
        coco, lvis = coco_ap(annotated, found, most).overall, lvis_ap(annotated, found, most).overall
        assert by_other_library(annotated, found, most, lvis=False)[0] == pytest.approx(coco["ap"], abs=1e-5)
        cut = best_of_each_image(found, most)
        expected = by_other_library(annotated, cut, most, lvis=True)
        assert expected == pytest.approx([lvis["ap"], lvis["ap_rare"]], abs=1e-5)


def test_lvis_cuts_over_all_classes_before_the_library_cuts_by_class():
    annotated = federated(truth(annotation(1, 1, 0, 0), annotation(2, 2, 30, 30)), negative=(3,))
    annotated["categories"].append({"id": 3, "name": "class 3", "frequency": "c"})
    found = [result(3, 40, 0, 0.9), result(3, 20, 0, 0.8), result(1, 0, 0, 0.5)]
    assert by_other_library(annotated, found, 2, lvis=True)[0] == pytest.approx(0.5)
    assert lvis_ap(annotated, found, 2).overall["ap"] == 0
    assert lvis_ap(annotated, found, 3).overall["ap"] == pytest.approx(0.5)


def test_nothing_is_printed(capfd):
    coco_ap(*scene(0))
    lvis_ap(*scene(0))
    assert capfd.readouterr() == ("", "")


def test_no_plotting_library_is_imported():
    said = "import sys, lightning_modules.metrics.average_precision; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("classes", [1, 3, 30])
def test_categories_that_are_counted_in_parts_have_the_very_numbers_of_all_at_once(monkeypatch, classes):
    draw = np.random.default_rng(classes)
    truth = {
        "images": [{"id": k, "height": 32, "width": 32} for k in range(6)],
        "categories": [{"id": 7 * k, "name": f"class {k}"} for k in range(classes)],
        "annotations": [],
    }
    found: list[dict[str, Any]] = []
    for k in range(120):
        corner, side = tuple(draw.integers(0, 16, 2).tolist()), int(draw.integers(3, 16))
        encoded = coco_mask.encode(np.asfortranarray(square(32, top_left=corner, side=side).astype(np.uint8)))
        mask = {"size": [32, 32], "counts": encoded["counts"].decode()}
        one = {"image_id": k % 6, "category_id": 7 * int(draw.integers(classes)), "segmentation": mask}
        truth["annotations"].append(
            {**one, "id": k + 1, "area": side * side, "bbox": [0, 0, 1, 1], "iscrowd": k % 11 == 0}
        )
        found += [{**one, "score": float(draw.random())}] if k % 3 else []
    parts = coco_ap(truth, found)
    monkeypatch.setattr(average_precision, "PARTS", 1)
    assert coco_ap(truth, found) == parts
    assert 0 < parts.overall["ap"] < 1
    assert len(parts.by_class) == classes
