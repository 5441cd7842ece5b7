"""Boxes without masks: which pixels a box stands for, and which boxes are none."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from datamodules.catalog import open_index
from datamodules.index import MaskKind, ObjectIndex, concatenate
from datamodules.readers.boxes import read_boxes
from datamodules.sets.boxes import boxes_name
from tests.datamodules.layouts import coco_annotation, rectangle, write_coco


def boxes_of(tmp_path, *boxes, **fields) -> ObjectIndex:
    annotations = [coco_annotation(k, 1, None, bbox=box, **fields) for k, box in enumerate(boxes, start=1)]
    for annotation in annotations:
        del annotation["segmentation"]
    return read_boxes(write_coco(tmp_path, annotations), [tmp_path / "val2017"], "boxes")


def test_a_box_is_its_own_mask(tmp_path):
    index = boxes_of(tmp_path, [2, 3, 5, 4])
    mask, void = index.read_mask(0)
    assert np.array_equal(mask, rectangle(2, 3, 6, 6))
    assert mask.dtype == np.uint8
    assert void is None
    assert (index.box.tolist(), index.area.tolist()) == ([[2, 3, 6, 6]], [20])
    assert (list(index.native_id), index.categories[index.category[0]]) == (["1"], "cat")
    assert MaskKind(index.mask_kind[0]) is MaskKind.BOX


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([2.9, 3.1, 1.0, 1.0], [2, 3, 3, 4]),  # rounded outward
        ([5.2, 5.3, 0.4, 0.2], [5, 5, 5, 5]),  # within one pixel
        ([-4, -2, 8, 5], [0, 0, 3, 2]),  # cut at the upper left
        ([12, 8, 100, 1e12], [12, 8, 15, 11]),  # cut at the lower right
        ([15, 11, 1, 1], [15, 11, 15, 11]),  # the last pixel
        ([0, 0, 16, 12], [0, 0, 15, 11]),
    ],
)
def test_a_box_covers_the_pixels_of_the_image_that_it_touches(tmp_path, box, pixels):
    index = boxes_of(tmp_path, box)
    assert index.box.tolist() == [pixels]
    assert np.array_equal(index.read_mask(0).mask, rectangle(*pixels))
    assert index.area[0] == index.read_mask(0).mask.sum()


def test_boxes_that_are_none_are_left_out_and_counted(tmp_path):
    beyond = [[16, 0, 3, 3], [0, 12, 3, 3], [-3, 0, 3, 3], [0, -9, 3, 9]]
    sizeless = [[2, 3, 0, 4], [2, 3, 4, 0], [2, 3, -4, 4]]
    nothing = [None, [], [float("nan"), 1, 2, 3], [1, 1, float("inf"), 3]]
    index = boxes_of(tmp_path, *beyond, *sizeless, [2, 3, 5, 4], *nothing)
    assert list(index.native_id) == ["8"]
    assert index.left_out == ("11 annotations without a box on their image, the first is 1",)
    assert index.num_left_out == 11


def test_crowds_are_no_objects_and_images_without_boxes_stay(tmp_path):
    annotations = [coco_annotation(1, 2, None, iscrowd=1), coco_annotation(2, 2, None)]
    index = read_boxes(write_coco(tmp_path, annotations, images=(3, 2)), [tmp_path / "val2017"], "boxes")
    assert (list(index.native_id), index.num_images) == (["2"], 2)
    assert index.image_path(0).stem == f"{2:012d}"
    assert index.left_out == ("1 crowd annotations",)


def test_objects_are_sorted_by_image_and_then_as_in_the_file(tmp_path):
    annotations = [coco_annotation(n, image, None) for n, image in ((9, 2), (4, 1), (7, 2), (1, 1))]
    index = read_boxes(write_coco(tmp_path, annotations, images=(2, 1)), [tmp_path / "val2017"], "boxes")
    assert list(index.native_id) == ["4", "1", "9", "7"]
    assert index.image.tolist() == [0, 0, 1, 1]


def test_a_box_needs_neither_category_nor_segmentation(tmp_path):
    file = write_coco(tmp_path, [], categories=[])
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "annotations": [{"id": 5, "image_id": 1, "bbox": [1, 1, 2, 2]}]}))
    assert read_boxes(file, [tmp_path / "val2017"], "boxes").category.tolist() == [-1]


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"bbox": [1, 2, 3]}, "1 annotations without a box on their image, the first is 2"),
        ({"bbox": "abcd"}, "1 annotations without a box on their image, the first is 2"),
        ({"bbox": [0.1, 0.2, 0.5, 0.5]}, r"1 entry with a wrong value: annotation 2: bbox is .* shares of its image"),
        ({"image_id": 6}, "1 entry with a wrong value: annotation 2: image_id is 6, which the file does not list"),
        (
            {"category_id": 6},
            "1 entry with a wrong value: annotation 2: category_id is 6, which the file does not list",
        ),
        ({"id": 1}, "1 entry with a wrong value: annotation 1: its id is used twice"),
    ],
)
def test_what_is_no_annotation_is_left_out_and_named(tmp_path, fields, left_out):
    annotations = [coco_annotation(1, 1, None), coco_annotation(2, 1, None, **fields)]
    index = read_boxes(write_coco(tmp_path, annotations), [tmp_path / "val2017"], "boxes")
    assert list(index.native_id) == ["1"]
    assert re.match(left_out, index.left_out[0])


def test_a_file_of_boxes_is_a_data_set_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    file = write_coco(tmp_path / "a b", [coco_annotation(1, 1, None)])
    (tmp_path / "a b" / "val2017").rename(tmp_path / "my images & more")
    for _ in range(2):  # built, then from the cache
        index = open_index(boxes_name(file, tmp_path / "my images & more"))
        assert np.array_equal(index.read_mask(0).mask, rectangle(2, 3, 6, 6))
    with pytest.raises(FileNotFoundError, match=r"image 000000000001\.jpg is in none of"):
        open_index(boxes_name(file))


def test_boxes_stay_boxes_beside_other_objects(tmp_path):
    first = boxes_of(tmp_path / "first", [2, 3, 5, 4])
    second = read_boxes(write_coco(tmp_path, [coco_annotation(8, 1, None)]), [tmp_path / "val2017"], "others")
    both = concatenate([first, second], "both").select(np.array([1])).compacted()
    assert np.array_equal(both.read_mask(0).mask, rectangle(2, 3, 6, 6))
