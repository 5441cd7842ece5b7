"""Image files -> RGB pixels, with truncated files refused instead of decoded to gray."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB.

    EXIF orientation is *not* applied: every data set of this suite is annotated on the pixels as they are stored.
    Raises FileNotFoundError when the file is missing, ValueError when it cannot be decoded, is cut off, or (with
    `size` (H, W), what the annotations say) has another size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image {path} is missing; the data set that lists it is incomplete")
    data = path.read_bytes()
    if is_cut_off(data):
        raise ValueError(f"image {path} is truncated ({len(data):,} bytes, its end is missing); fetch it again")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise ValueError(f"image {path} cannot be decoded ({len(data):,} bytes); fetch it again")
    if size is not None and image.shape[:2] != size:
        raise ValueError(
            f"image {path} is {image.shape[:2]} (H, W), its annotations say {size}; they do not fit together"
        )
    return np.asarray(image, np.uint8)


def read_shared(path: str | Path) -> NDArray[np.uint8]:
    """The same, decoded once while the objects of one image follow each other. The array is read-only and shared."""
    path = Path(path)
    return _read_shared(str(path), path.stat().st_mtime_ns) if path.is_file() else read_image(path)


@lru_cache(maxsize=2)
def _read_shared(path: str, changed: int) -> NDArray[np.uint8]:
    image = read_image(path)
    image.flags.writeable = False
    return image


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
