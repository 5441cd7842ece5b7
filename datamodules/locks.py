"""One process at a time: a lock of the file system, or where it has none a file that its owner keeps fresh."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from datamodules.files import process_lives

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)  # Lustre without `flock`, NFS without its lock daemon, others
BEAT = 20.0  # seconds between two signs of life of an owner
SILENCE = 180.0  # without any, as its waiters see it, an owner on another machine is dead


@contextlib.contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold the file `lock`; whoever wants it meanwhile waits here, and is told which process makes `what`.

    It is let go of when the process ends, however it ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        try:
            _flock(file.fileno(), file.read(), what)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            say_once(
                f"note: the file system of {lock.parent.absolute()} has no locks ({error.strerror}); files named "
                "*.owner, which a live process keeps fresh, stand in for them"
            )
            with _owned(lock.with_name(f"{lock.name}.owner"), what):
                yield
            return
        file.seek(0)
        file.truncate()
        file.write(_me())
        file.flush()
        yield


def _flock(descriptor: int, owner: str, what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say_waiting(owner, what)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextlib.contextmanager
def _owned(file: Path, what: str) -> Iterator[None]:
    """Hold a file that only one process can make."""
    while True:
        try:
            with file.open("x") as made:
                made.write(_me())
            break
        except FileExistsError:
            _wait_for(file, what)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(file)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        file.unlink(missing_ok=True)


def _wait_for(file: Path, what: str) -> None:
    """Until the owner of a file has let go of it or is dead: gone from this machine, or silent on another."""
    told, last, since = False, 0, time.monotonic()
    while True:
        try:
            owner, sign = file.read_text(), file.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if sign != last:
            last, since = sign, time.monotonic()
        host, _, process = owner.rpartition(" ")
        dead = process.isdigit() and process_lives(host, int(process)) is False
        if dead or time.monotonic() - since > SILENCE:
            file.unlink(missing_ok=True)
            return
        if not told:
            told = True
            _say_waiting(owner, what)
        time.sleep(0.5)


def _me() -> str:
    return f"{platform.node()} {os.getpid()}"


def _say_waiting(owner: str, what: str) -> None:
    host, _, process = owner.rpartition(" ")
    by = f"process {process} on {host}" if host else "another process"
    print(f"{what} is being made by {by}; waiting for it", file=sys.stderr, flush=True)


@cache
def say_once(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
