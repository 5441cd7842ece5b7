"""Where the runs of a graph are made: in this process, one process group each, or as dependent jobs of a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.execute import execute, explained
from experiments.nodes import Node, load_node
from experiments.runs import RunFolder, runs_root, write_atomically
from experiments.sentences import sentence


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
            try:
                code = group.wait()
            except KeyboardInterrupt:
                os.killpg(group.pid, signal.SIGTERM)
                raise
            finally:  # nobody of a group outlives it, also when its first process was killed
                with contextlib.suppress(subprocess.TimeoutExpired):
                    group.wait(timeout=10)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group.pid, signal.SIGKILL)
        if code or folder.record is None:
            ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise Failed(folder.why_not or f"run {folder.name} {ended}")
        return ""


class Slurm:
    """A cluster: every run is a job that depends on the jobs of its parents, through submitit.

    JOB_MINUTES, JOB_CPUS and JOB_GPUS set what a job asks for; sbatch itself reads SBATCH_PARTITION, SBATCH_ACCOUNT,
    SBATCH_QOS and others. A job that meets its time limit, or is preempted, is queued again and continues. Which job
    makes a run is kept in the run's folder, so that a repeated command submits none a second time.
    """

    def __init__(self, devices: int = 1, executor: Any = None) -> None:
        if executor is None:
            try:
                import submitit
            except ImportError as error:
                raise ValueError("LAUNCHER=slurm needs submitit: run .venv/bin/pip install -e .[cluster]") from error
            executor = submitit.AutoExecutor(runs_root() / "jobs" / "%j", cluster="slurm", slurm_max_num_timeout=1000)
        self._executor, self._devices, self._states = executor, devices, states_of_jobs()
        self._submitted: set[str] = set()

    def launch(self, node: Node, title: str) -> str:
        """Submit a node unless its job is there already; what it builds on was submitted before or is done."""
        folder = node.folder
        if folder.record is not None:
            return ""
        before, ready = folder.job, all(parent.folder.record is not None for parent in node.parents)
        again = any(parent.folder.job in self._submitted for parent in node.parents)
        if before not in self._states or again:
            if before is not None and ready:
                why = folder.why_not or f"see {runs_root() / 'jobs' / before}"
                print(f"  job {before} ended without a record ({why}); submitting it anew", flush=True)
            self._submit(node, title)
        return f"job {folder.job} is {self._states[str(folder.job)]}"

    def _submit(self, node: Node, title: str) -> None:
        node.folder.prepare(node.describe())
        node.folder.problem.unlink(missing_ok=True)
        waiting = [str(parent.folder.job) for parent in node.parents if parent.folder.record is None]
        extra = {"kill-on-invalid-dep": "yes", **({"dependency": "afterok:" + ":".join(waiting)} if waiting else {})}
        self._executor.update_parameters(
            name=re.sub(r"\W+", "-", title)[:40].strip("-") or node.kind,
            nodes=1,
            tasks_per_node=self._devices,
            timeout_min=int(os.environ.get("JOB_MINUTES", 24 * 60)),
            cpus_per_task=int(os.environ.get("JOB_CPUS", 8)),
            slurm_gpus_per_node=int(os.environ.get("JOB_GPUS", self._devices)) or None,
            slurm_additional_parameters=extra,
        )
        try:
            job = self._executor.submit(Job(node.folder.path.resolve(), title))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # sbatch refused
            raise Failed(sentence(error)) from error
        write_atomically(node.folder.path / "job", str(job.job_id))
        self._states[str(job.job_id)] = "queued"
        self._submitted.add(str(job.job_id))
        print(f"  submitted as job {job.job_id}" + (f", after {', '.join(waiting)}" if waiting else ""), flush=True)


def states_of_jobs() -> dict[str, str]:
    """The user's jobs that wait or run. Raises ValueError where there is no SLURM to ask."""
    try:
        asked = subprocess.run(["squeue", "--me", "--noheader", "--format=%i %T"], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ValueError("LAUNCHER=slurm needs SLURM's own commands on PATH; squeue is not there") from error
    if asked.returncode:
        raise ValueError(f"squeue does not answer: {' '.join(asked.stderr.split())}")
    jobs = dict(line.split() for line in asked.stdout.splitlines())
    return {job: "queued" if state == "PENDING" else state.lower() for job, state in jobs.items()}


class Job:
    """What a cluster job calls: makes the run that a folder describes. submitit calls it again when requeued."""

    def __init__(self, folder: Path, title: str) -> None:
        self.folder, self.title = folder, title

    def __call__(self) -> None:
        """Make the run, from its last checkpoint where there is one."""
        os.environ["RUNS_ROOT"] = str(self.folder.parent)
        folder = RunFolder(self.folder)
        with explained(folder):
            execute(load_node(folder), self.title)

    def checkpoint(self) -> Any:
        """Asked by submitit before the job is ended by its time limit or for another one: queue it again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


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
