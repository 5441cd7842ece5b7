"""One process at a time, with locks of the file system and without."""

import errno
import fcntl
import platform
import subprocess
import sys
import time

import pytest

from datamodules import locks
from datamodules.locks import alone

HOLD = """
import pathlib, sys, time
from datamodules.locks import alone
with alone(pathlib.Path(sys.argv[1]), 'it'):
    print('held', flush=True)
    time.sleep(0.7)
"""
REFUSE = "import fcntl, errno\ndef refuse(*_): raise OSError(errno.{error}, 'no')\nfcntl.flock = refuse\n"


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, "ENOSYS", "ENOLCK"])
def test_the_second_is_told_who_the_first_is_and_waits(tmp_path, monkeypatch, capsys, error):
    refuse = REFUSE.format(error=error) if error else ""
    command = [sys.executable, "-c", refuse + HOLD, str(tmp_path / ".lock")]
    if error:
        monkeypatch.setattr(fcntl, "flock", refused(getattr(errno, error)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with alone(tmp_path / ".lock", "run 3f2a"):
            assert first.wait(timeout=5) == 0
    said = f"run 3f2a is being made by process {first.pid} on {platform.node()}; waiting for it"
    assert said in capsys.readouterr().err


def refused(number):
    def flock(*_):
        raise OSError(number, "no locks here")

    return flock


def test_without_locks_a_dead_owner_holds_nothing_and_that_there_are_none_is_said(tmp_path, monkeypatch, capsys):
    locks.say_once.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refused(errno.ENOSYS))
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / ".lock.owner").write_text(f"{platform.node()} {dead.stdout.strip()}")
    with alone(tmp_path / ".lock", "it"):
        assert (tmp_path / ".lock.owner").exists()
    assert not (tmp_path / ".lock.owner").exists()
    assert f"{tmp_path} has no locks (no locks here)" in capsys.readouterr().err


def test_without_locks_a_silent_owner_on_another_machine_is_given_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", refused(errno.ENOSYS))
    monkeypatch.setattr(locks, "SILENCE", 0.6)
    (tmp_path / ".lock.owner").write_text("node7 12")
    started = time.monotonic()
    with alone(tmp_path / ".lock", "it"):
        assert time.monotonic() - started > 0.5
    assert "process 12 on node7" in capsys.readouterr().err


def test_other_errors_of_a_lock_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused(errno.EIO))
    with pytest.raises(OSError, match="no locks here"), alone(tmp_path / ".lock", "it"):
        pass
