"""What an evaluation is scored against: a COCO file's own entries, or entries made of masks, of the images it sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules.catalog import open_index
from experiments.evaluation.detection_files import read_truth
from experiments.evaluation.truth import Truth
from lightning_modules.metrics.average_precision import coco_ap, is_lvis
from tests.datamodules.test_coco_names import CROWDS, PIECES, SQUARE, THIN, coco_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))


@pytest.fixture
def drawn_file(tmp_path) -> Path:
    """Images 5, 7 and 8 of 48 x 64, the last with a crowd alone; crowd 900101 has no mask."""
    return coco_file(tmp_path)


@pytest.fixture
def drawn_data(drawn) -> str:
    return str(drawn / "miniature" / "0")


def truth_of(spec, folder: Path, root: str | None = None) -> tuple[Truth, dict]:
    truth = Truth(spec, root, 0)
    truth.write(folder / "truth.json")
    return truth, read_truth(folder / "truth.json")


def changed(file: Path, change) -> None:
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))


def perfect(tree: dict, size=(48, 64)) -> list[dict]:
    """Each object found as it is drawn."""
    found = []
    for entry in tree["annotations"]:
        if entry["iscrowd"]:
            continue
        mask = entry["segmentation"]
        if isinstance(mask, list):
            mask = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
            mask = {"size": list(mask["size"]), "counts": mask["counts"].decode()}
        found.append({"image_id": entry["image_id"], "category_id": entry["category_id"], "segmentation": mask})
    return [{**one, "score": 0.5} for one in found]


def test_a_coco_file_is_copied_with_its_ids_its_crowds_and_images_without_objects(tmp_path, drawn_file):
    changed(drawn_file, lambda tree: tree["images"][0].update(coco_url="http://images.org/8.png"))
    truth, tree = truth_of(f"coco_json:{drawn_file}", tmp_path)
    own = json.loads(drawn_file.read_text())
    assert {image["id"]: image for image in tree["images"]} == {image["id"]: image for image in own["images"]}
    assert tree["categories"] == own["categories"]
    kept = {entry["id"]: entry for entry in own["annotations"] if entry["id"] != 900101}
    assert {entry["id"]: entry for entry in tree["annotations"]} == kept
    assert kept[CROWDS[0]["id"]]["note"] == "as it stands"
    assert truth.left_out == 1
    assert [truth.image_id(place) for place in range(3)] == [5, 7, 8]
    assert truth.categories == ("dog", "cat")
    assert [truth.category_id(label) for label in (0, 1)] == [3, 9]
    assert coco_ap(tree, perfect(tree)).overall["ap"] == pytest.approx(1)


def test_what_a_selection_leaves_out_is_ignored_on_the_images_that_are_evaluated(tmp_path, drawn_file):
    _, tree = truth_of({"name": f"coco_json:{drawn_file}", "min_box_area": 1000}, tmp_path)
    assert [image["id"] for image in tree["images"]] == [5]
    kinds = {entry["id"]: entry["iscrowd"] for entry in tree["annotations"]}
    assert kinds == {PIECES: 0, SQUARE: 1, 900100: 1}
    everything = {**tree, "annotations": [{**entry, "iscrowd": 0} for entry in tree["annotations"][1:]]}
    assert coco_ap(tree, perfect(everything)).overall["ap"] == pytest.approx(1)


def test_crowds_that_are_objects_count_as_such(tmp_path, drawn_file):
    _, tree = truth_of(f"coco_json:{drawn_file}?crowds=objects", tmp_path)
    assert {entry["id"]: entry["iscrowd"] for entry in tree["annotations"]} == dict.fromkeys(
        (THIN, PIECES, SQUARE, 900100), 0
    )


def test_an_object_without_pixels_stays_one_that_nobody_finds_and_what_cannot_be_read_is_left_out(tmp_path, drawn_file):
    def add(tree):
        shared = {"image_id": 7, "category_id": 3, "iscrowd": 0, "area": 1.0, "bbox": [1, 1, 1, 1]}
        speck, few = [[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]], [[1, 2, 3]]
        tree["annotations"] += [
            {**shared, "id": 1, "segmentation": speck},
            {**shared, "id": 2, "segmentation": few},
            {**shared, "id": SQUARE, "segmentation": [[1, 1, 20, 1, 20, 20]]},  # the id of another
            {**shared, "id": 3, "segmentation": [[1, 1, 20, 1, 20, 20]], "category_id": 77},
            {**shared, "id": "4", "segmentation": [[30, 1, 40, 1, 40, 20]], "area": None, "bbox": None},
        ]

    changed(drawn_file, add)
    truth, tree = truth_of(f"coco_json:{drawn_file}", tmp_path)
    by_id = {entry["id"]: entry for entry in tree["annotations"]}
    assert set(by_id) == {THIN, PIECES, SQUARE, 900100, 1, 4}
    assert by_id[SQUARE]["image_id"] == 5
    assert by_id[4]["area"] == pytest.approx(190 / 2, abs=12)
    assert by_id[4]["bbox"] == pytest.approx([30, 1, 10, 19], abs=1)
    assert truth.left_out == 4


def test_a_coco_file_without_categories_has_one(tmp_path, drawn_file):
    changed(drawn_file, lambda tree: tree.update(categories=[]))
    truth, tree = truth_of(f"coco_json:{drawn_file}", tmp_path)
    assert tree["categories"] == [{"id": 0, "name": "object"}]
    assert {entry["category_id"] for entry in tree["annotations"]} == {0}
    assert truth.categories == ("object",)
    assert truth.category_id(0) == 0
    assert coco_ap(tree, perfect(tree)).overall["ap"] == pytest.approx(1)


def test_category_ids_with_0_and_gaps_are_kept(tmp_path, drawn_file):
    def number(tree):
        for entry in (*tree["categories"], *tree["annotations"]):
            key = "id" if "name" in entry else "category_id"
            entry[key] = {3: 90, 9: 0}[entry[key]]

    changed(drawn_file, number)
    truth, tree = truth_of(f"coco_json:{drawn_file}", tmp_path)
    assert truth.categories == ("cat", "dog")
    assert [truth.category_id(label) for label in (0, 1)] == [0, 90]
    assert {entry["category_id"] for entry in tree["annotations"]} == {90}


def test_lvis_keeps_what_was_looked_for_and_how_frequent_a_class_is(tmp_path, drawn_data):
    _, tree = truth_of("lvis/val", tmp_path, drawn_data)
    assert is_lvis(tree)
    assert any(image["not_exhaustive_category_ids"] for image in tree["images"])
    assert {category["frequency"] for category in tree["categories"]} == {"r", "c", "f"}


def test_voc_is_made_of_its_masks_with_ids_from_1_and_no_crowds(tmp_path, drawn_data):
    truth, tree = truth_of("pascal/val", tmp_path, drawn_data)
    index = open_index("pascal/val", drawn_data)
    assert [entry["id"] for entry in tree["annotations"]] == [*range(1, len(index) + 1)]
    assert {entry["iscrowd"] for entry in tree["annotations"]} == {0}
    assert [image["id"] for image in tree["images"]] == [*range(1, index.num_images + 1)]
    assert [category["name"] for category in tree["categories"]] == list(index.categories) == list(truth.categories)
    for i in (0, len(index) - 1):
        entry, mask = tree["annotations"][i], index.read_mask(i).mask
        assert np.array_equal(coco_mask.decode(entry["segmentation"]), mask)
        y, x = np.nonzero(mask)
        assert entry["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert entry["area"] == mask.sum()
        assert tree["images"][entry["image_id"] - 1]["file_name"] == index.image_path(i).name
        assert tree["categories"][entry["category_id"] - 1]["name"] == index.categories[index.category[i]]
    _, part = truth_of({"name": "pascal/val", "every": 5}, tmp_path, drawn_data)
    kinds = {entry["id"]: entry["iscrowd"] for entry in part["annotations"]}
    assert [number for number, ignored in kinds.items() if not ignored] == [*range(1, len(index) + 1, 5)]
    assert 1 in kinds.values()


def test_sbd_and_folders_of_masks_are_made_of_them_too(tmp_path, drawn_data):
    _, tree = truth_of("sbd/val", tmp_path, drawn_data)
    assert len(tree["annotations"]) == len(open_index("sbd/val", drawn_data))
    for folder in ("images", "masks"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    pixels = np.zeros((20, 30), np.uint8)
    Image.fromarray(np.stack([pixels] * 3, 2)).save(tmp_path / "own" / "images" / "a.png")
    pixels[5:9, 5:9] = 255
    Image.fromarray(pixels).save(tmp_path / "own" / "masks" / "a.png")
    truth, tree = truth_of(f"folder:{tmp_path / 'own'}", tmp_path)
    assert tree["categories"] == [{"id": 0, "name": "object"}]
    assert [(entry["category_id"], entry["area"]) for entry in tree["annotations"]] == [(0, 16)]
    assert truth.category_id(0) == 0


def test_test_dev_has_images_and_categories_alone(tmp_path, monkeypatch):
    root = tmp_path / "coco"
    for folder in ("annotations", "test2017"):
        (root / folder).mkdir(parents=True)
    for number in (5, 7):
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(root / "test2017" / f"{number:012d}.jpg")
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 8, "width": 9} for n in (7, 5)]
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    listed = root / "annotations" / "image_info_test-dev2017.json"
    listed.write_text(json.dumps({"images": images, "categories": categories}))
    monkeypatch.delenv("COCO_ROOT", raising=False)
    truth, tree = truth_of("coco2017/test-dev", tmp_path, str(tmp_path))
    assert [image["id"] for image in tree["images"]] == [5, 7]
    assert tree["categories"] == categories
    assert "annotations" not in tree
    assert truth.upload.startswith("https://cocodataset.org/")


def test_boxes_alone_are_no_truth(drawn_file):
    with pytest.raises(ValueError, match="has boxes without masks"):
        Truth(f"boxes:{drawn_file}", None, 0)


def test_all_objects_crowd_is_refused_by_the_reader_and_ignored_in_a_file_with_others(tmp_path, drawn_file):
    changed(drawn_file, lambda tree: [entry.update(iscrowd=1) for entry in tree["annotations"]])
    with pytest.raises(ValueError, match="are crowds"):
        Truth(f"coco_json:{drawn_file}", None, 0)
