from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.Image import Transpose as Turn

from datamodules.images import image_size, read_image
from datamodules.mask_pictures import read_foreground
from datamodules.masks import read_label_map
from tests.datamodules.layouts import rectangle


def encoded(kind: str, size: tuple[int, int] = (60, 80), **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG whose header holds a whole, smaller JPEG, as cameras write it."""
    outer, thumbnail = encoded("JPEG"), encoded("JPEG", (8, 8))
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    return outer[:2] + header + outer[2:]


def test_images_are_rgb(tmp_path):
    Image.new("RGB", (4, 3), (255, 10, 0)).save(tmp_path / "red.png")
    image = read_image(tmp_path / "red.png")
    assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8)
    assert image[1, 2].tolist() == [255, 10, 0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_gray_palette_and_alpha_become_three_channels(tmp_path, mode):
    Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode).save(tmp_path / "white.png")
    assert (read_image(tmp_path / "white.png") == 255).all()
    assert read_image(tmp_path / "white.png").shape == (3, 4, 3)


STORED = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE, 6: Turn.ROTATE_90,
          7: Turn.TRANSVERSE, 8: Turn.ROTATE_270}  # fmt: skip


def corner() -> Image.Image:
    """Bright at the upper left, more wide than high, so that no turn or flip looks like another."""
    return Image.fromarray(rectangle(0, 0, 7, 3, 255, on=np.zeros((12, 16), np.uint8)))


def save_turned(path, tag: int, kind: str = "PNG") -> None:
    """A picture that shows `corner`, stored as a camera does that is held another way."""
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    corner().convert("RGB").transpose(STORED[tag]).save(path, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("tag", STORED)
def test_image_and_mask_are_turned_as_a_viewer_shows_them(tmp_path, kind, tag):
    save_turned(tmp_path / "a", tag, kind)
    expected = np.asarray(corner()) > 0
    assert np.array_equal(read_image(tmp_path / "a")[..., 0] > 128, expected)
    assert np.array_equal(read_foreground(tmp_path / "a"), expected)
    assert np.array_equal(read_label_map(tmp_path / "a") > 128, expected)
    assert image_size(tmp_path / "a") == (12, 16)


@pytest.mark.parametrize("tag", [5, 6, 7, 8])
def test_annotations_of_the_size_of_the_stored_pixels_get_these(tmp_path, tag):
    save_turned(tmp_path / "a.png", tag)
    assert read_image(tmp_path / "a.png", (16, 12)).shape == (16, 12, 3)
    assert image_size(tmp_path / "a.png", annotated=(16, 12)) == (16, 12)
    assert read_image(tmp_path / "a.png", (12, 16)).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("deep", "shown"),
    [
        (np.uint16([[0, 4095]]), [0, 255]),  # 12 bits in 16
        (np.uint16([[0, 65535]]), [0, 255]),
        (np.uint16([[7, 250]]), [7, 250]),
        (np.float32([[0, 1]]), [0, 255]),
        (np.float32([[3, 200]]), [3, 200]),
        (np.int32([[3, 200]]), [3, 200]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pictures_are_not_black(tmp_path, deep, shown, channels):
    cv2.imwrite(str(tmp_path / "a.tiff"), np.repeat(deep[..., None], channels, axis=2))
    assert read_image(tmp_path / "a.tiff")[0].tolist() == [[value] * 3 for value in shown]


@pytest.mark.parametrize("deep", [np.float32([[np.nan, 1]]), np.float32([[-1, 1]]), np.int32([[0, 1 << 20]])])
def test_values_that_are_no_brightness_are_refused(tmp_path, deep):
    cv2.imwrite(str(tmp_path / "a.tiff"), deep)
    with pytest.raises(ValueError, match=r"image .*a\.tiff has values from .* save it with 8 bits"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(tmp_path, kind):
    Image.new("RGB", (16, 16), (250, 128, 5)).convert("CMYK").save(tmp_path / "a", kind)
    assert np.abs(read_image(tmp_path / "a").astype(int) - (250, 128, 5)).max() < 4


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_the_picture(tmp_path, kind):
    first, second = (Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    first.save(tmp_path / "a", kind, save_all=True, append_images=[second])
    assert read_image(tmp_path / "a")[0, 0].tolist() == [255, 0, 0]


def test_a_picture_too_large_is_refused_with_the_limit(tmp_path):
    data = bytearray(encoded("PNG"))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "large.png").write_bytes(data)
    for read in (read_image, image_size, read_foreground):
        with pytest.raises(ValueError, match=r"large\.png has 1,600,000,000 pixels, .* set OPENCV_IO_MAX_IMAGE_PIXELS"):
            read(tmp_path / "large.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_image_is_refused_by_name(tmp_path, kind, kept):
    data = encoded(kind)
    (tmp_path / "cut.img").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"cut\.img .* fetch it again"):
        read_image(tmp_path / "cut.img")


def test_a_thumbnail_does_not_hide_that_the_image_is_truncated(tmp_path):
    data = with_thumbnail()
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_bytes_behind_the_end_do_no_harm(tmp_path, options):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", **options) + b"\0" * 100_000)
    assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)


def test_what_is_no_image_or_not_there_or_of_another_size_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"page\.jpg cannot be decoded"):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(FileNotFoundError, match=r"none\.jpg is missing"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    with pytest.raises(ValueError, match=r"a\.png is \(60, 80\) \(H, W\), its annotations say \(80, 60\)"):
        read_image(tmp_path / "a.png", size=(80, 60))
