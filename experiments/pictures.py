"""Pictures for people: masks and clicks on an image, and sheets of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from datamodules.clicks.points import PointKind

Array = NDArray[Any]

RGB = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Picture:
    """A PNG for a report, of one row or (row empty) of the whole table."""

    caption: str
    path: Path
    row: str = ""


TINT, TRUTH = (45, 125, 255), (255, 255, 255)

EXTREME = (255, 196, 0)

COLOURS = {
    PointKind.LEFT: EXTREME,
    PointKind.TOP: EXTREME,
    PointKind.RIGHT: EXTREME,
    PointKind.BOTTOM: EXTREME,
    PointKind.INSIDE: (40, 200, 90),
    PointKind.POSITIVE: (40, 200, 90),
    PointKind.OUTSIDE: (235, 60, 60),
    PointKind.NEGATIVE: (235, 60, 60),
}


def overlay(
    image: RGB,
    mask: Array | None = None,
    points: Array | None = None,
    kinds: Sequence[int] | None = None,
    truth: Array | None = None,
    min_side: int = 320,
) -> RGB:
    """An image with its mask tinted, the outlines of mask and ground truth, and the clicks; small images are enlarged.

    Args:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W), object where > 0: blue tint and outline.
        points: (K, 2) as (x, y) in pixels of the image.
        kinds: K kinds of `PointKind`: extreme yellow, inside and positive green, outside and negative red, padding not
            drawn; without them, all are extreme points.
        truth: (H, W), ground truth where > 0: white outline with a dark edge.
        min_side: the shorter side becomes at least this, by a whole factor.
    """
    height, width = image.shape[:2]
    factor = max(1, -(-min_side // min(height, width)))
    size = (width * factor, height * factor)
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    line = max(2, round(min(size) / 160))
    if mask is not None:
        inside = _enlarge(mask, size)
        tint = np.array(TINT, np.float32)
        canvas[inside] = (0.55 * canvas[inside] + 0.45 * tint).astype(np.uint8)
        cv2.drawContours(canvas, _outlines(inside), -1, TINT, line, cv2.LINE_AA)
    if truth is not None:
        outlines = _outlines(_enlarge(truth, size))
        cv2.drawContours(canvas, outlines, -1, (20, 20, 20), line + 1, cv2.LINE_AA)
        cv2.drawContours(canvas, outlines, -1, TRUTH, max(1, line // 2), cv2.LINE_AA)
    radius = max(4, round(min(size) / 55))
    for i, (x, y) in enumerate(np.asarray(points if points is not None else [], float).reshape(-1, 2)):
        kind = PointKind(int(kinds[i])) if kinds is not None else PointKind.LEFT
        if kind != PointKind.PADDING and np.isfinite([x, y]).all():
            centre = (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5))
            cv2.circle(canvas, centre, radius + 2, (20, 20, 20), -1, cv2.LINE_AA)
            cv2.circle(canvas, centre, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, centre, radius - 1, COLOURS[kind], -1, cv2.LINE_AA)
    return canvas


def instances_on(image: RGB, masks: Sequence[Array], captions: Sequence[str], min_side: int = 480) -> RGB:
    """An image with instances, each tinted and outlined in a colour of its own, its caption at its upper left.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: of each instance (H, W), where > 0; the first is drawn last, on top of the others.
        captions: a class and a score, say.
        min_side: as of `overlay`.
    """
    height, width = image.shape[:2]
    factor = max(1, -(-min_side // min(height, width)))
    size = (width * factor, height * factor)
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    line = max(1, round(min(size) / 240))
    places: list[tuple[int, int]] = []
    for number in reversed(range(len(masks))):
        inside, colour = _enlarge(masks[number], size), colour_of(number)
        canvas[inside] = (0.6 * canvas[inside] + 0.4 * np.array(colour, np.float32)).astype(np.uint8)
        cv2.drawContours(canvas, _outlines(inside), -1, colour, line, cv2.LINE_AA)
        x, y, *_ = cv2.boundingRect(inside.astype(np.uint8))
        places.append((int(x), int(y)))
    drawn = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=max(11, round(min(size) / 32)))
    for number, place in zip(reversed(range(len(masks))), places):
        _, _, right, bottom = draw.textbbox((0, 0), captions[number], font)
        x = max(0, min(place[0], size[0] - int(right) - 4))
        y = max(0, min(place[1], size[1] - int(bottom) - 4))
        draw.rectangle((x, y, x + right + 4, y + bottom + 3), fill=colour_of(number))
        draw.text((x + 2, y + 1), captions[number], fill=(0, 0, 0), font=font)
    return np.asarray(drawn)


def colour_of(number: int) -> tuple[int, int, int]:
    """A bright colour (RGB) for each number; neighbours, a golden section of the circle of hues apart, differ most."""
    hue = (0.58 + number * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def contact_sheet(pictures: Sequence[RGB], captions: Sequence[str], columns: int = 4, tile: int = 300) -> RGB:
    """Pictures in a grid of equal tiles on white, each with its caption below."""
    if not pictures or len(pictures) != len(captions):
        came = f"{len(pictures)} pictures, {len(captions)} captions"
        raise ValueError(f"a contact sheet needs pictures and as many captions, got {came}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    gap, text = 14, 26
    tall = min(tile, max(round(tile * p.shape[0] / p.shape[1]) for p in pictures))
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, rows * (tall + text + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        x, y = gap + i % columns * (tile + gap), gap + i // columns * (tall + text + gap)
        small = Image.fromarray(picture)
        small.thumbnail((tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(small, (x + (tile - small.width) // 2, y + (tall - small.height) // 2))
        while draw.textlength(caption, font) > tile:
            caption = caption[:-2] + "…"
        draw.text((x, y + tall + 4), caption, fill=(60, 66, 80), font=font)
    return np.asarray(sheet)


def save_picture(picture: RGB, path: Path) -> Path:
    """Writes a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, compress_level=1)  # three to four times as fast, a tenth more bytes
    return path


def _enlarge(mask: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    plane = (np.asarray(mask) > 0).astype(np.uint8).reshape(np.asarray(mask).shape[-2:])
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) > 0)


def _outlines(mask: NDArray[np.bool_]) -> Sequence[Any]:
    return cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
