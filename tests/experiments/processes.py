"""Real processes of commands, without paying for the import of torch each time: forked from the tests' own."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

from pytorch_lightning.utilities import rank_zero_only

from experiments import ends
from experiments.console import one_sentence


class Forked:
    """What of subprocess.Popen a group's first process needs of its other one."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout=60.0):
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("forked", timeout)
            time.sleep(0.02)
        return self.returncode

    def terminate(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def forked(main, log, environment=()):
    """A command as `python -m` begins it; what it says goes into a file."""
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1), os.dup2(file, 2)
        # A process forked from a forked one drops the streams of that: they must not close the files below them.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        os.environ.update(environment)
        ends.watch()
        one_sentence(main)
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        os._exit(code)


def until_it_says(word, log, process):
    until = time.monotonic() + 60
    while word not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None, f"it was through before it said {word!r}: {log.read_text()}"
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)


def group(main, log, processes=2):
    """A command's group of processes, as Lightning starts it: the first one and those that it leads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "NODE_RANK": "0"}

    def other(rank):
        rank_zero_only.rank = rank
        main()

    def first():
        ends.lead([forked(partial(other, rank), log, {"LOCAL_RANK": str(rank)}) for rank in range(1, processes)])
        (log.parent / "second").write_text(str(ends.started[0].pid))
        main()

    return forked(first, log, {**environment, "LOCAL_RANK": "0"})


def done_by(processes, main, log):
    """A command made by a group of processes to its end."""
    first = group(main, log, processes)
    try:
        assert first.wait(120) == 0, log.read_text()
    finally:
        first.terminate()
