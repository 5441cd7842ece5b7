"""Composition: recipe < data set < reading < row < profile < command line, once, into one resolved tree.

A recipe names classes as {class_path, init_args}, as LightningCLI takes them; everybody else may write short:
`model.network.head: ASPP`, `data.sample.size: 256`. Keys pass through `init_args` on their own, a class is found beside
the one it replaces, and a changed class drops the arguments of the one before it, unless it inherits from it. Lists are
replaced whole. A key that does not exist is refused with the nearest one.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError

from experiments.composition.classes import remember_typed
from experiments.composition.merging import apply_profile, merge, parse_override
from experiments.composition.resolvers import RESOLVERS
from experiments.composition.tree import Tree

CONFIGS = Path(__file__).parents[1] / "configs"


def compose(
    recipe: str | Path,
    *,
    dataset: str | None = None,
    reading: str | None = None,
    row: Mapping[str, Any] | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    interpolated: bool = True,
) -> Tree:
    """The resolved tree of one run.

    Args:
        recipe: a recipe's file, or its name below experiments/configs.
        dataset: an overlay below experiments/configs/data.
        reading: `paper` or `code`; None for the recipe's own.
        row: dotted keys and what a table's row changes.
        profile: `paper`, `quick`, `small` or `miniature`; None for the recipe's own.
        overrides: `key=value` of the command line, values in YAML.
        interpolated: False leaves `${...}` as it stands, for who asks what a tree is made of and runs nothing.
    Raises ValueError with one sentence for anything that does not exist.
    """
    tree = load(recipe_file(recipe))
    readings, profiles = tree.pop("readings"), tree.pop("profiles")
    typed = dict(parse_override(text) for text in overrides)
    reading = typed.pop("reading", tree["reading"] if reading is None else reading)
    profile = typed.pop("profile", tree["profile"] if profile is None else profile)
    if dataset is not None:
        merge(tree, load(named_file("dataset", dataset)))
    merge(tree, {"reading": reading, "profile": profile, **chosen(readings, reading, "reading")})
    merge(tree, row or {})
    overlay = load(named_file("profile", profile))
    tree["promise"] = overlay.pop("promise", None)  # how long a training takes, and on what: names no run
    apply_profile(tree, overlay)
    apply_profile(tree, chosen(profiles, profile, "profile"))
    merge(tree, typed)
    if not interpolated:
        return tree
    remember_typed(tree)
    return resolve(tree)


def dataset_values(dataset: str) -> list[str]:
    """An overlay of data as values of a command line, `key=value`, which go before what a table's row says of data."""
    return [f"{key}={json.dumps(value)}" for key, value in load(named_file("dataset", dataset)).items()]


def absent_files(tree: Any) -> dict[str, str]:
    """Variables that an uninterpolated tree reads paths of files from and that are not set, and what is read then."""
    if isinstance(tree, Mapping):
        return {name: other for value in tree.values() for name, other in absent_files(value).items()}
    found = re.findall(r"\$\{oc\.env:(\w+),([^}]*)\}", tree) if isinstance(tree, str) else []
    return {name: other.strip() for name, other in found if not os.environ.get(name)}


def recipe_file(recipe: str | Path) -> Path:
    """A recipe by path or by name."""
    return Path(recipe) if str(recipe).endswith((".yaml", ".yml")) else named_file("recipe", str(recipe))


FOLDERS = {"recipe": CONFIGS, "profile": CONFIGS / "profiles", "dataset": CONFIGS / "data"}


def named_file(kind: str, name: str) -> Path:
    """The file of a recipe, profile or data set overlay. Raises ValueError with the names that exist."""
    known = sorted(file.stem for file in FOLDERS[kind].glob("*.yaml"))
    if name not in known:
        raise ValueError(f"no {kind} {name!r}; there are: {', '.join(known)}")
    return FOLDERS[kind] / f"{name}.yaml"


def load(path: Path) -> Tree:
    """A YAML file, its interpolations untouched."""
    if not path.exists():
        raise ValueError(
            f"no recipe at {path}; those of the suite are {', '.join(f.stem for f in CONFIGS.glob('*.yaml'))}"
        )
    return copy.deepcopy(_loaded(path, path.stat().st_mtime_ns))


@cache
def _loaded(path: Path, changed: int) -> Tree:
    """The same, read once: a table composes its recipe for each of its rows."""
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}  # type: ignore[return-value]


def chosen(overlays: Mapping[str, Any], name: str, kind: str) -> Mapping[str, Any]:
    """The overlay of this name."""
    if name not in overlays:
        raise ValueError(f"no {kind} {name!r}; there are: {', '.join(overlays)}")
    return overlays[name] or {}


def resolve(tree: Tree) -> Tree:
    """The tree with its interpolations resolved. Raises ValueError with the sentence of what refuses to be computed."""
    try:
        return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)  # type: ignore[return-value]
    except InterpolationKeyError as error:
        missing, _, place = str(error).partition("\n    full_key: ")
        raise ValueError(f"{place.partition(chr(10))[0]} is taken from a value that there is not: {missing}") from error
    except InterpolationResolutionError as error:
        wrapped, refused, sentence = str(error).partition("ValueError raised while resolving interpolation: ")
        if wrapped or not refused:
            raise
        raise ValueError(sentence.partition("\n")[0]) from error


for _name, _resolver in RESOLVERS.items():
    OmegaConf.register_resolver(_name, _resolver, replace=True)
