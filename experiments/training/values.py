"""What a training cannot be made with, whatever its method: refused in a sentence before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datamodules.ranges import COUNT, WHOLE, Range
from experiments.composition.tree import Tree

# What the store reads of every recipe, and of the arguments of every data class.
NEEDED = ("method", "seed", "threads", "channels_last", "trainer", "evaluation")
OF_DATA = ("train", "batch_size", "root", "seed")
ENDLESS = -1  # of a trainer's max_steps and max_epochs
NUMBERS = {
    "": {"seed": Range(0, 2**32 - 1, whole=True), "threads": COUNT},
    "data.": {"batch_size": COUNT, "val_batch_size": COUNT, "workers": WHOLE},
    "trainer.": {"accumulate_grad_batches": COUNT, "num_nodes": COUNT, "max_steps": Range(ENDLESS, whole=True)},
}
OPTIONAL = ("threads", "val_batch_size")


def check_values(config: Tree) -> None:
    """Raises ValueError that names the key, what stands there and what may."""
    data: Mapping[str, Any] = config["data"].get("init_args") or {}
    for where, has, needs in (("", config, NEEDED), ("data.", data, OF_DATA)):
        if missing := [f"{where}{key}" for key in needs if key not in has]:
            raise ValueError(f"a training of {config['data']['class_path']} needs {', '.join(missing)} in its recipe")
    if not isinstance(data["train"], list) or not data["train"]:
        raise ValueError(f"data.train is a list of data sets, got {data['train']!r}")
    if not isinstance(config["channels_last"], bool):
        raise ValueError(f"channels_last is true or false, got {config['channels_last']!r}")
    sections = {"": config, "data.": data, "trainer.": config["trainer"]}
    for where, numbers in NUMBERS.items():
        for key, allowed in numbers.items():
            value = sections[where].get(key, ...)
            if value is not ... and not (value is None and key in OPTIONAL):
                allowed.checked(value, f"{where}{key}")
    steps, epochs = (config["trainer"].get(key) for key in ("max_steps", "max_epochs"))
    if steps == 0 or (steps in (None, ENDLESS) and epochs in (None, ENDLESS)):
        raise ValueError(
            f"trainer.max_steps ({steps}) and trainer.max_epochs ({epochs}) must say how long is trained: at least one "
            f"step, or {ENDLESS} where the epochs count"
        )
