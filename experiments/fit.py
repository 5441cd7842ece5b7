"""Train a recipe, then evaluate it on the recipe's test sets.

    python -m experiments.fit --config experiments/configs/dextr.yaml --profile small --model.guidance=DistanceMap

Every value of the recipe is an option. The run's folder is named after what determines its result; the same command
continues a killed run and does nothing when it is done. A W&B sweep agent calls this with its values as options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.console import one_sentence
from experiments.launching.fitting import failure_told, fitted
from experiments.reproduction.requests import FitRequest


def run(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train and evaluate as the command line says; the records of the evaluations, or of the training alone."""
    with failure_told():
        return fitted(FitRequest.read(arguments, description=str(__doc__)))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    run(arguments)


if __name__ == "__main__":
    one_sentence(main)
