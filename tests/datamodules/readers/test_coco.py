from __future__ import annotations

import cProfile
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from datamodules.readers.coco import read_coco
from tests.datamodules.layouts import SIZE, coco_annotation, rectangle, write_coco, write_image

SQUARE = [2, 3, 7, 3, 7, 7, 2, 7]  # the 5 x 4 pixels from (2, 3) to (6, 6)


def read(file: Path):
    return read_coco(file, [file.parent.parent / "val2017"], "coco2017/val")


def uncompressed(mask: np.ndarray) -> dict:
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def compressed(mask: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def test_polygons_and_both_kinds_of_run_lengths_are_the_same_mask(tmp_path):
    mask = rectangle(2, 3, 6, 6)
    segmentations = [[SQUARE], compressed(mask), uncompressed(mask)]
    file = write_coco(tmp_path, [coco_annotation(i, 1, segmentation) for i, segmentation in enumerate(segmentations)])
    index = read(file)
    for i in range(3):
        found, void = index.read_mask(i)
        assert np.array_equal(found, mask)
        assert void is None
        assert index.box[i].tolist() == [2, 3, 6, 6]


def test_an_object_of_several_parts_is_one_mask(tmp_path):
    part = [10, 1, 13, 1, 13, 3, 10, 3]
    index = read(write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE, part], bbox=[2, 1, 11, 6])]))
    assert np.array_equal(index.read_mask(0).mask, rectangle(10, 1, 12, 2, on=rectangle(2, 3, 6, 6)))


def test_images_are_sorted_by_id_and_those_without_annotations_stay(tmp_path):
    annotations = [coco_annotation(5, 30, [SQUARE]), coco_annotation(4, 10, [SQUARE])]
    index = read(write_coco(tmp_path, annotations, images=[30, 20, 10]))
    assert [Path(path).stem.lstrip("0") for path in index.image_paths] == ["10", "20", "30"]
    assert index.image.tolist() == [0, 2]
    assert list(index.native_id) == ["4", "5"]


def test_sparse_category_ids_become_places_in_the_list_of_names(tmp_path):
    annotations = [coco_annotation(1, 1, [SQUARE], category_id=90), coco_annotation(2, 1, [SQUARE], category_id=7)]
    index = read(write_coco(tmp_path, annotations))
    assert index.categories == ("cat", "toothbrush")
    assert [index.categories[i] for i in index.category] == ["toothbrush", "cat"]


def test_crowds_and_objects_without_pixels_are_left_out_and_counted(tmp_path):
    sliver = [2.1, 3.1, 2.2, 3.1, 2.2, 3.2]  # has an area, but covers no pixel's middle
    annotations = [
        coco_annotation(1, 1, [SQUARE]),
        coco_annotation(2, 1, uncompressed(rectangle(0, 0, 3, 3)), iscrowd=1),
        coco_annotation(3, 1, []),
        coco_annotation(4, 1, [[1, 1, 2, 2]]),
        coco_annotation(5, 1, [sliver], area=0.005, bbox=[2.1, 3.1, 0.1, 0.1]),
    ]
    index = read(write_coco(tmp_path, annotations))
    assert list(index.native_id) == ["1"]
    assert index.left_out == ("1 crowd annotations", "3 annotations without pixels, the first is 3")
    assert index.num_left_out == 4


def test_boxes_and_areas_that_are_not_given_are_measured(tmp_path):
    bare = {key: value for key, value in coco_annotation(1, 1, [SQUARE]).items() if key not in ("area", "bbox")}
    index = read(write_coco(tmp_path, [bare]))
    assert index.area.tolist() == [20]
    assert index.box.tolist() == [[2, 3, 6, 6]]


def test_fractional_boxes_hold_the_pixels_they_touch_and_end_at_the_image(tmp_path):
    index = read(write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE], bbox=[1.5, 2.2, 30, 4.5])]))
    assert index.box.tolist() == [[1, 2, SIZE[1] - 1, 6]]


def test_lvis_images_are_found_by_their_address(tmp_path):
    write_image(tmp_path / "coco" / "train2017" / "000000000001.jpg")
    address = "http://images.cocodataset.org/train2017/000000000001.jpg"
    file = write_coco(tmp_path / "lvis", [coco_annotation(1, 1, [SQUARE])])
    content = json.loads(file.read_text())
    content["images"] = [{"id": 1, "height": SIZE[0], "width": SIZE[1], "coco_url": address}]
    file.write_text(json.dumps(content))
    index = read_coco(file, [tmp_path / "lvis", tmp_path / "coco"], "lvis/val")
    assert index.image_path(0) == tmp_path / "coco" / "train2017" / "000000000001.jpg"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 15.5), st.floats(0, 11.5)]), min_size=3, max_size=7))
def test_polygons_are_filled_as_pycocotools_does(tmp_path_factory, corners):
    ring = [number for corner in corners for number in corner]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring], *SIZE)))
    index = read(write_coco(tmp_path_factory.mktemp("coco"), [coco_annotation(1, 1, [ring], area=0)]))
    assert len(index) == bool(expected.any())
    if len(index):
        assert np.array_equal(index.read_mask(0).mask, expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=SIZE[0] * SIZE[1], max_size=SIZE[0] * SIZE[1]))
def test_any_mask_survives_both_kinds_of_run_lengths(tmp_path_factory, pixels):
    mask = np.array(pixels, np.uint8).reshape(SIZE)
    annotations = [coco_annotation(1, 1, compressed(mask), area=0), coco_annotation(2, 1, uncompressed(mask), area=0)]
    index = read(write_coco(tmp_path_factory.mktemp("coco"), annotations))
    assert len(index) == 2 * mask.any()
    assert all(np.array_equal(index.read_mask(i).mask, mask) for i in range(len(index)))


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (coco_annotation(8, 1, [SQUARE], category_id=3), "annotation 8 belongs to category 3, which the file does not"),
        (coco_annotation(8, 99, [SQUARE]), "annotation 8 belongs to image 99, which the file does not list"),
        (coco_annotation(1, 1, [SQUARE]), "annotation id 1 is used twice"),
        (coco_annotation(8, 1, [SQUARE[:-1]]), "entry 8 .* a polygon of 7 numbers"),
        (
            coco_annotation(8, 1, uncompressed(np.zeros((5, 5), np.uint8))),
            r"annotation 8 is \(5, 5\), its image \(12, 16\)",
        ),
        (coco_annotation(8, 1, {"size": [12, 16], "counts": [3, 4]}), "entry 8 .* run lengths of 7 pixels"),
        (coco_annotation(8, "one", [SQUARE]), "entry 8 of 'annotations' .* is not as COCO's format says"),
        ({"id": 8}, "entry 8 of 'annotations' in .* has no 'segmentation'"),
    ],
)
def test_a_bad_annotation_is_refused_by_name(tmp_path, annotation, sentence):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE]), annotation])
    with pytest.raises(ValueError, match=sentence) as error:
        read(file)
    assert str(file) in str(error.value)


def test_run_lengths_that_do_not_fill_the_image_are_refused_when_the_mask_is_read(tmp_path):
    short = compressed(rectangle(2, 3, 6, 6))["counts"][:-2]
    index = read(write_coco(tmp_path, [coco_annotation(8, 1, {"size": list(SIZE), "counts": short})]))
    with pytest.raises(ValueError, match=r"mask of object 8 of coco2017/val: run lengths of .* do not fill"):
        index.read_mask(0)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_file_that_was_cut_off_is_refused_with_the_place(tmp_path, kept):
    file = write_coco(tmp_path, [coco_annotation(i, 1, [SQUARE]) for i in range(20)])
    text = file.read_text()
    file.write_text(text[: int(kept * len(text))])
    with pytest.raises(ValueError, match=r"instances_val2017.json is not valid JSON at character .* fetch it again"):
        read(file)


@pytest.mark.parametrize("content", ["[]", "{}", "", '{"images": []}'])
def test_json_that_is_not_coco_is_refused(tmp_path, content):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json"):
        read_coco(file, [tmp_path], "other")


def test_missing_images_are_counted_and_named(tmp_path):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE])], images=[1, 2, 3])
    (tmp_path / "val2017" / "000000000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images are missing in .*, the first is 000000000002\.jpg"):
        read(file)


def test_layout_of_the_file_does_not_matter(tmp_path):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE])])
    before = read(file).fingerprint()
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items())), indent=4))  # categories and annotations before images
    assert read(file).fingerprint() == before


def test_listing_calls_few_functions_for_an_object_and_none_for_a_corner(tmp_path):
    """How long it takes beside parsing the file is measured by `make bench`; here what makes it so is counted."""

    def calls(count: int, corners: int) -> int:
        ring = np.random.default_rng(0).uniform(0, 12, 2 * corners).round(2).tolist()
        annotations = [coco_annotation(i, 1, [ring], area=44.37, bbox=[2.24, 3.67, 5.5, 4.25]) for i in range(count)]
        file = write_coco(tmp_path / f"{count}-{corners}", annotations)
        counted = cProfile.Profile()
        counted.runcall(read, file)
        return sum(entry.callcount for entry in counted.getstats())

    calls(1, 10)  # imports
    few, many, finer = calls(500, 10), calls(1000, 10), calls(1000, 100)
    assert (many - few) / 500 < 60
    assert finer - many < 500
