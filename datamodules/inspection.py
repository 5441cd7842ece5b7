"""Pictures opened and masks decoded as training does, to say before it what it would stop at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.images import orientation
from datamodules.index import ObjectIndex
from datamodules.readers.mask_files import with_progress

NAMED = 3  # of several pictures or objects so many are called by name


@dataclass
class Inspected:
    """What came of a look at `images` of the `of` pictures that have objects, and at `objects` on them.

    `unreadable`: what training would stop at, a sentence for each. `turned`: pictures that are turned or flipped as
    their EXIF orientation says, which is right where their masks were drawn on what viewers show.
    """

    images: int = 0
    of: int = 0
    objects: int = 0
    unreadable: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)


def inspect(index: ObjectIndex, most: int | None = None) -> Inspected:
    """Read the pictures that have objects, with these; `most` evenly chosen ones of them, None for all."""
    places = np.unique(np.asarray(index.image))
    chosen = (
        places if most is None or most >= len(places) else places[np.linspace(0, len(places) - 1, most).astype(int)]
    )
    found = Inspected(images=len(chosen), of=len(places))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        steps: Sequence[int] = chosen.tolist()
        looks = pool.map(lambda place: _look(index, place), steps)
        for _, (objects, unreadable, turned) in zip(with_progress(steps, f"reading {index.dataset}"), looks):
            found.objects += objects
            found.unreadable += unreadable
            found.turned += turned
    return found


def in_short(sentences: Sequence[str]) -> str:
    """The first of several in full, and how many more there are."""
    more = f"; and {len(sentences) - NAMED:,} more" if len(sentences) > NAMED else ""
    return "; ".join(sentences[:NAMED]) + more


def _look(index: ObjectIndex, place: int) -> tuple[int, list[str], list[str]]:
    """How many objects a picture has, what is wrong with it or them, and its name if it is turned."""
    first, last = np.searchsorted(index.image, [place, place + 1]).tolist()
    wrong: list[str] = []
    turned: list[str] = []
    try:
        image = index.read_image(first)
        turned = [Path(index.image_paths[place]).name] if _is_turned(index.image_path(first), image.shape[:2]) else []
    except Exception as error:  # whatever it is, training would end with it
        wrong.append(_said(error))
    for i in range(first, last):
        try:
            if not index.read_mask(i).mask.any():
                wrong.append(f"object {index.native_id[i]} on {index.image_path(i)} has no pixels")
            index.start_mask(i)
        except Exception as error:
            wrong.append(_said(error))
    return last - first, list(dict.fromkeys(wrong)), turned


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"


def _is_turned(path: Path, size: tuple[int, ...]) -> bool:
    """Whether EXIF says to turn a picture, and it was read so: with this size (H, W)."""
    try:
        with Image.open(path) as image:
            tag = image.getexif().get(0x0112, 1) if image.format == "TIFF" else orientation(image)
            return tag in range(2, 9) and (tag < 5 or size != (image.height, image.width) or image.format == "TIFF")
    except Exception:  # only OpenCV can read it
        return False
