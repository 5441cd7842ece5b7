"""The runs of a comparison, evaluated on the same objects."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.words import data_set_in_words as in_words
from experiments.composition.merging import parse_data
from experiments.evaluation.requests import evaluation_config, part_of_data
from experiments.launching.making import execute
from experiments.reports.comparison import Run
from experiments.runs.models import finished_training
from experiments.runs.node import Node


def trained(references: Sequence[str], names: Sequence[str] | None = None) -> dict[str, Node]:
    """Finished trainings, or released weights, by name; without `names` by method, with the hash where that is needed.

    Raises ValueError for a run that is not there, not finished or given twice, and for names that do not fit.
    """
    nodes = [finished_training(reference) for reference in references]
    hashes = [node.hash for node in nodes]
    if again := [name for name in hashes if hashes.count(name) > 1]:
        raise ValueError(f"run {again[0]} is given twice; a run can only be compared with others")
    methods = [str(node.config["method"]) for node in nodes]
    own = [name if methods.count(name) == 1 else f"{name} {key[:6]}" for name, key in zip(methods, hashes)]
    names = own if names is None else names
    if len(names) != len(nodes):
        raise ValueError(f"--names needs a name for each of the {len(nodes)} runs, got {len(names)}")
    if again := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"two runs are called {again[0]!r}; --names must tell them apart")
    return dict(zip(names, nodes))


def clicked_evaluation(training: Node, data: str, clicks: int, rule: str, every: int | None = None) -> Node:
    """The click benchmark of a run on a data set: the node that `experiments.evaluate` would make, on one device."""
    wanted = part_of_data(parse_data(data), every)
    config = evaluation_config(training.config, wanted, protocol="clicks", rule=rule, clicks=clicks)
    config["trainer"].update(devices=1, num_nodes=1, strategy="auto")
    return Node("evaluate", config, {"model": training})


def evaluated(
    references: Sequence[str],
    data_sets: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    clicks: int = 10,
    rule: str = "itis",
    every: int | None = None,
) -> list[Run]:
    """Runs, by folder or hash, in the click benchmark on data sets, as `trained` and `clicked_evaluation` name them.

    Raises ValueError when they are not evaluated on the same objects.
    """
    runs = []
    for name, training in trained(references, names).items():
        evaluations = {}
        for data in data_sets:
            node = clicked_evaluation(training, data, clicks, rule, every)
            evaluations[in_words(node.config["evaluation"]["test"][0])] = node
        if len(evaluations) < len(data_sets):
            raise ValueError(f"--data names a data set twice: {', '.join(data_sets)}")
        runs.append(Run(name, training, evaluations))
    for label, first in runs[0].evaluations.items():
        for run in runs[1:]:
            if run.evaluations[label].manifest != first.manifest:
                raise ValueError(
                    f"{run.name} and {runs[0].name} read other objects of {label}: their recipes' data.root or "
                    "data.seed differ"
                )
    for run in runs:
        for label, node in run.evaluations.items():
            execute(node, f"{run.name} on {label}")
    return runs
