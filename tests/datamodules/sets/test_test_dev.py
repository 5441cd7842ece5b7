"""COCO's test-dev: images and categories, whose annotations a server alone has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.catalog import find, open_index
from datamodules.inspection import inspect
from datamodules.selection import open_objects

NAME = "coco2017/test-dev"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.delenv("COCO_ROOT", raising=False)
    folder = tmp_path / "coco"
    for name in ("annotations", "test2017"):
        (folder / name).mkdir(parents=True)
    for number in (5, 7):
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "test2017" / f"{number:012d}.jpg")
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 8, "width": 9} for n in (7, 5)]
    listed = {"info": {}, "images": images, "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]}
    (folder / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(listed))
    return tmp_path


def test_its_images_and_categories_are_listed_without_objects(root):
    index = open_objects([NAME], root, images_alone=True)
    assert [Path(path).name for path in index.image_paths] == ["000000000005.jpg", "000000000007.jpg"]
    assert index.categories == ("person", "car")
    assert len(index) == 0
    assert index.fingerprint() == open_index(NAME, root).fingerprint()
    assert inspect(index).unreadable == []
    assert find(NAME).images == 20_288


def test_who_needs_objects_is_told_who_has_the_annotations(root):
    with pytest.raises(
        ValueError, match=r"lists images without annotations, which are kept at https://cocodataset.org"
    ):
        open_objects([NAME], root)


def test_of_a_users_own_file_annotations_are_still_expected(root):
    file = root / "coco" / "annotations" / "image_info_test-dev2017.json"
    with pytest.raises(ValueError, match="has no 'annotations'"):
        open_index(f"coco_json:{file}?images={root / 'coco' / 'test2017'}")
