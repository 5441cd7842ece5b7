"""The run store: a run is a folder, named after what determines its result and finished with its record.json."""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml

from datamodules.locks import alone
from experiments.console import say_once
from experiments.runs.environment import environment
from experiments.runs.files import sha256_of, write_atomically

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # plain values alone; in C where that was built
CONFIG, RECORD = "config.yaml", "record.json"

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
        """The record, or None while the run is not finished; a damaged one is said to be, and counts for nothing."""
        file = self.path / RECORD
        if not file.exists():
            return None
        try:
            return dict(json.loads(file.read_text()))
        except (ValueError, TypeError):
            say_once(f"note: {file} is damaged, so the run counts as not finished: making it again writes a new one")
            return None

    @property
    def config(self) -> dict[str, Any]:
        """What the run is. Raises ValueError when this is no run, or nobody can read what it is."""
        file = self.path / CONFIG
        if not file.exists():
            raise ValueError(f"{self.path} is no run: it holds no {CONFIG}")
        try:
            config = yaml.load(file.read_text(), Loader=LOADER)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read as plain values: {' '.join(str(error).split())}") from None
        if not isinstance(config, dict) or not isinstance(config.get("config"), dict) or "kind" not in config:
            raise ValueError(f"{file} does not say what the run is: expected its kind, config and parents")
        return config

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of those of these files that are there: of the folder, or by their whole path."""
        return {name: sha256_of(self.path / name) for name in names if (self.path / name).exists()}

    def check(self, *names: str) -> None:
        """Raises ValueError naming one of these files, by default all, that is not what the run made.

        Only what is there is compared, and only with a record that has digests: those of before had none.
        """
        if wrong := next(self.changed(*names), None):
            raise ValueError(wrong)

    def changed(self, *names: str) -> Iterator[str]:
        """What `check` complains of, a sentence for each file."""
        made: dict[str, str] = (self.record or {}).get("files", {})
        return self._other_than(made, names or made)

    def changed_evidence(self) -> Iterator[str]:
        """The same of what only shows how the result came about: log and pictures, which no other run reads."""
        made: dict[str, str] = (self.record or {}).get("evidence", {})
        return self._other_than(made, made)

    def _other_than(self, made: Mapping[str, str], names: Iterable[str]) -> Iterator[str]:
        for name, digest in self.digests(names).items():
            if made.get(name, digest) != digest:
                yield (
                    f"{self.path / name} is not the file that the run made: its {RECORD} has another SHA-256; it was "
                    "changed or is damaged. Bring the old one back, or delete the run's folder and make it again"
                )

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
        """Make the folder and write what the run is, anew as long as it has no record.

        What names no run (devices, workers, places of the data) may be another than when it was begun.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.record is None:
            write_atomically(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))

    def clear_partial(self) -> None:
        """Remove files that killed processes did not finish; for who holds the run."""
        for left in self.path.glob(".*.partial-*"):
            left.unlink(missing_ok=True)

    def finish(self, files: Iterable[str] = (), **content: Any) -> dict[str, Any]:
        """Write record.json, with the environment and the digests of its files: from now on the run is done.

        `files`: those that hold its result.
        """
        shown = sorted(path.relative_to(self.path).as_posix() for path in self.path.glob("pictures/*"))
        digests = {"files": self.digests([CONFIG, *files]), "evidence": self.digests(["metrics.csv", *shown])}
        record = {"run": self.name, **content, **digests, **environment()}
        write_atomically(self.path / RECORD, json.dumps(record, indent=1))
        return record

    def locked(self) -> AbstractContextManager[None]:
        """Hold the run; another process that wants it waits here and finds it finished."""
        return alone(self.path / ".lock", f"run {self.name}")


def find_run(reference: str) -> RunFolder:
    """A run by folder or by the beginning of its hash. Raises ValueError when none or several match."""
    if (Path(reference) / CONFIG).exists():
        return RunFolder(Path(reference))
    pattern = f"{reference}*" if reference.isalnum() else "[]"  # a path that is not there matches nothing
    found = sorted(folder for folder in runs_root().glob(pattern) if (folder / CONFIG).exists())
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
