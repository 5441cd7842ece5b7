"""Pictures of other kinds than the drawn scenes: streets, roofs from above, sections of cells (IOG, Tables 4 to 6).

What a network has learnt on the scenes' textured things helps here in part: colours, textures and shapes are others.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from datamodules.drawn.scenes import Layer, Scene, painted
from datamodules.drawn.silhouettes import silhouette
from datamodules.drawn.sprites import Look, colour, pattern, textured
from datamodules.masks import mask_from_polygons

STREET = {
    "person": Look(((0.60, 0.20, 0.35), (0.08, 0.25, 0.50)), "gradient", "person"),
    "rider": Look(((0.05, 0.35, 0.45), (0.60, 0.30, 0.25)), "gradient", "person"),
    "car": Look(((0.58, 0.15, 0.55), (0.58, 0.25, 0.20)), "gradient", "car"),
    "truck": Look(((0.12, 0.20, 0.65), (0.10, 0.15, 0.40)), "grain", "quad"),
    "bus": Look(((0.14, 0.45, 0.60), (0.60, 0.20, 0.30)), "grain", "quad"),
    "train": Look(((0.98, 0.40, 0.45), (0.60, 0.10, 0.60)), "gradient", "quad"),
    "motorcycle": Look(((0.00, 0.10, 0.30), (0.00, 0.40, 0.40)), "grain", "bolt"),
    "bicycle": Look(((0.55, 0.15, 0.45), (0.00, 0.05, 0.25)), "grain", "ring"),
}
WIDTH = {
    "person": 0.4,
    "rider": 0.5,
    "car": 1.8,
    "truck": 1.4,
    "bus": 1.6,
    "train": 2.4,
    "motorcycle": 1.3,
    "bicycle": 1.4,
}


def street(rng: Generator, crowd: bool = False) -> Scene:
    """A street in fog: sky, houses and road in shades of gray; nearer things are larger and hide farther ones."""
    height, width = 100, 180
    horizon = int(rng.integers(34, 46))
    background = np.empty((height, width, 3), np.float32)
    background[:horizon] = np.linspace(205, 165, horizon, dtype=np.float32)[:, None, None]
    background[horizon:] = np.linspace(120, 70, height - horizon, dtype=np.float32)[:, None, None]
    for x in range(0, width, 30):
        top = int(rng.integers(4, horizon - 8))
        background[top : horizon + 4, x : x + int(rng.integers(18, 30))] = rng.uniform(90, 150, 3)
    background += rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    feet = np.sort(rng.uniform(horizon + 8, height - 8, rng.integers(4, 7)))
    layers = [_on_street(rng, str(rng.choice(list(STREET))), foot, horizon, width) for foot in feet]
    if crowd:
        layers += [_on_street(rng, "person", horizon + 14, horizon, 40, crowd=True) for _ in range(6)]
    return painted(background, layers)


def _on_street(rng: Generator, name: str, foot: float, horizon: int, width: int, crowd: bool = False) -> Layer:
    tall = 14 + 0.7 * (foot - horizon) * (0.8 if name in ("car", "motorcycle", "bicycle") else 1.2)
    size = max(int(tall), 10), max(int(tall * WIDTH[name]), 8)
    sprite = textured(rng, STREET[name], silhouette(rng, STREET[name].silhouette, size))
    return Layer(sprite, int(rng.integers(-size[1] // 4, width - size[1] // 2)), int(foot) - size[0], name, crowd)


class Aerial(NamedTuple):
    """`image` (H, W, 3) uint8 RGB, and the outline (n, 2) of every roof, x and y in pixels."""

    image: NDArray[np.uint8]
    roofs: list[NDArray[np.float64]]


def aerial(rng: Generator) -> Aerial:
    """Meadows and a lane from above, with gabled roofs of four or six corners that cast a shadow and touch nothing."""
    height, width = 120, 160
    meadow = np.stack([pattern(rng, "grain", (height, width), 14)] * 3, -1)
    image = colour(0.25, 0.45, 0.35) + (colour(0.20, 0.35, 0.55) - colour(0.25, 0.45, 0.35)) * meadow
    lane = np.array([[0, rng.integers(height)], [width // 2, rng.integers(height)], [width, rng.integers(height)]])
    cv2.polylines(image, [lane.astype(np.int32)], False, (150.0, 145.0, 140.0), int(rng.integers(6, 10)))
    taken = np.zeros((height, width), np.uint8)
    roofs: list[NDArray[np.float64]] = []
    wanted = int(rng.integers(4, 7))
    for _ in range(60):
        if len(roofs) == wanted:
            break
        ring, sunny = _roof(rng, (height, width))
        mask = mask_from_polygons([ring.ravel()], (height, width))
        if taken[cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0].any() or mask.sum() < 60:
            continue
        taken |= mask
        roofs.append(ring)
        shadow = np.roll(mask, (4, 3), (0, 1)) > mask
        image[shadow] *= 0.45
        tiles = colour(rng.uniform(0, 0.09), rng.uniform(0.3, 0.7), rng.uniform(0.5, 0.8))
        image[mask > 0] = (tiles * np.where(sunny, 1.15, 0.8)[..., None])[mask > 0]
    image += rng.normal(0, 4, (height, width, 1))
    return Aerial(np.clip(image, 0, 255).astype(np.uint8), roofs)


def _roof(rng: Generator, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """An outline (n, 2) inside the picture of this size, and which of its pixels lie on one side of the ridge."""
    length, depth = rng.uniform(22, 46), rng.uniform(12, 22)
    corners = np.array([[0, 0], [length, 0], [length, depth], [0, depth]])
    if rng.random() < 0.4:  # an annex makes it an L
        cut = length * rng.uniform(0.4, 0.6)
        corners = np.array([[0, 0], [length, 0], [length, depth], [cut, depth], [cut, 1.7 * depth], [0, 1.7 * depth]])
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = corners.mean(0)
    to = rng.uniform(24, np.array(size[::-1]) - 24)
    ring = np.clip((corners - centre) @ turn + to, 1, np.array(size[::-1]) - 1)
    y, x = np.mgrid[: size[0], : size[1]]
    return ring, (y - to[1]) * np.cos(angle) > (x - to[0]) * np.sin(angle)


def section(rng: Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A gray image (H, W) of cells between dark membranes, and its mitochondria (0 and 255): dark, striped, apart."""
    side = 136
    seeds = rng.uniform(0, side, (14, 2))
    y, x = np.mgrid[:side, :side]
    away = np.sort(np.hypot(x[..., None] - seeds[:, 0], y[..., None] - seeds[:, 1]), axis=-1)
    image = 165 + 18 * (pattern(rng, "grain", (side, side), 9) - 0.5)
    image[away[..., 1] - away[..., 0] < 3] = 60
    found = np.zeros((side, side), np.uint8)
    wanted, count = int(rng.integers(4, 7)), 0
    for _ in range(60):
        if count == wanted:
            break
        axes, angle = (int(rng.integers(9, 20)), int(rng.integers(6, 11))), float(rng.uniform(0, 180))
        centre = tuple(int(v) for v in rng.integers(6, side - 6, 2))
        mask = cv2.ellipse(
            np.zeros_like(found), centre, axes, angle=angle, startAngle=0, endAngle=360, color=255, thickness=-1
        )
        if found[cv2.dilate(mask, np.ones((7, 7), np.uint8)) > 0].any():
            continue
        count += 1
        found[mask > 0] = 255
        inner = cv2.erode(mask, np.ones((5, 5), np.uint8)) > 0
        image[mask > 0] = 70
        image[inner] = (85 + 45 * pattern(rng, "stripes", (side, side), 5))[inner]
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8) + rng.normal(0, 9, (side, side))
    return np.clip(image, 0, 255).astype(np.uint8), found
