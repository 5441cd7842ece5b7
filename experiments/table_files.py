"""`make tables`: number, id, title and state of every published table. Prints the list."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.console import one_sentence
from experiments.options import Parser
from experiments.reproduction.table_list import print_tables


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    Parser(__doc__).parse_args(arguments)
    print_tables()


if __name__ == "__main__":
    one_sentence(main)
