"""A `select` node: the objects on which an evaluation stayed below a bound."""

from __future__ import annotations

import time
from typing import Any

from experiments.evaluation.rows import read_rows
from experiments.runs.files import write_atomically
from experiments.runs.folder import RunFolder
from experiments.runs.naming import LIST
from experiments.runs.node import Node


def select(node: Node, folder: RunFolder, title: str) -> None:
    """List the objects whose value in the evaluation's rows is below the rule's. Raises ValueError when none is."""
    started = time.perf_counter()
    (evaluation,) = node.parents
    assert node.rule is not None
    metric, below = node.rule["metric"], node.rule["below"]
    chosen, seen = [], 0
    for row in read_rows(evaluation.folder.path / "rows.csv"):
        if not row.get(metric):
            raise ValueError(f"run {evaluation.hash} has no {metric!r} of its objects; it has {', '.join(row)}")
        seen += 1
        if float(row[metric]) < below:
            chosen.append(row["object_id"])
    data = " + ".join(map(_words, evaluation.config["evaluation"]["test"]))
    if not chosen:
        raise ValueError(f"no object of {data} has {metric} below {below:g}: all {seen:,} reach it")
    write_atomically(folder.path / LIST, "".join(f"{object_id}\n" for object_id in chosen))
    folder.finish(
        kind="select",
        metrics={"n": len(chosen), "of": seen},
        rule=dict(node.rule),
        seed=node.config["seed"],
        seconds=time.perf_counter() - started,
        parents=[evaluation.hash],
        data=evaluation.config["evaluation"]["test"],
    )
    print(f"  {title}: {len(chosen):,} of {seen:,} objects of {data} have {metric} below {below:g}", flush=True)


def _words(spec: str | dict[str, Any]) -> str:
    """`pascal/train, half 2`."""
    if isinstance(spec, str):
        return spec
    return ", ".join([spec["name"], *(f"{key} {value}" for key, value in spec.items() if key != "name")])
