"""The run records that a report's numbers are computed from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTED = int(time.time())  # about when this process began


@dataclass(frozen=True)
class Records:
    """The run records below a folder, by hash."""

    root: Path

    def path(self, run: str) -> Path:
        return self.root / run / "record.json"

    def read(self, run: str) -> dict[str, Any]:
        if not self.path(run).exists():
            raise FileNotFoundError(f"run {run} has no record: expected {self.path(run)}; make the table again")
        record: dict[str, Any] = json.loads(self.path(run).read_text())
        return record

    def digest(self, run: str) -> str:
        return hashlib.sha256(self.path(run).read_bytes()).hexdigest()

    def with_parents(self, runs: Iterable[str]) -> list[str]:
        """These runs and all they build on, each once, parents first."""
        found: dict[str, None] = {}

        def visit(run: str) -> None:
            if run not in found:
                for parent in parents_of(self.read(run)):
                    visit(parent)
                found[run] = None

        for run in runs:
            visit(run)
        return list(found)

    def seconds(self, runs: Iterable[str]) -> float:
        return sum(float(self.read(run).get("seconds", 0.0)) for run in self.with_parents(runs))

    def metric(self, run: str, name: str) -> float | None:
        """One entry of a record's metrics, None where it was never reached. Raises ValueError naming those it has."""
        metrics = self.read(run).get("metrics", {})
        if name not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            raise ValueError(f"record {self.path(run)} has no metric {name!r}; it has {known}")
        return None if metrics[name] is None else float(metrics[name])


def left_out_in_words(record: Mapping[str, Any]) -> str:
    """`; left out: 3 crowd annotations`, for the last line of a command; nothing where nothing was."""
    left_out = "; ".join(record.get("left_out", ()))
    return f"; left out: {left_out}" if left_out else ""


def made_before(record: Mapping[str, Any]) -> str:
    """When and by which code a record was made that this process finds; nothing where it was made since it began."""
    try:
        finished = time.mktime(time.strptime(record["finished"][:19], "%Y-%m-%dT%H:%M:%S"))
    except (KeyError, TypeError, ValueError):
        return "made before"
    if finished >= STARTED:
        return ""
    code = f" by commit {record['git']}" if record.get("git") else ""
    return f"made before, on {record['finished'][:10]} at {record['finished'][11:16]}{code}"


def parents_of(record: Mapping[str, Any]) -> list[str]:
    """The runs that a record builds on directly: by role, or, of an older one, in a list."""
    parents = record.get("parents", [])
    found = parents.values() if isinstance(parents, Mapping) else parents
    return [run for each in found for run in ([each] if isinstance(each, str) else each)]
