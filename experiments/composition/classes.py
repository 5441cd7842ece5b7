"""Classes by their names: what they take, which one stands beside which, and whose they are.

What is typed here, in a recipe, a table or on a command line, may name any class. A tree that comes with a run's folder
may be a stranger's: it names classes of the suite, of the libraries that it is built on, and of modules that have been
typed here before.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from datamodules.cache import cache_folder
from datamodules.names import hint

SUITE = ("datamodules", "lightning_modules", "experiments")
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "albumentations", "pytorch_lightning", "lightning_fabric")
TYPED: set[str] = set()  # modules of others that were typed in this process
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*SUITE, *LIBRARIES])


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
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no class {class_path!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{class_path!r} is no class, but a {type(found).__name__}")
    return found


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
    raise ValueError(f"no class {name} for {where.rstrip('.')} in {package.__name__}; {hint(name, sorted(known))}")


def _is_defined_in(member: Any, module: Any) -> bool:
    return inspect.isclass(member) and member.__module__ == module.__name__


def class_paths(tree: Any) -> Iterator[str]:
    """The classes that a tree names as {class_path, init_args}."""
    if isinstance(tree, list):
        for item in tree:
            yield from class_paths(item)
    elif isinstance(tree, Mapping):
        if "class_path" in tree:
            yield str(tree["class_path"])
        for item in tree.values():
            yield from class_paths(item)


def remember_typed(tree: Any) -> None:
    """Classes of a tree that was typed here are known from now on, to later commands as well."""
    modules = set()
    for class_path in class_paths(tree):
        if not _known(class_path):
            module = class_path.rpartition(".")[0]
            modules |= {module, str(getattr(import_class(class_path), "__module__", module))}
    new = {name for name in modules - TYPED if name.partition(".")[0] not in sys.stdlib_module_names}
    if new:
        TYPED.update(new)
        set_parsing_settings(import_path_allowlist=sorted(new))
        with suppress(OSError), _typed_before().open("a") as file:  # what cannot be kept has to be typed again
            file.write("".join(f"{name}\n" for name in sorted(new)))


def refuse_foreign(tree: Any, where: str) -> None:
    """Raises ValueError naming a class of a run's tree that may not be imported; nothing has been imported then."""
    for class_path in class_paths(tree):
        if not _known(class_path):
            raise ValueError(
                f"{where} names {class_path!r}, which is neither of the suite nor of {', '.join(LIBRARIES)}: it is not "
                f"imported, since a run of strangers could execute anything. If you trust it, add the line "
                f"{class_path.rpartition('.')[0] or class_path!r} to {_typed_before()}"
            )


def _known(class_path: str) -> bool:
    """Whether a class is of the suite, of its libraries or of a module that was typed here."""
    module, dot, _ = class_path.rpartition(".")
    if dot and module.partition(".")[0] in (*SUITE, *LIBRARIES):
        return True
    if module not in TYPED and _typed_before().exists() and module in _typed_before().read_text().split():
        TYPED.add(module)
        set_parsing_settings(import_path_allowlist=[module])
    return module in TYPED


def _typed_before() -> Path:
    return (cache_folder().parent / "own_modules.txt").absolute()
