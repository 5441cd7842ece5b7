"""One overlay over a tree: dotted keys, classes by short names, and a refusal with the nearest key."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import yaml

from datamodules.names import hint
from experiments.composition.classes import arguments_of, full_path, inherits
from experiments.composition.tree import Tree


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
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is no value: {' '.join(str(error).split())}") from error
    return text if isinstance(value, str) and text.startswith(f"{value} #") else value  # a path, and no comment


def parse_data(text: str) -> Any:
    """A data set of a command line: its name as it is typed, ` #` and `: ` included; or YAML's mapping {name: ...}."""
    return parse_value(text) if text.lstrip().startswith("{") else text


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
    return f"no value {where}{part} in the recipe; {hint(part, sorted(known), before=where)}"


def _merged(old: Any, new: Any, where: str) -> Any:
    """What stands at a place after an overlay: classes by name, mappings merged, all else replaced."""
    is_class = isinstance(old, dict) and "class_path" in old
    if is_class and isinstance(new, str):
        new = {"class_path": new}
    if isinstance(old, dict) and not isinstance(new, Mapping):
        _check_section(old, new, where)
    if not isinstance(old, dict) or not isinstance(new, Mapping):
        return copy.deepcopy(new)
    result, new = copy.deepcopy(old), dict(new)
    if is_class:
        class_path = full_path(new.pop("class_path", old["class_path"]), old["class_path"], where)
        if class_path != old["class_path"]:
            kept = result.get("init_args") or {} if inherits(class_path, old["class_path"]) else {}
            result = {"class_path": class_path, "init_args": kept}
        new = {**(new.pop("init_args", None) or {}), **new}
    merge(result, new, where)
    return result


def _check_section(old: Tree, new: Any, where: str) -> None:
    """Raises ValueError for what cannot stand where a class or a mapping does; null can, but for a whole section."""
    key = where.removesuffix(".")
    if new is not None or "." not in key:
        inside = f"values such as {key}.{next(iter(old), '...')}"
        what = "a class by its name, or {class_path: ...}" if "class_path" in old else inside
        raise ValueError(f"{key} holds more than one value, expected {what}, got {new!r}")


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
