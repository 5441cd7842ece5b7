"""Indices on disk: built once by one process, found again by names, sizes and times of what they were built from."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from datamodules.files import remove_partial
from datamodules.index import ObjectIndex, Strings
from datamodules.locks import alone

INDEX_VERSION = 2  # raise when a reader lists other objects than before
REFUSED = "refused.txt"  # beside an index: the entries of its files that have wrong values, each with the reason


def cache_folder() -> Path:
    """Where indices are cached: CACHE_ROOT, else .cache below the working directory; never the data root."""
    return Path(os.environ.get("CACHE_ROOT") or ".cache") / "indices"


def folder_of(name: str, state: Iterable[str]) -> Path:
    """The folder of the index with this name, made from sources in this state. Those of other states stay beside it."""
    digest = hashlib.blake2b("\n".join([str(INDEX_VERSION), name, *state]).encode(), digest_size=8).hexdigest()
    return cache_folder() / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)[-60:]}-{digest}"


def state_of(sources: Iterable[Path]) -> list[str]:
    """Names, sizes and times of these files, and of all files in these folders (a folder's own time misses edits)."""
    state = []
    for path in sources:
        if path.is_dir():
            with os.scandir(path) as entries:
                stats = sorted((entry.name, entry.stat()) for entry in entries)
            state += [f"{path.name}/{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
        else:
            stat = path.stat()
            state.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return state


def opened(folder: Path, build: Callable[[], tuple[ObjectIndex, list[Path]]], what: str) -> ObjectIndex:
    """The index in this folder; `build` makes it first where there is none that can be read, in one process alone."""
    found = _found(folder)
    if found is None:
        with _alone(folder):
            found = _found(folder)
            if found is None:
                _built(folder, build, what)
    return ObjectIndex.open(folder) if found is None else found


def _found(folder: Path) -> ObjectIndex | None:
    """What is kept in this folder; None where there is nothing, or, which is said, nothing whole."""
    if not (folder / "index.json").exists():
        return None
    try:
        return ObjectIndex.open(folder)
    except (ValueError, KeyError, TypeError, EOFError, FileNotFoundError) as error:
        print(f"note: the list of objects in {folder} is damaged ({error}); making it again", file=sys.stderr)
        return None


def _built(folder: Path, build: Callable[[], tuple[ObjectIndex, list[Path]]], what: str) -> None:
    print(f"listing the objects of {what} (once) ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    index, sources = build()
    index = replace(index, content=index.content or content_hash(sources))
    refused = list(index.refused)
    with _writing():
        replace(index, refused=Strings.of([])).save(folder, sources=[str(path) for path in sources])
        if refused:
            (folder / REFUSED).write_text("".join(f"{sentence}\n" for sentence in refused), encoding="utf-8")
    counts = f"{len(index):,} objects on {index.num_images:,} images"
    print(f"  {counts}, {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    for sentence in index.left_out:
        print(f"  left out: {sentence}", file=sys.stderr, flush=True)
    if refused:
        print(f"  all entries with wrong values are listed in {folder / REFUSED}", file=sys.stderr, flush=True)


def content_hash(sources: Iterable[Path]) -> str:
    """A hash of the bytes of these files and of the files in these folders, with their names."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        for path in sorted(source.iterdir()) if source.is_dir() else [source]:
            if path.is_file():
                digest.update(f"{path.name} {path.stat().st_size}\n".encode())
                with path.open("rb") as file:
                    while block := file.read(1 << 22):
                        digest.update(block)
    return digest.hexdigest()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"the list of objects cannot be kept in {cache_folder().absolute()} ({error.strerror or error}); make room "
            "there, or set CACHE_ROOT to a folder that can be written",
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process per folder; what killed builds left is then cleared away."""
    with _writing():
        folder.parent.mkdir(parents=True, exist_ok=True)
        (lock := folder.parent / f".{folder.name}.lock").touch()
    with alone(lock, f"the list of objects {folder.name}"):
        remove_partial(folder)
        yield
