"""The data sets by name: `pascal/val`, `coco2017/train`, `davis345`, ... Each file of `sets/` adds its own.

A name stands for one function that lists objects, the folder it lists them from, and what a user must know to get it.
A specification such as `folder:/my/masks` or `coco_json:/my/annotations.json` is a name, too.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules import cache, sets
from datamodules.index import ObjectIndex
from datamodules.names import hint


@dataclass(frozen=True)
class DataSet:
    """One split of a data set: how to list it, where it lies, what it should hold.

    `folder` is looked for below DATA_ROOT; the environment variable `variable` names another place. `sources` lists the
    annotation files and folders whose names, sizes and times decide whether a cached index is fresh. `images` and
    `objects` are the official counts, None where none is known for sure (`objects`: annotations, before crowds and
    objects without pixels are left out; `classes`: categories).

    A set made of others (PASCAL + SBD) names them as `parts` and says in `combine` how their indices become one; the
    fields about its place are then not used, unless `cut` says which of the objects a file of its own leaves.

    `note` is what every table that reads the set, or one made of it, says of it: choices that its numbers hang on.

    `upload` is where results go of a set whose annotations nobody else has: it lists images and categories alone.
    """

    name: str
    read: Callable[[Path], ObjectIndex] | None = None
    folder: str = ""
    variable: str = ""
    sources: Callable[[Path], list[Path]] = lambda root: [root]
    layout: str = ""
    fetch: str = ""
    images: int | None = None
    objects: int | None = None
    classes: int | None = None
    parts: tuple[str, ...] = ()
    combine: Callable[[Sequence[ObjectIndex]], ObjectIndex] | None = None
    cut: Callable[[ObjectIndex, Path], ObjectIndex] | None = None
    note: str = ""
    upload: str = ""


_CATALOG: dict[str, DataSet] = {}
_SPECIFICATIONS: dict[str, Callable[[str], DataSet]] = {}


def register(*data_sets: DataSet) -> None:
    """Add data sets to the catalog. Called at the end of each file of `sets/`."""
    for data_set in data_sets:
        _CATALOG[data_set.name] = data_set


def register_specification(kind: str, describe: Callable[[str], DataSet]) -> None:
    """Make `<kind>:<place>` a name: `describe` gets the place and returns its data set."""
    _SPECIFICATIONS[kind] = describe


def catalog() -> dict[str, DataSet]:
    """All data sets by name. Importing the files of `sets/`, which register them, is what fills it."""
    for module in pkgutil.iter_modules(sets.__path__):
        importlib.import_module(f"{sets.__name__}.{module.name}")
    return dict(sorted(_CATALOG.items()))


def notes_of(name: str) -> list[str]:
    """The notes of a data set and of those it is made of; none of a name that the catalog does not have."""
    data_set = catalog().get(name)
    if data_set is None:
        return []
    return [*filter(None, [data_set.note]), *(note for part in data_set.parts for note in notes_of(part))]


def find(name: str) -> DataSet:
    """The data set of this name or specification. Raises ValueError with the nearest names."""
    known = catalog()
    kind, colon, place = name.partition(":")
    if colon and kind in _SPECIFICATIONS:
        return _SPECIFICATIONS[kind](place)
    if name not in known:
        own = ", ".join(f"{kind}:/path" for kind in sorted(_SPECIFICATIONS))
        raise ValueError(f"no data set named {name!r}; {hint(name, known, most=3)} For your own data: {own}")
    return known[name]


def root_of(data_set: DataSet, data_root: Path | str | None = None) -> Path:
    """Where this data set lies: below `data_root` if given, else its own variable, else `folder` below DATA_ROOT."""
    if data_root is None and os.environ.get(data_set.variable or "-"):
        return Path(os.environ[data_set.variable])
    return Path(data_root or os.environ.get("DATA_ROOT") or "data") / data_set.folder


def missing_sources(data_set: DataSet, data_root: Path | str | None = None) -> list[tuple[DataSet, Path]]:
    """The files and folders that are not there, each with the data set (a part of this one) that needs it."""
    lacks = [lack for part in data_set.parts for lack in missing_sources(find(part), data_root)]
    if data_set.parts and data_set.cut is None:
        return lacks
    root = root_of(data_set, data_root)
    return lacks + [(data_set, path) for path in data_set.sources(root) or [root] if not path.exists()]


def how_to_get(data_set: DataSet, data_root: Path | str | None = None) -> str:
    """What to fetch, where to put it and which variable to set, as one clause."""
    place = f"in {root_of(data_set, data_root)}"
    if data_root is not None:
        place += " (data.root, which the recipe's profile or --data.root says, comes before variables)"
    elif data_set.variable:
        place += f" (that is {data_set.folder} below DATA_ROOT; or set {data_set.variable} to another folder)"
    return f"fetch {data_set.fetch}, and lay it out as {data_set.layout} {place}"


def open_index(name: str, data_root: Path | str | None = None) -> ObjectIndex:
    """The index of a data set, memory-mapped: from the cache when its sources are as they were, else built and cached.

    Raises FileNotFoundError saying what to fetch and where to put it, ValueError naming what is wrong with its files.
    """
    data_set = find(name)
    for lacking, path in missing_sources(data_set, data_root)[:1]:
        raise FileNotFoundError(f"data set {name} is not there, {path} is missing: {how_to_get(lacking, data_root)}")
    return cache.opened(index_folder(data_set, data_root), lambda: _build(data_set, data_root), what=name)


def index_folder(data_set: DataSet, data_root: Path | str | None = None) -> Path:
    """Where the index of this data set is cached while its sources stay as they are. They must be there."""
    state = [index_folder(find(part), data_root).name for part in data_set.parts]
    if not data_set.parts or data_set.cut is not None:
        root = root_of(data_set, data_root)
        state += [str(root.resolve()), *cache.state_of(data_set.sources(root))]
    return cache.folder_of(data_set.name, state)


def _build(data_set: DataSet, data_root: Path | str | None) -> tuple[ObjectIndex, list[Path]]:
    """The index and the files it was made of."""
    if data_set.combine is not None:
        index = data_set.combine([open_index(part, data_root) for part in data_set.parts])
        if data_set.cut is None:
            return index.compacted(), []
        root = root_of(data_set, data_root)
        content = "+".join([index.content, cache.content_hash(data_set.sources(root))])
        return replace(data_set.cut(index, root).compacted(), content=content), data_set.sources(root)
    if data_set.read is None:
        raise ValueError(f"data set {data_set.name} is registered without a reader and without parts")
    root = root_of(data_set, data_root)
    return data_set.read(root), data_set.sources(root)
