"""W&B sweep files read without any account: which runs they ask for."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from datamodules.keys import rng

SWEEPS = Path(__file__).parents[2] / "sweeps"
VARIABLE = re.compile(r"\$\{envvar:(\w+)\}")  # as agents know it


def load_sweep(name: str) -> dict[str, Any]:
    """A sweep file by path or by name. Raises ValueError when it is none that can be walked here."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else SWEEPS / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in SWEEPS.glob("*.yaml")))
        raise ValueError(f"no sweep {name!r}; there are: {known}")
    sweep: dict[str, Any] = yaml.safe_load(path.read_text())
    if "experiments.fit" not in sweep.get("command", []):
        raise ValueError(f"{path} does not run experiments.fit")
    return sweep


def assignments(sweep: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """The values of each run: the whole grid, or `count` keyed draws."""
    parameters = sweep["parameters"]
    if sweep["method"] == "grid":
        choices = [parameter.get("values", [parameter.get("value")]) for parameter in parameters.values()]
        yield from (dict(zip(parameters, values)) for values in itertools.product(*choices))
        return
    for number in range(count):
        draw = rng(number)
        yield {name: _drawn(name, parameter, draw) for name, parameter in parameters.items()}


def _drawn(name: str, parameter: Mapping[str, Any], draw: Any) -> Any:
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return parameter["values"][int(draw.integers(len(parameter["values"])))]
    low, high = parameter["min"], parameter["max"]
    distribution = parameter.get("distribution", "int_uniform" if isinstance(low, int) else "uniform")
    if distribution == "log_uniform_values":
        return float(low * (high / low) ** draw.random())
    if distribution in ("uniform", "int_uniform"):
        value = low + (high - low) * draw.random()
        return round(value) if distribution == "int_uniform" else float(value)
    raise ValueError(f"parameter {name} has distribution {distribution!r}; known here: uniform, log_uniform_values")


def command_line(sweep: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """What follows `experiments.fit` on the command line that an agent would run.

    Raises ValueError for a variable of the environment that the sweep reads and that is not set.
    """
    typed = [f"--{name}={_written(value)}" for name, value in values.items()]
    command = sweep["command"]
    rest = command[command.index("experiments.fit") + 1 :]
    return [part for word in rest for part in (typed if word == "${args}" else [VARIABLE.sub(_variable, word)])]


def _variable(named: re.Match[str]) -> str:
    """The value of a variable of the environment."""
    if value := os.environ.get(named[1]):
        return value
    raise ValueError(
        f"this sweep reads {named[1]} of the environment, which is not set; its file says what belongs there"
    )


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
