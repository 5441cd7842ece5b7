"""Whole images with their instances: images per second, beside the bare chain of decode and resize."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.image_index import ImageIndex, image_keys
from datamodules.image_samples import ImageSamples
from datamodules.index import ObjectIndex
from datamodules.instances import collate_images
from datamodules.keys import rng
from datamodules.resizing import LargeScaleJitter, Resizing, ShortSide
from tests.bench.measure import Figure, best_of

BATCH = 2


def bare_image(images: ImageIndex, position: int, resize: Resizing) -> NDArray[np.uint8]:
    """Decoded and resized as a sample draws it, nothing else: no checks, no flip, no objects."""
    pixels = cv2.imdecode(np.fromfile(images.path(position), np.uint8), cv2.IMREAD_COLOR_RGB)
    place = resize.placed(images.size(position), rng(0, 0, int(images.keys[position]), 0))
    return np.asarray(cv2.resize(pixels, place.scaled[::-1], interpolation=cv2.INTER_LINEAR))


def image_figures(index: ObjectIndex, passes: int, count: int = 100) -> Iterator[Figure]:
    """Images per second on one core, from JPEG and run lengths to batches of two on a padded grid.

    Jitter draws the shorter side from 640 to 800 px (longer at most 1333); then LSJ on 1024 px. Flips 0.5.
    """
    rows = np.unique(index.image)
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    images = ImageIndex.of(index, np.unique(rows), image_keys(index))
    positions = range(len(images))
    jitter, large = ShortSide(range(640, 801, 32)), LargeScaleJitter()
    short, scaled = (ImageSamples(images, resize, train=True, flip=0.5) for resize in (jitter, large))

    def batches(samples: ImageSamples) -> None:
        for first in positions[::BATCH]:
            collate_images([samples[0, place, 0] for place in positions[first : first + BATCH]])

    times = best_of(
        passes,
        bare=lambda: [bare_image(images, place, jitter) for place in positions],
        batches=lambda: batches(short),
        bare_large=lambda: [bare_image(images, place, large) for place in positions],
        large=lambda: batches(scaled),
    )
    rate = {name: len(images) / processor for name, (processor, _) in times.items()}
    objects = f"{len(index) / index.num_images:.1f} objects each"
    for what, name, bare, target in (
        ("image loader, jitter at 800 px", "batches", "bare", 0.8),
        ("image loader, LSJ at 1024 px", "large", "bare_large", None),
    ):
        yield Figure(
            what,
            rate[name],
            "images/s",
            target=target and round(target * rate[bare], 1),
            reference=f"decode and resize alone {rate[bare]:.0f}/s",
            ratio=rate[name] / rate[bare],
            note=objects,
        )
