"""Classes by their names: what they take, and which one stands beside which."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from jsonargparse import ArgumentParser

from datamodules.names import nearest


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


def inherits(class_path: str, parent: str) -> bool:
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
    near = nearest(name, known)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
    raise ValueError(f"no class {name} for {where.rstrip('.')} in {package.__name__}; {hint}")


def _is_defined_in(member: Any, module: Any) -> bool:
    return inspect.isclass(member) and member.__module__ == module.__name__
