"""Runs as jobs of a cluster, dependent on each other, through submitit."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from datamodules.ranges import COUNT, WHOLE, from_environment
from experiments.console import sentence
from experiments.launching.local import Failed
from experiments.launching.making import execute, explained
from experiments.runs.files import write_atomically
from experiments.runs.folder import RunFolder, runs_root
from experiments.runs.node import Node, load_node


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
        self._asked = {  # a wrong variable ends here, before anything is submitted
            "timeout_min": from_environment("JOB_MINUTES", 24 * 60, COUNT),
            "cpus_per_task": from_environment("JOB_CPUS", 8, COUNT),
            "slurm_gpus_per_node": from_environment("JOB_GPUS", devices, WHOLE) or None,
        }

    def launch(self, node: Node, title: str) -> str:
        """Submit a node unless its job is there already; what it builds on was submitted before or is done."""
        folder = node.folder
        if folder.record is not None:
            return ""
        before, ready = folder.job, all(parent.folder.record is not None for parent in node.ancestors)
        again = any(parent.folder.job in self._submitted for parent in node.ancestors)
        if before not in self._states or again:
            if before is not None and ready:
                why = folder.why_not or f"see {runs_root() / 'jobs' / before}"
                print(f"  job {before} ended without a record ({why}); submitting it anew", flush=True)
            self._submit(node, title)
        return f"job {folder.job} is {self._states[str(folder.job)]}"

    def _submit(self, node: Node, title: str) -> None:
        node.folder.prepare(node.describe())
        node.folder.problem.unlink(missing_ok=True)
        waiting = [str(parent.folder.job) for parent in node.ancestors if parent.folder.record is None]
        extra = {"kill-on-invalid-dep": "yes", **({"dependency": "afterok:" + ":".join(waiting)} if waiting else {})}
        self._executor.update_parameters(
            name=re.sub(r"\W+", "-", title)[:40].strip("-") or node.kind,
            nodes=1,
            tasks_per_node=self._devices,
            **self._asked,
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
