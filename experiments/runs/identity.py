"""What determines a run's result, and so its name: classes by name and behaviour, files by content, nothing of places.

A class of the suite is known by its name and its `behaviour`, not by the module it lies in: moving it renames no run.
A class says of itself what a tree alone cannot say: `files`, the arguments that name files; `training_only`,
`evaluation_only` and `starts` of a LightningModule; `shapes_training` and `shapes_evaluation` of a DataModule.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.composition.classes import SUITE, class_paths, import_class
from experiments.composition.tree import Tree
from experiments.runs.files import file_digest
from lightning_modules.networks.first_weights import IMAGENET, FirstWeights, find_start

# Of a trainer: where and on what a run is made, and what only shows its progress. sync_batchnorm is among them since
# several processes then see the statistics that one would; the record says what was done.
MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch", "sync_batchnorm")
ASIDE = ("workers", "root")  # of a DataModule that does not say itself what shapes its results


def by_content(value: Any) -> Any:
    """Part of a tree as it is hashed: classes by name and behaviour, with the files they read by their content."""
    if isinstance(value, list):
        return [by_content(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: by_content(item) for key, item in value.items()}
    target = import_class(value["class_path"])
    files = getattr(target, "files", ())
    known = {"class": class_name(target), "behaviour": getattr(target, "behaviour", None)}
    arguments = {
        key: file_digest(item) if key in files and item is not None else by_content(item)
        for key, item in (value.get("init_args") or {}).items()
    }
    return {key: item for key, item in known.items() if item is not None} | {"arguments": arguments}


def class_name(target: type) -> str:
    """The name of one of our classes, which no two share; of others with the module."""
    return (
        target.__qualname__
        if target.__module__.partition(".")[0] in SUITE
        else f"{target.__module__}.{target.__qualname__}"
    )


def behaviour_of(config: Tree) -> int:
    """That of a tree's method: raised when a fix changes its results, so that runs made before are made again."""
    return int(getattr(import_class(config["model"]["class_path"]), "behaviour", 1))


def behaviours_of(tree: Any) -> dict[str, int]:
    """The `behaviour` of every class that a tree names and that has one."""
    found: dict[str, int] = {}
    for class_path in class_paths(tree):
        target = import_class(class_path)
        if hasattr(target, "behaviour"):
            found[class_name(target)] = int(target.behaviour)
    return found


def model_in_training(model: Tree) -> Tree:
    """What of a method's arguments shapes its training; files of first weights by their content."""
    digests = {key: None if path is None else start_digest(path) for key, path in start_files(model).items()}
    shaping = without(model.get("init_args") or {}, answers_of(model))
    return by_content(with_starts({**model, "init_args": shaping}, digests.__getitem__))


def answers_of(model: Tree) -> Tree:
    """The arguments that a method's training does not read (`evaluation_only`) and that an evaluation may change."""
    arguments = model.get("init_args") or {}
    declared = getattr(import_class(model["class_path"]), "evaluation_only", ())
    return {key: arguments[key] for key in declared if key in arguments}


def model_in_use(model: Tree) -> Tree:
    """What of them shapes the answers of a network whose weights are given."""
    unread = getattr(import_class(model["class_path"]), "training_only", ())
    used = {key: value for key, value in (model.get("init_args") or {}).items() if key not in unread}
    return by_content(with_starts({**model, "init_args": used}, lambda key: None))


def data_in_training(data: Tree) -> Tree:
    """A DataModule, and what of its arguments shapes a training."""
    arguments = data.get("init_args") or {}
    shaping = getattr(import_class(data["class_path"]), "shapes_training", None)
    shaped = without(arguments, ASIDE) if shaping is None else shaping(arguments)
    return by_content({"class_path": data["class_path"], "init_args": shaped})


def data_in_evaluation(data: Tree) -> Tree:
    """The same of how an evaluation sees the data sets."""
    shaping = getattr(import_class(data["class_path"]), "shapes_evaluation", None)
    shaped = {} if shaping is None else shaping(data.get("init_args") or {})
    return by_content({"class_path": data["class_path"], "init_args": shaped})


def without(tree: Mapping[str, Any], keys: Collection[str]) -> Tree:
    """The tree without these keys."""
    return {key: value for key, value in tree.items() if key not in keys}


# ------------------------------------------------------------------------------------------------- first weights


def found_starts(model: Tree) -> dict[str, FirstWeights | None]:
    """The first weights that a method asks for, by argument; None where training begins with random ones."""
    return {key: find_start(backbone, wanted) for key, (wanted, backbone) in _starts(model).items()}


def start_files(model: Tree) -> dict[str, Path | None]:
    """Their files."""
    return {key: start.path if start else None for key, start in found_starts(model).items()}


def start_digest(path: Path) -> str:
    """What a name knows first weights by; a table asks for each row, so files are read again only if written."""
    if not path.is_file():
        return file_digest(path)  # which says so
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _digest(path: Path, written: int, size: int) -> str:
    return file_digest(path)


def first_weights(model: Tree) -> dict[str, dict[str, str]]:
    """For a record: of each file of first weights the backbone with its tag, source, licence, place and content."""
    return {key: start.facts for key, start in found_starts(model).items() if start}


def wanted_starts(model: Tree) -> dict[str, Any]:
    """What a method asks for, by argument, where it asks for anything."""
    return {key: wanted for key, (wanted, _) in _starts(model).items() if wanted}


def starts_from_files(model: Tree) -> bool:
    """Whether first weights are a file that somebody named."""
    return any(wanted not in IMAGENET for wanted in wanted_starts(model).values())


def with_starts(model: Tree, value: Callable[[str], Any]) -> Tree:
    """A method's tree with other values at the arguments that name first weights."""
    changed = copy.deepcopy(model)
    for key in _starts(model):
        *parents, last = key.split(".")
        node = changed
        for part in parents:
            node = node["init_args"][part]
        node["init_args"][last] = value(key)
    return changed


def without_starts(model: Tree) -> Tree:
    """A method's tree that asks for no first weights: it is about to be given others."""
    return with_starts(model, lambda key: False)


def _starts(model: Tree) -> dict[str, tuple[Any, str]]:
    """(value, backbone) at each argument that names first weights, as far as the tree has it."""
    declared: Mapping[str, str] = getattr(import_class(model["class_path"]), "starts", {})
    found = {}
    for key, backbone in declared.items():
        values = [list(_at(model, place)) for place in (key, backbone)]
        if all(values):
            found[key] = (values[0][0], str(values[1][0]))
    return found


def _at(model: Tree, place: str) -> Iterator[Any]:
    """The value at `network.pretrained`; nothing where there is none."""
    node: Any = model
    for part in place.split("."):
        arguments = node.get("init_args") if isinstance(node, Mapping) else None
        if not isinstance(arguments, Mapping) or part not in arguments:
            return
        node = arguments[part]
    yield node
