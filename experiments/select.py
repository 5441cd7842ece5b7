"""Choose objects by how well a run did on them, e.g. the hard ones: what other runs train on or are tested on.

    python -m experiments.select --run RUN --below 0.8

RUN is an evaluation's folder or the beginning of its hash. The ids go into objects.txt of a run of its own; any data
set takes them: `{name: pascal/val, listed: runs/<hash>/objects.txt}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.ranges import FINITE
from experiments.console import one_sentence
from experiments.launching.making import execute
from experiments.options import Parser
from experiments.runs.models import read_run
from experiments.runs.naming import LIST
from experiments.runs.node import Node


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("--run", required=True, help="an evaluation's folder or the beginning of its hash")
    parser.add_argument("--metric", default="iou", help="a column of its rows.csv; default: iou")
    parser.add_argument("--below", type=FINITE, required=True, help="the bound, e.g. 0.8")
    options = parser.parse_args(arguments)
    evaluation = read_run(options.run)
    if evaluation.kind != "evaluate" or evaluation.folder.record is None:
        raise ValueError(f"run {evaluation.hash} is no finished evaluation; `select` reads the rows of one")
    rule = {"metric": options.metric, "below": options.below}
    node = Node("select", evaluation.config, {"evaluation": evaluation}, rule=rule)
    execute(node, "select")
    print(f"list: {node.folder.path / LIST}")


if __name__ == "__main__":
    one_sentence(main)
