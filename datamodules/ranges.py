"""Which numbers a value may be: options of commands, keys of a recipe and the environment are refused alike."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers that a value may be; never NaN, never infinite. As `type` of an option it reads what was typed.

    Args:
        least, most: both belong to it.
        above: smaller than any of it.
        whole: whole numbers alone.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    whole: bool = False

    def __call__(self, text: str) -> Any:
        """The number of an option's text. Raises what argparse puts the option's name before."""
        try:
            return self.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    def read(self, text: str) -> Any:
        """The number that is written. Raises ValueError: `must be at least 1, got -3`."""
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(self.refusal(text)) from None
        return self.checked(value)

    def checked(self, value: Any, name: str = "") -> Any:
        """The value itself. Raises ValueError: `{name} must be between 0 and 1, got 2`."""
        if refusal := self.refusal(value):
            raise ValueError(f"{name} {refusal}".strip())
        return value

    def refusal(self, value: Any) -> str:
        """Why a value is none of these numbers; empty where it is."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            kind = "a whole number" if self.whole else "a number"
            return f"must be {kind}{self._bounds and f' {self._bounds}'}, got {value!r}"
        finite = isinstance(value, int) or math.isfinite(value)
        if finite and self.least <= value <= self.most and value > self.above:
            return ""
        return f"must be {self._bounds or 'a finite number'}, got {value}"

    @property
    def _bounds(self) -> str:
        """In words, empty without any."""
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"between {self.least:.15g} and {self.most:.15g}"
        if math.isfinite(self.above):
            return f"more than {self.above:g}"
        return f"at least {self.least:g}" if math.isfinite(self.least) else ""


COUNT = Range(1, whole=True)
WHOLE = Range(0, whole=True)
POSITIVE = Range(above=0)
PROBABILITY = Range(0, 1)
FINITE = Range()


def from_environment(variable: str, default: float, allowed: Range) -> Any:
    """The number that a variable of the environment holds, `default` where it is not set or empty.

    Raises ValueError naming the variable.
    """
    text = os.environ.get(variable) or str(default)
    try:
        return allowed.read(text)
    except ValueError as error:
        raise ValueError(f"{variable} {error}") from None
