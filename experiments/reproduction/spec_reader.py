"""Reads what the rows of a table's file run, from its least to its most specific part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from datamodules.names import by_name, check_name
from datamodules.selection import Selection
from experiments.evaluation.protocols import STUDIES, protocol_names
from experiments.reproduction.specs import Hard, Pair, RowData, RunSpec, check_keys, slug

FOLDER = Path(__file__).parents[1] / "tables"

BUILDS_ON = ("hard", "labelled")  # what a data set takes from another row


@dataclass(frozen=True)
class RunReader:
    """Reads what a table's rows run, from its least to its most specific part; `inside`: rows that led here."""

    table: dict[str, Any]
    columns: list[str]
    where: str
    inside: tuple[tuple[str, str], ...] = ()  # (table, label)

    def cell(self, row: dict[str, Any], column: str) -> RunSpec | Pair:
        if label := {key: value for part in self.parts(row, column) for key, value in part.items()}.get("share_of"):
            return self.share(row, column, str(label))
        sides = {key for part in self.parts(row, column) for key, value in part.items() if _is_side(key, value)}
        if not sides:
            return self.run(self.parts(row, column))
        check_keys(dict.fromkeys(sides), {"first", "second"}, set(), self.where)
        before, after = (self.run(_of_side(self.parts(row, column), side)) for side in ("first", "second"))
        return Pair(before, after)

    def share(self, row: dict[str, Any], column: str, label: str) -> Pair:
        """This row's model, and that of the row whose value it is to reach, measured alike."""
        parts = [{key: value for key, value in part.items() if key != "share_of"} for part in self.parts(row, column)]
        after, whole = self.run(parts), self.other(label)
        return Pair(replace(whole, test=after.test, own_metric=after.own_metric), after, share_of=label)

    def parts(self, row: dict[str, Any], column: str) -> list[dict[str, Any]]:
        """All that a table says of a cell's runs, the most specific last."""
        shared, own = ({key: tree[key] for key in ("recipe", "reading") if key in tree} for tree in (self.table, row))
        of_column = self.table.get("columns_run", {}).get(column)
        said = [shared, self.table.get("run"), of_column, own, row.get("run"), row.get("cells", {}).get(column)]
        return [part or {} for part in said]

    def run(self, parts: list[dict[str, Any]]) -> RunSpec:
        full = {key: value for part in parts for key, value in part.items()}
        full["differs"] = {key: value for part in parts for key, value in part.get("differs", {}).items()}
        if full.get("protocol") in STUDIES:
            full.setdefault("train", [])
        check_keys(
            full,
            {"recipe", "reading", "train", "test", "protocol", "differs"},
            {"metric", "scale", "start", "parents", "first", "over", "released", "by_code"},
            self.where,
        )
        check_name(full["protocol"], protocol_names(), f"{self.where}: no protocol")
        if full["reading"] not in ("paper", "code"):
            raise ValueError(f"{self.where}: reading is {full['reading']!r}; expected paper or code")
        over = full.get("over", {})
        if not all(isinstance(values, list) and values for values in over.values()):
            raise ValueError(f"{self.where}: over is {over!r}; expected a list of values for each key")
        parents = full.get("parents", {})
        if not isinstance(parents, dict):
            raise ValueError(f"{self.where}: parents is {parents!r}; expected a mapping {{role: row}}")
        built_on = {**({"start": full["start"]} if "start" in full else {}), **parents}
        return RunSpec(
            recipe=full["recipe"],
            reading=full["reading"],
            train=tuple(map(self.row_data, full["train"])),
            test=self.row_data(full["test"]),
            protocol=full["protocol"],
            own_metric=full.get("metric", ""),
            own_scale=float(full["scale"]) if "scale" in full else None,
            differs=full["differs"],
            parents={role: self.other(label) for role, label in built_on.items()},
            first_stage=self.other(full["first"]) if "first" in full else None,
            released=full.get("released", False),
            by_code=full.get("by_code", True),
            over=over,
        )

    def row_data(self, tree: str | dict[str, Any]) -> RowData:
        if isinstance(tree, str):
            return RowData(tree)
        part = {key: value for key, value in tree.items() if key not in ("name", *BUILDS_ON)}
        known = {*BUILDS_ON} | {f.name for f in fields(Selection)} - {"listed"}
        check_keys(tree, {"name"}, known, f"{self.where}, data")
        if len(both := [key for key in BUILDS_ON if key in tree]) > 1:
            raise ValueError(f"{self.where}: a data set cannot be {' and '.join(both)} at once")
        test = {"name": tree["name"], **part}
        if "labelled" in tree:
            check_keys(tree["labelled"], {"by"}, set(), f"{self.where}, labelled")
            return RowData(tree["name"], part, labelled=self.other(tree["labelled"]["by"], test))
        if "hard" not in tree:
            return RowData(tree["name"], part)
        check_keys(tree["hard"], {"below", "by"}, {"metric"}, f"{self.where}, hard")
        return RowData(tree["name"], part, Hard(**{**tree["hard"], "by": self.other(tree["hard"]["by"], test)}))

    def other(self, label: str, test: dict[str, Any] | None = None) -> RunSpec:
        """The model of another row, to be tested on a data set; without one on its own, all of it as it is."""
        rows = {row["label"]: row for row in self.table["rows"]}
        if label not in rows and _is_elsewhere(label):
            return self.elsewhere(label, test)
        row = by_name(label, rows, f"{self.where}: no row")
        return self._model(row, test)

    def elsewhere(self, reference: str, test: dict[str, Any] | None) -> RunSpec:
        """The model of a row of another table, by `table/slug`, or `table/slug/column` where its columns differ."""
        name, wanted, *column = reference.split("/", 2)
        table = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        rows = {slug(row["label"]): row for row in table["rows"] if row["own"] or "run" in row}
        row = by_name(wanted, rows, f"{self.where}: {name} has no own row")
        columns = [name for name in table["columns"] if name not in table.get("quoted_columns", [])]
        for given in column:
            check_name(given, columns, f"{self.where}: {name} has no column")
            columns = [given]
        return replace(self, table=table, columns=columns)._model(row, test)

    def _model(self, row: dict[str, Any], test: dict[str, Any] | None) -> RunSpec:
        place = self.table["id"], row["label"]
        if place in self.inside:
            labels = [label for _, label in (*self.inside, place)]
            raise ValueError(f"{self.where}: rows build on each other: {' -> '.join(labels)}")
        column = next((name for name in self.columns if "run" in row or name in row.get("cells", {})), None)
        if column is None:
            raise ValueError(f"{self.where}: row {row['label']!r} does not say what to run, so nothing can build on it")
        parts = [
            {key: value for key, value in part.items() if key != "share_of"}
            for part in _of_side(self.parts(row, column), "second")
        ]
        own = next((part["test"] for part in reversed(parts) if "test" in part), None)
        if test is None and isinstance(own, dict):
            own = {key: value for key, value in own.items() if key not in BUILDS_ON}
        last = {"test": test or own, "over": {}}  # one model, not the mean of several evaluations
        return replace(self, inside=(*self.inside, place)).run([*parts, last])


def _is_elsewhere(reference: str) -> bool:
    """Whether this names a row of a table that there is, rather than a row of the same."""
    name, slash, _ = reference.partition("/")
    return bool(slash) and (FOLDER / f"{name}.yaml").is_file()


def _is_side(key: str, value: Any) -> bool:
    """Whether this says what one model of a pair is; `first: <label>` is a row that predicts before this one."""
    return key in ("first", "second") and not isinstance(value, str)


def _of_side(parts: Sequence[dict[str, Any]], side: str) -> list[dict[str, Any]]:
    """What is said of one model of a pair: of both, then of itself."""
    both = [{key: value for key, value in part.items() if not _is_side(key, value)} for part in parts]
    own = [part.get(side) or {} for part in parts]
    return [
        each for common, special in zip(both, own) for each in (common, {} if isinstance(special, str) else special)
    ]
