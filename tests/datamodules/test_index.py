from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.index import ObjectIndex, Strings, concatenate, object_ids, predicted_from
from datamodules.readers.coco import read_coco
from datamodules.readers.sbd import read_sbd
from datamodules.readers.voc import read_voc
from datamodules.sets.pascal import CATEGORIES
from tests.datamodules.layouts import coco_annotation, rectangle, write_coco, write_gray, write_sbd, write_voc

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
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(masks, index).result() == masks(index)
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


@pytest.fixture
def started(coco, tmp_path) -> ObjectIndex:
    """Objects 1 and 3 start from a mask (A and B), 2 and 4 from nothing."""
    files = [write_gray(tmp_path / "starts" / f"{name}.png", 255 * mask) for name, mask in (("b", B), ("a", A))]
    return replace(coco, start_files=Strings.of(map(str, files)), start_file=np.array([1, -1, 0, -1], np.int32))


def starts(index: ObjectIndex) -> dict[str, bytes | None]:
    """Every object's start mask by its native id."""
    masks = {index.native_id[i]: index.start_mask(i) for i in range(len(index))}
    return {native_id: None if mask is None else mask.tobytes() for native_id, mask in masks.items()}


STARTS = {"1": A.tobytes(), "2": None, "3": B.tobytes(), "4": None}


def test_start_masks_follow_their_objects(started, voc, tmp_path):
    assert starts(started) == STARTS
    assert starts(started.select(np.array([2, 3]))) == {"3": STARTS["3"], "4": None}
    assert starts(started.select_images(np.array([False, True, True])).compacted()) == {
        native_id: STARTS[native_id] for native_id in "234"
    }
    started.save(tmp_path / "index")
    back = ObjectIndex.open(tmp_path / "index")
    assert starts(back) == STARTS
    assert starts(pickle.loads(pickle.dumps(back))) == STARTS
    assert back.fingerprint() == started.fingerprint()
    assert masks(back) == masks(started)


def test_a_joined_set_keeps_the_start_masks_of_its_parts(started, voc, tmp_path):
    other = write_gray(tmp_path / "starts" / "c.png", A | B)
    from_c = replace(voc, start_files=Strings.of([str(other)]), start_file=np.array([-1, 0, -1], np.int32))
    no_starts = dict.fromkeys(voc.native_id)
    assert starts(concatenate([voc, started], "both")) == no_starts | STARTS
    assert starts(concatenate([started, voc], "both")) == no_starts | STARTS
    assert starts(concatenate([started, from_c], "both")) == STARTS | no_starts | {"2007_1/2": (A | B).tobytes()}
    nobody = started.select(np.array([], int))
    assert starts(concatenate([nobody, voc], "both")) == no_starts


def test_without_start_masks_nothing_changes(coco, started):
    assert set(starts(coco).values()) == {None}
    assert started.fingerprint() != coco.fingerprint()
    assert started.select(np.array([1, 3])).fingerprint() == coco.select(np.array([1, 3])).fingerprint()


def test_a_table_stored_before_there_were_start_masks_still_opens(coco, tmp_path):
    coco.save(tmp_path / "index")
    for path in (tmp_path / "index").glob("start_file*"):
        path.unlink()
    back = ObjectIndex.open(tmp_path / "index")
    assert masks(back) == masks(coco)
    assert back.start_mask(0) is None
    assert back.fingerprint() == coco.fingerprint()
    (
        tmp_path / "index" / "mask_file.npy"
    ).unlink()  # every table has this one: a broken one is not taken for an old one
    with pytest.raises(FileNotFoundError, match="mask_file"):
        ObjectIndex.open(tmp_path / "index")


def test_a_start_mask_of_another_size_is_refused_by_name(started):
    write_gray(Path(started.start_files[1]), np.ones((16, 12)))
    with pytest.raises(
        ValueError, match=r"start mask .*a\.png is \(16, 12\), its image .*1\.jpg is \(12, 16\) \(H, W\)"
    ):
        started.start_mask(0)
    Path(started.start_files[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png is missing"):
        started.start_mask(0)


@pytest.mark.parametrize(
    ("values", "threshold"), [([0, 255], 128), ([0, 128, 40], 128), ([0, 1], 1), ([1], 1), ([0], 1), ([], 1)]
)
def test_a_predicted_mask_counts_from_128_or_from_1_where_1_is_all_there_is(values, threshold):
    assert predicted_from(np.array([values], np.uint8), "mask.png") == threshold


@pytest.mark.parametrize("highest", [2, 127])
def test_values_that_could_mean_either_are_refused(highest):
    with pytest.raises(ValueError, match=f"mask.png has values up to {highest}; expected a mask of 0 and 255, or of 0"):
        predicted_from(np.array([[0, highest]]), "mask.png")
