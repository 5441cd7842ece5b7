"""What the papers claim in words, as data: `experiments/claimed/<paper>.yaml`, read and checked.

A claim sets a second row of the tables against a first one: its value is `higher`, `lower` or `close`, which is at most
`within` of the column's unit away. `first` and `second` are rows of the claim's `table`, or say {table, row, column,
metric} themselves; a row that is a difference is both, as `pair`. A column that is the only one need not be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from datamodules.names import by_name, check_name
from experiments.reproduction.specs import Pair, RunSpec, check_keys
from experiments.reproduction.tables import Table, Value, load_table

FOLDER = Path(__file__).parent.parent / "claimed"
KINDS = ("higher", "lower", "close")


@dataclass(frozen=True)
class Side:
    """One of the two values of a claim: a cell of a table, and how it is measured; `spec` is None while nobody can."""

    table: str
    row: str
    column: str
    unit: str
    published: Value
    spec: RunSpec | None
    metric: str

    @property
    def name(self) -> str:
        """As a page calls it."""
        return f"{self.table}, {self.row}, {self.column}"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the two values that test it.

    `published`: second minus first, where both are printed.
    """

    id: str
    paper: str
    says: str
    where: str
    kind: str
    first: Side
    second: Side
    within: float = 0.0
    note: str = ""
    published: float | None = None

    @property
    def name(self) -> str:
        """`dextr-points-over-boxes`, by which it is asked for."""
        return f"{self.paper}-{self.id}"

    @property
    def untested(self) -> str:
        """Why nothing can be measured yet, or nothing."""
        lacking = [side for side in (self.first, self.second) if side.spec is None]
        return f"{lacking[0].table} says not yet what to run for {lacking[0].row!r}" if lacking else ""

    @property
    def in_words(self) -> str:
        """What must come out for it to hold."""
        if self.kind == "close":
            return f"at most {self.within:g} {self.second.unit} apart"
        return f"second {self.kind}"

    def holds_for(self, low: float, high: float) -> str:
        """`holds`, `does not hold` or `within noise`, for an interval of second minus first in the column's unit."""
        if self.kind == "close":
            if -self.within <= low and high <= self.within:
                return "holds"
            return "does not hold" if low > self.within or high < -self.within else "within noise"
        if low <= 0 <= high:
            return "within noise"
        return "holds" if (low > 0) == (self.kind == "higher") else "does not hold"


@cache
def claims(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """All claims, by paper in the order of their files. Raises ValueError naming file and claim for what is wrong."""
    found = [claim for path in sorted(folder.glob("*.yaml")) for claim in read_claims(path)]
    names = [claim.name for claim in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two claims are called {twice[0]!r}")
    return tuple(found)


def chosen_claims(names: Sequence[str]) -> list[Claim]:
    """Those of these names, all without. Raises ValueError with the nearest name."""
    known = {claim.name: claim for claim in claims()}
    return [by_name(name, known, "no claim") for name in names] or list(known.values())


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file."""
    tree = yaml.safe_load(path.read_text())
    check_keys(tree, {"paper", "claims"}, set(), path.name)
    return [_claim(each, str(tree["paper"]), f"{path.name}, claim {each.get('id', '?')!r}") for each in tree["claims"]]


def _claim(tree: Mapping[str, Any], paper: str, where: str) -> Claim:
    check_keys(
        tree,
        {"id", "says", "where", "claim"},
        {"table", "column", "first", "second", "pair", "within", "note"},
        where,
    )
    check_name(tree["claim"], KINDS, f"{where}: a claim is not")
    if (tree["claim"] == "close") != ("within" in tree):
        raise ValueError(f"{where}: `within` says how close, and belongs to claims that are `close` alone")
    if ("pair" in tree) == ("first" in tree and "second" in tree):
        raise ValueError(f"{where}: give `first` and `second`, or a `pair` of the table")
    try:
        first, second, published = _pair(tree) if "pair" in tree else _two(tree)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    return Claim(
        id=tree["id"],
        paper=paper,
        says=tree["says"],
        where=tree["where"],
        kind=tree["claim"],
        first=first,
        second=second,
        within=float(tree.get("within", 0.0)),
        note=tree.get("note", ""),
        published=published,
    )


def _two(tree: Mapping[str, Any]) -> tuple[Side, Side, float | None]:
    first, second = (_side(tree, tree[name]) for name in ("first", "second"))
    values = first.published, second.published
    known = [float(value) for value in values if isinstance(value, int | float)]
    return first, second, known[1] - known[0] if len(known) == 2 else None


def _pair(tree: Mapping[str, Any]) -> tuple[Side, Side, float | None]:
    """Both models of a row that is their difference."""
    table = load_table(tree["table"])
    row, column = table.row(tree["pair"]), _column(table, tree.get("column"))
    cell, unit = row.cells.get(column), table.column(column).unit
    if cell is not None and not isinstance(cell, Pair):
        raise ValueError(f"{table.id}, {row.label!r} is no difference of two models")
    names = row.label.split(" -> ")
    specs = (cell.before, cell.after) if cell is not None else (None, None)
    sides = [
        Side(
            table=table.id,
            row=name,
            column=column,
            unit=unit,
            published=None,
            spec=spec,
            metric=spec.metric if spec else "",
        )
        for name, spec in zip(names, specs, strict=True)
    ]
    published = row.published.get(column)
    return sides[0], sides[1], float(published) if isinstance(published, int | float) else None


def _side(tree: Mapping[str, Any], said: str | Mapping[str, Any]) -> Side:
    own = {"row": said} if isinstance(said, str) else dict(said)
    check_keys(own, {"row"}, {"table", "column", "metric"}, "first or second")
    table = load_table(own.get("table", tree.get("table", "")))
    row, column = table.row(own["row"]), _column(table, own.get("column", tree.get("column")))
    cell = row.cells.get(column)
    if isinstance(cell, Pair):
        if cell.share_of:
            raise ValueError(f"{table.id}, {row.label!r}, {column}: a share of another row is no claim's side")
        raise ValueError(f"{table.id}, {row.label!r} is a difference of two models: write it as `pair`")
    metric = own.get("metric", cell.metric if cell else "")
    published = None if "metric" in own else row.published.get(column)
    return Side(
        table=table.id,
        row=row.label,
        column=column,
        unit=table.column(column).unit,
        published=published,
        spec=cell,
        metric=metric,
    )


def _column(table: Table, name: str | None) -> str:
    """A table's column that is measured; the only one need not be named."""
    measured = [column.name for column in table.columns if not column.given]
    if name is None and len(measured) == 1:
        return measured[0]
    check_name(name, measured, f"{table.id} has no measured column")
    return str(name)
