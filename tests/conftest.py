"""Masks drawn by hand, and the arrays that the authors' code made (tests/golden/dextr.npz)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from datamodules import miniature

# A busy machine is no failure, and a run of the tests leaves nothing behind.
settings.register_profile("suite", deadline=None, max_examples=60, database=None)
settings.load_profile("suite")

GOLDEN = Path(__file__).parent / "golden"


def square(size: int | tuple[int, int], top_left: tuple[int, int], side: int | tuple[int, int]) -> NDArray[np.uint8]:
    """A mask of `size` (H, W) with a filled rectangle; `top_left` is (x, y), `side` (height, width) or both."""
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = (side, side) if isinstance(side, int) else side
    x, y = top_left
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + rows, x : x + columns] = 1
    return mask


def disc(size: tuple[int, int], center: tuple[float, float], radius: float) -> NDArray[np.uint8]:
    """A mask of `size` (H, W) with a filled circle around (x, y)."""
    y, x = np.mgrid[: size[0], : size[1]]
    return ((x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2).astype(np.uint8)


def ellipse(
    size: tuple[int, int], center: tuple[int, int], axes: tuple[int, int], angle: float = 0
) -> NDArray[np.uint8]:
    """A mask of `size` (H, W) with a filled ellipse around (x, y)."""
    return cv2.ellipse(np.zeros(size, np.uint8), center, axes, angle, 0, 360, 1, -1)


def dot(size: tuple[int, int], at: tuple[float, float], spread: float = 2.0) -> NDArray[np.float32]:
    """A Gaussian blob around (x, y): its place can be found again to a fraction of a pixel."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * spread**2)).astype(np.float32)


def place_of(picture: NDArray) -> NDArray[np.float64]:
    """Where a painted dot is, (x, y): the centre of mass of what is bright."""
    weight = np.clip(picture.astype(np.float64), 0, None)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.fixture(scope="session")
def golden() -> dict[str, NDArray]:
    """What the authors' DEXTR code answered, by name; sides come as left, right, top, bottom."""
    with np.load(GOLDEN / "dextr.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawing for all tests, found by the profile through CACHE_ROOT."""
    cache = Path(os.environ.get("TEST_CACHE_ROOT", tmp_path_factory.getbasetemp().parent / "drawn"))
    miniature.draw(cache / "miniature" / "0")
    return cache


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> Iterator[None]:
    """Small arrays are faster on one thread, and every machine runs the tests alike."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
