"""From a table's rows to the runs that measure them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datamodules.names import hint
from experiments.composition.compose import compose
from experiments.composition.merging import parse_override
from experiments.composition.tree import Tree
from experiments.evaluation.protocols import STUDIES
from experiments.reproduction.cells import main_run
from experiments.reproduction.specs import Pair, RowData, RunSpec, slug
from experiments.reproduction.tables import load_table
from experiments.runs.folder import RunFolder, runs_root
from experiments.runs.identity import without_starts
from experiments.runs.naming import NAMING, named_runs
from experiments.runs.node import Node, kind_of
from experiments.runs.reading import load_node


@dataclass(frozen=True)
class Conditions:
    """What a user changes for a whole table: profile, command-line values, released weights.

    `weights` stand in for the training of rows that are a released model, with `any_row` for that of every row.
    """

    profile: str = "paper"
    overrides: tuple[str, ...] = ()
    weights: str | None = None
    any_row: bool = False


class NoData(ValueError):
    """The data that names a row's runs is not there or broken."""


@dataclass(frozen=True)
class BuiltOn:
    """The runs that a row needs besides its own.

    Args:
        parents: those that its training builds on, by role: `start`, whose weights it goes on from, and others.
        lists: those that its data are listed or labelled by, in the order of `RunSpec.data`, None where by none.
        first_stage: the one that predicts before it.
    """

    parents: Mapping[str, Node] = field(default_factory=dict)
    lists: tuple[Node | None, ...] = ()
    first_stage: Node | None = None

    def listing(self, specs: Sequence[Any]) -> tuple[Node, ...]:
        """The runs that these data name, a row's own or any of the store: the command line may have replaced them."""
        known = {node.hash: node for node in self.lists if node is not None}
        found = {}
        for name in (str(name) for spec in specs for name in named_runs(spec).values()):
            folder = RunFolder(runs_root() / name)
            if name in known:
                found[name] = known[name]
            elif name.isalnum() and (folder.path / "config.yaml").exists():
                found[name] = load_node(folder)
        return tuple(found.values())


def built_on(spec: RunSpec, conditions: Conditions, seed: int) -> BuiltOn:
    """What a row builds on. Raises NoData when a run cannot be named because its data are not there."""

    def model(other: RunSpec) -> Node:
        return evaluation_node(other, conditions, seed).model

    return BuiltOn(
        {role: model(other) for role, other in spec.parents.items()},
        tuple(_naming_node(data, conditions, seed) for data in spec.data),
        model(spec.first_stage) if spec.first_stage else None,
    )


def _naming_node(data: RowData, conditions: Conditions, seed: int) -> Node | None:
    """The run that lists or labels the objects of a data set."""
    by = data.labelled if data.hard is None else data.hard.by
    if by is None:
        return None
    kept = [text for text in conditions.overrides if parse_override(text)[0] != "evaluation.test"]  # of the row itself
    evaluation = evaluation_node(by, replace(conditions, overrides=tuple(kept)), seed)
    node = replace(evaluation, kind="label")
    if data.hard is not None:
        rule = {"metric": data.hard.metric, "below": data.hard.below}
        node = Node("select", evaluation.config, {"evaluation": evaluation}, rule=rule)
    check_data([node])
    return node


def check_data(nodes: Iterable[Node]) -> None:
    """Name runs, which opens their data. Raises NoData when these are not there or broken.

    A value that cannot be is no matter of data: it raises ValueError, which ends a table.
    """
    nodes = list(nodes)
    for run in (run for node in nodes for run in node.with_ancestors()):
        kind_of(run.kind).checked(run)
    try:
        for node in nodes:
            assert node.hash
    except (OSError, ValueError) as error:
        raise NoData(" ".join(str(error).split())) from error


def row_values(spec: RunSpec, lists: Sequence[Node | None] = ()) -> dict[str, Any]:
    """What a row changes in its recipe. Without `lists`, its data are all objects with their own masks."""
    parts = [dict(data.part) for data in spec.data]
    for part, node in zip(parts, lists):
        part |= {} if node is None else {NAMING[node.kind][0]: node.hash}
    *train, test = [{"name": data.name, **part} if part else data.name for data, part in zip(spec.data, parts)]
    return {**spec.differs, "data.train": train, "evaluation.test": [test], "evaluation.protocol": spec.protocol}


def compose_row(spec: RunSpec, conditions: Conditions, seed: int, lists: Sequence[Node | None] = ()) -> Tree:
    """The composed tree of a row."""
    tree = compose(
        spec.recipe,
        reading=spec.reading,
        row=row_values(spec, lists),
        profile=conditions.profile,
        overrides=[f"seed={seed}", *conditions.overrides],
    )
    return continued(tree) if spec.start else tree


def first_trained(spec: RunSpec) -> Iterator[RunSpec]:
    """The models below a row, itself among them, whose training begins with first weights, not with another run's."""
    if spec.start is None:
        yield spec
    for below in (*spec.parents.values(), spec.first_stage):
        yield from first_trained(below) if below is not None else ()


def first_trained_of(cell: RunSpec | Pair) -> list[RunSpec]:
    """The same of all models of a cell."""
    specs = (cell.before, cell.after) if isinstance(cell, Pair) else (cell,)
    return [one for spec in specs for one in first_trained(spec)]


def model_as_written(spec: RunSpec, conditions: Conditions) -> Tree:
    """The model of a row with its interpolations untouched; nothing of one whose weights are given."""
    if spec.protocol in STUDIES or (conditions.weights is not None and (spec.released or conditions.any_row)):
        return {}
    typed = [text for text in conditions.overrides if text.startswith("model.")]
    tree = compose(
        spec.recipe,
        reading=spec.reading,
        row=spec.differs,
        profile=conditions.profile,
        overrides=typed,
        interpolated=False,
    )
    return dict(tree["model"])


def continued(tree: Tree) -> Tree:
    """The tree of a training that starts from another run's weights: it asks for no others."""
    return {**tree, "model": without_starts(tree["model"])}


def evaluation_node(spec: RunSpec, conditions: Conditions, seed: int) -> Node:
    """The evaluation that measures a row, on top of its training or of the released weights that stand in for it."""
    base = built_on(spec, conditions, seed)
    config = compose_row(spec, conditions, seed, base.lists)
    if spec.protocol in STUDIES:
        return Node("study", config)
    takes_others = bool(set(spec.parents) - {"start"})  # whose weights one file of a network does not hold
    if conditions.weights is None or takes_others or not (spec.released or conditions.any_row):
        return evaluation_of(training_node(config, base), base)
    # Weights fix the network and what it expects to see; the profile may only choose data and machine.
    published = compose_row(spec, Conditions("paper", conditions.overrides), seed, base.lists)
    published["data"]["init_args"]["root"] = config["data"]["init_args"]["root"]
    published["data"]["init_args"]["workers"] = config["data"]["init_args"]["workers"]
    published["trainer"] = copy.deepcopy(config["trainer"])
    return evaluation_of(Node("weights", published, weights=conditions.weights), base)


def training_node(config: Tree, base: BuiltOn) -> Node:
    """The training of a composed tree, after all that it builds on."""
    return Node("train", config, base.parents, base.listing(config["data"]["init_args"]["train"]))


def evaluation_of(model: Node, base: BuiltOn, test: Sequence[Any] | None = None) -> Node:
    """The evaluation of a training, or of what stands in for it, on the test sets of its tree or on these."""
    config = model.config
    if test is not None:
        config = {**config, "evaluation": {**config["evaluation"], "test": list(test)}}
    stages = {"model": model} | ({} if base.first_stage is None else {"first_stage": base.first_stage})
    return Node("evaluate", config, stages, base.listing(config["evaluation"]["test"]))


def find_spec(reference: str) -> RunSpec:
    """A row's model by `table/slug`, e.g. `dextr-4/psp`, of a pair by either side: `dextr-3/aspp`.

    Raises ValueError with the names that exist.
    """
    table_name, _, wanted = reference.partition("/")
    table = load_table(table_name)
    specs: dict[str, RunSpec] = {}
    for row in table.rows:
        for cell in row.cells.values():
            if isinstance(cell, Pair) and cell.share_of:
                continue  # both of its models are rows of their own
            if isinstance(cell, Pair):
                first, _, second = row.label.partition(" -> ")
                specs.setdefault(slug(first), cell.before)
                specs.setdefault(slug(second), cell.after)
            else:
                specs.setdefault(slug(row.label), cell)
    if wanted not in specs:
        raise ValueError(f"no row {reference!r}; {hint(wanted, specs, before=f'{table.id}/')}")
    return specs[wanted]


def nodes_of(cell: RunSpec | Pair, conditions: Conditions, seeds: Sequence[int]) -> tuple[list[Node], list[Node]]:
    """The evaluations of a cell, one per seed and value of `over`, and of a pair those of its model before."""
    spec = main_run(cell)
    assert spec is not None

    def repeated(spec: RunSpec) -> list[Node]:
        return [evaluation_node(one, conditions, seed) for seed in seeds for one in spec.repeated]

    return repeated(spec), repeated(cell.before) if isinstance(cell, Pair) else []
