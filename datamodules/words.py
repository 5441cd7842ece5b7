"""Parts of a recipe in words, for reports: classes say themselves what they were told, `in_words(arguments)`."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import Any

Said = tuple[str, str, str]  # a decision: its name, its value, why


def in_words(value: Any, without: Collection[str] = ()) -> str:
    """A class with its arguments, `GaussianMap (fwhm 10.0)`, as it says itself where it does; other values as they are.

    Args:
        value: plain values; a class as {class_path, init_args}.
        without: arguments that nobody needs to know.
    """
    if value is None:
        return "none"
    if not isinstance(value, Mapping) or "class_path" not in value:
        return str(value)
    arguments = value.get("init_args") or {}
    own = getattr(class_of(value), "in_words", None)
    if own is not None:
        return str(own(arguments))
    given = ", ".join(f"{name} {in_words(item)}" for name, item in arguments.items() if name not in without)
    return f"{name_of(value)} ({given})" if given else name_of(value)


def class_of(value: Mapping[str, Any]) -> Any:
    """The class that a recipe names."""
    module, _, name = str(value["class_path"]).rpartition(".")
    return getattr(importlib.import_module(module), name)


def name_of(value: Mapping[str, Any] | None) -> str:
    """A class' own name; `none` where there is none."""
    return "none" if value is None else str(value["class_path"]).rpartition(".")[2]


def data_set_in_words(spec: str | Mapping[str, Any]) -> str:
    """`pascal/val`, `pascal/val (every 10)`."""
    if isinstance(spec, str):
        return spec
    part = ", ".join(f"{name} {value}" for name, value in spec.items() if name != "name")
    return f"{spec['name']} ({part})" if part else str(spec["name"])


def yes(value: bool) -> str:
    """`yes` or `no`."""
    return "yes" if value else "no"
