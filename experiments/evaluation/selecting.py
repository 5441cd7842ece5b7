"""A `select` node: the objects on which an evaluation stayed below a bound."""

from __future__ import annotations

from datamodules.words import data_set_in_words
from experiments.composition.tree import Tree
from experiments.evaluation.rows import read_rows
from experiments.runs.files import write_atomically
from experiments.runs.folder import RunFolder
from experiments.runs.naming import LIST
from experiments.runs.node import Kind, Made, Node


class Selecting(Kind):
    """List the objects whose value in the evaluation's rows is below the rule's bound: objects.txt, an id a line."""

    alone = True

    def identity(self, node: Node) -> Tree:
        """The rule; the rows are those of the evaluation."""
        return {"rule": dict(node.rule or {})}

    def files(self, node: Node) -> list[str]:
        """The list."""
        return [LIST]

    def make(self, node: Node, folder: RunFolder, title: str) -> Made | None:
        """See Kind. Raises ValueError when no object is left."""
        evaluation = node.parents["evaluation"]
        assert node.rule is not None
        evaluation.folder.check("rows.csv")
        metric, below = node.rule["metric"], node.rule["below"]
        chosen, seen = [], 0
        for row in read_rows(evaluation.folder.path / "rows.csv"):
            if not row.get(metric):
                raise ValueError(f"run {evaluation.hash} has no {metric!r} of its objects; it has {', '.join(row)}")
            if "object_id" not in row:
                raise ValueError(f"the rows of run {evaluation.hash} are not of single objects; nothing to select")
            seen += 1
            if float(row[metric]) < below:
                chosen.append(row["object_id"])
        data = " + ".join(map(data_set_in_words, evaluation.config["evaluation"]["test"]))
        if not chosen:
            raise ValueError(f"no object of {data} has {metric} below {below:g}: all {seen:,} reach it")
        write_atomically(folder.path / LIST, "".join(f"{object_id}\n" for object_id in chosen))
        print(f"  {title}: {len(chosen):,} of {seen:,} objects of {data} have {metric} below {below:g}", flush=True)
        facts = {"rule": dict(node.rule), "data": evaluation.config["evaluation"]["test"]}
        return Made(metrics={"n": len(chosen), "of": seen}, facts=facts)
