"""Walk a W&B sweep file through the run store, without any account: `make sweep-local NAME=dextr-components`.

Grid sweeps are walked whole; of a random or Bayesian one, `--count` draws. Every run gets exactly the options that a
W&B agent would pass, so both make the same runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from datamodules.keys import rng
from experiments import fit
from experiments.sentences import one_sentence

SWEEPS = Path(__file__).parent.parent / "sweeps"


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
    """What follows `experiments.fit` on the command line that an agent would run."""
    typed = [f"--{name}={_written(value)}" for name, value in values.items()]
    command = sweep["command"]
    rest = command[command.index("experiments.fit") + 1 :]
    return [part for word in rest for part in (typed if word == "${args}" else [word])]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", help="of a file in sweeps/, or its path")
    parser.add_argument("--profile", default=None)
    parser.add_argument("--count", type=int, default=10, help="draws of a sweep that is no grid")
    options, rest = parser.parse_known_args(arguments)
    sweep = load_sweep(options.name)
    runs = list(assignments(sweep, options.count))
    metric = sweep.get("metric", {}).get("name", "mean_iou")
    shown = Table(*sweep["parameters"], "run", metric)
    for number, values in enumerate(runs, 1):
        line = command_line(sweep, values) + ([f"--profile={options.profile}"] if options.profile else []) + rest
        print(f"[{number}/{len(runs)}] experiments.fit {' '.join(line)}", flush=True)
        records = fit.run(line)
        for record in records:
            shown.add_row(*map(str, values.values()), record["run"], f"{record['metrics'][metric]:.4f}")
    Console(width=120).print(shown)


if __name__ == "__main__":
    one_sentence(main)
