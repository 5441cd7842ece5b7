from __future__ import annotations

import cProfile
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from datamodules.columns import offsets_of
from datamodules.readers.coco import read_coco
from datamodules.readers.coco_masks import run_totals
from datamodules.sets.coco import describe_coco_json
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
    assume(max(ring) > 1)  # such corners are shares of an image
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


SHORT = {"size": list(SIZE), "counts": compressed(rectangle(2, 3, 6, 6))["counts"][:-2]}
FAR = [[2, 3, 2.1e8, 3, 7, 7, 2, 7]]
SHARES = [[0.1, 0.2, 0.6, 0.2, 0.6, 0.9]]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (coco_annotation(8, 1, [SQUARE], category_id=3), "annotation 8: category_id is 3, which the file does not"),
        (coco_annotation(8, 1, [SQUARE], category_id="cat"), "annotation 8: category_id is 'cat', expected a whole"),
        (coco_annotation(8, 99, [SQUARE]), "annotation 8: image_id is 99, which the file does not list"),
        (coco_annotation(8, "one", [SQUARE]), "annotation 8: image_id is 'one', expected a whole number"),
        (coco_annotation(8, None, [SQUARE]), "annotation 8: image_id is None, expected a whole number"),
        (coco_annotation(1, 1, [SQUARE]), "annotation 1: its id is used twice"),
        (coco_annotation("8a", 1, [SQUARE]), "annotation 8a: id is '8a', expected a whole number"),
        ({"image_id": 1, "segmentation": [SQUARE]}, "annotation number 2: it has no 'id'"),
        ("words", "annotation number 2: 'words' is no entry with keys and values"),
        (coco_annotation(8, 1, [SQUARE], iscrowd="maybe"), "annotation 8: iscrowd is 'maybe', expected 0 or 1"),
        (coco_annotation(8, 1, [SQUARE[:-1]]), "annotation 8: segmentation: a polygon of 7 numbers"),
        (coco_annotation(8, 1, "a word"), "annotation 8: segmentation is 'a word', expected polygons or run lengths"),
        (coco_annotation(8, 1, [[*SQUARE, "x", 3]]), "annotation 8: segmentation: 'x' is no coordinate"),
        (coco_annotation(8, 1, [[*SQUARE, float("nan"), 3]]), "annotation 8: segmentation has a coordinate that is no"),
        (
            coco_annotation(8, 1, [[*SQUARE, 3, -float("inf")]]),
            "annotation 8: segmentation has a coordinate that is no",
        ),
        (coco_annotation(8, 1, FAR), r"annotation 8: segmentation reaches from \(2, 3\) to \(2.1e\+08, 7\), far"),
        (coco_annotation(8, 1, SHARES), r"annotation 8: segmentation reaches from \(0.1, 0.2\) .* shares of its image"),
        (
            coco_annotation(8, 1, uncompressed(np.zeros((5, 5), np.uint8))),
            r"annotation 8: its mask is \(5, 5\), its im",
        ),
        (coco_annotation(8, 1, {"size": [12, 16], "counts": [3, 4]}), "annotation 8: run lengths of 7"),
        (coco_annotation(8, 1, SHORT), "annotation 8: its run lengths"),
        (
            coco_annotation(8, 1, {"size": [12, 16], "counts": "\u00e4\u00f6"}),
            "annotation 8: segmentation: counts are ",
        ),
    ],
)
def test_an_annotation_with_a_wrong_value_is_left_out_by_name(tmp_path, annotation, reason):
    good = coco_annotation(1, 1, [SQUARE])
    index = read(write_coco(tmp_path, [good, annotation]))
    assert list(index.native_id) == ["1"]
    assert np.array_equal(index.read_mask(0).mask, rectangle(2, 3, 6, 6))
    assert index.left_out[0].startswith("1 entry with a wrong value: annotation ")
    assert re.match(reason, index.refused[0])


CAT, TOOTHBRUSH = {"id": 7, "name": "cat"}, {"id": 90, "name": "toothbrush"}


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        ({"id": 7, "name": "dog"}, "category 7: its id is used twice, for 'cat' and 'dog'; the first one counts"),
        ({"id": "seven", "name": "dog"}, "category seven: id is 'seven', expected a whole number"),
        ({"id": 8}, "category 8: it has no 'name'"),
        ({"id": 8, "name": None}, "category 8: name is None, expected a text"),
        ("dog", "category number 3: 'dog' is no entry with keys and values"),
    ],
)
def test_a_category_with_a_wrong_value_is_left_out_by_name(tmp_path, category, reason):
    good = coco_annotation(1, 1, [SQUARE], category_id=7)
    index = read(write_coco(tmp_path, [good], categories=[CAT, TOOTHBRUSH, category]))
    assert list(index.native_id) == ["1"]
    assert index.categories == ("cat", "toothbrush")
    assert index.refused[0].startswith(reason)


def test_objects_of_a_file_without_categories_have_none(tmp_path):
    for number, lists in enumerate(({"categories": []}, {"categories": None})):
        index = read(write_coco(tmp_path / str(number), [coco_annotation(1, 1, [SQUARE], category_id=3)], **lists))
        assert (list(index.native_id), index.category.tolist(), index.categories) == (["1"], [-1], ())


def test_of_two_images_with_one_id_the_first_counts_and_the_other_is_named(tmp_path):
    size = {"height": SIZE[0], "width": SIZE[1]}
    images = [{"id": 1, "file_name": name, **size} for name in ("000000000001.jpg", "again.jpg")]
    file = write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE])])
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": images}))
    index = read(file)
    assert list(index.native_id) == ["1"]
    assert [Path(path).name for path in index.image_paths] == ["000000000001.jpg"]
    assert index.refused[0] == "image 1: its id is used twice; 'again.jpg' is left out"


@pytest.mark.parametrize(("key", "value"), [("annotations", None), ("annotations", "none"), ("images", 3)])
def test_a_list_that_is_none_is_refused_by_its_key(tmp_path, key, value):
    file = write_coco(tmp_path, [])
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(ValueError, match=f"{key} is {value!r}, expected a list of entries"):
        read(file)


def test_entries_on_lines_of_their_own_are_named_as_json_lines(tmp_path):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE])])
    file.write_text(file.read_text() + "\n" + file.read_text())
    with pytest.raises(ValueError, match="is JSON lines, an entry on each line"):
        read(file)


def test_a_file_of_which_no_annotation_can_be_read_is_refused_with_the_first_ones(tmp_path):
    file = write_coco(tmp_path, [coco_annotation(i, 1, SHARES) for i in range(9)])
    with pytest.raises(
        ValueError, match=r"no annotation can be read: annotation 0: .* pixels\?; .* annotation 2: .*\.\.\."
    ):
        read(file)


RINGS = {"size": list(SIZE), "counts": [float(count) for count in uncompressed(rectangle(2, 3, 6, 6))["counts"]]}
BYTES = {"size": ["12", 16.0], "counts": str(compressed(rectangle(2, 3, 6, 6))["counts"].encode())}
PAIRS = [[2, 3], [7, 3], [7, 7], [2, 7]]


@pytest.mark.parametrize(
    "fields",
    [
        {"segmentation": SQUARE},
        {"segmentation": PAIRS},
        {"segmentation": [PAIRS]},
        {"segmentation": [{"x": x, "y": y} for x, y in PAIRS]},
        {"segmentation": [[str(number) for number in SQUARE]]},
        {"segmentation": json.dumps([SQUARE])},
        {"segmentation": [SQUARE, [1, 1, 2, 2]]},
        {"segmentation": RINGS},
        {"segmentation": BYTES},
        {"segmentation": {**RINGS, "counts": str([int(count) for count in RINGS["counts"]])}},
        {"segmentation": [compressed(rectangle(2, 3, 6, 4)), compressed(rectangle(2, 5, 6, 6))]},
        {"id": "1", "image_id": 1.0, "category_id": "7"},
        {"category_id": None, "iscrowd": None},
        {"iscrowd": "0"},
        {"iscrowd": "false"},
        {"iscrowd": float("nan")},
        {"area": None},
        {"area": "20.0"},
        {"area": 0},
        {"area": -1},
        {"area": float("nan")},
        {"area": 1e300},
        {"area": 0.1},
        {"bbox": None},
        {"bbox": []},
        {"bbox": ["2", "3", "5", "4"]},
        {"bbox": [2, 3, 5, 4, 0.0]},
        {"bbox": [2, 3, 5, 4, 30.0]},
        {"bbox": "words"},
        {"bbox": {"x": 2, "y": 3, "width": 5, "height": 4}},
        {"bbox": [0, 0, 0, 0]},
        {"bbox": [0.1, 0.2, 0.3, 0.4]},
        {"bbox": [2, 3, float("nan"), 4]},
        {"bbox": [1e300, 3, -1e300, 4]},
    ],
    ids=str,
)
def test_values_as_exporters_write_them_are_read(tmp_path, fields):
    index = read(write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE]) | fields]))
    assert (list(index.native_id), index.left_out) == (["1"], ())
    assert np.array_equal(index.read_mask(0).mask, rectangle(2, 3, 6, 6))
    assert (index.area.tolist(), index.box.tolist()) == ([20], [[2, 3, 6, 6]])


def test_annotations_may_be_a_mapping_by_id(tmp_path):
    file = write_coco(tmp_path, [])
    entry = {key: value for key, value in coco_annotation(1, 1, [SQUARE]).items() if key != "id"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": {"5": entry, "6": entry}}))
    assert list(read(file).native_id) == ["5", "6"]


@pytest.mark.parametrize(
    "fields", [{"height": None}, {"width": 0}, {"height": 10**6, "width": 10**6}, {"file_name": 3}]
)
def test_an_image_with_a_wrong_value_is_left_out_with_its_annotations(tmp_path, fields):
    file = write_coco(tmp_path, [coco_annotation(i, i, [SQUARE]) for i in (1, 2)], images=[1, 2])
    content = json.loads(file.read_text())
    content["images"][0] |= fields
    file.write_text(json.dumps(content))
    index = read(file)
    assert (list(index.native_id), index.num_images) == (["2"], 1)
    assert index.refused[0].startswith(f"image 1: {next(iter(fields))} is ")
    assert index.refused[1].startswith("annotation 1: image_id is 1, which the file does not list")


def test_a_mask_without_pixels_is_none_whatever_area_and_box_it_says(tmp_path):
    beside = [[20, 20, 30, 20, 30, 30, 20, 30]]
    around = [[16, -9, 30, 5, 30, -9]]  # the box around its corners holds some of the image
    line = [[1, 1, 6, 1, 11, 1]]
    sliver = [[1, 1, 11, 11, 11.01, 11]]
    zeros = {"counts": [192], "size": [12, 16]}
    shapes = [beside, around, line, sliver, zeros, compressed(np.zeros(SIZE, np.uint8)), None, [], {}]
    index = read(write_coco(tmp_path, [coco_annotation(i, 1, s, area=2000) for i, s in enumerate([*shapes, [SQUARE]])]))
    empty = [i for i in range(9) if i != 3 or not _pixels(sliver).any()]
    assert list(index.native_id) == [str(i) for i in range(10) if i not in empty]
    assert index.left_out == (f"{len(empty)} annotations without pixels, the first is 6",)


def _pixels(rings: list) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, *SIZE)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=SIZE[0] * SIZE[1], max_size=SIZE[0] * SIZE[1]), st.integers(1, 200))
def test_run_lengths_are_counted_as_pycocotools_decodes_them(pixels, cut):
    encoded = compressed(np.array(pixels, np.uint8).reshape(SIZE))["counts"].encode()
    parts = [encoded, encoded[:cut], encoded + b"0", b"\x7f" + encoded]
    covered, inside = run_totals(np.frombuffer(b"".join(parts), np.uint8), offsets_of([len(part) for part in parts]))
    assert (covered[0], inside[0]) == (len(pixels), sum(pixels))
    assert (covered[1] == len(pixels)) == (cut >= len(encoded))
    assert covered[3] == -1


def test_all_run_lengths_of_a_large_file_are_counted_once_one_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.readers.coco.COUNTED", 4)
    whole = compressed(np.indices(SIZE).sum(axis=0).astype(np.uint8) % 2)
    annotations = [coco_annotation(i, 1, whole, bbox=None) for i in range(1, 13)]
    assert len(read(write_coco(tmp_path, annotations))) == 12
    for damaged in (1, 6):  # the first is among the four; the second has a byte that is no digit
        annotations[damaged - 1] = coco_annotation(damaged, 1, whole | {"counts": whole["counts"][:-9] + "~"})
        index = read(write_coco(tmp_path, annotations))
        assert len(index) == 12 - (1 if damaged == 1 else 2)


def test_crowds_can_be_taken_as_objects(tmp_path):
    run_lengths = uncompressed(rectangle(2, 3, 6, 6))
    file = write_coco(tmp_path, [coco_annotation(i, 1, run_lengths, iscrowd=1) for i in (1, 2)])
    with pytest.raises(ValueError, match=r"all of its 2 annotations .* are crowds .*coco_json:.*\?crowds=objects"):
        read(file)
    images = file.parent.parent / "val2017"
    index = describe_coco_json(f"{file}?images={images}&crowds=objects").read(tmp_path)
    assert (len(index), index.left_out) == (2, ())
    with pytest.raises(ValueError, match="crowds=objects"):
        describe_coco_json(f"{file}?crowds=yes")


OTHERS = {
    "results": ('[{"image_id": 1, "category_id": 1, "score": 0.9}]', "is a list of results"),
    "xml": ('<?xml version="1.0"?><annotations/>', "is XML"),
    "page": ("<!DOCTYPE html><html></html>", "is a web page"),
    "lines": ('{"image_id": 1}\n{"image_id": 2}\n', "is JSON lines"),
    "yolo": ("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.2\n", "as YOLO writes"),
    "labelme": ('{"version": "5", "shapes": [], "imagePath": "a.png"}', "is LabelMe's own format"),
    "via": ('{"a.png12": {"filename": "a.png", "regions": []}}', "VIA"),
    "lfs": ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "python": ("{'images': []}", "json.dump"),
    "panoptic": ('{"images": [IMAGE], "annotations": [{"image_id": 1, "segments_info": []}]}', "panoptic"),
    "keypoints": ('{"images": [IMAGE], "annotations": [{"id": 1, "image_id": 1, "keypoints": []}]}', "keypoints"),
    "boxes": ('{"images": [IMAGE], "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 1, 3, 3]}]}', "boxes:"),
    "info": ('{"images": [IMAGE]}', "no 'annotations'"),
    "gzip": (gzip.compress(b"{}"), "gunzip"),
    "cp1252": ('{"images": "B\u00e4r"}'.encode("cp1252"), "is not UTF-8 text .* save it as UTF-8"),
}


@pytest.mark.parametrize(("content", "clause"), OTHERS.values(), ids=OTHERS)
def test_a_file_that_is_not_coco_is_named_as_what_it_is(tmp_path, content, clause):
    image = {"id": 1, "file_name": "1.jpg", "height": SIZE[0], "width": SIZE[1]}
    encoded = content if isinstance(content, bytes) else content.replace("IMAGE", json.dumps(image)).encode()
    (tmp_path / "other.json").write_bytes(encoded)
    with pytest.raises(ValueError, match=rf"other\.json.*{clause}") as error:
        read_coco(tmp_path / "other.json", [tmp_path], "other")
    assert "fetch it again" not in str(error.value) or "page" in clause


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_of_unicode_are_read(tmp_path, encoding):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [SQUARE])], categories=[{"id": 7, "name": "B\u00e4r"}])
    text = json.dumps(json.loads(file.read_text()), ensure_ascii=False)
    file.write_bytes(text.encode(encoding))
    assert read(file).categories == ("B\u00e4r",)


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
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        ring = np.stack([6 + 5 * np.cos(angles), 6 + 5 * np.sin(angles)], axis=1).round(2).ravel().tolist()
        annotations = [coco_annotation(i, 1, [ring], area=44.37, bbox=[2.24, 3.67, 5.5, 4.25]) for i in range(count)]
        file = write_coco(tmp_path / f"{count}-{corners}", annotations)
        counted = cProfile.Profile()
        counted.runcall(read, file)
        return sum(entry.callcount for entry in counted.getstats())

    calls(1, 10)  # imports
    few, many, finer = calls(500, 10), calls(1000, 10), calls(1000, 100)
    assert (many - few) / 500 < 60
    assert finer - many < 500
