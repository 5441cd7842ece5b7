"""Where a training writes how it goes: CSV always, W&B when the user asks for it."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.composition.tree import Tree


def under_agent() -> bool:
    """Whether a W&B sweep agent started this process."""
    return "WANDB_SWEEP_ID" in os.environ


def profile_of_agent() -> str | None:
    """PROFILE of an agent's environment, which stands for all runs that it takes; None where nobody said one."""
    return os.environ.get("PROFILE") or None if under_agent() else None


def wandb_wanted() -> bool:
    """Under an agent, or with WANDB=1: then offline unless WANDB_MODE says online. Else it is not imported."""
    if under_agent():
        return True
    if os.environ.get("WANDB", "0") in ("", "0"):
        return False
    os.environ.setdefault("WANDB_MODE", "offline")
    return True


@contextlib.contextmanager
def own_wandb_run() -> Iterator[None]:
    """Close the W&B run that a training opened, or the next one would write into it; an agent's run stays open."""
    try:
        yield
    finally:
        if wandb_wanted() and not under_agent():
            import wandb

            wandb.finish()


def loggers(config: Tree, folder: Path) -> list[dict[str, Any]]:
    """CSV always; W&B when the user asks for it with WANDB=1, or a sweep's agent runs this."""
    started = len(list(folder.glob("log-*")))  # CSVLogger would delete what an interrupted training wrote
    wanted: list[dict[str, Any]] = [
        {
            "class_path": "pytorch_lightning.loggers.CSVLogger",
            "init_args": {"save_dir": str(folder), "name": "", "version": f"log-{started}"},
        }
    ]
    if wandb_wanted():
        named = {} if under_agent() else {"id": folder.name, "name": folder.name, "resume": "allow"}
        wanted.append(
            {
                "class_path": "pytorch_lightning.loggers.WandbLogger",
                "init_args": {"save_dir": str(folder), "project": config["method"], **named},
            }
        )
    return wanted


def join_logs(folder: Path) -> None:
    """metrics.csv of a run from the logs of its one or several starts; a step made twice counts as made last."""
    rows: dict[int, dict[str, str]] = {}
    for log in sorted(folder.glob("log-*/metrics.csv"), key=lambda path: int(path.parent.name[4:])):
        with open(log, newline="") as file:
            for row in csv.DictReader(file):  # training and validation write a row each for the same step
                rows.setdefault(int(row["step"]), {}).update({name: value for name, value in row.items() if value})
    if not rows:
        return
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows.values() for name in row)))
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))
