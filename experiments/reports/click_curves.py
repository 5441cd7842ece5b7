"""What the click benchmark measured for the rows of a table, over seeds, read from the run records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from experiments.reproduction.cells import Cell, TableResult

Spread = tuple[float, float | None]  # mean over seeds and standard deviation, None with one seed


@dataclass(frozen=True)
class ClickRuns:
    """The evaluations of one model on one test set: the metrics of each, one evaluation per seed."""

    metrics: tuple[Mapping[str, Any], ...]

    @property
    def curve(self) -> dict[int, Spread]:
        """Mean IoU (%) by number of clicks; 0 is the start mask."""
        names = {int(name[4:]): name for name in self.metrics[0] if name.startswith("iou_") and name[4:].isdigit()}
        return {t: self.spread(name, 100) for t, name in sorted(names.items())}

    @property
    def most(self) -> int:
        """How many clicks every object got."""
        return max(self.curve)

    @property
    def targets(self) -> list[float]:
        """The IoUs (0..1) to reach."""
        return self._after("noc@", "failed@", "wholeset@", "wholeset_integer@")

    @property
    def sweep(self) -> dict[float, tuple[Spread, Spread]]:
        """Per target IoU (0..1) the clicks used and the IoU (%) achieved, when every object stops at the target."""
        targets = self._after("sweep_clicks@")
        return {t: (self.spread(f"sweep_clicks@{t:g}"), self.spread(f"sweep_iou@{t:g}", 100)) for t in targets}

    def values(self, name: str) -> list[float | None]:
        """One entry of the metrics per seed, None where a target was never reached; empty where nobody measured it."""
        return [metrics[name] for metrics in self.metrics if name in metrics]

    def spread(self, name: str, scale: float = 1) -> Spread:
        """Mean and standard deviation over seeds of an entry that every seed has."""
        values = [scale * metrics[name] for metrics in self.metrics]
        return fmean(values), stdev(values) if len(values) > 1 else None

    def _after(self, *kinds: str) -> list[float]:
        return sorted({float(name.removeprefix(k)) for name in self.metrics[0] for k in kinds if name.startswith(k)})


def models_of(cell: Cell) -> list[tuple[str, tuple[str, ...]]]:
    """The models that a cell shows, by name, and their evaluations: those of a pair `A -> B` are A and B."""
    if not cell.first_runs:
        return [(cell.row, cell.runs)]
    first, _, second = cell.row.partition(" -> ")
    return [(first, cell.first_runs), (second or f"{first} (second)", cell.runs)]


def click_runs(result: TableResult) -> dict[str, ClickRuns]:
    """All that was measured by clicks, by row; by `row (columns)` where not all stand in the same columns."""
    columns: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    rows: dict[tuple[str, tuple[str, ...]], str] = {}
    for cell in result.measured_cells():
        for key in models_of(cell):
            if all(result.records.read(run).get("metrics", {}).get("iou_1") is not None for run in key[1]):
                columns.setdefault(key, []).append(cell.column)
                rows.setdefault(key, cell.row)
    alike = len({tuple(dict.fromkeys(names)) for names in columns.values()}) < 2
    found: dict[str, ClickRuns] = {}
    for (label, runs), names in columns.items():
        where = [] if alike else list(dict.fromkeys(names))
        name = _named(label, where)
        if name in found:  # the same model of another pair, trained or tested otherwise
            name = _named(label, [rows[label, runs], *where])
        found[name] = ClickRuns(tuple(result.records.read(run)["metrics"] for run in runs))
    return found


def as_numbers(found: Mapping[str, ClickRuns]) -> dict[str, Any]:
    """The curves as a report's JSON holds them: by name and clicks, mean IoU (%) and its deviation over seeds."""
    return {name: {str(t): list(point) for t, point in runs.curve.items()} for name, runs in found.items()}


def _named(label: str, where: Sequence[str]) -> str:
    return f"{label} ({', '.join(where)})" if where else label
