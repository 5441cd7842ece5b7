"""How long a run has been computed, over all its starts: a run that was killed has cost something, too."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.runs.files import write_atomically

FILE, EVERY = "seconds", 10.0


@contextlib.contextmanager
def spent(folder: Path, every: float = EVERY) -> Iterator[Callable[[], float]]:
    """Count a start of the run in this folder; what is yielded says the seconds of all starts so far.

    They are kept in the folder every few seconds, so that a kill loses no more, and removed by who writes the record.
    """
    file, started, over = folder / FILE, time.perf_counter(), threading.Event()
    try:
        before = float(file.read_text())
    except (OSError, ValueError):  # the first start, or a file that was damaged
        before = 0.0

    def now() -> float:
        return before + time.perf_counter() - started

    def keep() -> None:
        while not over.wait(every):
            with contextlib.suppress(OSError):  # a full disk is told by what the run itself writes
                write_atomically(file, f"{now():.1f}")

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield now
    finally:
        over.set()
        keeper.join()
        with contextlib.suppress(OSError):
            write_atomically(file, f"{now():.1f}")
