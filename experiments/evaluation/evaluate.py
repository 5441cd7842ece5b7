"""An `evaluate` node: a finished training's network through a protocol; rows, pictures and metrics."""

from __future__ import annotations

import time

from datamodules.selection import open_objects
from experiments.evaluation.protocols import SCORERS
from experiments.evaluation.rows import merge_rows
from experiments.evaluation.scorer import run_through
from experiments.evaluation.summaries import describe, summarise
from experiments.runs.folder import RunFolder
from experiments.runs.models import load_interactive
from experiments.runs.node import Node


def evaluate(node: Node, folder: RunFolder, title: str) -> None:
    """Evaluate a node and write rows.csv, pictures and record.json."""
    started = time.perf_counter()
    data = node.config["data"]["init_args"]
    scoring = node.config["evaluation"]
    index = open_objects(scoring["test"], data["root"], data["seed"])
    if scoring["protocol"] not in SCORERS:
        raise ValueError(f"no evaluation.protocol {scoring['protocol']!r}; there are: {', '.join(SCORERS)}")
    trainer = run_through(SCORERS[scoring["protocol"]](load_interactive(node), index, node.config, folder.path))
    if not trainer.is_global_zero:
        return
    metrics = summarise(merge_rows(folder.path, len(index), trainer.world_size), scoring)
    print(f"  {title}: {describe(metrics, scoring)}", flush=True)
    folder.finish(
        kind="evaluate",
        metrics=metrics,
        seed=node.config["seed"],
        seconds=time.perf_counter() - started,
        parents=[run.hash for run in node.parents],
        manifest=node.manifest(),
        data=scoring["test"],
        scoring={
            name: value for name, value in scoring.items() if name in ("protocol", "threshold", "paste", "stretch")
        },
        clicks=scoring["clicks"] if scoring["protocol"] == "clicks" else None,
        left_out=list(index.left_out),
        devices={"processes": trainer.world_size, "accelerator": type(trainer.accelerator).__name__},
    )
