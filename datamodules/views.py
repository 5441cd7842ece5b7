"""Views: which part of an image a network sees of an object, a class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules import geometry

Size = tuple[int, int]
Resize = Callable[[NDArray, Size], NDArray]


@dataclass(frozen=True)
class Located:
    """What a view may know of an object, in pixels of the (augmented) image.

    Args:
        box: xyxy of the object; the whole image's where augmentation moved it out of the frame, as in DEXTR's code.
        image_size: (H, W).
        gone: whether it was moved out.
        last: of the image scaled to (H, W), the last x and y with object or void; None for the box alone.
    """

    box: NDArray[np.int64]
    image_size: Size
    gone: bool = False
    last: Callable[[Size], NDArray[np.int64]] | None = None

    def last_in(self, scaled: Size) -> NDArray[np.int64]:
        """The last x and y of the scaled image with object or void."""
        return last_scaled(self.box, self.image_size, scaled) if self.last is None else self.last(scaled)


@dataclass(frozen=True)
class Place:
    """Where a view lies.

    Args:
        crop_box: xyxy in pixels of the image, to paste a prediction back into; it may leave the image.
        size: (H, W) of the crop.
        grid: (2, 3), from pixels of the image to those of the crop.
        scaled: (H, W) that the image is resized to before it is cut; None where `crop_box` is cut and then resized.
        first: (x, y) of the crop's first pixel in that scaled image.
    """

    crop_box: NDArray[np.int64]
    size: Size
    grid: NDArray[np.float64]
    scaled: Size | None = None
    first: tuple[int, int] = (0, 0)

    def cut(self, array: NDArray, resized: Resize, beyond: geometry.Beyond) -> NDArray:
        """The view of an image or mask, cut and resized in the published order."""
        if self.scaled is None:
            return resized(geometry.crop(array, self.crop_box, beyond), self.size)
        (x, y), (height, width) = self.first, self.size
        window = np.array([x, y, x + width - 1, y + height - 1])
        return geometry.crop(resized(array, self.scaled), window, beyond)


class View(ABC):
    """Which part of an image a network sees of an object, and how it gets onto the crop's grid.

    A view has to say where it lies (`placed`). Most are a box of the image stretched to the crop: they inherit from
    `BoxView` and say which box. All other questions have the answers given here until a view gives its own. Views are
    frozen dataclasses: their fields, plain values, stand in reports and name runs.

    Attributes:
        beyond: what is seen beyond the image, in image and masks: `zero`, or the image once more (`wrap`).
        void_beyond: whether pixels beyond the image have no label; they are background otherwise.
        black_when_gone: whether the published chain shows a black crop of an object that left the frame.
        whole: whether the image keeps its shape and is made smaller at most. Then a batch holds one object, clicks can
            begin without one, and at test a recipe's size, interpolation and soft masks play no part.
        clean_moves: whether the second, clean view of a sample lies exactly where this one does and only leaves out the
            recipe's `transforms`. Otherwise it is placed without draw in the image as it is on disk.
        resizes: whether the fused map shows the image of a box that is neither rotated nor scaled by resizing it, in a
            sixth of the time of warping it; a view without such a box cannot.
    """

    beyond: geometry.Beyond = "zero"
    void_beyond: bool = False
    black_when_gone: bool = False
    whole: bool = False
    clean_moves: bool = False
    resizes: bool = False

    @abstractmethod
    def placed(self, located: Located, size: int, draw: np.random.Generator | None) -> Place:
        """Where the view lies for crops of `size`; `draw` is keyed by object and epoch in training, None at test."""

    def at_test(self) -> View:
        """What is seen at test after training with this view, where the recipe names no other."""
        return self

    def pixel_side(self, size: int) -> int:
        """The side that pixel constants of a recipe scale with, in pixels of the crop."""
        return size

    def resized(self, image: NDArray, size: Size, interpolation: str) -> NDArray:
        """An image, or its crop, at size (H, W): in float, values not clipped."""
        return geometry.resize(image.astype(np.float32, copy=False), size, interpolation)

    def resized_mask(self, mask: NDArray, size: Size, soft: bool) -> NDArray:
        """A mask, or void, at size (H, W): 0 and 1, or float32 in between where masks are soft."""
        if soft:
            return geometry.resize(mask.astype(np.float32), size, "linear")
        return geometry.resize(mask, size, "nearest")

    def values(self) -> dict[str, Any]:
        """Its fields: with the name of its class all that determines what it shows."""
        return dict(vars(self))

    def in_words(self, size: int) -> str:
        """What a report says of it, with crops of `size`."""
        fields = ", ".join(f"{name} {value}" for name, value in self.values().items())
        return f"{type(self).__name__} ({fields})" if fields else type(self).__name__


class BoxView(View):
    """A box of the image, stretched to the crop: its aspect ratio is not kept."""

    @abstractmethod
    def crop_box(self, box: NDArray[np.int64], image_size: Size, draw: np.random.Generator | None) -> NDArray[np.int64]:
        """The box xyxy to be seen of an object with this one, in an image of (H, W); it may leave the image."""

    def grid_size(self, image_size: Size, size: int) -> Size:
        """(H, W) of the crop."""
        return size, size

    def placed(self, located: Located, size: int, draw: np.random.Generator | None) -> Place:
        """The whole image of an object that left it."""
        box = located.box if located.gone else self.crop_box(located.box, located.image_size, draw)
        grid_size = self.grid_size(located.image_size, size)
        return Place(box, grid_size, geometry.box_to_grid(box, grid_size))


@dataclass(frozen=True)
class Crop(BoxView):
    """The object's box and a margin of `relax` pixels of the image; black beyond it (DEXTR)."""

    relax: int = 50
    black_when_gone = True

    def crop_box(self, box: NDArray[np.int64], image_size: Size, draw: np.random.Generator | None) -> NDArray[np.int64]:
        return geometry.relax_box(box, self.relax)

    def in_words(self, size: int) -> str:
        return f"{size} px, margin {self.relax} px of the image, crop"


@dataclass(frozen=True)
class FullImage(BoxView):
    """The full image, stretched to the crop (DEXTR's Table 3)."""

    def crop_box(self, box: NDArray[np.int64], image_size: Size, draw: np.random.Generator | None) -> NDArray[np.int64]:
        return whole_box(image_size)

    def in_words(self, size: int) -> str:
        return f"{size} px, full image"


@dataclass(frozen=True)
class WholeImage(BoxView):
    """The image in its own shape; made smaller where its longer side has more than `long_side` pixels, 0 for never."""

    long_side: int = 0
    whole = True

    def crop_box(self, box: NDArray[np.int64], image_size: Size, draw: np.random.Generator | None) -> NDArray[np.int64]:
        return whole_box(image_size)

    def grid_size(self, image_size: Size, size: int) -> Size:
        return size_within(image_size, self.long_side)

    def resized(self, image: NDArray, size: Size, interpolation: str) -> NDArray:
        """By area, in the image's own type."""
        return geometry.resize(image, size, "area")

    def resized_mask(self, mask: NDArray, size: Size, soft: bool) -> NDArray:
        """Of 0 and 1 always."""
        return geometry.resize(mask, size, "nearest")

    def in_words(self, size: int) -> str:
        longest = f"its longer side at most {self.long_side} px" if self.long_side else "at its own size"
        return f"the whole image, {longest}"


@dataclass(frozen=True)
class Window(View):
    """A window of the image, which is scaled until its shorter side has `short_side` pixels, 0 for the crop's (ITIS).

    Args:
        short_side: see above.
        place: `corner` begins at the image's first pixel, or ends where object or void end when that is farther than
            the crop's size (the released code: the object's last row and column are lost); `random` is any window that
            holds the object, or as much of it as fits. Without a draw it is the corner.
    """

    short_side: int = 0
    place: Literal["corner", "random"] = "corner"
    void_beyond = (
        True  # published windows lie inside their image: nothing is learned beyond it, and nobody clicks there
    )

    def at_test(self) -> View:
        return FullImage()

    def pixel_side(self, size: int) -> int:
        return self.short_side or size

    def placed(self, located: Located, size: int, draw: np.random.Generator | None) -> Place:
        image_size = located.image_size
        scaled = scaled_size(image_size, self.pixel_side(size))
        extent = np.array(scaled[::-1])  # (width, height)
        per_pixel = extent / np.array(image_size[::-1])
        if self.place == "corner" or draw is None:
            offset = np.maximum(0, located.last_in(scaled) - size)
        else:
            first = np.floor(located.box[:2] * per_pixel).astype(np.int64)
            end = np.ceil((located.box[2:] + 1) * per_pixel).astype(np.int64)
            low, high = np.minimum(end - size, first), np.maximum(end - size, first)
            room = np.maximum(0, extent - size)
            offset = draw.integers(np.clip(low, 0, room), np.clip(high, 0, room) + 1)
        to_scaled = geometry.box_to_grid(whole_box(image_size), scaled)
        grid = np.column_stack([to_scaled[:, :2], to_scaled[:, 2] - offset])
        ends = np.round(np.concatenate([offset, offset + size]) / np.tile(per_pixel, 2)).astype(np.int64)
        return Place(ends - np.array([0, 0, 1, 1]), (size, size), grid, scaled, (int(offset[0]), int(offset[1])))

    def in_words(self, size: int) -> str:
        side = self.pixel_side(size)
        return f"{self.place} window of {size} px, the image's shorter side resized to {side} px"


def whole_box(image_size: Size) -> NDArray[np.int64]:
    """The box of an image of size (H, W)."""
    return np.array([0, 0, image_size[1] - 1, image_size[0] - 1])


def scaled_size(image_size: Size, short: int) -> Size:
    """(H, W) of the image whose shorter side is `short`."""
    height, width = (max(short, round(side * short / min(image_size))) for side in image_size)
    return height, width


def size_within(size: Size, long_side: int) -> Size:
    """(H, W) made smaller until neither side is longer than `long_side`; 0 is no limit."""
    if not long_side or max(size) <= long_side:
        return size
    height, width = (max(1, round(side * long_side / max(size))) for side in size)
    return height, width


def last_scaled(box: NDArray, size: Size, scaled: Size) -> NDArray[np.int64]:
    """The last x and y of a box (xyxy, in an image of `size`) after nearest-neighbour scaling of all its pixels."""
    return np.ceil((box[2:] + 1) * np.array(scaled[::-1]) / np.array(size[::-1])).astype(np.int64) - 1
