"""Composition: recipe < data set < reading < row < profile < command line, once, into one resolved tree.

A recipe names classes as {class_path, init_args}, as LightningCLI takes them; everybody else may write short:
`model.network.head: ASPP`, `data.sample.size: 256`. Keys pass through `init_args` on their own, a class is found beside
the one it replaces, and a changed class drops the arguments of the one before it, unless it inherits from it. Lists are
replaced whole. A key that does not exist is refused with the nearest one.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from omegaconf import OmegaConf

from datamodules import miniature
from datamodules.cache import cache_folder
from datamodules.catalog import DataSet, find, root_of

CONFIGS = Path(__file__).parent / "configs"
PUBLISHED_CROP = 512
Tree = dict[str, Any]


def compose(
    recipe: str | Path,
    *,
    dataset: str | None = None,
    reading: str | None = None,
    row: Mapping[str, Any] | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
) -> Tree:
    """The resolved tree of one run.

    Args:
        recipe: a recipe's file, or its name below experiments/configs.
        dataset: an overlay below experiments/configs/data.
        reading: `paper` or `code`; None for the recipe's own.
        row: dotted keys and what a table's row changes.
        profile: `paper`, `quick`, `small` or `miniature`; None for the recipe's own.
        overrides: `key=value` of the command line, values in YAML.
    Raises ValueError with one sentence for anything that does not exist.
    """
    tree = load(recipe_file(recipe))
    readings, profiles = tree.pop("readings"), tree.pop("profiles")
    typed = dict(parse_override(text) for text in overrides)
    reading = typed.pop("reading", None) or reading or tree["reading"]
    profile = typed.pop("profile", None) or profile or tree["profile"]
    if dataset:
        merge(tree, load(named_file("dataset", dataset)))
    merge(tree, {"reading": reading, "profile": profile, **chosen(readings, reading, "reading")})
    merge(tree, row or {})
    apply_profile(tree, load(named_file("profile", profile)))
    apply_profile(tree, chosen(profiles, profile, "profile"))
    merge(tree, typed)
    return resolve(tree)


def recipe_file(recipe: str | Path) -> Path:
    """A recipe by path or by name."""
    return Path(recipe) if str(recipe).endswith((".yaml", ".yml")) else named_file("recipe", str(recipe))


FOLDERS = {"recipe": CONFIGS, "profile": CONFIGS / "profiles", "dataset": CONFIGS / "data"}


def named_file(kind: str, name: str) -> Path:
    """The file of a recipe, profile or data set overlay. Raises ValueError with the names that exist."""
    path = FOLDERS[kind] / f"{name}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in FOLDERS[kind].glob("*.yaml"))
        raise ValueError(f"no {kind} {name!r}; there are: {', '.join(known)}")
    return path


def load(path: Path) -> Tree:
    """A YAML file, its interpolations untouched."""
    if not path.exists():
        raise ValueError(
            f"no recipe at {path}; those of the suite are {', '.join(f.stem for f in CONFIGS.glob('*.yaml'))}"
        )
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}  # type: ignore[return-value]


def chosen(overlays: Mapping[str, Any], name: str, kind: str) -> Mapping[str, Any]:
    """The overlay of this name."""
    if name not in overlays:
        raise ValueError(f"no {kind} {name!r}; there are: {', '.join(overlays)}")
    return overlays[name] or {}


def parse_override(text: str) -> tuple[str, Any]:
    """`--model.loss.balanced=false` -> ("model.loss.balanced", False)."""
    key, equals, value = text.removeprefix("--").partition("=")
    if not equals:
        raise ValueError(f"expected key=value, got {text!r}")
    return key, parse_value(value)


def parse_value(text: str) -> Any:
    """A value as YAML reads it, 1e-3 included (YAML 1.1 wants 1.0e-3)."""
    if re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text):
        return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is no value: {' '.join(str(error).split())}") from error


def merge(tree: Tree, overlay: Mapping[str, Any], where: str = "") -> None:
    """Lay `overlay`, whose keys may be dotted and leave out `init_args`, over `tree` in place."""
    for key, value in overlay.items():
        part, _, rest = key.partition(".")
        node = _holder(tree, part, where)
        here = f"{where}{part}"
        if rest:
            if not isinstance(node.get(part), dict):
                raise ValueError(f"{here} is {node.get(part)!r}, so it has no value {rest!r}")
            value = {rest: value}
        node[part] = _merged(node.get(part), value, f"{here}.")


def _holder(node: Tree, part: str, where: str) -> Tree:
    """The mapping that holds `part`: the node itself or its `init_args`. Raises ValueError when neither knows it."""
    if "class_path" in node and part not in ("class_path", "init_args"):
        arguments: Tree = node.setdefault("init_args", {})
        if part not in arguments and part not in arguments_of(node["class_path"]):
            raise ValueError(_unknown(part, where, {*arguments, *arguments_of(node["class_path"])}))
        return arguments
    if part not in node and part != "init_args":
        raise ValueError(_unknown(part, where, set(node)))
    return node


def _unknown(part: str, where: str, known: set[str]) -> str:
    near = difflib.get_close_matches(part, sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {where}{near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    return f"no value {where}{part} in the recipe; {hint}"


@cache
def arguments_of(class_path: str) -> tuple[str, ...]:
    """Names of what a class or function can be told, those it passes on as **options included."""
    target = import_class(class_path)
    parser = ArgumentParser()
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    return tuple(add(target, None, fail_untyped=False))


def import_class(class_path: str) -> Any:
    """The class or function of a dotted path. Raises ValueError when there is none."""
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no class {class_path!r}: {error}") from error


def _merged(old: Any, new: Any, where: str) -> Any:
    """What stands at a place after an overlay: classes by name, mappings merged, all else replaced."""
    is_class = isinstance(old, dict) and "class_path" in old
    if is_class and isinstance(new, str):
        new = {"class_path": new}
    if not isinstance(old, dict) or not isinstance(new, Mapping):
        return copy.deepcopy(new)
    result, new = copy.deepcopy(old), dict(new)
    if is_class:
        class_path = full_path(new.pop("class_path", old["class_path"]), old["class_path"], where)
        if class_path != old["class_path"]:
            kept = result.get("init_args") or {} if _inherits(class_path, old["class_path"]) else {}
            result = {"class_path": class_path, "init_args": kept}
        new = {**(new.pop("init_args", None) or {}), **new}
    merge(result, new, where)
    return result


def _inherits(class_path: str, parent: str) -> bool:
    """Whether a class is made from the one before it, so that it takes the same arguments and some more."""
    new, old = import_class(class_path), import_class(parent)
    return inspect.isclass(new) and inspect.isclass(old) and issubclass(new, old)


def full_path(name: str, sibling: str, where: str) -> str:
    """A class path; a short name is looked for beside the class it replaces: in its module, then in its package."""
    if "." in name:
        import_class(name)
        return name
    module = importlib.import_module(sibling.rpartition(".")[0])
    package = importlib.import_module(module.__package__ or module.__name__)
    beside = [module.__name__, *(f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__))]
    known: dict[str, str] = {}
    for candidate in map(importlib.import_module, beside):
        known |= {n: candidate.__name__ for n, member in vars(candidate).items() if _is_defined_in(member, candidate)}
        if name in known:
            return f"{known[name]}.{name}"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
    raise ValueError(f"no class {name} for {where.rstrip('.')} in {package.__name__}; {hint}")


def _is_defined_in(member: Any, module: Any) -> bool:
    return inspect.isclass(member) and member.__module__ == module.__name__


def apply_profile(tree: Tree, profile: Mapping[str, Any]) -> None:
    """A profile is an overlay, and besides: `values` swaps values wherever they stand, `classes` sets arguments.

    values: {resnet101: resnet18}; classes: {PSP: {channels: 64}} holds for every PSP of the tree.
    """
    profile = dict(profile)
    values, classes = profile.pop("values", {}), profile.pop("classes", {})
    merge(tree, profile)
    _rewrite(tree, values, classes)


def _rewrite(node: Any, values: Mapping[Any, Any], classes: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _rewrite(value, values, classes)
        if "class_path" in node:
            arguments = classes.get(str(node["class_path"]).rpartition(".")[2], {})
            node.setdefault("init_args", {})
            for name, value in arguments.items():
                merge(node, {name: value})
        return node
    if isinstance(node, list):
        return [_rewrite(value, values, classes) for value in node]
    return values.get(node, node) if isinstance(node, (str, int)) and not isinstance(node, bool) else node


def resolve(tree: Tree) -> Tree:
    """The tree with its interpolations resolved."""
    return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)  # type: ignore[return-value]


def _scaled(value: float | int, published: float | int = PUBLISHED_CROP, *, _root_: Any) -> float:
    """${px:10}: ten pixels of the published crop of 512, in pixels of this run's crop; ${px:10,350}: of one of 350.

    Where windows are cut from a scaled image, it is the image's shorter side that says how large a pixel is.
    """
    sample = _root_.data.init_args.sample
    windows = sample.get("view") == "window" and sample.get("short_side")
    return float(value) * (sample.short_side if windows else sample.size) / float(published)


def _whole(value: float | int, published: float | int = PUBLISHED_CROP, *, _root_: Any) -> int:
    """${whole_px:40,350}: the same, rounded."""
    return round(_scaled(value, published, _root_=_root_))


def _input_channels(*maps: str, _root_: Any) -> int:
    """${input_channels:model.guidance,model.mask_channel}: RGB and the maps of these encoders, where they are used."""
    channels = 3
    for name in maps:
        node = _root_
        for part in name.split("."):
            node = node.init_args[part] if "class_path" in node else node[part]
        if isinstance(node, str):
            raise ValueError(
                f"{name} is {node!r}, but the recipe has no class there to look beside; write {{class_path: ...}}"
            )
        channels += 0 if node is None else int(import_class(node.class_path).channels)
    return channels


def _drawn_data(seed: int) -> str:
    """${drawn_data:0}: the folder of the embedded data, drawn now if it is not there."""
    return str(miniature.draw(cache_folder().parent / "miniature" / str(seed), seed))


def _data_file(name: str, data_set: str = "", *, _root_: Any) -> str:
    """${data_file:points.json,pascal/ext}: a file in the folder of a data set; without one, in that of all data."""
    place = find(data_set) if data_set else DataSet("all data")
    return str(root_of(place, _root_.data.init_args.root) / name)


def _share(part: float, *, _root_: Any) -> float:
    """${share:0.1}: a tenth of a data set; all of a drawn one, which is that small already."""
    return 1.0 if _root_.profile == "miniature" else float(part)


RESOLVERS: dict[str, Callable[..., Any]] = {
    "px": _scaled,
    "whole_px": _whole,
    "input_channels": _input_channels,
    "drawn_data": _drawn_data,
    "data_file": _data_file,
    "share": _share,
}
for _name, _resolver in RESOLVERS.items():
    OmegaConf.register_resolver(_name, _resolver, replace=True)
