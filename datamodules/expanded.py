"""The view of MAL and EXITS: the object's box grown by chance on each side, on an image that has no border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules import geometry
from datamodules.ranges import Range
from datamodules.views import BoxView, Size

RESAMPLING = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class ExpandedBox(BoxView):
    """The object's box, each side moved out by a share of its half width or height, on an image that repeats.

    What a constant border would show as an edge, the CRF loss would take for one of the object. In training the shares
    are drawn as MAL's code has them: u in [0, most] per side, times a gate g in [0, 1] on one side and 1 - g on the
    opposite one. The box never shrinks, and its mean growth per side is a quarter of `most`.

    The published chain resizes with Pillow's antialiased bicubic filter, image and 0/1 masks alike. The fused form
    resizes the same box linearly: in crops of 512 px of a smooth image of 480 x 640 it is 0.2 of 255 levels away on
    average, its box masks have an IoU of 0.9998 with the chain's (least 0.997); in photographs 0.4 levels and 0.999. It
    has no filter: a crop made smaller by more than 2 aliases, as those of 512 px do only for images longer than 640,
    and those of a small profile often: trained on these, a network is shown smoother crops at test.

    Args:
        most: largest share by which training moves a side out.
        margin: that of every side at test.
        beyond: what is seen beyond the image: itself once more (`wrap`), or black (`zero`).

    Raises ValueError for a share below 0 and for another word.
    """

    most: float = 1.2
    margin: float = 0.3
    beyond: geometry.Beyond = "wrap"
    behaviour = 2  # 2: the fused form resizes the image where it warped it, up to a level away
    clean_moves = True
    resizes = True

    def __post_init__(self) -> None:
        for name in ("most", "margin"):
            Range(0).checked(getattr(self, name), f"ExpandedBox: {name}")
        if self.beyond not in ("wrap", "zero"):
            raise ValueError(f"ExpandedBox: beyond is {self.beyond!r}; expected wrap or zero")

    def crop_box(self, box: NDArray[np.int64], image_size: Size, draw: np.random.Generator | None) -> NDArray[np.int64]:
        """Never farther beyond the image than one pixel less than its own size."""
        shares = np.full(4, self.margin) if draw is None else drawn_shares(self.most, draw)
        last = np.array(image_size[::-1]) - 1
        return np.clip(expanded_box(box, shares), np.tile(-last, 2), np.tile(2 * last, 2))

    def resized(self, image: NDArray, size: Size, interpolation: str) -> NDArray:
        """In whole levels (uint8), as Pillow has it."""
        levels = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)
        return np.asarray(Image.fromarray(levels).resize(size[::-1], RESAMPLING[interpolation]))

    def resized_mask(self, mask: NDArray, size: Size, soft: bool) -> NDArray:
        """0 and 1, rounded by Pillow; or not rounded, where masks are soft."""
        if not soft:
            return np.asarray(
                Image.fromarray(mask.astype(np.uint8, copy=False)).resize(size[::-1], RESAMPLING["cubic"])
            )
        share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size[::-1], RESAMPLING["cubic"]))
        return np.clip(share, 0, 1)

    def in_words(self, size: int) -> str:
        beyond = "the image repeats beyond its border" if self.beyond == "wrap" else "black beyond the image"
        return f"{size} px, box expanded by up to {self.most:g} (at test {self.margin:g}) of its half size, {beyond}"


def drawn_shares(most: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """By which shares training moves left, top, right and bottom out (MAL's code)."""
    shares, gates = draw.uniform(0, most, 4), draw.random(2)
    return shares * np.concatenate([gates, 1 - gates])


def expanded_box(box: NDArray, shares: NDArray) -> NDArray[np.int64]:
    """The box xyxy with its sides left, top, right and bottom moved out by shares of half its width or height.

    As MAL's code has it, whose boxes are the points' coordinates as they are, with ends that do not count: rounded away
    from the centre, and one pixel added at the far ends, which then do not count either. So an inclusive box goes in as
    it is, and less that one pixel an inclusive one comes out: with shares of 0 the same.
    """
    first, last = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    centre, half = (first + last) / 2, (last - first) / 2
    low = np.floor(centre - half * (1 + shares[:2]))
    beyond = np.ceil(centre + half * (1 + shares[2:]) + 1)
    return np.concatenate([low, beyond - 1]).astype(np.int64)
