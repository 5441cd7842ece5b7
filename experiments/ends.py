"""How a command ends when it is asked to: at once, with a sentence, and with every process that it started.

What is finished is on disk already: runs, checkpoints and rows survive any kill, so nothing has to be saved first. A
thread of its own does it, since the main thread of a process group may wait for a process that is gone, and Lightning's
own answers to signals wait for the group, too. Only commands are watched (`python -m experiments...`), from their first
import on; who imports the suite keeps their own ways.

Exit codes: 130 for SIGINT, 143 for SIGTERM and SIGHUP, and for a group that lost its parent or one of its processes. A
signal that was ignored when the command began (`nohup`) stays ignored.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
GOES_ON = "the same command continues where this one stopped"
PARENT = "STARTED_BY_PROCESS"  # environment: the process without which this one ends
OWN_WORDS = (ValueError, OSError)  # errors whose sentence is meant for the user
PATIENCE = 10.0  # seconds that others get for their own end

started: list[subprocess.Popen] = []  # processes that end with this one
told: list[Callable[[str], object]] = []  # who else wants to know why this one ends
_ranks: list[subprocess.Popen] = []  # of these, the ones without which this one ends
watching = False
_ending = threading.Event()


def watch() -> None:
    """From now on this process ends as this module says."""
    global watching
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in CODES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)  # what matters is that Python writes its number
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_as_before)  # loaders' workers end when their parent does
    parent, os.environ[PARENT] = os.environ.get(PARENT), str(os.getpid())
    threading.Thread(target=_watch, args=(read, parent), name="ends", daemon=True).start()
    watching = True


def lead(ranks: list[subprocess.Popen]) -> None:
    """The other processes of the group that this one is the first of: without one of them all end.

    In place of Lightning's observer, which kills this process, too, and without a word.
    """
    _ranks.extend(ranks)
    started.extend(ranks)


def wait_for_the_end(error: BaseException) -> None:
    """Before an error goes on: while this process ends, nothing does; in a group it is often another one's end."""
    if _ending.is_set():
        time.sleep(60)
    if watching and (_ranks or _is_rank()) and isinstance(error, Exception) and not isinstance(error, OWN_WORDS):
        time.sleep(3)


def by_signal(code: int) -> str:
    """In words, how a process of this exit code ended."""
    number = -code if code < 0 else {130: signal.SIGINT, 143: signal.SIGTERM}.get(code)
    return f"exit code {code}" if number is None else signal.Signals(number).name


def _watch(read: int, parent: str | None) -> None:
    while True:
        ready, _, _ = select.select([read], [], [], 0.5)
        for number in os.read(read, 64) if ready else b"":
            if number in CODES:
                word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
                _end(CODES[number], word, aloud=parent is None)
        if parent is not None and str(os.getppid()) != parent:
            _end(143, "the process that started this one is gone, so it ends, too", aloud=not _is_rank())
        for number, process in enumerate(_ranks, 1):
            code = process.poll() or 0
            if code < 0 or code in CODES.values():
                why = f"process {number} of the group was ended by {by_signal(code)}, so the others end, too"
                _end(code if code > 0 else CODES.get(-code, 143), why, aloud=True)
            elif code:  # it has said why
                _end(code, "", aloud=False)


def _is_rank() -> bool:
    """Whether another process of its group started this one."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _end(code: int, why: str, aloud: bool) -> NoReturn:
    """Say why, end whoever this process started, and leave, whatever the other threads are in."""
    _ending.set()
    if why and aloud:
        os.write(2, f"{why}; {GOES_ON}\n".encode())  # no lock that another thread may hold
    for tell in told if why else ():
        with contextlib.suppress(Exception):
            tell(why)
    for process in started:
        process.terminate()
    for process in started:
        end(process)
    written = threading.Thread(target=_flush, daemon=True)
    written.start()
    written.join(1)
    for worker in multiprocessing.active_children():  # last: the main thread would call it an error
        worker.kill()
    os._exit(code)


def end(process: subprocess.Popen) -> None:
    """Wait for a process that was asked to end, then kill it; and whoever is left of the group that it led."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _as_before() -> None:
    """In a forked process: its parent's signals are none of its own."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
        for number in CODES:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
