"""The published tables as data: `experiments/tables/<id>.yaml`, read and checked. `make tables` prints the list.

A row is quoted from the literature or the suite's own; an own row says in `run` what is trained and what it is
evaluated on, as differences from the method's recipe. A null means: not published, or the value could not be read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "tables"
Value = float | str | None  # a word where the paper prints one: '>20', '4+'

METRICS = {  # protocol -> the entry of a record's metrics that a cell shows, and what it is multiplied by
    "object_iou": ("mean_iou", 100.0),
    "grabcut_error": ("error_rate", 100.0),
}
UNVERIFIED = ("unverified", "recalled", "second-hand")


@dataclass(frozen=True)
class TestSet:
    """What a model is evaluated on: a data set by its name in the catalog, and which of its categories."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    name: str
    categories: str = "all"


@dataclass(frozen=True)
class RunSpec:
    """One trained and evaluated model: the recipe, what differs from it, the data, the protocol and the metric.

    `released` says that the authors have published this row's model, so that its weights may stand in for a training.
    """

    recipe: str
    reading: str
    train: tuple[str, ...]
    test: TestSet
    protocol: str
    metric: str
    scale: float
    differs: Mapping[str, Any] = field(default_factory=dict)
    released: bool = False


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
                {"units", "quoted_columns", "notes", "recipe", "reading", "run"}, where)  # fmt: skip
    if tree["id"] != path.stem:
        raise ValueError(f"{where}: its id is {tree['id']!r}; a table file is named after its id")
    units, given = tree.get("units", {}), tree.get("quoted_columns", [])
    for name in [*units, *given]:
        _named(name, tree["columns"], f"{where}: no column")
    columns = tuple(Column(n, text, units.get(n, tree["unit"]), n in given) for n, text in tree["columns"].items())
    rows = tuple(_row(row, tree, columns, where) for row in tree["rows"])
    labels = [row.label for row in rows]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"{where}: two rows are called {twice[0]!r}; a row is found by its label")
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
    runs = dict(tree.get("cells", {}))
    if "run" in tree:
        if len(needed) != 1:
            raise ValueError(f"{where}: `run` is for tables with one measured column; name the columns under `cells`")
        runs[needed[0]] = tree["run"]
    defaults = {**{key: table[key] for key in ("recipe", "reading") if key in table}, **table.get("run", {}),
                **{key: tree[key] for key in ("recipe", "reading") if key in tree}}  # fmt: skip
    cells = {name: _cell(run or {}, defaults, where) for name, run in runs.items()}
    return Row(tree["label"], tree["own"], tree["published"], tree["source"], tree.get("note", ""),
               tree.get("published_std", {}), tree.get("setting", {}), cells)  # fmt: skip


def _cell(tree: dict[str, Any], defaults: dict[str, Any], where: str) -> RunSpec | Pair:
    if "first" not in tree and "second" not in tree:
        return _run(tree, defaults, where)
    _check_keys(tree, {"first", "second"}, set(), where)
    return Pair(_run(tree["first"] or {}, defaults, where), _run(tree["second"] or {}, defaults, where))


def _run(tree: dict[str, Any], defaults: dict[str, Any], where: str) -> RunSpec:
    full = {**defaults, **tree, "differs": {**defaults.get("differs", {}), **tree.get("differs", {})}}
    _check_keys(
        full, {"recipe", "reading", "train", "test", "protocol"}, {"differs", "metric", "scale", "released"}, where
    )
    _named(full["protocol"], METRICS, f"{where}: no protocol")
    if full["reading"] not in ("paper", "code"):
        raise ValueError(f"{where}: reading is {full['reading']!r}; expected paper or code")
    metric, scale = METRICS[full["protocol"]]
    test = full["test"]
    if isinstance(test, dict):
        _check_keys(test, {"name"}, {"categories"}, f"{where}, test")
    return RunSpec(full["recipe"], full["reading"], tuple(full["train"]),
                   TestSet(**test) if isinstance(test, dict) else TestSet(test), full["protocol"],
                   full.get("metric", metric), float(full.get("scale", scale)), full["differs"],
                   full.get("released", False))  # fmt: skip


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
