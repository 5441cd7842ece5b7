from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from datamodules.index import ObjectIndex, Strings, concatenate, object_ids
from datamodules.pascal import CATEGORIES
from datamodules.readers.coco import read_coco
from datamodules.readers.sbd import read_sbd
from datamodules.readers.voc import read_voc
from tests.datamodules.layouts import coco_annotation, rectangle, write_coco, write_sbd, write_voc

A, B = rectangle(1, 2, 6, 9), rectangle(8, 2, 12, 9)
POLYGON = [2, 3, 7, 3, 7, 7, 2, 7]


@pytest.fixture
def voc(tmp_path) -> ObjectIndex:
    images = {"2007_1": (A + 2 * B, 8 * A + 15 * B), "2007_2": (B, 15 * B)}
    return read_voc(write_voc(tmp_path / "voc", {"train": images}), "train", "pascal/train", CATEGORIES)


@pytest.fixture
def coco(tmp_path) -> ObjectIndex:
    run_lengths = {"size": [12, 16], "counts": [0, 3, 189]}
    annotations = [
        coco_annotation(1, 1, [POLYGON]),
        coco_annotation(2, 2, run_lengths),
        coco_annotation(3, 2, [POLYGON, [1, 1, 4, 1, 4, 4]]),
        coco_annotation(4, 3, {"size": [12, 16], "counts": [24, 12, 156]}),
    ]
    file = write_coco(tmp_path / "coco", annotations, images=[1, 2, 3])
    return read_coco(file, [tmp_path / "coco" / "val2017"], "coco2017/val")


def masks(index: ObjectIndex) -> dict[int, bytes]:
    """Every object's pixels by id."""
    return {int(index.object_id[i]): index.read_mask(i).mask.tobytes() for i in range(len(index))}


def test_strings_are_a_column():
    column = Strings.of(["cat", "", "été", "dog"])
    assert list(column) == ["cat", "", "été", "dog"]
    assert list(column.take(np.array([3, 2, 2]))) == ["dog", "été", "été"]
    assert list(Strings.joined([column, Strings.of([]), Strings.of(["x"])])) == ["cat", "", "été", "dog", "x"]
    assert column[-1] == "dog"
    with pytest.raises(IndexError):
        column[4]


def test_ids_are_the_same_everywhere_and_fit_63_bits():
    assert object_ids("coco2017/val", [1, 2]).tolist() == [4538997084222767238, 5730712781770742060]
    assert (object_ids("a", range(1000)) >= 0).all()
    assert object_ids("a", [1]) != object_ids("b", [1])


def test_a_saved_index_comes_back_memory_mapped(coco, voc, tmp_path):
    for index in (coco, voc):
        index.save(tmp_path / index.dataset)
        back = ObjectIndex.open(tmp_path / index.dataset)
        assert isinstance(back.object_id, np.memmap)
        assert isinstance(back.box, np.memmap)
        assert back.fingerprint() == index.fingerprint()
        assert masks(back) == masks(index)
        assert (back.categories, list(back.native_id)) == (index.categories, list(index.native_id))


def test_an_index_without_objects_comes_back(coco, tmp_path):
    coco.select(np.zeros(len(coco), bool)).compacted().save(tmp_path / "none")
    assert len(ObjectIndex.open(tmp_path / "none")) == 0


def test_a_spawned_worker_maps_the_columns_and_copies_none(coco, tmp_path):
    coco.save(tmp_path / "index")
    index = ObjectIndex.open(tmp_path / "index")
    assert len(pickle.dumps(index)) < 5000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(masks, (index,)) == masks(index)
    kept = index.select(np.array([2, 1]))
    assert masks(pickle.loads(pickle.dumps(kept))) == masks(kept)


def test_a_build_that_fails_leaves_nothing(coco, tmp_path):
    with pytest.raises(TypeError):
        coco.save(tmp_path / "cache" / "index", about=object())  # cannot be written
    assert list((tmp_path / "cache").iterdir()) == []


def test_selecting_keeps_ids_masks_and_order(coco):
    kept = coco.select(np.array([3, 0]))
    assert list(kept.native_id) == ["4", "1"]
    assert masks(kept).items() <= masks(coco).items()
    assert list(coco.select(coco.area == 20).native_id) == list(coco.native_id)
    with pytest.raises(ValueError, match="one bool per object, got 2 for 4"):
        coco.select(np.array([True, False]))


def test_compacting_drops_what_no_object_uses_and_keeps_the_masks(coco):
    for keep in ([3, 0], [2], [1, 3], []):
        kept = coco.select(np.array(keep, int))
        assert masks(kept.compacted()) == masks(kept)
    assert len(coco.select(np.array([1])).compacted().coordinates) == 0


def test_selecting_images_renumbers_them(coco):
    part = coco.select_images(np.array([False, True, True]))
    assert part.num_images == 2
    assert part.image.tolist() == [0, 0, 1]
    assert [part.image_path(i).name for i in range(3)] == [coco.image_path(i).name for i in (1, 2, 3)]


def test_objects_of_a_joined_set_keep_their_ids_masks_and_categories(voc, coco, tmp_path):
    sbd = read_sbd(write_sbd(tmp_path / "sbd", {"val": {"2008_1": (A, [8])}}), "val", "sbd/val", CATEGORIES)
    parts = [coco, voc, sbd, coco.select(np.array([], int))]
    joined = concatenate(parts, "everything")
    assert masks(joined) == masks(coco) | masks(voc) | masks(sbd)
    names = [[part.categories[i] for i in part.category] for part in parts]
    assert [joined.categories[i] for i in joined.category] == [name for part in names for name in part]
    assert joined.read_mask(4).void is not None
    assert joined.image_path(len(joined) - 1).name == "2008_1.jpg"


def test_joining_a_set_with_itself_is_refused(voc):
    with pytest.raises(ValueError, match=r"twice lists 3 objects twice, the first is 2007_1/1 of .*2007_1\.jpg"):
        concatenate([voc, voc], "twice")


def test_the_fingerprint_is_that_of_the_annotations_not_of_the_folder(tmp_path):
    def listed(folder: str, mask: np.ndarray) -> str:
        root = write_voc(tmp_path / folder, {"train": {"a": (mask, 8 * mask)}})
        return read_voc(root, "train", "pascal/train", CATEGORIES).fingerprint()

    assert listed("here", A) == listed("there", A) != listed("elsewhere", B)
