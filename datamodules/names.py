"""What someone may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Named = TypeVar("Named")


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Those of the known names that look like this one, the nearest first; none where it looks like none of them."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.4)


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name: the nearest one, or all there are."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def by_name(name: str, known: Mapping[str, Named], what: str) -> Named:
    """What is known under this name. Raises ValueError with the nearest one: `no <what> <name>; did you mean ...?`."""
    if name not in known:
        raise ValueError(f"no {what} {name!r}; {hint(name, known)}")
    return known[name]
