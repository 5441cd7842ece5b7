"""Train a recipe, then evaluate it on the recipe's test sets.

    python -m experiments.fit --config experiments/configs/dextr.yaml --profile small --model.guidance=DistanceMap

Every value of the recipe is an option. The run's folder is named after what determines its result; the same command
continues a killed run and does nothing when it is done. A W&B sweep agent calls this with its values as options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from experiments.compose import Tree, compose
from experiments.execute import execute
from experiments.launchers import in_order
from experiments.nodes import Node
from experiments.object_rows import describe
from experiments.rows import (
    BuiltOn,
    Conditions,
    built_on,
    continued,
    evaluation_of,
    find_spec,
    row_values,
    training_node,
)
from experiments.runs import is_first_process, runs_root
from experiments.sentences import one_sentence
from experiments.training import under_agent, wandb_wanted

ALONE = BuiltOn()  # what is no row of a table builds on nothing


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, Tree]:
    """The options and the composed tree of a command line; `options.built_on` says which runs the row builds on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", default="dextr", help="a recipe: its file, or its name in experiments/configs")
    parser.add_argument("--dataset", help="an overlay of experiments/configs/data: which data to train and test on")
    parser.add_argument("--reading", help="`paper` or `code`: which of the two where they contradict")
    parser.add_argument("--profile", help="`paper`, `quick`, `small` or `miniature`")
    parser.add_argument("--row", help="a table's row, e.g. dextr-3/aspp (experiments/tables)")
    parser.add_argument("--no-test", action="store_true", help="train only")
    options, rest = parser.parse_known_args(arguments)
    spec = find_spec(options.row) if options.row else None

    def composed(lists: Sequence[Node | None] = ()) -> Tree:
        return compose(
            spec.recipe if spec else options.config, dataset=options.dataset,
            reading=options.reading or (spec.reading if spec else None), row=row_values(spec, lists) if spec else None,
            profile=options.profile, overrides=rest,
        )  # fmt: skip

    config, options.built_on = composed(), ALONE
    if spec is not None:
        same = [f"reading={options.reading}"] if options.reading else []
        options.built_on = built_on(spec, Conditions(config["profile"], (*same, *rest)), config["seed"])
        config = composed(options.built_on.lists)
        config = continued(config) if spec.start else config
    return options, config


def evaluations(training: Node, base: BuiltOn = ALONE) -> list[Node]:
    """One evaluation per test set of a training's recipe."""
    return [evaluation_of(training, base, [test]) for test in training.config["evaluation"]["test"]]


def run(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train and evaluate as the command line says; the records of the evaluations, or of the training alone."""
    options, config = parse(arguments)
    training = training_node(config, options.built_on)
    if is_first_process():
        print(f"run {training.folder.path}", flush=True)
    for made in in_order([training]):
        record = execute(made, config["method"])
    if options.no_test:
        return [record]
    records = []
    for node in evaluations(training, options.built_on):
        test = node.config["evaluation"]["test"][0]
        for made in in_order([node]):
            record = execute(made, str(test))
        records.append(record)
        if is_first_process():
            print(f"{test}: {describe(records[-1]['metrics'], node.config['evaluation'])}, in {node.folder.path}")
    report_to_wandb(records)
    return records


def report_to_wandb(records: Sequence[dict[str, Any]]) -> None:
    """Under a W&B agent (or WANDB=1), hand over what a sweep optimises; never otherwise."""
    if not is_first_process() or not wandb_wanted():
        return
    import wandb

    # An agent names its runs itself; alone, the evaluation's hash names it, so that a repeated command adds no second.
    named = {} if under_agent() else {"id": records[0]["run"], "resume": "allow"}
    with wandb.init(dir=runs_root(), **named) as session:
        session.log(records[0]["metrics"])
        session.summary["run"] = records[0]["run"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    run(arguments)


if __name__ == "__main__":
    one_sentence(main)
