"""Which objects a file of clicked points is about; the points themselves are read by datamodules/clicks/recorded.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.index import ObjectIndex
from datamodules.readers.json_stream import list_elements


def recorded_objects(path: Path | str) -> set[str]:
    """The native ids of the objects in a file of clicked points. Raises FileNotFoundError or ValueError naming it."""
    try:
        return {str(record["object"]) for key, record in list_elements(Path(path)) if key == "points"}
    except (KeyError, TypeError):
        raise ValueError(f"{path} is no file of clicked points: a record of it names no object") from None


def called(index: ObjectIndex, native_ids: set[str]) -> NDArray[np.bool_]:
    """Which objects of an index are called like one of these."""
    return np.fromiter((name in native_ids for name in index.native_id), bool, len(index))
