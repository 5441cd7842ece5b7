from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from datamodules.readers.folders import read_pairs
from datamodules.sets.benchmarks import grabcut_boxes, read_berkeley, read_davis345, read_grabcut, read_mval800
from datamodules.sets.davis import read_davis2016
from tests.datamodules.layouts import SIZE, rectangle, write_gray, write_image, write_palette

MASK = rectangle(2, 3, 6, 8)


def write_mask(path, mode: str) -> None:
    """The same mask as programs write it."""
    path.parent.mkdir(exist_ok=True)
    if mode == "0/1":
        write_gray(path, MASK)
    elif mode == "0/255":
        write_gray(path, 255 * MASK)
    elif mode == "1-bit":
        Image.fromarray(MASK.astype(bool)).save(path)
    elif mode == "palette":
        write_palette(path, 3 * MASK)
    elif mode == "gray+alpha":
        Image.merge("LA", [Image.fromarray(200 * MASK), Image.new("L", SIZE[::-1], 255)]).save(path)
    elif mode == "blue":
        Image.fromarray(np.stack([0 * MASK, 0 * MASK, 255 * MASK], axis=2)).save(path)
    elif mode == "opaque blue":
        Image.fromarray(np.stack([0 * MASK, 0 * MASK, 255 * MASK, 0 * MASK + 255], axis=2)).save(path)
    elif mode == "16-bit":
        Image.fromarray((1000 * MASK.astype(np.int32)).astype(np.uint16)).save(path)


@pytest.mark.parametrize("mode", ["0/1", "0/255", "1-bit", "palette", "gray+alpha", "blue", "opaque blue", "16-bit"])
def test_any_nonzero_pixel_of_a_mask_is_the_object(tmp_path, mode):
    write_image(tmp_path / "img" / "a.jpg")
    write_mask(tmp_path / "gt" / "a.png", mode)
    index = read_pairs(tmp_path / "img", tmp_path / "gt", "mine")
    mask, void = index.read_mask(0)
    assert np.array_equal(mask, MASK)
    assert void is None
    assert (index.area[0], index.box[0].tolist()) == (30, [2, 3, 6, 8])


def test_the_noise_of_a_jpeg_mask_is_no_object(tmp_path):
    write_image(tmp_path / "img" / "a.png", (48, 64))
    mask = rectangle(16, 8, 47, 31, 255, on=np.zeros((48, 64), np.uint8))
    (tmp_path / "gt").mkdir()
    Image.fromarray(mask).save(tmp_path / "gt" / "a.jpg", quality=60)
    assert read_pairs(tmp_path / "img", tmp_path / "gt", "mine").box.tolist() == [[16, 8, 47, 31]]


def test_grabcut_mixes_suffixes_and_has_a_void_band(tmp_path):
    trimap = rectangle(4, 4, 9, 9, 255, on=rectangle(3, 3, 10, 10, 128))
    for name, suffix in (("banana1", ".bmp"), ("cross", ".jpg"), ("124084", ".JPG")):
        write_image((tmp_path / "data_GT" / name).with_suffix(suffix))
        write_gray(tmp_path / "boundary_GT" / f"{name}.bmp", trimap)
    index = read_grabcut(tmp_path)
    assert list(index.native_id) == ["124084", "banana1", "cross"]
    mask, void = index.read_mask(1)
    assert np.array_equal(mask, rectangle(4, 4, 9, 9))
    assert np.array_equal(void, rectangle(3, 3, 10, 10) - rectangle(4, 4, 9, 9))


def test_the_boxes_that_grabcut_gives_are_looser_than_the_objects(tmp_path):
    write_gray(tmp_path / "boundary_GT_rect" / "cross.bmp", rectangle(2, 1, 12, 10, 128))
    assert grabcut_boxes(tmp_path) == {"cross": (2, 1, 12, 10)}


def test_two_berkeley_masks_may_belong_to_one_image(tmp_path):
    for name in ("189011", "3063"):
        write_image(tmp_path / "images" / f"{name}.jpg")
    for name in ("189011a", "189011b", "3063"):
        write_gray(tmp_path / "masks" / f"{name}.png", 255 * MASK)
    index = read_berkeley(tmp_path)
    assert (len(index), index.num_images) == (3, 2)
    assert [index.image_path(i).stem for i in range(3)] == ["189011", "189011", "3063"]
    assert len(set(index.object_id.tolist())) == 3


def test_mval_as_pairs_is_read_like_davis(tmp_path):
    write_image(tmp_path / "img" / "000.jpg")
    write_gray(tmp_path / "gt" / "000.png", 255 * MASK)
    assert np.array_equal(read_davis345(tmp_path).read_mask(0).mask, MASK)
    assert np.array_equal(read_mval800(tmp_path).read_mask(0).mask, MASK)


def test_an_empty_mask_is_left_out_and_named(tmp_path):
    for name, mask in (("a", MASK), ("b", 0 * MASK)):
        write_image(tmp_path / "img" / f"{name}.jpg")
        write_gray(tmp_path / "gt" / f"{name}.png", mask)
    index = read_davis345(tmp_path)
    assert list(index.native_id) == ["a"]
    assert index.left_out == (f"1 objects without pixels, the first is b in {tmp_path / 'gt' / 'b.png'}",)


@pytest.mark.parametrize(
    ("folder", "sentence"), [("img", "mask .*b.png has no image"), ("gt", "image .*b.jpg has no mask")]
)
def test_a_file_without_its_partner_is_named(tmp_path, folder, sentence):
    for name in "ab":
        write_image(tmp_path / "img" / f"{name}.jpg")
        write_gray(tmp_path / "gt" / f"{name}.png", MASK)
    next((tmp_path / folder).glob("b.*")).unlink()
    with pytest.raises(FileNotFoundError, match=sentence):
        read_davis345(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    for suffix in (".jpg", ".png"):
        write_image(tmp_path / "img" / f"a{suffix}")
    write_gray(tmp_path / "gt" / "a.png", MASK)
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png have one name"):
        read_davis345(tmp_path)


def test_a_mask_that_changed_its_size_after_listing_is_refused_when_read(tmp_path):
    write_image(tmp_path / "img" / "a.jpg")
    write_gray(tmp_path / "gt" / "a.png", MASK)
    index = read_davis345(tmp_path)
    write_gray(tmp_path / "gt" / "a.png", np.ones((5, 5)))
    with pytest.raises(ValueError, match=r"a\.png is \(5, 5\), its image .* is \(12, 16\)"):
        index.read_mask(0)


def write_davis(root, frames: list[str]) -> None:
    lines = []
    for frame in frames:
        write_image(root / "JPEGImages" / "480p" / f"{frame}.jpg")
        write_gray(root / "Annotations" / "480p" / f"{frame}.png", 255 * MASK)
        lines.append(f"/JPEGImages/480p/{frame}.jpg /Annotations/480p/{frame}.png \n")
    (root / "ImageSets" / "480p").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "480p" / "val.txt").write_text("".join(lines))


def test_davis_videos_are_read_frame_by_frame_in_the_order_of_the_list(tmp_path):
    write_davis(tmp_path, ["dog/00000", "dog/00001", "camel/00000"])
    index = read_davis2016(tmp_path, "val")
    assert list(index.native_id) == ["dog/00000", "dog/00001", "camel/00000"]
    assert index.image_path(2) == tmp_path / "JPEGImages" / "480p" / "camel" / "00000.jpg"
    assert np.array_equal(index.read_mask(2).mask, MASK)


def test_a_list_of_names_is_no_list_of_davis(tmp_path):
    write_davis(tmp_path, [])
    (tmp_path / "ImageSets" / "480p" / "val.txt").write_text("dog\ncamel\n")
    with pytest.raises(ValueError, match=r"val\.txt must have an image and a mask per line"):
        read_davis2016(tmp_path, "val")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8])
def test_a_truncated_mask_is_refused_by_name(tmp_path, kept):
    write_image(tmp_path / "img" / "a.jpg", (64, 64))
    noise = np.random.default_rng(0).integers(0, 2, (64, 64))
    path = write_gray(tmp_path / "gt" / "a.png", noise)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"mask .*a\.png cannot be read .* fetch it again"):
        read_davis345(tmp_path)
