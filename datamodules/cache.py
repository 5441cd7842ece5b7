"""Indices on disk: built once by one process, found again by names, sizes and times of what they were built from."""

from __future__ import annotations

import hashlib
import json
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
WATCHED = 10_000  # pictures: of larger sets a tenth of so many is looked at whenever an index is opened
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
    """The index in this folder; `build` makes it first where there is none that can be read, in one process alone.

    It is made again when its pictures are no longer as they were: moved, replaced, turned.
    """
    index = _fresh(folder)
    if index is None:
        with _alone(folder):
            index = _fresh(folder)  # another process may have made it
            if index is None:
                _built(folder, build, what)
                index = ObjectIndex.open(folder)
    return index


def _fresh(folder: Path) -> ObjectIndex | None:
    """What lies in this folder, if it is whole, else that is said, and was made of the pictures that are there."""
    if not (folder / "index.json").exists():
        return None
    try:
        index = ObjectIndex.open(folder)
        about = json.loads((folder / "index.json").read_text())
    except (ValueError, KeyError, TypeError, EOFError, FileNotFoundError) as error:
        print(f"note: the list of objects in {folder} is damaged ({error}); making it again", file=sys.stderr)
        return None
    return index if about.get("pictures") == _state_of_pictures(index) else None


def _state_of_pictures(index: ObjectIndex) -> str:
    """A hash of places, sizes and times of the pictures: of all, or of a part where a look at all takes long."""
    digest = hashlib.blake2b(digest_size=16)
    step = 1 if index.num_images <= WATCHED else index.num_images * 10 // WATCHED
    for place in range(0, index.num_images, step):
        path = index.image_paths[place]
        try:
            state = os.stat(path)
            digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path} is not there\n".encode())
    return digest.hexdigest()


def _built(folder: Path, build: Callable[[], tuple[ObjectIndex, list[Path]]], what: str) -> None:
    print(f"listing the objects of {what} (once) ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    index, sources = build()
    index = replace(index, content=index.content or content_hash(sources))
    refused = list(index.refused)
    with _writing():
        about = {"sources": [str(path) for path in sources], "pictures": _state_of_pictures(index)}
        replace(index, refused=Strings.of([])).save(folder, **about)
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


def with_pictures(index: ObjectIndex, sources: Iterable[Path]) -> ObjectIndex:
    """The index with a content of these sources and of its pictures, for files of people, who replace pictures.

    Of a picture size and last bytes count, which no two versions of one share in practice.
    """
    digest, seen = hashlib.blake2b(digest_size=16), dict[str, bytes]()
    for path in index.image_paths:
        if path not in seen:
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 4096))
                seen[path] = hashlib.blake2b(file.read() + str(size).encode(), digest_size=16).digest()
        digest.update(seen[path])
    return replace(index, content=f"{content_hash(sources)}+{digest.hexdigest()}")


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
