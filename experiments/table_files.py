"""The published tables as data: `experiments/tables/<id>.yaml`, read and checked. `make tables` prints the list.

A row is quoted from the literature or the suite's own; an own row says in `run` what is trained and what it is
evaluated on, as differences from the method's recipe. What all rows share stands in the table's `run`, what a column
is about (its test set, its metric) in `columns_run`; what one cell alone changes in the row's `cells`. A row may build
on others, by their labels: `start: A` goes on from A's weights, `hard: {below: 0.8, by: A}` keeps of a data set the
objects on which A stays below an IoU of 0.8. A null means: not published, or the value could not be read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from datamodules.selection import Selection

FOLDER = Path(__file__).parent / "tables"
Value = float | str | None  # a word where the paper prints one: '>20', '4+'

METRICS = {  # protocol -> the entry of a record's metrics that a cell shows, and what it is multiplied by
    "object_iou": ("mean_iou", 100.0),
    "grabcut_error": ("error_rate", 100.0),
    "clicks": ("noc@0.85", 1.0),
}
UNVERIFIED = ("unverified", "recalled", "second-hand")


@dataclass(frozen=True)
class DataSet:
    """What a model is trained or tested on: a data set of the catalog, which part (see Selection), hard for whom."""

    name: str
    part: Mapping[str, Any] = field(default_factory=dict)
    hard: Hard | None = None


@dataclass(frozen=True)
class Hard:
    """Objects on which another model, evaluated on the same data, has a `metric` (of its rows) below a bound."""

    below: float
    by: RunSpec
    metric: str = "iou"


@dataclass(frozen=True)
class RunSpec:
    """One trained and evaluated model: the recipe, what differs from it, the data, the protocol and the metric.

    `start` is the model whose training it continues. `released` says that the authors have published this row's model,
    so that its weights may stand in for a training.
    """

    recipe: str
    reading: str
    train: tuple[DataSet, ...]
    test: DataSet
    protocol: str
    metric: str
    scale: float
    differs: Mapping[str, Any] = field(default_factory=dict)
    start: RunSpec | None = None
    released: bool = False

    @property
    def data(self) -> tuple[DataSet, ...]:
        """The training data, then the test set."""
        return (*self.train, self.test)


@dataclass(frozen=True)
class Pair:
    """Two models of which a cell shows the gain of the second over the first."""

    first: RunSpec
    second: RunSpec


@dataclass(frozen=True)
class Column:
    """A column and its unit; `given` columns hold what is not measured here (quoted methods, numbers of clicks)."""

    name: str
    text: str
    unit: str
    given: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a table; `cells` says per column what has to be run for it and is empty while nobody has said."""

    label: str
    own: bool
    published: Mapping[str, Value]
    source: str
    note: str = ""
    published_std: Mapping[str, float] = field(default_factory=dict)
    setting: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, RunSpec | Pair] = field(default_factory=dict)

    @property
    def unverified(self) -> bool:
        """True where the published values come from memory or from second hand, as the source says."""
        return any(word in self.source for word in UNVERIFIED)


@dataclass(frozen=True)
class Table:
    """One published table or figure."""

    number: int
    id: str
    paper: str
    title: str
    datasets: tuple[str, ...]
    metric: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def row(self, label: str) -> Row:
        return _named(label, {row.label: row for row in self.rows}, f"{self.id} has no row")

    def column(self, name: str) -> Column:
        return _named(name, {column.name: column for column in self.columns}, f"{self.id} has no column")

    @property
    def to_measure(self) -> tuple[tuple[Row, Column], ...]:
        """The cells that the suite should measure, in reading order."""
        return tuple((row, column) for row in self.rows if row.own for column in self.columns if not column.given)


def load_table(ref: str) -> Table:
    """The table called by its number (`4`) or its id (`dextr-4`). Raises ValueError naming the nearest ones."""
    known = {**{table.id: table for table in tables()}, **{str(table.number): table for table in tables()}}
    if str(ref) in known:
        return known[str(ref)]
    near = difflib.get_close_matches(str(ref), [table.id for table in tables()], n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"numbers go from 1 to {len(tables())}, `make tables` lists them"
    raise ValueError(f"no table {ref!r}; {hint}")


@cache
def tables(folder: Path = FOLDER) -> tuple[Table, ...]:
    """All tables, by number. Raises ValueError where two have the same number."""
    found: dict[int, Table] = {}
    for path in sorted(folder.glob("*.yaml")):
        table = read_table(path)
        if table.number in found:
            first = found[table.number].id
            raise ValueError(
                f"number {table.number} is given to {first} and to {table.id}; numbers are fixed, add the next"
            )
        found[table.number] = table
    return tuple(found[number] for number in sorted(found))


def read_table(path: Path) -> Table:
    """One table file, checked: known keys, one name per row, every column used, own rows complete."""
    tree = yaml.safe_load(path.read_text())
    where = path.name
    _check_keys(tree, {"number", "id", "paper", "title", "datasets", "metric", "unit", "columns", "rows"},
                {"units", "quoted_columns", "notes", "recipe", "reading", "run", "columns_run"}, where)  # fmt: skip
    if tree["id"] != path.stem:
        raise ValueError(f"{where}: its id is {tree['id']!r}; a table file is named after its id")
    units, given = tree.get("units", {}), tree.get("quoted_columns", [])
    for name in [*units, *given, *tree.get("columns_run", {})]:
        _named(name, tree["columns"], f"{where}: no column")
    columns = tuple(Column(n, text, units.get(n, tree["unit"]), n in given) for n, text in tree["columns"].items())
    labels = [row.get("label") for row in tree["rows"]]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"{where}: two rows are called {twice[0]!r}; a row is found by its label")
    rows = tuple(_row(row, tree, columns, where) for row in tree["rows"])
    if unused := [c.name for c in columns if not any(c.name in row.published for row in rows)]:
        raise ValueError(f"{where}: no row has a value or a null for column {unused[0]!r}")
    return Table(tree["number"], tree["id"], tree["paper"], tree["title"], tuple(tree["datasets"]), tree["metric"],
                 columns, rows, tuple(tree.get("notes", ())))  # fmt: skip


def _row(tree: dict[str, Any], table: dict[str, Any], columns: tuple[Column, ...], where: str) -> Row:
    where = f"{where}, row {tree.get('label', '?')!r}"
    _check_keys(tree, {"label", "own", "published", "source"},
                {"note", "published_std", "setting", "run", "cells", "recipe", "reading"}, where)  # fmt: skip
    names = [column.name for column in columns]
    for name in [*tree["published"], *tree.get("published_std", {}), *tree.get("cells", {})]:
        _named(name, names, f"{where}: no column")
    needed = [column.name for column in columns if tree["own"] and not column.given]
    if missing := [name for name in needed if name not in tree["published"]]:
        raise ValueError(f"{where}: published lacks column {missing[0]!r}; write null where no value is known")
    for name in tree.get("cells", {}):
        _named(name, needed, f"{where}: no measured column")
    measured = [name for name in needed if "run" in tree or name in tree.get("cells", {})]
    cells = {name: _Runs(table, needed, where).cell(tree, name) for name in measured}
    return Row(tree["label"], tree["own"], tree["published"], tree["source"], tree.get("note", ""),
               tree.get("published_std", {}), tree.get("setting", {}), cells)  # fmt: skip


@dataclass(frozen=True)
class _Runs:
    """Reads what a table's rows run, from its least to its most specific part; `inside`: rows that led here."""

    table: dict[str, Any]
    columns: list[str]
    where: str
    inside: tuple[str, ...] = ()

    def cell(self, row: dict[str, Any], column: str) -> RunSpec | Pair:
        sides = {side for part in self.parts(row, column) for side in ("first", "second") if side in part}
        if not sides:
            return self.run(self.parts(row, column))
        _check_keys(dict.fromkeys(sides), {"first", "second"}, set(), self.where)
        return Pair(*(self.run(_of_side(self.parts(row, column), side)) for side in ("first", "second")))

    def parts(self, row: dict[str, Any], column: str) -> list[dict[str, Any]]:
        """All that a table says of a cell's runs, the most specific last."""
        shared, own = ({key: tree[key] for key in ("recipe", "reading") if key in tree} for tree in (self.table, row))
        of_column = self.table.get("columns_run", {}).get(column)
        said = [shared, self.table.get("run"), of_column, own, row.get("run"), row.get("cells", {}).get(column)]
        return [part or {} for part in said]

    def run(self, parts: list[dict[str, Any]]) -> RunSpec:
        full = {key: value for part in parts for key, value in part.items()}
        full["differs"] = {key: value for part in parts for key, value in part.get("differs", {}).items()}
        _check_keys(full, {"recipe", "reading", "train", "test", "protocol", "differs"},
                    {"metric", "scale", "start", "released"}, self.where)  # fmt: skip
        _named(full["protocol"], METRICS, f"{self.where}: no protocol")
        if full["reading"] not in ("paper", "code"):
            raise ValueError(f"{self.where}: reading is {full['reading']!r}; expected paper or code")
        metric, scale = METRICS[full["protocol"]]
        return RunSpec(
            full["recipe"], full["reading"], tuple(map(self.data_set, full["train"])), self.data_set(full["test"]),
            full["protocol"], full.get("metric", metric), float(full.get("scale", scale)), full["differs"],
            self.other(full["start"]) if "start" in full else None, full.get("released", False),
        )  # fmt: skip

    def data_set(self, tree: str | dict[str, Any]) -> DataSet:
        if isinstance(tree, str):
            return DataSet(tree)
        part = {key: value for key, value in tree.items() if key not in ("name", "hard")}
        _check_keys(tree, {"name"}, {"hard"} | {f.name for f in fields(Selection)} - {"listed"}, f"{self.where}, data")
        if "hard" not in tree:
            return DataSet(tree["name"], part)
        _check_keys(tree["hard"], {"below", "by"}, {"metric"}, f"{self.where}, hard")
        by = self.other(tree["hard"]["by"], {"name": tree["name"], **part})
        return DataSet(tree["name"], part, Hard(**{**tree["hard"], "by": by}))

    def other(self, label: str, test: dict[str, Any] | None = None) -> RunSpec:
        """The model of another row, to be tested on a data set; without one on its own, hard for nobody."""
        row = _named(label, {row["label"]: row for row in self.table["rows"]}, f"{self.where}: no row")
        if label in self.inside:
            raise ValueError(f"{self.where}: rows build on each other: {' -> '.join([*self.inside, label])}")
        column = next((name for name in self.columns if "run" in row or name in row.get("cells", {})), None)
        if column is None:
            raise ValueError(f"{self.where}: row {label!r} does not say what to run, so nothing can build on it")
        parts = _of_side(self.parts(row, column), "second")
        own = next((part["test"] for part in reversed(parts) if "test" in part), None)
        if test is None and isinstance(own, dict):
            own = {key: value for key, value in own.items() if key != "hard"}
        return replace(self, inside=(*self.inside, label)).run([*parts, {"test": test or own}])


def _of_side(parts: Iterable[dict[str, Any]], side: str) -> list[dict[str, Any]]:
    """What is said of one model of a pair: of both, then of itself."""
    both = [{key: value for key, value in part.items() if key not in ("first", "second")} for part in parts]
    return [each for part, common in zip(parts, both) for each in (common, part.get(side) or {})]


def _check_keys(tree: Mapping[str, Any], needed: set[str], allowed: set[str], where: str) -> None:
    for key in tree:
        _named(key, needed | allowed, f"{where}: no key")
    if missing := sorted(needed - set(tree)):
        raise ValueError(f"{where}: {', '.join(missing)} missing")


def _named(name: str, known: Mapping[str, Any] | Iterable[str], complaint: str) -> Any:
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=2, cutoff=0.3) or names
        raise ValueError(f"{complaint} {name!r}; nearest: {', '.join(near)}")
    return known[name] if isinstance(known, Mapping) else name


if __name__ == "__main__":
    from experiments.table_list import print_tables

    print_tables()
