"""What a picture of one object's mask shows: gray, colours, palettes and transparency, as people's tools write it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from datamodules.images import check_pixels, orientation, turned

FEW = 32  # colours of a drawing; a photograph and the noise of a JPEG have more
DARK, WHITE = 8, 240  # of 255: what a palette that was computed may call black; where white begins
MOST = 0.8  # of a soft mask's even areas lie at its brightest level


class Shown(NamedTuple):
    """A picture of a mask: `strength` (H, W), 0 at its background; `colours` (H, W), one number for each, None in gray;
    `lossy`: a JPEG, whose values are not clean."""

    strength: NDArray
    colours: NDArray[np.int64] | None = None
    lossy: bool = False


def read_strength(path: str | Path) -> NDArray:
    """A picture of a mask as (H, W) numbers, 0 at its background, more the brighter; read-only and shared.

    The background is black, or transparent; where a picture has neither, a palette's first entry. Gray levels, of any
    depth, stay as they are (0 to 1 with a point becomes 0 to 255), a colour counts as the largest of its channels. The
    alpha channel is the mask where all it shows has one colour, or is a photograph, cut out. EXIF's orientation is
    applied. Raises FileNotFoundError or ValueError naming the file when it is missing, unreadable, has several pages,
    or leaves open which colour is the background.
    """
    return _read(path).strength


def read_foreground(path: str | Path) -> NDArray[np.uint8]:
    """The object of a picture of a mask: (H, W) uint8 of 0 and 1. Raises as `read_strength` and `foreground_from`."""
    return (read_strength(path) >= foreground_from(path)).view(np.uint8)


def foreground_from(path: str | Path) -> int:
    """The strength from which on pixels are the object: half of the largest in a soft mask, else any.

    Raises ValueError for a picture of several objects or labels, and for a JPEG whose values end below 128.
    """
    shown = _read(path)
    numbers = shown.strength if shown.colours is None else shown.colours
    values = _values(numbers)
    top = int(shown.strength.max(initial=0))
    if top == 0 or (len(values) == 1 and not shown.lossy):
        return 1
    half = (top + 1) // 2
    if shown.lossy and top < 128:
        raise ValueError(f"mask {path} is a JPEG whose values end at {top}; save it as PNG, or as 0 and 255")
    near = (values >= top - 4) & (values < top) if shown.colours is None and 128 <= top <= 255 else np.zeros(0, bool)
    if shown.lossy or (len(values) > FEW and top >= 128) or near.any():
        several = _dominant(_levels(shown, top)) < MOST
    else:
        bare = len(values) > 1 and not (numbers == 0).any()
        several = top < 128 or bare or len(_even_areas(numbers)[0]) > 1
    if several:
        what = ", ".join(str(value) for value in values[:5].tolist()) + (", ..." if len(values) > 5 else "")
        what = f"values {what}" if shown.colours is None else f"{len(values)} colours"
        raise ValueError(
            f"mask {path} shows more than one object on a black background ({what}); expected one object, 0 and one "
            "other value: write the objects of a picture as annotations in COCO's format (coco_json:)"
        )
    return half


def _values(numbers: NDArray) -> NDArray:
    """Which numbers there are beside 0, sorted."""
    if numbers.dtype == np.uint8:
        return np.flatnonzero(np.bincount(numbers.ravel(), minlength=256)[1:]) + 1
    values = np.unique(numbers)
    return values[values != 0]


def _even_areas(numbers: NDArray) -> tuple[NDArray, NDArray]:
    """The numbers, beside 0, of pixels whose four neighbours have the same, and how many pixels of each."""
    even = numbers != 0
    down, right = numbers[1:] == numbers[:-1], numbers[:, 1:] == numbers[:, :-1]
    even[1:] &= down
    even[:-1] &= down
    even[:, 1:] &= right
    even[:, :-1] &= right
    return np.unique(numbers[even], return_counts=True)


def _dominant(numbers: NDArray) -> float:
    """The share that the most frequent number has in all even areas."""
    counts = _even_areas(numbers)[1]
    return float(counts.max() / counts.sum()) if len(counts) else 1.0


def _levels(shown: Shown, top: int) -> NDArray:
    """Strengths or colours in five levels, which the noise of a JPEG and soft edges of a drawing do not change."""
    if shown.colours is None:
        channels = [shown.strength]
    else:
        channels = [shown.colours >> shift & 0xFFFF for shift in (32, 16, 0)]
    levels = [(channel.astype(np.float32) * (255 / max(top, 255)) + 32).astype(np.int64) >> 6 for channel in channels]
    return sum(level << 8 * place for place, level in enumerate(levels))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------ reading


def _read(path: str | Path) -> Shown:
    try:
        state = Path(path).stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"mask {path} is missing; the data set that lists it is incomplete") from None
    return _read_cached(str(path), (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=2)
def _read_cached(path: str, changed: tuple[int, int]) -> Shown:
    try:
        with Image.open(path) as image:
            check_pixels(path, "mask", image.height, image.width)
            _check_single(image, path)
            shown = _shown(image, path)
            tag = orientation(image)
    except UnidentifiedImageError:  # some files only OpenCV can read
        shown, tag = _of_colours(_by_opencv(path), path), 1
    except ValueError as error:
        if "mask" in str(error):
            raise
        raise ValueError(f"mask {path} cannot be read ({error}); fetch it again") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, EOFError, ...
        raise ValueError(f"mask {path} cannot be read ({error}); fetch it again") from None
    parts = [None if part is None else np.ascontiguousarray(turned(part, tag)) for part in shown[:2]]
    for part in parts:
        if part is not None:
            part.flags.writeable = False
    return Shown(parts[0], parts[1], shown.lossy)  # type: ignore[arg-type]


def _check_single(image: Image.Image, path: str) -> None:
    """Refuse stacks of masks; a smaller second page is a preview."""
    if image.format in ("JPEG", "MPO") or getattr(image, "n_frames", 1) == 1:
        return
    size, pages = image.size, getattr(image, "n_frames", 1)
    image.seek(1)
    if image.size == size:
        raise ValueError(f"mask {path} has {pages} pages or frames; a mask is one picture: save one object in one file")
    image.seek(0)


def _shown(image: Image.Image, path: str) -> Shown:
    lossy = image.format in ("JPEG", "MPO")
    if image.mode == "P":
        return _of_palette(image, path)
    if image.mode in ("RGB", "RGBA"):
        pixels = np.asarray(image) if lossy else _by_opencv(path)  # Pillow keeps 8 bits of 16
        return _of_colours(pixels, path)._replace(lossy=lossy)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" in image.info:
        image = image.convert("LA")
    if image.mode in ("LA", "La"):
        gray, alpha = (np.asarray(image.convert("LA"))[..., channel] for channel in (0, 1))
        return _of_colours(np.dstack([gray, gray, gray, alpha]), path)
    if image.mode in ("L", "F") or image.mode.startswith("I"):
        return _of_gray(np.asarray(image), path)._replace(lossy=lossy)
    mode = "RGBA" if image.mode in ("PA", "RGBa") else "RGB"
    return _of_colours(np.asarray(image.convert(mode)), path)._replace(lossy=lossy)


def _by_opencv(path: str) -> NDArray:
    """(H, W), (H, W, 3) or (H, W, 4) as stored, of any depth, RGB."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("it is no picture, or damaged")
    pixels = np.asarray(pixels)
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _of_gray(pixels: NDArray, path: str) -> Shown:
    if pixels.dtype.kind != "u":
        lowest, highest = float(pixels.min()), float(pixels.max())
        if not (lowest >= 0 and highest < 2**31):
            raise ValueError(f"mask {path} has values from {lowest:g} to {highest:g}; expected 0 and 255, or 0 and 1")
        if pixels.dtype.kind == "f":
            pixels = np.rint(pixels * 255 if highest <= 1 else pixels)
        pixels = pixels.astype(np.int32)
    return Shown(pixels)


def _of_colours(pixels: NDArray, path: str) -> Shown:
    """(H, W, 3) or, with alpha, (H, W, 4)."""
    if pixels.ndim == 2:
        return _of_gray(pixels, path)
    colours = pixels[..., :3]
    if pixels.shape[2] == 4 and pixels[..., 3].min() < (top := int(pixels[..., 3].max())):
        visible = pixels[..., 3] >= (top + 1) // 2
        if len(np.unique(_packed(colours[visible]))) in range(2, FEW + 1):
            colours = np.where(visible[..., None], colours, 0)
        else:  # a shape of one colour, or a photograph, cut out
            return Shown(np.ascontiguousarray(pixels[..., 3]))
    if colours.dtype.kind != "u":
        colours = np.stack([_of_gray(colours[..., channel], path).strength for channel in range(3)], axis=2)
    gray = (colours[..., 0] == colours[..., 1]).all() and (colours[..., 0] == colours[..., 2]).all()
    return Shown(np.ascontiguousarray(colours[..., 0])) if gray else Shown(colours.max(axis=2), _packed(colours))


def _packed(colours: NDArray) -> NDArray[np.int64]:
    """One number for each colour (..., 3), 0 for black."""
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    return red << 32 | green << 16 | blue


def _of_palette(image: Image.Image, path: str) -> Shown:
    """By its colours: tools that write palettes begin them with black, with white, or with whatever comes first."""
    indices = np.asarray(image)
    image.apply_transparency()
    entries = np.array(image.getpalette("RGBA") or [], np.uint8).reshape(-1, 4)[:256]
    table = np.zeros((256, 4), np.uint8)
    table[: len(entries)] = entries
    colours, used = table[:, :3], np.bincount(indices.ravel(), minlength=256) > 0
    strength = colours.max(axis=1)
    hidden = used & (table[:, 3] < 128)
    seen = used & ~hidden
    if strength[seen].max(initial=0) >= 128:
        strength[strength <= DARK] = 0
    if hidden.any():
        strength[hidden] = 0
        if not strength[seen].any():  # a black shape on nothing
            strength[seen] = 255
    elif not (used & (strength == 0)).any():
        if not used[0] or colours[0].min() < WHITE:
            return Shown(indices)
        if used.sum() > 1:
            raise ValueError(
                f"mask {path} has a palette that begins with white and no black; is white the background or the "
                "object? Save it as gray, 0 and 255"
            )
    packed = np.where(strength == 0, 0, _packed(colours))
    gray = (colours[seen] == colours[seen][:, :1]).all()
    return Shown(strength[indices], None if gray else packed[indices])
