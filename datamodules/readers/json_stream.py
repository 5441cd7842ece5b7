"""A JSON file of a few long lists, element by element: LVIS' 1.3 million annotations never exist at the same time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.readers.other_files import packed, what_it_is

_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")


def list_elements(path: Path, lists: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """(key, element) for every element of every list at the top level of a JSON object; other values are passed over.

    So are the elements of a mapping, `{"7": {...}, "8": {...}}`, which get its keys as their `id` where they have none.

    Args:
        lists: keys whose value must be a list or such a mapping, if they are there.
    Raises FileNotFoundError when there is no such file, ValueError naming it when it is not such an object, or cut off.
    """
    text = read_text(path)
    try:
        yield from _elements(text, lists, path)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} {what_it_is(text) or _broken(text, error)}") from None
    except RecursionError:
        raise ValueError(f"{path} has lists within lists without end; expected COCO's format") from None


def read_text(path: Path) -> str:
    """The text of a JSON file, in the encoding that its first bytes say.

    Raises FileNotFoundError when there is no such file, ValueError saying what it is when it is no text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"the annotation file {path} is missing") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected a file") from None
    if known := packed(data):
        raise ValueError(f"{path} {known}")
    encoding = json.detect_encoding(data[:4])  # as json.loads does
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in data[:4096] or encoding not in ("utf-8", "utf-8-sig"):
            raise ValueError(f"{path} is not a JSON file but binary data; unpack it first, or fetch it again") from None
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start:,} is {data[error.start]:#x}); save it as UTF-8, "
            "for instance with `iconv -f cp1252 -t utf-8`"
        ) from None


def _broken(text: str, error: json.JSONDecodeError) -> str:
    """A clause on a file that begins as JSON."""
    place = f"character {error.pos:,} of {len(text):,} ({error.msg})"
    return f"is not valid JSON at {place}; it may be cut off: fetch it again"


def _elements(text: str, lists: Sequence[str], path: Path) -> Iterator[tuple[str, Any]]:
    decode = json.JSONDecoder().raw_decode  # the C scanner, one element at a time
    place = _passed(text, "{", 0)
    while text[place : place + 1] != "}":
        key, place = decode(text, place)
        place = _passed(text, ":", place)
        if text[place : place + 1] != "[":
            value, place = decode(text, place)
            if isinstance(value, dict) and all(isinstance(element, dict) for element in value.values()):
                yield from ((key, {"id": name, **element}) for name, element in value.items())
            elif key in lists:
                raise ValueError(f"{path}: {key} is {value!r:.40}, expected a list of entries")
        else:
            place = _passed(text, "[", place)
            while text[place : place + 1] != "]":
                element, place = decode(text, place)
                place = _behind(_COMMA, text, place)
                yield key, element
            place += 1
        place = _behind(_COMMA, text, place)
    if (end := _behind(_SPACE, text, place + 1)) < len(text.rstrip("\0")):
        raise json.JSONDecodeError("Extra data", text, end)


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
