"""What the small real data sets must give; skipped where DATA_ROOT does not have them."""

from __future__ import annotations

import json
from json import loads

import numpy as np
import pytest

from datamodules.catalog import find, missing_sources, open_index
from datamodules.images import read_image
from datamodules.index import ObjectIndex

COUNTS = {  # objects, images, crowds left out
    "coco200/train2017": (740, 100, 6),
    "coco200/val2017": (707, 100, 5),
    "coco_mval800": (800, 722, 0),
    "davis345": (345, 345, 0),
}


@pytest.fixture
def real(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path_factory.getbasetemp() / "real_cache"))

    def opened(name: str) -> ObjectIndex:
        if missing := missing_sources(find(name)):
            pytest.skip(f"{name} is not there ({missing[0][1]} is missing); set DATA_ROOT to the folder that holds it")
        return open_index(name)

    return opened


@pytest.mark.parametrize("name", COUNTS)
def test_counts_boxes_and_areas_are_those_of_the_masks(real, name):
    index = real(name)
    assert (len(index), index.num_images, index.num_left_out) == COUNTS[name]
    for i in range(0, len(index), 40):
        mask = index.read_mask(i).mask
        ys, xs = np.nonzero(mask)
        assert index.box[i].tolist() == [xs.min(), ys.min(), xs.max(), ys.max()]
        assert index.area[i] == mask.sum()
        assert read_image(index.image_path(i)).shape[:2] == mask.shape


def test_mval_and_coco200_train_hold_1409_objects_of_150_pixels(real):
    indices = [real(name) for name in ("coco_mval800", "coco200/train2017")]
    assert sum(int((index.area >= 150).sum()) for index in indices) == 1409


def test_mval_has_ten_objects_of_each_category(real):
    index = real("coco_mval800")
    counts = dict(zip(index.categories, np.bincount(index.category, minlength=80).tolist()))
    assert {name: count for name, count in counts.items() if count != 10} == {"toaster": 9, "toilet": 11}  # its quirk


def test_a_built_index_is_mapped_and_its_source_not_read_again(real, monkeypatch):
    real("coco_mval800")
    monkeypatch.setattr(json, "load", lambda *_: pytest.fail("parsed again"))
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("parsed again") if len(text) > 100_000 else loads(text))
    index = real("coco_mval800")
    columns = [index.box, index.area, index.object_id, index.category]
    assert all(isinstance(column, np.memmap) for column in columns)
