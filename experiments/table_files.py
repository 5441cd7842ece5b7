"""`make tables`: number, id, title and state of every published table. Prints the list."""

from __future__ import annotations

from experiments.reproduction.table_list import print_tables

if __name__ == "__main__":
    print_tables()
