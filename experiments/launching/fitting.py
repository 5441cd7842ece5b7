"""Make what `experiments.fit` is asked for, in this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.console import sentence
from experiments.evaluation.evaluate import protocol_of
from experiments.launching.making import execute
from experiments.reproduction.requests import FitRequest
from experiments.runs.environment import is_rank_zero
from experiments.runs.folder import runs_root
from experiments.runs.node import in_order
from experiments.training.logs import under_agent, wandb_wanted


def fitted(request: FitRequest) -> list[dict[str, Any]]:
    """Train and evaluate; the records of the evaluations, or of the training where there are none."""
    training = request.training
    evaluations = request.evaluations(training)
    for node in (training, *evaluations):  # what is wrong, or not there, is said before anything is trained
        assert node.hash
    if is_rank_zero():
        print(f"run {training.folder.path}", flush=True)
    for made in in_order([training]):
        record = execute(made, request.config["method"])
    if not evaluations:
        return [record]
    records = []
    for node in evaluations:
        test = node.config["evaluation"]["test"][0]
        for made in in_order([node]):
            record = execute(made, str(test))
        records.append(record)
        if is_rank_zero():
            how, settings = protocol_of(node.config)
            print(f"{test}: {how.describe(record['metrics'], settings)}, in {node.folder.path}")
    report_to_wandb(records)
    return records


@contextlib.contextmanager
def failure_told() -> Iterator[None]:
    """Under a W&B agent, what ends a run, before it began or later, leaves a W&B run that failed and says why.

    An agent ends with 0 whatever became of its runs; the file that AGENT_FAILURES names gets the sentence, so that who
    started the agent can tell (sweeps/agent.slurm).
    """
    try:
        yield
    except Exception as error:
        if under_agent() and is_rank_zero():
            if file := os.environ.get("AGENT_FAILURES"):
                with open(file, "a") as failures:
                    failures.write(f"{sentence(error)}\n")
            with contextlib.suppress(Exception):  # a server that does not answer hides no sentence of ours
                import wandb

                runs_root().mkdir(parents=True, exist_ok=True)
                session = wandb.run or wandb.init(dir=runs_root())
                session.summary["error"] = sentence(error)
                session.finish(exit_code=1)
        raise


def report_to_wandb(records: Sequence[dict[str, Any]]) -> None:
    """Under a W&B agent (or WANDB=1), hand over what a sweep optimises; never otherwise."""
    if not is_rank_zero() or not wandb_wanted():
        return
    import wandb

    # An agent names its runs itself; alone, the evaluation's hash names it, so that a repeated command adds no second.
    named = {} if under_agent() else {"id": records[0]["run"], "resume": "allow"}
    with wandb.init(dir=runs_root(), **named) as session:
        session.log(records[0]["metrics"])
        session.summary["run"] = records[0]["run"]
