from __future__ import annotations

import numpy as np
import pytest

from datamodules.readers.sbd import read_sbd
from datamodules.readers.voc import read_voc
from datamodules.sets.pascal import CATEGORIES
from tests.datamodules.layouts import SIZE, blank, rectangle, write_gray, write_image, write_sbd, write_voc

CAT, PERSON = 8, 15  # as VOC numbers its classes


def cat_and_person() -> tuple[np.ndarray, np.ndarray]:
    """Two objects side by side, with a void line between them."""
    objects = rectangle(8, 2, 12, 9, 2, on=rectangle(1, 2, 6, 9, 1))
    classes = rectangle(8, 2, 12, 9, PERSON, on=rectangle(1, 2, 6, 9, CAT))
    return rectangle(7, 2, 7, 9, 255, on=objects), rectangle(7, 2, 7, 9, 255, on=classes)


def test_a_voc_object_is_its_index_and_255_is_void(tmp_path):
    root = write_voc(tmp_path, {"val": {"2007_000001": cat_and_person()}})
    index = read_voc(root, "val", "pascal/val", CATEGORIES)
    assert [CATEGORIES[i] for i in index.category] == ["cat", "person"]
    assert list(index.native_id) == ["2007_000001/1", "2007_000001/2"]
    assert index.box.tolist() == [[1, 2, 6, 9], [8, 2, 12, 9]]
    assert index.area.tolist() == [48, 40]
    mask, void = index.read_mask(1)
    assert np.array_equal(mask, rectangle(8, 2, 12, 9))
    assert np.array_equal(void, rectangle(7, 2, 7, 9))


def test_a_number_without_pixels_is_left_out_and_counted(tmp_path):
    objects, classes = rectangle(1, 1, 3, 3, 3, on=rectangle(5, 5, 8, 8, 1)), rectangle(1, 1, 8, 8, CAT)
    index = read_voc(write_voc(tmp_path, {"val": {"a": (objects, classes)}}), "val", "pascal/val", CATEGORIES)
    assert list(index.native_id) == ["a/1", "a/3"]
    assert index.left_out[0].startswith("1 objects without pixels, the first is a/2 in ")


def test_a_voc_object_of_no_category_names_the_file(tmp_path):
    root = write_voc(tmp_path, {"val": {"a": (rectangle(1, 1, 3, 3), blank())}})
    with pytest.raises(ValueError, match=r"object 1 of .*a\.png has category 0 .* expected 1 to 20"):
        read_voc(root, "val", "pascal/val", CATEGORIES)


def test_a_mask_of_another_size_than_its_image_names_both(tmp_path):
    root = write_voc(tmp_path, {"val": {"a": (rectangle(1, 1, 3, 3), rectangle(1, 1, 3, 3, CAT))}})
    write_image(root / "JPEGImages" / "a.jpg", (20, 30))
    with pytest.raises(ValueError, match=r"a\.png is \(12, 16\) .* a\.jpg is \(20, 30\)|a\.jpg is \(20, 30\)"):
        read_voc(root, "val", "pascal/val", CATEGORIES)


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationObject", "SegmentationClass"])
def test_a_file_that_is_missing_or_broken_is_named(tmp_path, folder):
    root = write_voc(tmp_path, {"val": {"a": (rectangle(1, 1, 3, 3), rectangle(1, 1, 3, 3, CAT))}})
    path = next((root / folder).iterdir())
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=f"{path.name} (cannot be read|is truncated) .* fetch it again"):
        read_voc(root, "val", "pascal/val", CATEGORIES)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        read_voc(root, "val", "pascal/val", CATEGORIES)


def test_sbd_has_a_category_per_label_and_no_void(tmp_path):
    labels = rectangle(8, 2, 12, 9, 2, on=rectangle(1, 2, 6, 9, 1))
    index = read_sbd(write_sbd(tmp_path, {"val": {"b": (labels, [CAT, PERSON])}}), "val", "sbd/val", CATEGORIES)
    assert [CATEGORIES[i] for i in index.category] == ["cat", "person"]
    mask, void = index.read_mask(0)
    assert np.array_equal(mask, rectangle(1, 2, 6, 9))
    assert void is None


def test_the_single_category_of_a_single_sbd_object_is_read(tmp_path):
    root = write_sbd(tmp_path, {"val": {"b": (rectangle(1, 2, 6, 9), [PERSON])}})
    index = read_sbd(root, "val", "sbd/val", CATEGORIES)
    assert [CATEGORIES[i] for i in index.category] == ["person"]
    assert index.image_size.tolist() == [list(SIZE)]


def test_an_sbd_file_that_is_broken_or_has_too_few_categories_is_named(tmp_path):
    root = write_sbd(tmp_path, {"val": {"b": (rectangle(1, 2, 6, 9, 2), [PERSON])}})
    with pytest.raises(ValueError, match=r"b\.mat has objects up to 2, but 1 categories"):
        read_sbd(root, "val", "sbd/val", CATEGORIES)
    (root / "inst" / "b.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"b\.mat is not an SBD instance file"):
        read_sbd(root, "val", "sbd/val", CATEGORIES)


def test_an_empty_list_of_images_is_refused(tmp_path):
    root = write_voc(tmp_path, {"val": {}})
    with pytest.raises(ValueError, match=r"val\.txt is empty"):
        read_voc(root, "val", "pascal/val", CATEGORIES)


def test_gray_label_maps_do_as_well_as_palettes(tmp_path):
    root = write_voc(tmp_path, {"val": {"a": cat_and_person()}})
    expected = read_voc(root, "val", "pascal/val", CATEGORIES)
    write_gray(root / "SegmentationObject" / "a.png", cat_and_person()[0])
    assert read_voc(root, "val", "pascal/val", CATEGORIES).fingerprint() == expected.fingerprint()
