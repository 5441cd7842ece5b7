"""Where the runs of a graph are made: in this process, one process group each, or as dependent jobs of a cluster."""

from __future__ import annotations

from experiments.launching.local import InProcess, Launcher, Subprocesses
from experiments.launching.slurm import Slurm

LAUNCHERS = ("local", "slurm")


def launcher(name: str, devices: int) -> Launcher:
    """By name: `local` (in this process, or process groups for several devices) or `slurm`."""
    if name == "slurm":
        return Slurm(devices)
    if name != "local":
        raise ValueError(f"no launcher {name!r}; there are: {', '.join(LAUNCHERS)}")
    return InProcess() if devices == 1 else Subprocesses()
