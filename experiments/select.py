"""Choose objects by how well a run did on them, e.g. the hard ones: what other runs train on or are tested on.

    python -m experiments.select --run RUN --below 0.8

RUN is an evaluation's folder or the beginning of its hash. The ids go into objects.txt of a run of its own; any data
set takes them: `{name: pascal/val, listed: runs/<hash>/objects.txt}`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from experiments.nodes import LIST, Node, load_node
from experiments.object_rows import read_rows
from experiments.runs import RunFolder, find_run, write_atomically
from experiments.sentences import one_sentence


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


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    from experiments.execute import execute  # which makes select runs, too

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="an evaluation's folder or the beginning of its hash")
    parser.add_argument("--metric", default="iou", help="a column of its rows.csv; default: iou")
    parser.add_argument("--below", type=float, required=True, help="the bound, e.g. 0.8")
    options = parser.parse_args(arguments)
    evaluation = load_node(find_run(options.run))
    if evaluation.kind != "evaluate" or evaluation.folder.record is None:
        raise ValueError(f"run {evaluation.hash} is no finished evaluation; `select` reads the rows of one")
    rule = {"metric": options.metric, "below": options.below}
    node = Node("select", evaluation.config, (evaluation,), rule=rule)
    execute(node, "select")
    print(f"list: {node.folder.path / LIST}")


if __name__ == "__main__":
    one_sentence(main)
