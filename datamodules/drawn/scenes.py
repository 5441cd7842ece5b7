"""Drawn scenes: textured things on a textured background, most of them two to a box, and which pixel belongs to which.

A scene is planned as layers, back to front, and painted; a video is one plan painted again with the layers moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from datamodules.drawn.silhouettes import pair_sharing_a_box, silhouette
from datamodules.drawn.sprites import LOOKS, Look, Sprite, colour, pattern, textured

MIN_AREA = 30  # pixels inside its contour that an object must show to be annotated
PAIRED = 0.7  # share of places that hold two things in one box
SPLIT = 0.3  # share of the things alone in their place that a pole cuts in two
ASPECT = {"person": 0.5, "bottle": 0.5, "car": 1.7, "boat": 1.1, "tv": 1.3}  # width / height of upright silhouettes


@dataclass(frozen=True)
class Layer:
    """A sprite with its top left corner at (x, y), which may lie outside; without category it is nobody's object."""

    sprite: Sprite
    x: int
    y: int
    category: str = ""
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """A picture and its objects: `image` (H, W, 3) uint8 RGB; `labels` (H, W) uint8, object i where i, 0 elsewhere.

    `categories[i - 1]` is the class of object i; object `crowd` (0: none, else the last) is many things
    that nobody told apart.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    categories: tuple[str, ...]
    crowd: int = 0

    @property
    def objects(self) -> range:
        """The labels of the single objects, crowd excluded."""
        return range(1, len(self.categories) + (self.crowd == 0))

    @property
    def size(self) -> tuple[int, int]:
        return self.labels.shape[0], self.labels.shape[1]


def plan_scene(
    rng: Generator,
    classes: Sequence[str],
    places: int | None = None,
    *,
    crowd: bool = False,
    scale: float = 1.0,
    paired: float = PAIRED,
) -> tuple[NDArray[np.float32], list[Layer]]:
    """Background (H, W, 3) and layers, back to front, of a picture with things at so many places (1 to 3 by default).

    Of the places, the share `paired` holds two things in one box; `scale` enlarges things; a crowd comes on top.
    """
    size = int(rng.integers(104, 129)), int(rng.integers(144, 173))
    size = size if rng.random() < 0.65 else size[::-1]
    layers = [_distractor(rng, size) for _ in range(rng.integers(2, 5))]
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(rng.integers(1, 4) if places is None else places):
        box = _free_box(rng, size, taken, scale)
        if box is None:
            continue
        taken.append(box)
        things = _pair(rng, classes, box) if rng.random() < paired else _single(rng, classes, box)
        layers += things
    if crowd:
        layers += _crowd(rng, size, str(rng.choice(classes)))
    return _background(rng, size), layers


def painted(background: NDArray[np.float32], layers: Sequence[Layer]) -> Scene:
    """Paint the layers over each other; what shows fewer than MIN_AREA pixels in the end is not annotated."""
    image, owner = background.copy(), np.zeros(background.shape[:2], np.uint8)
    names = [""]
    crowd = 0
    for layer in layers:
        if layer.crowd and crowd:
            value = crowd
        elif layer.category:
            names.append(layer.category)
            value = len(names) - 1
            crowd = value if layer.crowd else crowd
        else:
            value = 0
        _paint(image, owner, layer, value)
    areas = np.bincount(owner[~contour_of(owner)], minlength=len(names))
    shown = [value for value in range(1, len(names)) if areas[value] >= MIN_AREA]
    renumbered = np.zeros(len(names), np.uint8)
    renumbered[shown] = np.arange(1, len(shown) + 1)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return Scene(pixels, renumbered[owner], tuple(names[value] for value in shown), int(renumbered[crowd]))


def moved(layers: Sequence[Layer], dx: float, dy: float) -> list[Layer]:
    """The same layers with every object moved by (dx, dy) pixels; what is nobody's object stays."""
    x, y = round(dx), round(dy)
    return [replace(layer, x=layer.x + x, y=layer.y + y) if layer.category else layer for layer in layers]


def contour_of(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The band of two pixels between regions of different labels, which VOC leaves unlabelled."""
    around = np.ones((3, 3), np.uint8)
    return cv2.dilate(labels, around) != cv2.erode(labels, around)


def _paint(image: NDArray[np.float32], owner: NDArray[np.uint8], layer: Layer, value: int) -> None:
    (h, w), (height, width) = layer.sprite.size, owner.shape
    top, left, bottom, right = max(layer.y, 0), max(layer.x, 0), min(layer.y + h, height), min(layer.x + w, width)
    if top >= bottom or left >= right:
        return
    there = slice(top, bottom), slice(left, right)
    here = slice(top - layer.y, bottom - layer.y), slice(left - layer.x, right - layer.x)
    alpha = layer.sprite.alpha[here]
    image[there] += (layer.sprite.colour[here] - image[there]) * alpha[..., None]
    owner[there][alpha >= 0.5] = value


def _free_box(
    rng: Generator, size: tuple[int, int], taken: Sequence[tuple[int, int, int, int]], scale: float
) -> tuple[int, int, int, int] | None:
    """A box (x, y, w, h) that covers at most a sixth of another's side by side; None when twelve tries find none."""
    for _ in range(12):
        long = rng.uniform(32, 88) * scale
        short = max(long * rng.uniform(0.6, 1.0), 24)
        w, h = (long, short) if rng.random() < 0.5 else (short, long)
        w, h = int(min(w, size[1] * 0.85)), int(min(h, size[0] * 0.85))
        x, y = int(rng.integers(2, size[1] - w - 1)), int(rng.integers(2, size[0] - h - 1))
        if all(_shared(x, w, ox, ow) * _shared(y, h, oy, oh) <= min(w * h, ow * oh) / 6 for ox, oy, ow, oh in taken):
            return x, y, w, h
    return None


def _shared(start: int, length: int, other_start: int, other_length: int) -> int:
    return max(0, min(start + length, other_start + other_length) - max(start, other_start))


def _pair(rng: Generator, classes: Sequence[str], box: tuple[int, int, int, int]) -> list[Layer]:
    """Two things in one box, of one class as often as not; then their shades differ."""
    x, y, w, h = box
    first, second = (str(name) for name in rng.choice(classes, 2))
    if rng.random() < 0.4:
        second = first
    shade = 0.12 * float(rng.choice([-1, 1]))
    below, above = pair_sharing_a_box(rng, (h, w))
    return [
        Layer(textured(rng, LOOKS[first], below, shade), x, y, first),
        Layer(textured(rng, LOOKS[second], above, -shade), x, y, second),
    ]


def _single(rng: Generator, classes: Sequence[str], box: tuple[int, int, int, int]) -> list[Layer]:
    """One thing in the silhouette of its class, now and then behind a pole or cut by the image's edge."""
    x, y, w, h = box
    category = str(rng.choice(classes))
    look = LOOKS[category]
    name = look.silhouette or str(rng.choice(["blob", "ess", "arc", "half", "ring"]))
    if name in ASPECT:
        w, h = (w, max(int(w / ASPECT[name]), 16)) if ASPECT[name] > w / h else (max(int(h * ASPECT[name]), 16), h)
    if rng.random() < 0.15:
        x -= x + w // 4  # a quarter of it lies left of the image
    thing = Layer(textured(rng, look, silhouette(rng, name, (h, w))), x, y, category)
    if rng.random() >= SPLIT:
        return [thing]
    width = max(w // 6, 4)
    alpha = np.ones((h + 8, width), np.float32)
    pole = textured(rng, _dull(rng), alpha if w >= h else alpha.T)
    middle_x, middle_y = x + int(w * rng.uniform(0.4, 0.6)), y + int(h * rng.uniform(0.4, 0.6))
    if w >= h:
        return [thing, Layer(pole, middle_x - width // 2, y - 4)]
    return [thing, Layer(pole, x - 4, middle_y - width // 2)]


def _crowd(rng: Generator, size: tuple[int, int], category: str) -> list[Layer]:
    """A heap of small things of one class, annotated as one."""
    centre = rng.uniform(0.25, 0.75, 2) * size
    layers = []
    for _ in range(12):
        y, x = (centre + rng.normal(0, 9, 2)).astype(int)
        alpha = silhouette(rng, "blob", (int(rng.integers(9, 15)), int(rng.integers(9, 15))))
        layers.append(Layer(textured(rng, LOOKS[category], alpha), int(x), int(y), category, crowd=True))
    return layers


def _dull(rng: Generator) -> Look:
    """A look that belongs to no class: little colour, any hue."""
    hue, value = rng.uniform(), rng.uniform(0.35, 0.8)
    second = hue, rng.uniform(0.1, 0.4), value + rng.uniform(-0.2, 0.2)
    kind = str(rng.choice(["stripes", "waves", "grain", "gradient"]))
    return Look(((hue, rng.uniform(0.1, 0.4), value), second), kind)


def _distractor(rng: Generator, size: tuple[int, int]) -> Layer:
    h, w = int(rng.integers(16, 50)), int(rng.integers(16, 50))
    name = str(rng.choice(["blob", "bar", "arc", "leaf", "quad", "plus"]))
    sprite = textured(rng, _dull(rng), silhouette(rng, name, (h, w)))
    return Layer(sprite, int(rng.integers(-w // 2, size[1] - w // 2)), int(rng.integers(-h // 2, size[0] - h // 2)))


def _background(rng: Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Two dull colours mixed by clouds, a faint pattern and grain."""
    hue = rng.uniform()
    first = colour(hue, rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.8))
    second = colour(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.8))
    clouds = cv2.resize(rng.random((4, 5), np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    faint = pattern(rng, str(rng.choice(["stripes", "waves", "dots", "checks"])), size, rng.uniform(8, 24))[..., None]
    grain = rng.normal(0, 5, (*size, 1)).astype(np.float32)
    mixed = first + (second - first) * clouds + (faint - 0.5) * rng.uniform(8, 36) + grain
    return np.asarray(mixed, np.float32)
