"""Files written so that the same content is the same bytes; folders appear when needed."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """An RGB image in the format of its ending, JPEG with quality 95."""
    _write(path, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() == ".jpg" else [])


def write_gray(path: Path, values: NDArray) -> None:
    """Numbers from 0 to 255; from an array of uint16 up to 65,535."""
    _write(path, values if values.dtype == np.uint16 else values.astype(np.uint8), [])


def _write(path: Path, pixels: NDArray, options: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(path.suffix.lower(), pixels, options)
    path.write_bytes(encoded.tobytes())  # not cv2.imwrite, which says nothing when the disk is full


def write_palette(path: Path, labels: NDArray) -> None:
    """A PNG of indices into VOC's palette, where a label's bits are spread over red, green and blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.arange(256)[:, None]
    bits = sum(((label >> (3 * k + np.arange(3))) & 1) << (7 - k) for k in range(8))
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette(np.asarray(bits, np.uint8).tobytes())
    picture.save(path)


def write_mat(path: Path, content: dict) -> None:
    """A MATLAB file whose header does not name the day it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    savemat(buffer, content, do_compression=True)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + buffer.getvalue()[116:])


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
