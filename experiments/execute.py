"""Make one run: `python -m experiments.execute FOLDER`, the command behind every launcher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.console import one_sentence
from experiments.launching.making import execute, explained
from experiments.options import Parser
from experiments.runs.folder import RunFolder
from experiments.runs.node import load_node


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder with its config.yaml")
    parser.add_argument("--title", default="", help="what progress lines call it")
    options = parser.parse_args(arguments)
    folder = RunFolder(options.folder)
    node = load_node(folder)
    with explained(folder):
        execute(node, options.title)


if __name__ == "__main__":
    one_sentence(main)
