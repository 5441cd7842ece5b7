"""Ids, boxes and crowds of a drawn COCO file, as files that are written beside it have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.coco_names import Names
from datamodules.selection import open_objects

THIN, PIECES, SQUARE = 31, 12, 77  # ids of annotations
CROWDS = [
    {
        "id": 900100,
        "image_id": 5,
        "category_id": 3,
        "iscrowd": 1,
        "area": 10.5,
        "bbox": [0.0, 0.0, 3.5, 3.5],
        "segmentation": {"size": [48, 64], "counts": [5, 10, 3057]},
        "note": "as it stands",
    },
    {"id": 900101, "image_id": 8, "category_id": 3, "iscrowd": 1, "bbox": [1, 1, 9, 9], "segmentation": []},
]


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def annotation(number: int, image: int, bbox: list[float], *rings: list[float]) -> dict:
    shared = {"iscrowd": 0, "category_id": 3, "area": 1.0}
    return {"id": number, "image_id": image, "bbox": bbox, "segmentation": list(rings), **shared}


def coco_file(folder: Path) -> Path:
    """Three images, the last with a crowd alone; a square, an object in two pieces, one that is two pixels wide."""
    rng = np.random.default_rng(0)
    for number in (5, 7, 8):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / f"{number}.png")
    tree = {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 48, "width": 64} for k in (8, 5, 7)],
        "categories": [{"id": 3, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [
            annotation(THIN, 7, [50.0, 10.0, 2.0, 30.0], rectangle(50, 10, 2, 30)),
            CROWDS[0],
            annotation(PIECES, 5, [3.5, 2.25, 40.0, 38.0], rectangle(4, 4, 12, 34), rectangle(28, 4, 14, 34)),
            CROWDS[1],
            annotation(SQUARE, 5, [9.75, 8.0, 20.5, 20.0], rectangle(10, 8, 20, 20)),
        ],
    }
    file = folder / "drawn.json"
    file.write_text(json.dumps(tree))
    return file


@pytest.fixture
def drawn_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    return coco_file(tmp_path)


def test_of_a_part_of_the_data_only_crowds_on_its_images_are_copied(drawn_file):
    for spec, crowds, images in (
        ({"name": f"coco_json:{drawn_file}", "min_side": 3}, CROWDS[:1], [5]),  # the thin one's image is not listed
        ({"name": f"coco_json:{drawn_file}", "limit": 3}, CROWDS[:1], [5, 7]),
        (f"coco_json:{drawn_file}?crowds=objects", [], [5, 7, 8]),
    ):
        names = Names.of(open_objects([spec]), spec, None)
        assert names.native
        assert list(names.crowds()) == crowds
        assert names.num_crowds == len(crowds)
        assert [image["id"] for image in names.images()] == images


def test_data_without_an_annotation_file_have_their_own_boxes_and_no_crowds(drawn):
    root = drawn / "miniature" / "0"
    index = open_objects(["pascal/val"], root)
    names = Names.of(index, "pascal/val", str(root))
    assert not names.native
    assert list(names.crowds()) == []
    left, top, right, bottom = index.box[3].tolist()
    assert names.box(3) == [left, top, right - left + 1, bottom - top + 1]


def test_a_box_that_the_file_says_wrong_is_the_objects_own(drawn_file):
    tree = json.loads(drawn_file.read_text())
    tree["annotations"][4]["bbox"] = None
    tree["annotations"][2]["bbox"] = [0.1, 0.2, 0.5, 0.4]  # shares of the image
    drawn_file.write_text(json.dumps(tree))
    index = open_objects([f"coco_json:{drawn_file}"])
    names = Names.of(index, f"coco_json:{drawn_file}", None)
    boxes = {int(index.native_id[i]): names.box(i) for i in range(len(index))}
    assert boxes[SQUARE] == [10, 8, 20, 20]
    assert boxes[PIECES] == [4, 4, 38, 34]


def said_more(tree: dict) -> None:
    """What LVIS says of images and categories, and an image without anything on it."""
    tree["images"].append({"id": 6, "file_name": "6.png", "height": 48, "width": 64})
    for image in tree["images"]:
        image.update(coco_url=f"http://images.org/train2017/{image['id']}.png", neg_category_ids=[9], license=3)
        image.update(not_exhaustive_category_ids=[image["id"]])
    for category, frequency in zip(tree["categories"], "rf"):
        category.update(frequency=frequency, synset=f"{category['name']}.n.01")


def test_images_and_categories_are_the_files_own_entries_with_all_that_they_say(drawn_file):
    tree = json.loads(drawn_file.read_text())
    said_more(tree)
    del tree["images"][0]["file_name"]  # LVIS names no file, only where COCO's servers have it
    (drawn_file.parent / "train2017").mkdir()
    (drawn_file.parent / "8.png").rename(drawn_file.parent / "train2017" / "8.png")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(drawn_file.parent / "6.png")
    drawn_file.write_text(json.dumps({key: tree[key] for key in ("categories", "annotations", "images")}))
    spec = f"coco_json:{drawn_file}"
    for passed in (False, True):  # with what was taken while crowds were copied, and without
        names = Names.of(open_objects([spec]), spec, None)
        assert not passed or len(list(names.crowds())) == 2
        assert list(names.images()) == sorted(tree["images"], key=lambda image: image["id"])
        assert [image["id"] for image in names.images()] == [5, 6, 7, 8]  # those without objects among them
        assert list(names.categories()) == tree["categories"]
    part = {"name": spec, "min_side": 3}
    names = Names.of(open_objects([part]), part, None)
    assert list(names.images()) == [image for image in tree["images"] if image["id"] == 5]
    assert list(names.categories()) == tree["categories"]


def test_of_two_images_with_one_id_the_first_counts_and_sizes_are_numbers(drawn_file):
    tree = json.loads(drawn_file.read_text())
    tree["images"][1].update(height="48", id="5", note="first")
    tree["images"].append({**tree["images"][1], "note": "second"})
    drawn_file.write_text(json.dumps(tree))
    names = Names.of(open_objects([f"coco_json:{drawn_file}"]), f"coco_json:{drawn_file}", None)
    image = next(names.images())
    assert image == {"id": 5, "file_name": "5.png", "height": 48, "width": 64, "note": "first"}


@pytest.mark.parametrize("zero", [PIECES, 900100])
def test_annotations_are_numbered_from_1_where_one_of_the_file_is_0(drawn_file, zero):
    tree = json.loads(drawn_file.read_text())
    for entry in tree["annotations"]:
        entry["id"] = {zero: 0, SQUARE: 2}.get(entry["id"], entry["id"])
    drawn_file.write_text(json.dumps(tree))
    names = Names.of(open_objects([f"coco_json:{drawn_file}"]), f"coco_json:{drawn_file}", None)
    assert [names.annotation(i) for i in range(3)] == [1, 2, 3]
    crowds = [entry for entry in tree["annotations"] if entry["iscrowd"]]
    assert list(names.crowds()) == [{**crowd, "id": number} for number, crowd in zip((4, 5), crowds)]
    assert [names.image(k) for k in range(3)] == [5, 7, 8]
