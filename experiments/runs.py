"""The run store: a run is a folder, named after what determines its result and finished with its record.json."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning.utilities import rank_zero_only

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy", "opencv-python-headless", "albumentations")


def digest(content: Any) -> str:
    """Hash of a tree of plain values; the order of keys does not matter."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def file_digest(path: str | Path) -> str:
    """Hash of a file's content. Raises ValueError when it is not there."""
    if not Path(path).is_file():
        raise ValueError(f"no file at {path}; give the path of a weights file")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


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


def is_first_process() -> bool:
    """Whether this process speaks for its group: the only one, or rank 0 of several."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is either the old one or the new one, whatever happens meanwhile."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def environment() -> dict[str, Any]:
    """What a result may depend on besides its configuration: code, versions, hardware."""
    return {
        "git": git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "host": platform.node(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def git_commit() -> str | None:
    """The commit of the code, marked when files differ from it; None outside a repository."""

    def git(*arguments: Sequence[str] | str) -> str:
        where = Path(__file__).parent
        done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True)  # type: ignore[list-item]
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
