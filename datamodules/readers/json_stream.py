"""A JSON file of a few long lists, element by element: LVIS' 1.3 million annotations never exist at the same time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")


def list_elements(path: Path) -> Iterator[tuple[str, Any]]:
    """(key, element) for every element of every list at the top level of a JSON object; other values are passed over.

    Raises FileNotFoundError when there is no such file, ValueError naming it when it is not such an object, or cut off.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"the annotation file {path} is missing") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a JSON file but binary data; unpack it first, or fetch it again") from None
    try:
        yield from _elements(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON at character {error.pos:,} of {len(text):,} ({error.msg}); it may be cut off: "
            "fetch it again"
        ) from None


def _elements(text: str) -> Iterator[tuple[str, Any]]:
    decode = json.JSONDecoder().raw_decode  # the C scanner, one element at a time
    place = _passed(text, "{", 0)
    while text[place : place + 1] != "}":
        key, place = decode(text, place)
        place = _passed(text, ":", place)
        if text[place : place + 1] != "[":
            _, place = decode(text, place)
        else:
            place = _passed(text, "[", place)
            while text[place : place + 1] != "]":
                element, place = decode(text, place)
                place = _behind(_COMMA, text, place)
                yield key, element
            place += 1
        place = _behind(_COMMA, text, place)


def _passed(text: str, sign: str, place: int) -> int:
    """The place behind this sign and the white space around it."""
    place = _behind(_SPACE, text, place)
    if text[place : place + 1] != sign:
        raise json.JSONDecodeError(f"expected {sign!r}", text, place)
    return _behind(_SPACE, text, place + 1)


def _behind(pattern: re.Pattern[str], text: str, place: int) -> int:
    """The place behind what a pattern finds here, which may be nothing."""
    found = pattern.match(text, place)
    return found.end() if found else place
