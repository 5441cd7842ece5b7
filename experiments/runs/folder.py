"""The run store: a run is a folder, named after what determines its result and finished with its record.json."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml

from experiments.runs.environment import environment
from experiments.runs.files import write_atomically

P = ParamSpec("P")
T = TypeVar("T")


def runs_root() -> Path:
    """Where runs are kept: RUNS_ROOT, else runs/ below the working directory."""
    return Path(os.environ.get("RUNS_ROOT", "runs"))


@dataclass(frozen=True)
class RunFolder:
    """One run's folder: config.yaml (what it is), checkpoints, rows, and record.json (what came out), written last."""

    path: Path

    @property
    def name(self) -> str:
        """The run's hash."""
        return self.path.name

    @property
    def record(self) -> dict[str, Any] | None:
        """The record, or None while the run is not finished."""
        file = self.path / "record.json"
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def config(self) -> dict[str, Any]:
        """What the run is. Raises ValueError when this is no run."""
        file = self.path / "config.yaml"
        if not file.exists():
            raise ValueError(f"{self.path} is no run: it holds no config.yaml")
        config: dict[str, Any] = yaml.safe_load(file.read_text())
        return config

    @property
    def job(self) -> str | None:
        """The cluster job that was submitted for this run."""
        file = self.path / "job"
        return file.read_text() if file.exists() else None

    @property
    def problem(self) -> Path:
        """The file that holds why the last attempt failed."""
        return self.path / "problem.txt"

    @property
    def why_not(self) -> str:
        """Why the last attempt failed, when it could say so."""
        return self.problem.read_text() if self.problem.exists() else ""

    def prepare(self, config: Mapping[str, Any]) -> None:
        """Make the folder and write what the run is."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "config.yaml").exists():
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def finish(self, **content: Any) -> dict[str, Any]:
        """Write record.json with the environment added: from now on the run is done."""
        record = {"run": self.name, **content, **environment()}
        write_atomically(self.path / "record.json", json.dumps(record, indent=1))
        return record

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; another process that wants it waits here and finds it finished."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks: do without
                    yield
                    return
                if not isinstance(error, BlockingIOError):
                    raise
                print(f"run {self.name} is being made by another process; waiting for it", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def find_run(reference: str) -> RunFolder:
    """A run by folder or by the beginning of its hash. Raises ValueError when none or several match."""
    if (Path(reference) / "config.yaml").exists():
        return RunFolder(Path(reference))
    pattern = f"{reference}*" if reference.isalnum() else "[]"  # a path that is not there matches nothing
    found = sorted(folder for folder in runs_root().glob(pattern) if (folder / "config.yaml").exists())
    if len(found) != 1:
        what = f"{len(found)} runs begin" if found else "no run begins"
        raise ValueError(
            f"{what} with {reference!r} below {runs_root().resolve()}; `ls -t` there lists the newest first"
        )
    return RunFolder(found[0])


FULL = ("file write failed", "unexpected pos", "PytorchStreamWriter")  # how PyTorch says that a disk is full
NOWHERE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)


def says_where_to_write(make: Callable[P, T]) -> Callable[P, T]:
    """Makes runs; where they cannot be written, the error names the place, and the variable to set."""

    @functools.wraps(make)
    def explained(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return make(*arguments, **options)
        except (OSError, RuntimeError) as error:
            full = isinstance(error, RuntimeError) and any(sign in str(error) for sign in FULL)
            if not full and not (isinstance(error, OSError) and _in_runs(error)):
                raise
            why = "the disk is full" if full else getattr(error, "strerror", None) or error
            raise OSError(
                getattr(error, "errno", None) or errno.ENOSPC,
                f"runs cannot be written in {runs_root().absolute()} ({why}); make room there, or set RUNS_ROOT to a "
                "folder that can be written",
            ) from error

    return explained


def _in_runs(error: OSError) -> bool:
    """Whether an error is about writing in the store: of a full disk Python does not say which file it was."""
    if error.errno not in NOWHERE or error.filename is None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT) and "CACHE_ROOT" not in str(error)
    return Path(os.fsdecode(error.filename)).absolute().is_relative_to(runs_root().absolute())
