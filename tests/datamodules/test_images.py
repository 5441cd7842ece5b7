from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from datamodules.images import read_image


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


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    (tmp_path / "turned.jpg").write_bytes(encoded("JPEG", exif=exif))
    assert read_image(tmp_path / "turned.jpg").shape == (60, 80, 3)


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
