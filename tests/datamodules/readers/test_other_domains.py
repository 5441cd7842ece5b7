"""Cityscapes, Rooftop and ssTEM (IOG, Tables 4 to 6) in their public layouts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from datamodules.images import read_image
from datamodules.sets.cityscapes import read_cityscapes
from datamodules.sets.rooftop import read_rooftop
from datamodules.sets.sstem import read_sstem
from tests.datamodules.layouts import SIZE, blank, rectangle, write_gray, write_image

FRAME = "aachen_000000_000019"


def write_street(root, labels, split="train", frame=FRAME) -> None:
    city = frame.split("_")[0]
    write_image(root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png", labels.shape)
    path = root / "gtFine" / split / city / f"{frame}_gtFine_instanceIds.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint16)).save(path)


def on(labels, box, value):
    labels = labels.astype(np.int64)
    labels[box[1] : box[3] + 1, box[0] : box[2] + 1] = value
    return labels


# ---------------------------------------------------------------------------------------------------- Cityscapes


def test_a_numbered_value_is_an_object_of_its_class(tmp_path):
    street = on(on(blank() + 7, (1, 1, 4, 4), 26_000), (6, 2, 9, 9), 24_013)
    write_street(tmp_path, street)
    index = read_cityscapes(tmp_path, "train")
    assert list(index.native_id) == [f"{FRAME}/24013", f"{FRAME}/26000"]
    assert [index.categories[place] for place in index.category] == ["person", "car"]
    assert np.array_equal(index.read_mask(1).mask, rectangle(1, 1, 4, 4))
    assert index.box.tolist() == [[6, 2, 9, 9], [1, 1, 4, 4]]
    assert index.left_out == ()


def test_groups_and_classes_that_nobody_evaluates_are_no_objects(tmp_path):
    street = on(on(on(blank() + 7, (0, 0, 1, 1), 26), (3, 3, 5, 5), 29_000), (7, 7, 9, 9), 33_001)  # group, caravan
    write_street(tmp_path, street)
    index = read_cityscapes(tmp_path, "train")
    assert list(index.native_id) == [f"{FRAME}/33001"]
    assert index.left_out == ("1 groups that nobody told apart", "1 objects of classes that are not evaluated")


def test_void_is_what_nobody_labelled_but_not_the_own_car(tmp_path):
    street = on(on(on(blank() + 7, (0, 0, 3, 3), 0), (0, 10, 15, 11), 1), (6, 2, 9, 9), 26_001)
    write_street(tmp_path, street)
    void = read_cityscapes(tmp_path, "train").read_mask(0).void
    assert void is not None
    assert np.array_equal(void, rectangle(0, 0, 3, 3))


def test_cities_are_one_split_and_splits_are_apart(tmp_path):
    write_street(tmp_path, on(blank(), (1, 1, 4, 4), 26_001))
    write_street(tmp_path, on(blank(), (1, 1, 4, 4), 26_001), frame="ulm_000001_000019")
    write_street(tmp_path, blank(), "val", "lindau_000000_000019")
    assert read_cityscapes(tmp_path, "train").num_images == 2
    val = read_cityscapes(tmp_path, "val")
    assert (val.num_images, len(val)) == (1, 0)


def test_a_frame_without_its_map_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no images in .*leftImg8bit/train"):
        read_cityscapes(tmp_path, "train")
    write_street(tmp_path, blank())
    (tmp_path / "gtFine/train/aachen" / f"{FRAME}_gtFine_instanceIds.png").rename(tmp_path / "polygons.json")
    with pytest.raises(FileNotFoundError, match=r"instanceIds\.png is missing \(1 of 1 maps\); fetch gtFine_trainval"):
        read_cityscapes(tmp_path, "train")


# ---------------------------------------------------------------------------------------------------- Rooftop


def write_roofs(folder, name, *outlines) -> None:
    write_image(folder / f"{name}.jpg")
    cell = np.empty((1, len(outlines)), object)
    cell[0] = [np.array(outline, np.float64) for outline in outlines]
    savemat(folder / f"{name}.mat", {"gt": cell})


def test_every_outline_of_the_cell_is_a_roof(tmp_path):
    square, corner = [[2, 3], [7, 3], [7, 7], [2, 7]], [[9, 2], [14, 2], [14, 10], [12, 10], [12, 4], [9, 4]]
    write_roofs(tmp_path / "test", "a", square, corner)
    write_roofs(tmp_path / "test", "b", square)
    index = read_rooftop(tmp_path, "test")
    assert list(index.native_id) == ["a/1", "a/2", "b/1"]
    assert np.array_equal(index.read_mask(0).mask, rectangle(2, 3, 6, 6))
    assert np.array_equal(index.read_mask(1).mask, rectangle(12, 2, 13, 9, on=rectangle(9, 2, 13, 3)))
    assert np.array_equal(index.read_mask(2).mask, rectangle(2, 3, 6, 6))
    assert index.area.tolist() == [20, 22, 20]
    assert index.box.tolist()[1] == [9, 2, 13, 9]


def test_an_image_without_a_roof_or_without_outlines_lists_none(tmp_path):
    write_roofs(tmp_path / "train", "a", [[2, 3], [7, 3], [7, 7], [2, 7]], [[1, 1], [2, 2]])
    write_roofs(tmp_path / "train", "empty")
    write_image(tmp_path / "train" / "unseen.JPG")
    index = read_rooftop(tmp_path, "train")
    assert (index.num_images, list(index.native_id)) == (3, ["a/1"])
    assert index.left_out == (
        "1 images without outlines, the first is unseen",
        "1 objects without pixels, the first is a/2",
    )


def test_what_is_missing_or_no_outline_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*train is missing"):
        read_rooftop(tmp_path, "train")
    write_image(tmp_path / "train" / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"no outlines in .*train; expected NAME\.mat with the cell gt"):
        read_rooftop(tmp_path, "train")
    savemat(tmp_path / "train" / "a.mat", {"truth": np.zeros((4, 2))})
    with pytest.raises(ValueError, match=r"a\.mat has no cell gt with outlines"):
        read_rooftop(tmp_path, "train")
    savemat(tmp_path / "train" / "a.mat", {"gt": np.zeros((4, 3))})
    with pytest.raises(ValueError, match=r"an outline in .*a\.mat is \(4, 3\); expected \(n, 2\)"):
        read_rooftop(tmp_path, "train")
    savemat(tmp_path / "train" / "b.mat", {"gt": np.zeros((4, 2))})
    with pytest.raises(FileNotFoundError, match=r"b\.mat has no image beside it"):
        read_rooftop(tmp_path, "train")


# ---------------------------------------------------------------------------------------------------- ssTEM


def write_section(stack, name, mitochondria) -> None:
    write_gray(stack / "raw" / f"{name}.tif", np.full(mitochondria.shape, 90))
    write_gray(stack / "mitochondria" / f"{name}.png", mitochondria)


def test_each_connected_area_of_a_section_is_an_object(tmp_path):
    apart = rectangle(9, 1, 12, 3, 255, on=rectangle(1, 2, 4, 5, 255))
    write_section(tmp_path / "stack1", "00", apart)
    write_section(tmp_path / "stack1", "01", apart // 255)
    index = read_sstem(tmp_path)
    assert list(index.native_id) == ["00/1", "00/2", "01/1", "01/2"]  # the one that begins higher is first
    assert np.array_equal(index.read_mask(0).mask, rectangle(9, 1, 12, 3))
    assert np.array_equal(index.read_mask(3).mask, rectangle(1, 2, 4, 5))
    assert list(read_sstem(tmp_path / "stack1").native_id) == list(index.native_id)
    assert read_image(index.image_path(0)).shape == (*SIZE, 3)


def test_areas_that_touch_at_a_corner_are_one(tmp_path):
    write_section(tmp_path, "00", rectangle(5, 6, 8, 9, 255, on=rectangle(1, 2, 4, 5, 255)))
    assert read_sstem(tmp_path).area.tolist() == [32]


def test_a_section_without_mitochondria_has_no_object(tmp_path):
    write_section(tmp_path, "00", blank())
    index = read_sstem(tmp_path)
    assert (index.num_images, len(index), index.left_out) == (1, 0, ())


def test_sections_without_partners_and_other_maps_are_refused(tmp_path):
    write_section(tmp_path, "00", rectangle(1, 2, 4, 5, 60))
    with pytest.raises(ValueError, match=r"00\.png has values up to 60"):
        read_sstem(tmp_path)
    write_gray(tmp_path / "mitochondria" / "00.png", np.full((3, 3), 255))
    with pytest.raises(ValueError, match=r"00\.tif is \(3, 3\) \(H, W\), the image \(12, 16\)"):
        read_sstem(tmp_path)
    write_gray(tmp_path / "raw" / "01.tif", blank())
    with pytest.raises(FileNotFoundError, match=r"01 is in one of .* only"):
        read_sstem(tmp_path)
