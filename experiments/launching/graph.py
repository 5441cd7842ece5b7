"""Make all runs of a table's rows, parents first, and go on with the others after a failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from experiments.launching.launchers import launcher
from experiments.launching.local import Failed, InProcess
from experiments.runs.folder import runs_root
from experiments.runs.node import Node, in_order
from experiments.runs.older import older_runs


class Wanted(Protocol):
    """A cell of a table, or whatever else needs evaluations; `problem` says why it has none."""

    row: str
    problem: str

    @property
    def nodes(self) -> list[Node]: ...


def make_runs(name: str, cells: Sequence[Wanted], devices: int, launch_by: str) -> bool:
    """Make all runs of these cells, which learn what failed or waits. Returns whether everything that could run did.

    `name`: of the table, for the console.
    """
    titles: dict[str, str] = {}
    for cell in cells:
        for node in cell.nodes:
            for step in node.with_ancestors():
                titles.setdefault(step.hash, f"{step.kind} {cell.row}"[:60])
    nodes = in_order([node for cell in cells for node in cell.nodes])
    todo = [node for node in nodes if node.folder.record is None]
    print(f"{name}: {len(nodes)} runs, {len(nodes) - len(todo)} done, {len(todo)} to make", flush=True)
    if todo and (older := older_runs(runs_root())):
        print(
            f"  {older} runs in {runs_root()} were made by an older version of the suite (see CHANGELOG.md): no row of "
            "today uses them; `evaluate`, `predict` and `compare` still read them"
        )
    with_launcher = launcher(launch_by, devices) if todo else InProcess()
    failed: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for number, node in enumerate(todo, 1):
        title = titles[node.hash]
        broken = next((failed[parent.hash] for parent in node.ancestors if parent.hash in failed), None)
        if broken is not None:
            failed[node.hash] = broken
            continue
        print(f"[{number}/{len(todo)}] {title} (seed {node.config['seed']}, run {node.hash})", flush=True)
        try:
            if note := with_launcher.launch(node, title):
                waiting[node.hash] = note
        except Failed as error:
            print(f"  failed: {error}", flush=True)
            failed[node.hash] = str(error)
    for cell in cells:
        steps = in_order(cell.nodes)  # also of a done evaluation, whose training may have to be made again
        broken = next((failed[step.hash] for step in steps if step.hash in failed), None)
        pending = next((waiting[step.hash] for step in reversed(steps) if step.hash in waiting), "")
        cell.problem = cell.problem or (f"failed: {broken}" if broken else pending)
    if waiting:
        print(
            f"{len(waiting)} jobs are queued or running: `squeue --me` shows them, their output is in "
            f"{runs_root() / 'jobs'}; the same command writes the report when they are done"
        )
    return not failed
