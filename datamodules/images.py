"""Image files -> RGB pixels as a viewer shows them, with truncated files refused instead of decoded to gray."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Size = tuple[int, int]  # (H, W)

_ASKED = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
LARGEST = int(_ASKED) if _ASKED.isdigit() else 1 << 30  # pixels: OpenCV's own limit, by its own variable
Image.MAX_IMAGE_PIXELS = None  # Pillow's is a sixth of that and warns of bombs: a user's scans are none
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what cannot be read is said in our words


def read_image(path: str | Path, size: Size | None = None) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB.

    EXIF's orientation is applied, as viewers, browsers and annotation tools do, except where only the pixels as they
    are stored have the `size` (H, W) that the annotations say. Of 16 bits the upper 8 count; of 12 or 8 in 16, which
    would come out black, the upper or all 8 of those. Numbers with a point are 0 to 1, 0 to 255 or 0 to 65535. Of
    several pages or frames the first is read; alpha is ignored.

    Raises FileNotFoundError when the file is missing, ValueError when it cannot be decoded, is cut off, too large, or
    has another size than `size`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image {path} is missing; the data set that lists it is incomplete")
    data = path.read_bytes()
    if is_cut_off(data):
        raise ValueError(f"image {path} is truncated ({len(data):,} bytes, its end is missing); fetch it again")
    image = _decoded(path, data)
    if size is not None and image.shape[:2] != size:
        stored = _decoded(path, data, cv2.IMREAD_IGNORE_ORIENTATION)
        if stored.shape[:2] != size:
            raise ValueError(
                f"image {path} is {image.shape[:2]} (H, W), its annotations say {size}; they do not fit together"
            )
        image = stored
    return image if image.dtype == np.uint8 else _of_8_bits(image, path)


def read_shared(path: str | Path, size: Size | None = None) -> NDArray[np.uint8]:
    """The same, decoded once while the objects of one image follow each other. The array is read-only and shared."""
    path = Path(path)
    if not path.is_file():
        return read_image(path)
    state = path.stat()
    return _read_shared(str(path), size, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=2)
def _read_shared(path: str, size: Size | None, changed: tuple[int, int]) -> NDArray[np.uint8]:
    image = read_image(path, size)
    image.flags.writeable = False
    return image


def image_size(path: Path, annotated: Size | None = None) -> Size:
    """(H, W) of an image as `read_image` reads it beside annotations of this size, from its header.

    Raises FileNotFoundError when the file is missing, ValueError when it is no image or too large.
    """
    try:
        with Image.open(path) as image:
            height, width = image.height, image.width
            sideways = orientation(image) > 4
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} is missing; the data set that lists it is incomplete") from None
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, ...; some files only OpenCV can read
        height, width = read_image(path).shape[:2]
        sideways = False
    check_pixels(path, "image", height, width)
    return (width, height) if sideways and annotated != (height, width) else (height, width)


def orientation(image: Image.Image) -> int:
    """How an opened file is to be turned or flipped, as EXIF counts from 1 (as it is) to 8.

    Of TIFF files it is always 1: Pillow and OpenCV turn these themselves.
    """
    block = image.info.get("exif")
    if not block or image.format == "TIFF":
        return 1
    exif = Image.Exif()  # Image.getexif takes a tag of XMP, too, which viewers and OpenCV pass over
    try:
        exif.load(block)
        tag = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged block raises what struct, Pillow and Python happen to raise
        return 1
    return tag if tag in range(1, 9) else 1


def turned(pixels: NDArray, tag: int) -> NDArray:
    """Pixels (H, W, ...) as a viewer shows them: turned or flipped as this EXIF orientation says."""
    if tag > 4:
        pixels = pixels.swapaxes(0, 1)
    if tag in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if tag in (3, 4, 7, 8) else pixels


def check_pixels(path: str | Path, what: str, height: int, width: int) -> None:
    """Raise ValueError for a picture that OpenCV refuses to read."""
    if height * width > LARGEST:
        raise ValueError(
            f"{what} {path} has {height * width:,} pixels, OpenCV reads up to {LARGEST:,}; cut it into tiles, or set "
            "OPENCV_IO_MAX_IMAGE_PIXELS to a larger number"
        )


def _decoded(path: Path, data: bytes, flags: int = 0) -> NDArray:
    """RGB pixels (H, W, 3) of any depth."""
    pixels = np.frombuffer(data, np.uint8)
    try:
        if data[:2] in (b"II", b"MM"):
            image = _decoded_tiff(pixels)
        else:
            image = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | flags) if data else None
    except cv2.error as error:
        if "MAX_IMAGE" not in str(error):
            raise ValueError(f"image {path} cannot be decoded ({error.err}); fetch it again") from None
        with Image.open(path) as large:
            check_pixels(path, "image", large.height, large.width)
        raise ValueError(f"image {path} has a side that OpenCV does not read; cut it into tiles") from None
    if image is None:
        raise ValueError(f"image {path} cannot be decoded ({len(data):,} bytes); fetch it again")
    return np.asarray(image)


def _decoded_tiff(pixels: NDArray[np.uint8]) -> NDArray | None:
    """OpenCV 5.0 garbles TIFF files of 16 bits when it is asked for RGB, and makes no color of gray ones of 32 bits."""
    image = cv2.imdecode(pixels, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim == 3:
        return None if image is None else np.ascontiguousarray(image[..., 2::-1])
    return np.dstack([image] * 3)


def _of_8_bits(image: NDArray, path: Path) -> NDArray[np.uint8]:
    """Deeper pixels as `read_image` says. Raises ValueError for values below 0, above 16 bits, or that are none."""
    lowest, highest = (float(limit) for limit in (image.min(), image.max()))
    if not (lowest >= 0 and highest <= 65535):  # neither holds for what is no number
        raise ValueError(
            f"image {path} has values from {lowest:g} to {highest:g}; expected 0 to 255 or to 65535, or 0 to 1: save "
            "it with 8 bits"
        )
    if image.dtype.kind == "f":
        image = np.rint(image * 255 if highest <= 1 else image)
    divisor = 1 if highest < 256 else 16 if highest < 4096 else 256
    return (image // divisor).astype(np.uint8)


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG, PNG or BMP ends too early. Bytes after its proper end do not count, other formats pass.

    OpenCV reports nothing: libjpeg only warns and fills the rest with gray. A JPEG's end marker is looked for behind
    the start of its scan, because a thumbnail in its header ends with the same marker.
    """
    if data.startswith(b"\xff\xd8"):
        scan = _start_of_scan(data)
        return scan < 0 or data.rfind(b"\xff\xd9") < scan
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") < 0
    if data.startswith(b"BM") and len(data) >= 6:
        return len(data) < int.from_bytes(data[2:6], "little")  # the header states the size of the file
    return False


def _start_of_scan(data: bytes) -> int:
    """Where the pixels of a JPEG begin: headers are skipped by their lengths; -1 when the file ends before."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:
            return place
        fill = marker == 0xFF  # padding bytes may stand before a marker
        place += 1 if fill else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return -1
