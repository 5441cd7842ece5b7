"""What determines a run's result, and so its name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from experiments.composition.tree import Tree
from experiments.runs.files import file_digest

# What does not determine a result: where and on what a run is made, and what only shows its progress.
NOT_IDENTITY = {
    # sync_batchnorm: several processes then see the statistics that one would; the record says what was done
    "trainer": ("accelerator", "devices", "num_nodes", "strategy", "check_val_every_n_epoch", "sync_batchnorm"),
    "data": ("workers", "root", "val", "val_batch_size"),
    "evaluation": ("test", "batch_size", "study"),
    "weights": (
        "loss",
        "optimizer",
        "schedule",
        "head_lr_factor",
        "iteration",
        "corrections",
        "jitter",
        "side_weight",
        "last_side_factor",
        "rounds",
        "pause",
        "rule",
        "good_enough",
    ),
}

TEST_ONLY = ("test_points", "test_interpolation", "test_view", "long_side")  # of a sample: they belong to evaluations


def by_content(value: Any) -> Any:
    """A class that reads a file, of what people clicked, is known by what is in it and not by where it lies."""
    arguments = value.get("init_args", {}) if isinstance(value, dict) else {}
    if "file" not in arguments:
        return value
    return {**value, "init_args": {**arguments, "file": file_digest(arguments["file"])}}


def without(tree: Tree, keys: Collection[str]) -> Tree:
    return {key: value for key, value in tree.items() if key not in keys}
