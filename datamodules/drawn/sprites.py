"""Textured things to paint: a silhouette filled with the look of its class, which says its colours and its pattern."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


class Sprite(NamedTuple):
    """A thing to paint: `colour` (h, w, 3) float32 0..255 and `alpha` (h, w) float32 0..1, the object where >= 0.5."""

    colour: NDArray[np.float32]
    alpha: NDArray[np.float32]

    @property
    def size(self) -> tuple[int, int]:
        return self.alpha.shape[0], self.alpha.shape[1]


class Look(NamedTuple):
    """What things of a class have in common: two colours (hue, saturation, value), a pattern, a silhouette or none."""

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    pattern: str
    silhouette: str = ""


LOOKS = {
    "person": Look(((0.06, 0.55, 0.95), (0.62, 0.65, 0.60)), "checks", "person"),
    "dog": Look(((0.07, 0.75, 0.45), (0.09, 0.55, 0.80)), "grain"),
    "car": Look(((0.99, 0.85, 0.85), (0.01, 0.70, 0.50)), "gradient", "car"),
    "boat": Look(((0.50, 0.75, 0.75), (0.54, 0.20, 0.95)), "stripes", "boat"),
    "bottle": Look(((0.36, 0.80, 0.50), (0.30, 0.50, 0.85)), "waves", "bottle"),
    "tv": Look(((0.74, 0.65, 0.45), (0.70, 0.35, 0.90)), "dots", "tv"),
    "airplane": Look(((0.58, 0.20, 0.95), (0.60, 0.75, 0.60)), "rings"),
    "sheep": Look(((0.13, 0.15, 0.98), (0.10, 0.30, 0.65)), "dots"),
    "zebra": Look(((0.00, 0.00, 0.98), (0.65, 0.20, 0.12)), "stripes"),
    "banana": Look(((0.15, 0.85, 0.98), (0.12, 0.90, 0.70)), "gradient", "leaf"),
    "umbrella": Look(((0.90, 0.75, 0.85), (0.94, 0.35, 0.98)), "rings"),
    "clock": Look(((0.07, 0.90, 0.98), (0.60, 0.60, 0.35)), "checks", "ring"),
}


def pattern(rng: Generator, kind: str, size: tuple[int, int], period: float) -> NDArray[np.float32]:
    """A pattern of this kind in [0, 1], (h, w) float32, with this period in pixels; direction and phase are drawn."""
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size), indexing="ij")
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi, 2)
    u = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + phase[0]
    v = (y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / period) + phase[1]
    if kind == "stripes":
        wave = np.sin(u)
    elif kind == "waves":
        wave = np.sin(u + 1.5 * np.sin(v / 2))
    elif kind == "checks":
        wave = np.sin(u) * np.sin(v) * 2
    elif kind == "dots":
        wave = np.cos(u) + np.cos(v) - 0.4
    elif kind == "rings":
        wave = np.sin(np.hypot(x - size[1] / 2, y - size[0] / 2) * (2 * np.pi / period) + phase[0])
    elif kind == "grain":
        wave = 4 * cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), period / 5)
    else:  # gradient
        wave = (x * np.cos(angle) + y * np.sin(angle)) / max(size) * 2 - 0.7
    return (0.5 + 0.5 * np.tanh(2 * wave)).astype(np.float32)


def colour(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    """RGB in 0..255 of a colour; the hue is a circle, saturation and value are clipped to [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)), np.float32) * 255


def textured(rng: Generator, look: Look, alpha: NDArray[np.float32], brightness: float = 0.0) -> Sprite:
    """Fill a silhouette with the look of a class; every instance has its own hue, direction, shade, and a dark rim."""
    size = alpha.shape[0], alpha.shape[1]
    hue, shade = rng.normal(0, 0.012), brightness + rng.uniform(-0.08, 0.08)
    first, second = (colour(h + hue, s, v + shade) for h, s, v in look.colours)
    mix = pattern(rng, look.pattern, size, rng.uniform(5, 9))[..., None]
    inner = cv2.erode(np.pad(alpha, 1), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    rim = 1 - 0.45 * np.clip(alpha - inner, 0, 1)[..., None]
    return Sprite(((first + (second - first) * mix) * rim).astype(np.float32), alpha)
