"""From a table's rows to the runs that measure them."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.compose import Tree, compose
from experiments.nodes import Node
from experiments.results import main_run
from experiments.table_files import Pair, RunSpec, load_table


@dataclass(frozen=True)
class Conditions:
    """What a user changes for a whole table: profile, command-line values, released weights.

    `weights` stand in for the training of rows that are a released model, with `any_row` for that of every row.
    """

    profile: str = "paper"
    overrides: tuple[str, ...] = ()
    weights: str | None = None
    any_row: bool = False


def row_values(spec: RunSpec) -> dict[str, Any]:
    """What a row changes in its recipe."""
    test: Any = spec.test.name
    if spec.test.categories != "all":
        test = {"name": spec.test.name, "categories": spec.test.categories}
    return {
        **spec.differs,
        "data.train": list(spec.train),
        "evaluation.test": [test],
        "evaluation.protocol": spec.protocol,
    }


def compose_row(spec: RunSpec, conditions: Conditions, seed: int) -> Tree:
    """The composed tree of a row."""
    return compose(
        spec.recipe, reading=spec.reading, row=row_values(spec), profile=conditions.profile,
        overrides=[f"seed={seed}", *conditions.overrides],
    )  # fmt: skip


def evaluation_node(spec: RunSpec, conditions: Conditions, seed: int) -> Node:
    """The evaluation that measures a row, on top of its training or of the released weights that stand in for it."""
    config = compose_row(spec, conditions, seed)
    if conditions.weights is None or not (spec.released or conditions.any_row):
        return Node("evaluate", config, (Node("train", config),))
    # Weights fix the network and what it expects to see; the profile may only choose data and machine.
    published = compose_row(spec, Conditions("paper", conditions.overrides), seed)
    published["data"]["init_args"]["root"] = config["data"]["init_args"]["root"]
    published["data"]["init_args"]["workers"] = config["data"]["init_args"]["workers"]
    published["trainer"] = copy.deepcopy(config["trainer"])
    return Node("evaluate", published, (Node("weights", published, weights=conditions.weights),))


def find_spec(reference: str) -> RunSpec:
    """A row's model by `table/slug`, e.g. `dextr-4/psp`, of a pair by either side: `dextr-3/aspp`.

    Raises ValueError with the names that exist.
    """
    table_name, _, wanted = reference.partition("/")
    table = load_table(table_name)
    specs: dict[str, RunSpec] = {}
    for row in table.rows:
        for cell in row.cells.values():
            if isinstance(cell, Pair):
                first, _, second = row.label.partition(" -> ")
                specs.setdefault(slug(first), cell.first)
                specs.setdefault(slug(second), cell.second)
            else:
                specs.setdefault(slug(row.label), cell)
    if wanted not in specs:
        near = difflib.get_close_matches(wanted, specs, n=1, cutoff=0.4)
        hint = f"did you mean {table.id}/{near[0]}?" if near else f"{table.id} has {', '.join(specs) or 'no runs yet'}"
        raise ValueError(f"no row {reference!r}; {hint}")
    return specs[wanted]


def slug(label: str) -> str:
    """`+ SBD data (ours)` -> `sbd-data-ours`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def nodes_of(cell: RunSpec | Pair, conditions: Conditions, seeds: Sequence[int]) -> tuple[list[Node], list[Node]]:
    """The evaluations of a cell, one per seed, and for a pair those of its first model."""
    spec = main_run(cell)
    assert spec is not None
    second = [evaluation_node(spec, conditions, seed) for seed in seeds]
    first = [evaluation_node(cell.first, conditions, seed) for seed in seeds] if isinstance(cell, Pair) else []
    return second, first
