"""How the suite speaks to people: sentences, durations, grids of text.

Bad input gets one sentence and exit code 1; TRACEBACK=1 shows where it came from.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import ends

DASH = "\N{EN DASH}"
Spread = tuple[float, float | None]  # a mean over seeds and its standard deviation, None with one seed


@dataclass(frozen=True)
class Grid:
    """A heading, a line that explains, a header and lines of text. `numbers` names the right-aligned columns."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    text: str = ""
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A decision behind a row that the paper leaves open or contradicts: reading, threshold, batch norm, weights."""

    name: str
    value: str
    why: str = ""


def spread_text(point: Spread | None, digits: int = 2) -> str:
    """`81.20 ± 0.34`; a dash where there is nothing."""
    if point is None:
        return DASH
    mean, std = point
    return f"{mean:,.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def sentence(error: BaseException) -> str:
    """An error in one line; its kind is named where the message was not written for the user."""
    text = str(error)
    if "Original Traceback" in text:  # from a loader's worker: what it said stands last, behind its kind
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(text.split())
    return text if isinstance(error, ends.OWN_WORDS) and text else f"{type(error).__name__}: {text}"


@cache
def say_once(sentence: str) -> None:
    """A note on the error stream, once however often its reason is met."""
    print(sentence, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """42 -> `42 s`, 200 -> `3 min`, 9000 -> `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class TextTable(Table):
    """A table for the console whose text is shown as it is: `[words]` of a path or a value are no markup of rich's."""

    def __init__(self, *header: str, title: str = "", **options: Any) -> None:
        super().__init__(title=Text(title, "italic"), title_justify="left", **options)
        for heading in header:
            self.add_column(heading)

    def add_column(self, header: Any = "", *arguments: Any, **options: Any) -> None:
        """See rich."""
        super().add_column(_as_it_is(header), *arguments, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """See rich."""
        super().add_row(*map(_as_it_is, cells), **options)


def show(text: str | TextTable, console: Console | None = None, style: str = "") -> None:
    """Print to the console what rich shall lay out or colour, its text as it is."""
    (console or Console()).print(_as_it_is(text), style=style, soft_wrap=isinstance(text, str))


def _as_it_is(text: Any) -> Any:
    return Text(text) if isinstance(text, str) else text


def one_sentence(main: Callable[[], object]) -> None:
    """Run a command; errors that a user can mend end it with their sentence alone."""
    try:
        main()
    except BaseException as error:
        ends.wait_for_the_end(error)
        if isinstance(error, KeyboardInterrupt):
            print(f"interrupted; {ends.GOES_ON}", file=sys.stderr)
            raise SystemExit(130) from None
        if not isinstance(error, ends.OWN_WORDS) or os.environ.get("TRACEBACK", "0") not in ("", "0"):
            raise
        print(f"error: {sentence(error)}", file=sys.stderr)
        raise SystemExit(1) from None


@contextlib.contextmanager
def trainers_manners() -> Iterator[None]:
    """Around what a Trainer of Lightning does: no advice about what is meant to be as it is, and our ends.

    An interrupt stays one, where Lightning ends with code 1, or 0; a command watches the processes of its group itself.
    """
    from pytorch_lightning.strategies.launchers import subprocess_script

    hints = [
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*does not have many workers.*",
        ".*your dataloader is not resumable.*",  # the sampler is
        ".*`srun` command is available.*",
        ".*GPU available but not used.*",
    ]
    with warnings.catch_warnings():
        for hint in hints:
            warnings.filterwarnings("ignore", message=hint)
        if ends.watching:
            subprocess_script._launch_process_observer = ends.lead  # type: ignore[assignment]
        try:
            yield
        except SystemExit:
            raise KeyboardInterrupt from None
