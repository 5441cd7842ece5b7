"""Masks of a label run in place of a data set's own: which objects keep what, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from datamodules.index import MaskKind, ObjectIndex, Strings, concatenate
from datamodules.pseudo_labels import labelled, tight_boxes

SIZE = (12, 16)
IDS = [2**62 + 5, 7, 2**61]


@pytest.fixture(autouse=True)
def cached_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def index_of(masks: list[np.ndarray]) -> ObjectIndex:
    """Objects with these masks as run lengths, all on one image."""
    encoded = [coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks]
    ends = np.cumsum([len(counts) for counts in encoded])
    return ObjectIndex(
        dataset="drawn",
        image_paths=Strings.of(["/images/a.png"]),
        image_size=np.array([SIZE], np.int32),
        object_id=np.array(IDS[: len(masks)], np.int64),
        native_id=Strings.of(map(str, range(len(masks)))),
        image=np.zeros(len(masks), np.int32),
        box=np.zeros((len(masks), 4), np.int32),
        area=np.array([mask.sum() for mask in masks], np.int64),
        category=np.arange(len(masks), dtype=np.int32),
        mask_kind=np.full(len(masks), MaskKind.RLE, np.uint8),
        categories=("dog", "cat", "bird")[: len(masks)],
        mask_range=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
        rle=np.frombuffer(b"".join(encoded), np.uint8),
        content="drawn by hand",
    )


def entry(object_id: int, mask: np.ndarray, **other) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    return {
        "id": object_id % 1000,
        "image_id": 1,
        "category_id": 1,
        "segmentation": segmentation,
        "object_id": object_id,
        "area": int(mask.sum()),
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "score": 0.9,
        **other,
    }


def file_of(tmp_path, entries: list[dict]):
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"images": [], "categories": [], "annotations": entries, "empty": [7]}))
    return file


OWN = [rectangle(0, 0, 4, 4), rectangle(5, 5, 3, 3), rectangle(9, 1, 2, 8)]


def test_objects_keep_their_identity_and_get_the_files_masks(tmp_path):
    first, last = rectangle(1, 2, 3, 5), rectangle(8, 0, 8, 12)
    index = labelled(index_of(OWN), file_of(tmp_path, [entry(IDS[2], last), entry(IDS[0], first)]))
    assert index.object_id.tolist() == [IDS[0], IDS[2]]
    assert list(index.native_id) == ["0", "2"]
    assert [index.categories[place] for place in index.category] == ["dog", "bird"]
    assert np.array_equal(index.read_mask(0).mask, first)
    assert np.array_equal(index.read_mask(1).mask, last)
    assert index.read_mask(0).void is None
    assert index.box.tolist() == [[1, 2, 3, 6], [8, 0, 15, 11]]
    assert index.area.tolist() == [15, 96]
    assert index.left_out == ("1 object without a pseudo-label",)


def test_boxes_are_those_of_the_masks_whatever_box_was_annotated(tmp_path):
    two = rectangle(1, 2, 3, 5) | rectangle(9, 8, 2, 2)
    index = labelled(index_of(OWN), file_of(tmp_path, [entry(IDS[0], two, bbox=[0.5, 1.25, 14.0, 10.5])]))
    assert index.box.tolist() == [[1, 2, 10, 9]]
    assert index.area.tolist() == [19]


def test_crowds_that_were_copied_label_nothing(tmp_path):
    crowd = {"id": 900, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 5, "bbox": [0, 0, 9, 9]}
    crowds = [{**crowd, "segmentation": {"size": [12, 16], "counts": [3, 5, 184]}}, {**crowd, "segmentation": []}]
    file = file_of(tmp_path, [crowds[0], entry(IDS[1], OWN[1]), crowds[1]])
    index = labelled(index_of(OWN), file)
    assert index.object_id.tolist() == [IDS[1]]
    assert np.array_equal(index.read_mask(0).mask, OWN[1])


@settings(max_examples=20)
@given(st.lists(arrays(np.uint8, SIZE, elements=st.integers(0, 1)).filter(np.any), min_size=1, max_size=4))
def test_tight_boxes_touch_the_masks_on_four_sides(masks):
    encoded = [coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks]
    offsets = np.cumsum([0, *map(len, encoded)])
    boxes = tight_boxes(np.frombuffer(b"".join(encoded), np.uint8), offsets, np.array([SIZE] * len(masks)))
    for mask, box in zip(masks, boxes.tolist()):
        y, x = np.nonzero(mask)
        assert box == [x.min(), y.min(), x.max(), y.max()]


def test_other_masks_are_other_data(tmp_path):
    (tmp_path / "b").mkdir()
    one = labelled(index_of(OWN), file_of(tmp_path, [entry(key, OWN[0]) for key in IDS]))
    other = labelled(index_of(OWN), file_of(tmp_path / "b", [entry(key, OWN[0][:, ::-1]) for key in IDS]))
    moved = labelled(index_of(OWN), file_of(tmp_path, [entry(key, OWN[0]) for key in IDS]))
    assert len({index.fingerprint() for index in (index_of(OWN), one, other)}) == 3
    assert moved.fingerprint() == one.fingerprint()


def test_labelled_objects_stand_beside_others(tmp_path):
    plain = replace(index_of(OWN[:1]), object_id=np.array([99]))
    both = concatenate([plain, labelled(index_of(OWN), file_of(tmp_path, [entry(IDS[1], OWN[2])]))], "both")
    assert np.array_equal(both.read_mask(0).mask, OWN[0])
    assert np.array_equal(both.read_mask(1).mask, OWN[2])


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([entry(1234, OWN[0])], "labels none of the 3 objects of drawn"),
        ([entry(IDS[0], np.ones((16, 12), np.uint8))], r"mask of object 0 is \(16, 12\), its image \(12, 16\)"),
        ([{**entry(IDS[0], OWN[0]), "segmentation": [[0, 0, 4, 0, 4, 4]]}], "its masks are not run lengths"),
        ([entry(IDS[0], OWN[0], iscrowd=1)], "it has no masks, or crowds"),
        ([], "it has no masks, or crowds"),
        (
            [entry(IDS[1], OWN[1]), entry(IDS[0], OWN[0], id=41), entry(IDS[0], OWN[1], id=42)],
            rf"labels\.json: annotations 41 and 42 label the same object, object_id {IDS[0]}; an object takes one",
        ),
        (
            [entry(k, OWN[0], id=n) for n, k in enumerate([IDS[0], IDS[1], IDS[1], IDS[0], IDS[1]])],
            rf"annotations 0 and 3 label the same object, object_id {IDS[0]}, as do 2 further annotations one",
        ),
    ],
)
def test_what_labels_nothing_is_refused_in_one_sentence(tmp_path, entries, sentence):
    with pytest.raises(ValueError, match=sentence):
        labelled(index_of(OWN), file_of(tmp_path, entries))


def test_a_file_of_another_kind_is_named(tmp_path):
    plain = entry(1, OWN[0])
    del plain["object_id"]
    with pytest.raises(ValueError, match=r"labels\.json is not the .* label run: annotation 1: it has no 'object_id'$"):
        labelled(index_of(OWN), file_of(tmp_path, [entry(IDS[0], OWN[0]), plain]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"object_id": None}, "annotation 387: object_id is None, expected a whole number"),
        ({"object_id": 7.5}, "annotation 387: object_id is 7.5, expected a whole number"),
        ({"object_id": 2**70}, "annotation 387: "),
        ({"id": None}, "annotation number 2: id is None, expected a whole number"),
        ({"image_id": "b"}, "annotation 387: image_id is 'b', expected a whole number"),
        (None, "annotation number 2: 5 is no entry with keys and values"),
    ],
)
def test_ids_that_are_missing_or_none_name_the_annotation(tmp_path, change, sentence):
    second = 5 if change is None else {**entry(IDS[1], OWN[1], id=387), **change}
    with pytest.raises(ValueError, match=f"is not the labels.json of a label run: {sentence}"):
        labelled(index_of(OWN), file_of(tmp_path, [entry(IDS[0], OWN[0]), second]))


def test_no_file_at_all_is_named_with_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.label"):
        labelled(index_of(OWN), tmp_path / "none.json")
