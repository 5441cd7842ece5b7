"""What someone may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Named = TypeVar("Named")


def hint(name: object, known: Iterable[str], *, before: str = "", most: int = 1, otherwise: str = "") -> str:
    """The end of a complaint about a name: the nearest ones, or where none looks like it all there are.

    Args:
        before: what stands before each name where it is typed.
        most: so many are named as near.
        otherwise: what is said in place of all there are.
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=most, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(repr(before + one) for one in near)}?"
    return otherwise or (f"there are: {', '.join(before + one for one in known)}" if known else "there is none")


def check_name(name: object, known: Iterable[str], complaint: str) -> None:
    """Raises ValueError where the name is not known, with the nearest one: `<complaint> <name>; did you mean ...?`."""
    known = list(known)
    if name not in known:
        raise ValueError(f"{complaint} {name!r}; {hint(name, known)}")


def by_name(name: str, known: Mapping[str, Named], complaint: str) -> Named:
    """What is known under this name. Raises ValueError as `check_name` does."""
    check_name(name, known, complaint)
    return known[name]
