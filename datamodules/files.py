"""Files and folders that are whole or not there: written beside their place, then put there in one step.

They are on the disk before they get their name, so that neither a kill nor a power cut leaves a file that is not whole.
"""

from __future__ import annotations

import errno
import glob
import os
import platform
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # some file systems, of folders above all: nothing to be done


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` at the end of the block; no two writers get the same place.

    When the block fails, what it wrote is removed and an older file stays as it was. What dead processes of this
    machine left of the file is cleared away.
    """
    _remove_dead(path)
    partial = path.with_name(f"{_prefix(path)}{_writer()}-{secrets.token_hex(4)}")
    try:
        yield partial
        on_disk(partial)
        partial.replace(path)
        on_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, durable: bool = True) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of the folder `path` at the end of the block, or is removed.

    Without `durable` it is only safe from kills: for many small files that a power cut may well cost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(path)
    partial = Path(tempfile.mkdtemp(prefix=f"{_prefix(path)}{_writer()}-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's folders are private, a cache may be shared
        for written in [*partial.rglob("*"), partial] if durable else []:
            on_disk(written)
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        on_disk(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_partial(path: Path) -> None:
    """Clear away what killed processes left of this file or folder; for its only writer."""
    for left in _left(path):
        _remove(left)


def process_lives(host: str, process: int) -> bool | None:
    """Whether a process is there; None where nobody can say, on another machine."""
    if host != platform.node():
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _remove_dead(path: Path) -> None:
    for left in _left(path):
        writer = re.fullmatch(r"(.+)-(\d+)-\w+", left.name.removeprefix(_prefix(path)))
        if writer and writer[1] == _host() and process_lives(platform.node(), int(writer[2])) is False:
            _remove(left)


def _left(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{glob.escape(_prefix(path))}*"))


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def on_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _prefix(path: Path) -> str:
    """How what is not whole yet is named, in the same folder."""
    return f".{path.name}.partial-"


def _writer() -> str:
    """This process, as names of its partial files say it."""
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    """Without dots: PyTorch writes a file's name up to the last one into its bytes; equal weights are equal bytes."""
    return platform.node().replace(".", "_")
