"""Files and folders that are whole or not there: written beside their place, then put there in one step."""

from __future__ import annotations

import glob
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` at the end of the block; no two writers get the same place.

    When the block fails, what it wrote is removed and an older file stays as it was.
    """
    partial = path.with_name(f"{_prefix(path)}{secrets.token_hex(4)}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of the folder `path` at the end of the block, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's folders are private, a cache may be shared
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_partial(path: Path) -> None:
    """Clear away what killed processes left of this file or folder; for its only writer."""
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """How what is not whole yet is named, in the same folder."""
    return f".{path.name}.partial-"
