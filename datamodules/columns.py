"""Columns and how they lie on disk: strings and rows of any length in one block, memory-mapped; ids for objects."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from datamodules.files import whole_folder

ID_BITS = (1 << 63) - 1
OPTIONAL = {"optional": True}  # metadata of a column that stored tables of older versions do not have


class Strings:
    """A column of strings: one block of UTF-8 and offsets, memory-mapped like any other column."""

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        encoded = [string.encode() for string in strings]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets_of([len(string) for string in encoded]))

    @classmethod
    def joined(cls, columns: Iterable[Strings]) -> Strings:
        """One column after the other."""
        columns = list(columns)
        data = [column.data for column in columns]
        return cls(np.concatenate(data), joined_offsets([column.offsets for column in columns]))

    def take(self, positions: NDArray) -> Strings:
        """The strings at these positions."""
        lengths = np.diff(self.offsets)[positions]
        return Strings(gathered(self.data, self.offsets[:-1][positions], lengths), offsets_of(lengths))

    def __getstate__(self) -> dict:
        return by_file(self.__dict__)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(from_file(state))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        if not -len(self) <= i < len(self):
            raise IndexError(f"string {i} of {len(self)}")
        i %= len(self)
        return bytes(self.data[self.offsets[i] : self.offsets[i + 1]]).decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def offsets_of(lengths: NDArray | list[int]) -> NDArray[np.int64]:
    """Where rows of these lengths start in one block, and where the last one ends: (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def joined_offsets(columns: list[NDArray]) -> NDArray[np.int64]:
    """The offsets of several blocks laid end to end."""
    return offsets_of(np.concatenate([np.diff(offsets) for offsets in columns]))


def gathered(data: NDArray, starts: NDArray, lengths: NDArray) -> NDArray:
    """The stretches `data[start : start + length]`, end to end, without a loop over them."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return data[np.arange(total) + np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths)]


def object_ids(dataset: str, native_ids: Iterable[object]) -> NDArray[np.int64]:
    """63-bit ids, the same on every machine: hashes of data set (with split) and native id (annotation id, ...)."""
    prefix = hashlib.blake2b(f"{dataset}\n".encode(), digest_size=8)
    ids = []
    for native in native_ids:
        digest = prefix.copy()
        digest.update(str(native).encode())
        ids.append(int.from_bytes(digest.digest(), "little") & ID_BITS)
    return np.array(ids, np.int64)


class InFile(NamedTuple):
    """Stands for a memory-mapped column where it is pickled."""

    path: str


def by_file(columns: dict) -> dict:
    """Memory-mapped columns replaced by their files, so that spawned workers map them again and copy nothing."""
    return {
        name: InFile(str(value.filename))
        if isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap)
        else value
        for name, value in columns.items()
    }


def from_file(columns: dict) -> dict:
    """The inverse of `by_file`."""
    return {
        name: np.load(value.path, mmap_mode="r") if isinstance(value, InFile) else value
        for name, value in columns.items()
    }


@dataclass(frozen=True, eq=False)
class StoredColumns:
    """A dataclass of arrays, string columns and short texts that is written once and memory-mapped ever after."""

    def save(self, folder: Path, **about: object) -> None:
        """Write the columns as .npy files below `folder`, in one step: a killed build never looks finished."""
        with whole_folder(folder) as building:
            texts = {}
            for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
                if isinstance(value, Strings):
                    np.save(building / f"{name}.npy", value.data)
                    np.save(building / f"{name}_offsets.npy", value.offsets)
                elif isinstance(value, np.ndarray):
                    np.save(building / f"{name}.npy", value)
                else:
                    texts[name] = value
            (building / "index.json").write_text(json.dumps({**about, **texts}, indent=1))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Memory-map what was saved; nothing is read until it is used, and all workers share the pages."""
        texts = json.loads((folder / "index.json").read_text())
        values: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in texts:
                values[f.name] = texts[f.name] if isinstance(texts[f.name], str) else tuple(texts[f.name])
                continue
            if f.metadata.get("optional") and not (folder / f"{f.name}.npy").exists():
                continue
            values[f.name] = np.load(folder / f"{f.name}.npy", mmap_mode="r")
            if (offsets := folder / f"{f.name}_offsets.npy").exists():
                values[f.name] = Strings(values[f.name], np.load(offsets, mmap_mode="r"))
        return cls(**values)

    def __getstate__(self) -> dict:
        return by_file(self.__dict__)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(from_file(state))
