"""The run records that a report's numbers are computed from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any


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
                for parent in self.read(run).get("parents", []):
                    visit(parent)
                found[run] = None

        for run in runs:
            visit(run)
        return list(found)

    def seconds(self, runs: Iterable[str]) -> float:
        return sum(float(self.read(run).get("seconds", 0.0)) for run in self.with_parents(runs))

    def sweep(self, runs: Sequence[str]) -> dict[float, float]:
        """Mean IoU (in %) by threshold, mean over seeds; empty where the records hold no sweep."""
        found: dict[float, list[float]] = {}
        for run in runs:
            for name, value in self.read(run)["metrics"].items():
                if name.startswith("mean_iou@"):
                    found.setdefault(float(name.removeprefix("mean_iou@")), []).append(100 * value)
        return {threshold: fmean(values) for threshold, values in sorted(found.items())}

    def metric(self, run: str, name: str) -> float | None:
        """One entry of a record's metrics, None where it was never reached. Raises ValueError naming those it has."""
        metrics = self.read(run).get("metrics", {})
        if name not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            raise ValueError(f"record {self.path(run)} has no metric {name!r}; it has {known}")
        return None if metrics[name] is None else float(metrics[name])

    def most_clicks(self, run: str) -> int:
        """How many clicks a run of the click benchmark went to."""
        return max(int(name[4:]) for name in self.read(run)["metrics"] if re.fullmatch(r"iou_\d+", name))
