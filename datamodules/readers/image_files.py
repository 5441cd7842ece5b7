"""Where the images of an annotation file lie: its names are looked for as people's exporters write them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from datamodules.columns import Strings

ANYWHERE = Path("/")  # among the folders: absolute names are taken as they are
FIRST = 3  # of missing images are named


def image_files(names: Strings, folders: Sequence[Path]) -> Strings:
    """The paths of these images, in the first of the folders that holds all of them; each folder is listed only once.

    A name is a path below the folder. Where there is no such file: with slashes for Windows' backslashes, decoded as a
    web address, in another composition of Unicode's accents or another case, and without its first folders, which were
    those of another machine. Absolute names count where ANYWHERE is among the folders. Raises FileNotFoundError when
    some are missing everywhere, naming the folder that has most and the first missing ones; ValueError when two names
    would be one file.
    """
    wanted = list(names)
    places = [folder.absolute() for folder in folders if folder != ANYWHERE]
    disk = _Disk()
    absolute = len(places) < len(folders) and any(os.path.isabs(name) for name in wanted)
    if not absolute:
        for folder in places:  # nearly all files: names as they are, and fast
            if disk.holds_all(folder, wanted):
                return Strings.of(f"{folder}{os.sep}{name}" for name in wanted)
    best: list[str | None] = []
    for folder in places:
        found = [(absolute and disk.exact(name)) or disk.find(folder, name) for name in wanted]
        if None not in found:
            return Strings.of(_distinct(wanted, found))
        if not best or found.count(None) < best.count(None):
            best, where = found, folder
    missing = [name for name, path in zip(wanted, best) if path is None]
    first = ", ".join(missing[:FIRST]) + (", ..." if len(missing) > FIRST else "")
    if len(missing) == len(wanted):
        raise FileNotFoundError(
            f"image {first} is in none of {', '.join(map(str, places))}; fetch the images and put them into one of them"
        )
    raise FileNotFoundError(
        f"{len(missing):,} of {len(wanted):,} images are missing in {where}, the first is {first}; fetch them"
    )


def _distinct(names: Sequence[str], paths: Sequence[str | None]) -> Iterator[str]:
    """The paths. Raises ValueError for a file that two names lead to: one of them means another."""
    owners: dict[str, str] = {}
    for name, path in zip(names, paths):
        assert path is not None
        if (owner := owners.setdefault(path, name)) != name:
            raise ValueError(f"images {owner} and {name} would both be {path}; put them where their names say")
        yield path


def _forms(name: str) -> Iterator[str]:
    """A name as other machines may have meant it: paths below a folder, the whole first, then without first folders."""
    slashed = name.replace("\\", "/")
    forms = dict.fromkeys([slashed, *_decoded(slashed)])
    wholes = [re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*:)?/*", "", form) for form in forms]  # neither scheme nor drive
    yield from dict.fromkeys(wholes)
    for whole in wholes:
        parts = [part for part in whole.split("/") if part]
        yield from ("/".join(parts[k:]) for k in range(1, len(parts)))


def _decoded(name: str) -> Iterator[str]:
    """An address as a path: percent signs decoded; Label Studio's ?d= is one, other questions are left out."""
    path, asks, query = name.partition("?")
    if asks:
        yield unquote(query[2:] if query.startswith("d=") else path)
    yield unquote(name)


class _Disk:
    """The file system, each folder listed once."""

    def __init__(self) -> None:
        self._listed: dict[str, frozenset[str]] = {}
        self._alike: dict[str, dict[str, list[str]]] = {}

    def holds_all(self, folder: Path, names: Sequence[str]) -> bool:
        """Whether all these are names of files below this folder, as they stand."""
        parted = (name.rpartition("/") for name in names)
        return all(name in self._names(f"{folder}/{parent}" if parent else str(folder)) for parent, _, name in parted)

    def exact(self, path: str) -> str | None:
        """An absolute path, if it is one of a file."""
        return path if os.path.isabs(path) and os.path.basename(path) in self._names(os.path.dirname(path)) else None

    def find(self, folder: Path, name: str) -> str | None:
        """The file below this folder that a name means, in the first of its forms that is there."""
        if not os.path.isabs(name) and (path := self.exact(os.path.join(folder, name))) is not None:
            return path
        return next((path for form in _forms(name) if (path := self._below(str(folder), form)) is not None), None)

    def _below(self, folder: str, form: str) -> str | None:
        for part in form.split("/"):
            entries = [part] if part in ("", ".", "..") or part in self._names(folder) else self._like(folder, part)
            if len(entries) != 1:
                return None
            folder = os.path.join(folder, entries[0]) if part else folder
        return folder if os.path.isfile(folder) else None

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):  # not there, no folder, or no path at all
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def _like(self, folder: str, name: str) -> list[str]:
        """Entries that differ from a name only in case or in how accents are composed."""
        if folder not in self._alike:
            alike: dict[str, list[str]] = {}
            for entry in self._names(folder):
                alike.setdefault(_plain(entry), []).append(entry)
            self._alike[folder] = alike
        return self._alike[folder].get(_plain(name), [])


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
