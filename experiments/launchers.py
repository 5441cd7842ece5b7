"""Where the runs of a graph are made: in this process, one process group each, or as dependent jobs of a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from experiments.execute import execute
from experiments.nodes import Node, load_node
from experiments.runs import RunFolder, runs_root


class Failed(Exception):
    """A run that ended without a record; its message says where to look."""


class Launcher(Protocol):
    """Makes nodes whose parents come before them."""

    def launch(self, node: Node, title: str) -> None:
        """Make a run, or hand it over. Raises Failed when it is known to have failed."""


class InProcess:
    """One device: every run in this process, so that start-up is paid once."""

    def launch(self, node: Node, title: str) -> None:
        """See Launcher."""
        try:
            execute(node, title)
        except (ValueError, OSError, RuntimeError) as error:
            if os.environ.get("TRACEBACK", "0") not in ("", "0"):
                raise
            raise Failed(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


class Subprocesses:
    """Several devices: every run is a process group of its own, which Lightning starts from one command."""

    def launch(self, node: Node, title: str) -> None:
        """See Launcher."""
        if node.folder.record is not None:
            return
        node.folder.prepare(node.describe())
        command = [sys.executable, "-m", "experiments.execute", str(node.folder.path), "--title", title]
        done = subprocess.run(command, check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode:
            raise Failed(f"run {node.folder.name} ended with exit code {done.returncode}; its output is above")


class Slurm:
    """A cluster: every run is a job that depends on the jobs of its parents, through submitit.

    SLURM_PARTITION, SLURM_ACCOUNT, SLURM_QOS, SLURM_TIME (minutes), SLURM_CPUS and SLURM_GPUS set what a job asks for.
    """

    def __init__(self, devices: int = 1) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ValueError("LAUNCHER=slurm needs submitit: run .venv/bin/pip install -e .[cluster]") from error
        self._executor = submitit.AutoExecutor(folder=runs_root() / "jobs" / "%j", cluster="slurm")
        self._devices = devices
        self._jobs: dict[str, str] = {}

    def launch(self, node: Node, title: str) -> None:
        """Submit a node; what it builds on was submitted before or is done."""
        if node.folder.record is not None or node.hash in self._jobs:
            return
        node.folder.prepare(node.describe())
        waiting = [self._jobs[parent.hash] for parent in node.parents if parent.hash in self._jobs]
        extra = {"kill-on-invalid-dep": "yes", **({"dependency": "afterok:" + ":".join(waiting)} if waiting else {})}
        asked = {
            "slurm_partition": os.environ.get("SLURM_PARTITION"),
            "slurm_account": os.environ.get("SLURM_ACCOUNT"),
            "slurm_qos": os.environ.get("SLURM_QOS"),
            "timeout_min": int(os.environ.get("SLURM_TIME", 24 * 60)),
            "cpus_per_task": int(os.environ.get("SLURM_CPUS", 8)),
            "gpus_per_node": int(os.environ.get("SLURM_GPUS", self._devices)) or None,
        }
        self._executor.update_parameters(
            name=title[:40] or node.kind, nodes=1, tasks_per_node=self._devices, slurm_additional_parameters=extra,
            **{name: value for name, value in asked.items() if value is not None},
        )  # fmt: skip
        job = self._executor.submit(execute_folder, str(node.folder.path.resolve()))
        self._jobs[node.hash] = str(job.job_id)
        print(f"  submitted {title} as job {job.job_id}" + (f" after {', '.join(waiting)}" if waiting else ""), flush=True)


def execute_folder(folder: str) -> None:
    """What a job runs: the node that a folder describes."""
    os.environ["RUNS_ROOT"] = str(Path(folder).parent)
    execute(load_node(RunFolder(Path(folder))))


def launcher(name: str, devices: int) -> Launcher:
    """By name: `local` (in this process, or process groups for several devices) or `slurm`."""
    if name == "slurm":
        return Slurm(devices)
    if name != "local":
        raise ValueError(f"no launcher {name!r}; there are: local, slurm")
    return InProcess() if devices == 1 else Subprocesses()


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """All nodes with what they build on, each once, parents first."""
    return list({node.hash: node for root in nodes for node in root.with_ancestors()}.values())
