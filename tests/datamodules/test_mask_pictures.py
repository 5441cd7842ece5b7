"""One rectangle on nothing, as people's tools write it: read as that rectangle, or refused in a sentence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from datamodules.mask_pictures import foreground_from, read_foreground, read_strength
from tests.datamodules.layouts import rectangle

SIZE = (48, 64)
NOTHING = np.zeros(SIZE, np.uint8)
MASK = rectangle(16, 8, 39, 31, on=NOTHING)
WHITE_ON_BLACK = Image.fromarray(255 * MASK)
TWO = rectangle(16, 8, 25, 31, 2, on=MASK)  # another object on a part of the first


def rgb(colour, background=(0, 0, 0), labels=MASK) -> Image.Image:
    return Image.fromarray(np.where(labels[..., None] > 0, np.uint8(colour), np.uint8(background)))


def palette(labels, *colours, **options) -> tuple[Image.Image, dict]:
    image = Image.fromarray(labels.astype(np.uint8), mode="P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image, options


def soft() -> Image.Image:
    """Drawn four times as large and made smaller: gray at the rim."""
    large = Image.new("L", (256, 192))
    ImageDraw.Draw(large).rectangle((65, 33, 158, 126), fill=255)
    return large.resize((64, 48), Image.Resampling.LANCZOS)


def photograph() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    return Image.fromarray(np.dstack([pixels, 255 * MASK]))


ONE_OBJECT = {
    "palette, white first": palette(1 - MASK, (255, 255, 255), (0, 0, 0)),
    "quantised": (WHITE_ON_BLACK.convert("RGB").quantize(2), {}),
    "palette of a GIF": (WHITE_ON_BLACK.convert("RGB").quantize(2), {"format": "GIF"}),
    "adaptive palette": (WHITE_ON_BLACK.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE), {}),
    "palette, nearly black": palette(1 - MASK, (254, 254, 254), (3, 2, 3)),
    "palette, transparent white": palette(MASK, (255, 255, 255), (255, 255, 255), transparency=0),
    "palette, black on transparency": palette(1 - MASK, (0, 0, 0), (255, 255, 255), transparency=1),
    "palette of soft gray": (soft().quantize(8), {}),
    "black shape on transparency": (Image.merge("RGBA", [Image.fromarray(NOTHING)] * 3 + [WHITE_ON_BLACK]), {}),
    "white shape on transparency": (Image.merge("LA", [Image.fromarray(255 - NOTHING), WHITE_ON_BLACK]), {}),
    "white and transparent black": (Image.merge("RGBA", [WHITE_ON_BLACK] * 4), {}),
    "photograph, cut out": (photograph(), {}),
    "gray and opaque": (Image.merge("LA", [WHITE_ON_BLACK, Image.fromarray(255 - NOTHING)]), {}),
    "gray, black transparent": (WHITE_ON_BLACK, {"transparency": 0}),
    "red": (rgb((255, 0, 0)), {}),
    "0 and 1 in colour": (rgb((1, 1, 1)), {}),
    "1 bit": (WHITE_ON_BLACK.convert("1"), {}),
    "1 bit, TIFF": (WHITE_ON_BLACK.convert("1"), {"format": "TIFF", "compression": "group4"}),
    "12 bits in 16": (Image.fromarray(MASK.astype(np.uint16) * 4095), {}),
    "32 bits": (Image.fromarray(MASK.astype(np.int32)), {"format": "TIFF"}),
    "float": (Image.fromarray(MASK.astype(np.float32)), {"format": "TIFF"}),
    "CMYK": (rgb((255, 255, 255)).convert("CMYK"), {"format": "TIFF"}),
    "soft": (soft(), {}),
    "soft with a point": (Image.fromarray(np.asarray(soft()).astype(np.float32) / 255), {"format": "TIFF"}),
    "JPEG": (WHITE_ON_BLACK, {"format": "JPEG", "quality": 60}),
    "JPEG in colour": (rgb((255, 255, 255)), {"format": "JPEG", "quality": 30}),
    "WebP": (rgb((255, 255, 255)), {"format": "WEBP", "quality": 40}),
}


@pytest.mark.parametrize("name", ONE_OBJECT)
def test_one_object_is_read_as_one_sees_it(tmp_path, name):
    image, options = ONE_OBJECT[name]
    image.save(tmp_path / "a.png", **{"format": "PNG", **options})
    assert np.array_equal(read_foreground(tmp_path / "a.png"), MASK)


def test_colours_of_16_bits_keep_their_lower_ones(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([MASK] * 3).astype(np.uint16))
    assert np.array_equal(read_foreground(tmp_path / "a.png"), MASK)


def test_a_jpeg_that_became_a_png_keeps_its_noise_out(tmp_path):
    WHITE_ON_BLACK.save(tmp_path / "a.jpg", quality=60)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    assert np.array_equal(read_foreground(tmp_path / "a.png"), MASK)


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), *[(0, 0, 0)] * 252, (224, 224, 192)]
WITH_VOID = np.where(cv2.dilate(MASK, np.ones((5, 5))) > MASK, 255, MASK).astype(np.uint8)
SEVERAL = {
    "numbers": (Image.fromarray(TWO), {}),
    "numbers of 16 bits": (Image.fromarray(TWO.astype(np.uint16) + 24_000 * (TWO > 0).astype(np.uint16)), {}),
    "gray levels": (Image.fromarray(TWO * 120), {}),
    "many numbers": (Image.fromarray((np.arange(48)[:, None] // 3 * 12 + np.arange(64) // 4 * 0).astype(np.uint8)), {}),
    "an object with its void": palette(WITH_VOID, *VOC),
    "the same in gray": (Image.fromarray(WITH_VOID), {}),
    "SegmentationObject": palette(TWO, *VOC),
    "colours": (Image.fromarray(np.uint8([[0, 0, 0], [255, 0, 0], [0, 0, 255]])[TWO]), {}),
    "colours in a JPEG": (Image.fromarray(np.uint8([[0, 0, 0], [255, 0, 0], [0, 255, 0]])[TWO]), {"format": "JPEG"}),
    "a trimap": (Image.fromarray(np.where(WITH_VOID == 255, 128, 255 * MASK).astype(np.uint8)), {}),
    "1 is the pet, 2 the background": (Image.fromarray(2 - MASK), {}),
    "red on white": (rgb((255, 0, 0), (255, 255, 255)), {}),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_objects_are_refused(tmp_path, name):
    image, options = SEVERAL[name]
    image.save(tmp_path / "a.png", **{"format": "PNG", **options})
    with pytest.raises(ValueError, match=r"mask .*a\.png shows more than one object on a black background \("):
        foreground_from(tmp_path / "a.png")


@pytest.mark.parametrize("labels", [MASK, TWO])
def test_a_palette_that_leaves_the_background_open_is_refused(tmp_path, labels):
    image, _ = palette(labels, (255, 255, 255), (200, 0, 0), (0, 0, 200))
    image.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="begins with white and no black"):
        read_strength(tmp_path / "a.png")


def test_a_stack_of_masks_is_refused(tmp_path):
    WHITE_ON_BLACK.save(tmp_path / "a.tif", save_all=True, append_images=[WHITE_ON_BLACK])
    with pytest.raises(ValueError, match=r"a\.tif has 2 pages or frames; .* save one object in one file"):
        read_strength(tmp_path / "a.tif")


def test_a_jpeg_of_0_and_1_is_refused(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "a.jpg", quality=100)
    with pytest.raises(ValueError, match=r"a\.jpg is a JPEG whose values end at \d+; save it as PNG"):
        foreground_from(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_an_object_may_fill_its_picture(tmp_path, mode):
    whole = Image.new("L", (64, 48), 255)
    (whole.quantize(2) if mode == "P" else whole).save(tmp_path / "a.png")
    assert read_foreground(tmp_path / "a.png").all()


def test_an_empty_mask_is_empty(tmp_path):
    Image.fromarray(NOTHING).save(tmp_path / "a.png")
    assert not read_foreground(tmp_path / "a.png").any()
