"""The published tables as data: `experiments/tables/<id>.yaml`, read and checked. `make tables` prints the list.

A row is quoted from the literature or the suite's own; an own row says in `run` what is trained and what it is
evaluated on, as differences from the method's recipe. What all rows share stands in the table's `run`, what a column
is about (its test set, its metric) in `columns_run`; what one cell alone changes in the row's `cells`. A row may build
on others, by their labels or as rows of other tables, `fairs-3/ours`: `start: A` goes on from A's weights; `first: A`
has A find the inside points that the row's own model needs; of a data set, `hard: {below: 0.8, by: A}` keeps the
objects on which A stays below an IoU of 0.8, and `labelled: {by: A}` replaces the masks by A's predictions. With `over:
{key: [values]}` a cell is the mean over an evaluation per value. A null means: not published, or it could not be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from datamodules.catalog import notes_of
from datamodules.names import by_name, check_name, hint
from experiments.reproduction.spec_reader import FOLDER, RunReader
from experiments.reproduction.specs import Pair, RunSpec, check_keys

Value = float | str | None  # a word where the paper prints one: '>20', '4+'

UNVERIFIED = ("unverified", "recalled", "second-hand")


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

    def asks(self, column: Column) -> bool:
        """Whether this cell is to be measured: of an own row all but given columns, and those that mean nothing in it.

        A fully supervised model has no retention rate: the paper prints none, and other cells alone say what is run.
        """
        meaningless = self.cells and column.name not in self.cells and self.published.get(column.name) is None
        return self.own and not column.given and not meaningless

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
    file: Path | None = None  # where it lies outside of the suite

    def row(self, label: str) -> Row:
        return by_name(label, {row.label: row for row in self.rows}, f"{self.id} has no row")

    def column(self, name: str) -> Column:
        return by_name(name, {column.name: column for column in self.columns}, f"{self.id} has no column")

    @property
    def to_measure(self) -> tuple[tuple[Row, Column], ...]:
        """The cells that the suite should measure, in reading order."""
        return tuple((row, column) for row in self.rows for column in self.columns if row.asks(column))


def load_table(ref: str) -> Table:
    """The table called by its number (`4`), its id (`dextr-4`) or, outside of the suite, the path of its file.

    Raises ValueError naming the nearest ones.
    """
    if str(ref).endswith((".yaml", ".yml")):
        if not Path(ref).is_file():
            raise ValueError(f"no table file at {ref}")
        return read_table(Path(ref).absolute())
    known = {**{table.id: table for table in tables()}, **{str(table.number): table for table in tables()}}
    if str(ref) in known:
        return known[str(ref)]
    numbers = f"numbers go from 1 to {len(tables())}, `make tables` lists them"
    raise ValueError(f"no table {ref!r}; {hint(ref, [table.id for table in tables()], most=3, otherwise=numbers)}")


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
    tree, where = yaml.safe_load(path.read_text()), path.name
    elsewhere = path.parent != FOLDER
    if elsewhere:
        _recipes_beside(tree, path.parent)
    check_keys(
        tree,
        {"number", "id", "paper", "title", "datasets", "metric", "unit", "columns", "rows"},
        {"units", "quoted_columns", "notes", "recipe", "reading", "run", "columns_run"},
        where,
    )
    if broken := [note for note in tree.get("notes", []) if not isinstance(note, str)]:
        raise ValueError(f"{where}: a note is {broken[0]!r}; put one with a colon into quotes")
    if tree["id"] != path.stem:
        raise ValueError(f"{where}: its id is {tree['id']!r}; a table file is named after its id")
    units, given = tree.get("units", {}), tree.get("quoted_columns", [])
    for name in [*units, *given, *tree.get("columns_run", {})]:
        check_name(name, tree["columns"], f"{where}: no column")
    columns = tuple(Column(n, text, units.get(n, tree["unit"]), n in given) for n, text in tree["columns"].items())
    labels = [row.get("label") for row in tree["rows"]]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"{where}: two rows are called {twice[0]!r}; a row is found by its label")
    rows = tuple(_row(row, tree, columns, where) for row in tree["rows"])
    if unused := [c.name for c in columns if not any(c.name in row.published for row in rows)]:
        raise ValueError(f"{where}: no row has a value or a null for column {unused[0]!r}")
    return Table(
        number=tree["number"],
        id=tree["id"],
        paper=tree["paper"],
        title=tree["title"],
        datasets=tuple(tree["datasets"]),
        metric=tree["metric"],
        columns=columns,
        rows=rows,
        notes=tuple(dict.fromkeys([*tree.get("notes", ()), *_notes_of_data(rows)])),
        file=path if elsewhere else None,
    )


def _notes_of_data(rows: Sequence[Row]) -> Iterator[str]:
    """What the data sets ask every table to say that rows are trained and tested on, and the models they build on."""
    waiting: list[RunSpec] = []
    for cell in (cell for row in rows for cell in row.cells.values()):
        waiting += (cell.before, cell.after) if isinstance(cell, Pair) else (cell,)
    while waiting:
        spec = waiting.pop(0)
        waiting += [*spec.parents.values(), *filter(None, (data.labelled for data in spec.data))]
        for data in spec.data:
            yield from notes_of(data.name)


def _recipes_beside(tree: dict[str, Any], folder: Path) -> None:
    """A recipe's file may lie beside the table's own: named from there, in place."""
    for part in (tree, *tree.get("rows", ())):
        recipe = str(part.get("recipe", ""))
        if recipe.endswith((".yaml", ".yml")) and (folder / recipe).is_file():
            part["recipe"] = str(folder / recipe)


def _row(tree: dict[str, Any], table: dict[str, Any], columns: tuple[Column, ...], where: str) -> Row:
    where = f"{where}, row {tree.get('label', '?')!r}"
    check_keys(
        tree,
        {"label", "own", "published", "source"},
        {"note", "published_std", "setting", "run", "cells", "recipe", "reading"},
        where,
    )
    names = [column.name for column in columns]
    for name in [*tree["published"], *tree.get("published_std", {}), *tree.get("cells", {})]:
        check_name(name, names, f"{where}: no column")
    needed = [column.name for column in columns if tree["own"] and not column.given]
    if missing := [name for name in needed if name not in tree["published"]]:
        raise ValueError(f"{where}: published lacks column {missing[0]!r}; write null where no value is known")
    for name in tree.get("cells", {}):
        check_name(name, needed, f"{where}: no measured column")
    measured = [name for name in needed if "run" in tree or name in tree.get("cells", {})]
    cells = {name: RunReader(table, needed, where).cell(tree, name) for name in measured}
    return Row(
        label=tree["label"],
        own=tree["own"],
        published=tree["published"],
        source=tree["source"],
        note=tree.get("note", ""),
        published_std=tree.get("published_std", {}),
        setting=tree.get("setting", {}),
        cells=cells,
    )
