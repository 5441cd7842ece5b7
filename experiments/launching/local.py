"""Runs on this machine: in this process, or one process group each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Protocol

from experiments import ends
from experiments.console import sentence
from experiments.launching.making import execute
from experiments.runs.node import Node


class Failed(Exception):
    """A run that ended without a record; its message says where to look."""


class Launcher(Protocol):
    """Makes nodes whose parents come before them."""

    def launch(self, node: Node, title: str) -> str:
        """Make a run, or hand it over and say what it waits for. Raises Failed when it is known to have failed."""


class InProcess:
    """One device: every run in this process, so that start-up is paid once."""

    def launch(self, node: Node, title: str) -> str:
        """See Launcher."""
        try:
            execute(node, title)
        except (ValueError, OSError, RuntimeError) as error:
            if os.environ.get("TRACEBACK", "0") not in ("", "0"):
                raise
            raise Failed(sentence(error)) from error
        return ""


class Subprocesses:
    """Several devices: every run is a process group of its own, which Lightning starts from one command."""

    def launch(self, node: Node, title: str) -> str:
        """See Launcher."""
        folder = node.folder
        if folder.record is not None:
            return ""
        folder.prepare(node.describe())
        folder.problem.unlink(missing_ok=True)
        # Inside an allocation Lightning would expect SLURM to have started every process of the group.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        command = [sys.executable, "-m", "experiments.execute", str(folder.path), "--title", title]
        with subprocess.Popen(command, env=environment, start_new_session=True) as group:
            ends.started.append(group)
            try:
                code = group.wait()
            except KeyboardInterrupt:
                os.killpg(group.pid, signal.SIGTERM)
                raise
            finally:  # nobody of a group outlives it, also when its first process was killed
                ends.end(group)
                ends.started.remove(group)
        if code or folder.record is None:
            failed = Failed(folder.why_not or f"run {folder.name} was ended by {ends.by_signal(code)}")
            ends.wait_for_the_end(failed)
            raise failed
        return ""
