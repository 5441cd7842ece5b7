"""Objects of COCO that something in front cuts into parts: by the published list, or by their masks."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.catalog import open_index
from datamodules.sets.separated_coco import LIST, STAND_IN, read_separated
from tests.datamodules.layouts import write_image


def ring(x, y, width, height):
    """A filled rectangle as COCO draws it: it ends where its last pixel does."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Two images: a dog in two halves and one whole on the first, a cat with a speck of 1 % beside it on the second."""
    monkeypatch.delenv("COCO_ROOT", raising=False)
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    drawn = {
        11: (1, 7, [ring(2, 2, 10, 10), ring(20, 2, 10, 10)]),
        12: (1, 7, [ring(2, 20, 10, 10)]),
        13: (2, 8, [ring(2, 2, 20, 20), ring(30, 30, 2, 2)]),
    }
    annotations = []
    for number, (image, category, rings) in drawn.items():
        corners = np.concatenate(rings).reshape(-1, 2)
        low, high = corners.min(0), corners.max(0)
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": rings,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": 100,
                "iscrowd": 0,
            }
        )
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 40, "width": 40} for i in (1, 2)]
    for image in images:
        write_image(tmp_path / "coco" / "val2017" / image["file_name"], (40, 40))
    tree = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}],
    }
    file = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(tree))
    return tmp_path / "coco"


def listed(root, *entries):
    (root / LIST).write_bytes(pickle.dumps(list(entries)))


def test_without_the_list_objects_of_several_large_parts_stand_in_and_are_called_so(root):
    index = open_index("separated_coco")
    assert list(index.native_id) == ["11"]  # the cat's speck is 1 % of it
    assert index.dataset == STAND_IN
    assert index.num_images == 1
    mask = index.read_mask(0).mask
    assert cv2.connectedComponents(mask)[0] - 1 == 2
    assert index.object_id[0] in open_index("coco2017/val").object_id


def test_the_published_list_names_objects_by_image_class_and_corners(root):
    listed(root, ["000000000002.jpg", "cat", 0.9, [2.0, 2.0, 32.0, 32.0], {}], ["x.jpg", "cat", 0.9, [0, 0, 1, 1], {}])
    index = open_index("separated_coco")
    assert (list(index.native_id), index.dataset) == (["13"], "separated_coco")
    assert index.left_out == ("1 listed objects that coco2017/val does not have",)


def test_of_two_alike_the_nearest_is_meant_and_one_of_another_class_never(root):
    listed(root, ["val2017/000000000001.jpg", "dog", 0.9, [2.4, 20.0, 12.3, 30.0], {"counts": b"12", "size": [40, 40]}])
    assert list(open_index("separated_coco").native_id) == ["12"]
    listed(root, ["000000000001.jpg", "cat", 0.9, [2.0, 20.0, 12.0, 30.0], {}])
    with pytest.raises(ValueError, match="lists no object of coco2017/val"):
        open_index("separated_coco")


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "entry", [Harmful(), ["a.jpg", "dog"], [1, "dog", 0, [0, 0, 1, 1]], ["a.jpg", "dog", 0, [0, 0]]]
)
def test_a_list_of_anything_else_is_refused_and_runs_nothing(tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "separated_coco.pkl"
    file.write_bytes(pickle.dumps([entry]))
    with pytest.raises(ValueError, match=r"separated_coco\.pkl is not the list of Separated COCO"):
        read_separated(file)
    assert not (tmp_path / "harmed").exists()
