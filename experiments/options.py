"""The options of commands: what they may be is checked before anything is opened, and refused in one sentence.

Which numbers there are for them says `datamodules.ranges`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from datamodules.names import hint
from datamodules.ranges import COUNT, FINITE


class Parser(argparse.ArgumentParser):
    """Options under their whole names. What it refuses is a ValueError: `--limit must be at least 1, got -3`."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self._negative_number_matcher = re.compile(r"^-\.?\d")  # `-4,6` is a point beside the image, and no option

    def error(self, message: str) -> NoReturn:
        """What argparse would print below the usage, as a sentence."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            raise ValueError(self._no_option(unknown.split()[0]))
        message = re.sub(r"^argument ([^:]+): (?=must )", r"\1 ", message)
        raise ValueError(message.removeprefix("argument ").replace("following arguments are required", "command needs"))

    def parse_with_values(self, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        """The options, and what else was typed: values of the recipe, key=value."""
        options, values = self.parse_known_args(arguments)
        for text in values:
            if "=" not in text:
                raise ValueError(f"{self._no_option(text)}; a value of the recipe is written key=value")
        return options, values

    def _no_option(self, text: str) -> str:
        return f"no option {text!r} here; {hint(text, self._option_string_actions)}"


def numbers_of_rows(text: str) -> tuple[int, ...]:
    """`3,4` as the rows of a table, counted from 1."""
    try:
        return tuple(COUNT.read(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers of rows from 1 on, such as 3,4, got {text!r}") from None


def point(text: str) -> tuple[float, float]:
    """`12,80` as a point in pixels."""
    x, y = _coordinates(text, 2, "points are written x,y")
    return x, y


def box(text: str) -> tuple[float, ...]:
    """`4,6,188,170` as a box in pixels."""
    return _coordinates(text, 4, "a box is written x0,y0,x1,y1")


def _coordinates(text: str, count: int, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(FINITE.read(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(f"{form} in pixels, got {text}")
    return numbers


def folder_to_write(text: str) -> Path:
    """Where a folder is, or will be made."""
    path = Path(text)
    if there := next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None):
        raise argparse.ArgumentTypeError(f"must be a folder, and {there} is a file")
    return path


def file_to_write(text: str) -> Path:
    """Where a file will be written, in a folder that is there."""
    path = Path(text)
    if path.is_dir() or not text:
        raise argparse.ArgumentTypeError(f"must be a file, and {path} is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must lie in a folder that is there, and {path.parent} is none")
    return path
