"""Re-make a published table: train and evaluate its rows, print published, measured and the difference.

    make reproduce-table-4                        python -m experiments.reproduce dextr-4
    make reproduce-table-dextr-4 PROFILE=miniature SEEDS=3 ROWS=3,4 DEVICES=4 LAUNCHER=slurm WEIGHTS=file.pth

Runs that are done are not made again: the same command goes on where it stopped. A row whose data is not there is
reported as not run, with the reason, and the others run.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.choices import choices_of
from experiments.compose import parse_override
from experiments.figures import learning_curves
from experiments.launchers import Failed, InProcess, in_order, launcher
from experiments.nodes import NOT_IDENTITY, Node
from experiments.records import Records
from experiments.report import print_report, write_report
from experiments.results import Cell, Choice, Picture, measure, not_run, table_result
from experiments.rows import Conditions, NoData, check_data, nodes_of
from experiments.runs import file_digest, git_commit, runs_root
from experiments.sentences import one_sentence
from experiments.table_files import Table, load_table

REDUCTIONS = {
    "quick": ("smaller network, crop and schedule",),
    "small": ("small network and crop, tens of minutes on two CPU cores, random start",),
    "miniature": ("drawn data, reduced network, half a minute per training",),
}


class PlannedCell:
    """A cell and the evaluations that measure it, or the reason why there are none."""

    def __init__(self, table: Table, row: str, column: str, conditions: Conditions, seeds: Sequence[int]) -> None:
        self.row, self.column, self.problem = row, column, ""
        try:  # naming a run opens its data: what is missing or broken is known before anything is trained
            self.second, self.first = nodes_of(table.row(row).cells[column], conditions, seeds)
            check_data(self.nodes)
        except NoData as error:
            self.problem, self.second, self.first = str(error), [], []

    @property
    def nodes(self) -> list[Node]:
        """All its evaluations."""
        return [*self.first, *self.second]

    def result(self, table: Table, records: Records, profile: str) -> Cell:
        """The cell as measured."""
        lacking = [node for node in self.nodes if node.folder.record is None]
        if self.problem or lacking:
            reason = self.problem or f"run {lacking[0].hash} has no record yet"
            return not_run(table, self.row, self.column, reason)
        notes = filter(None, [older_code(self.nodes), random_start(self.nodes)])
        return measure(
            table, self.row, self.column, [node.hash for node in self.second], records, profile,
            first_runs=[node.hash for node in self.first], reason="; ".join(notes),
        )  # fmt: skip


def older_code(nodes: Sequence[Node]) -> str:
    """A note when a record was written by another commit than today's."""
    now = git_commit()
    made = {str((run.folder.record or {}).get("git")) for node in nodes for run in node.with_ancestors()}
    return f"made by other code than today's {now}: {', '.join(sorted(made))}" if made - {str(now)} else ""


def random_start(nodes: Sequence[Node]) -> str:
    """A note when a training was to start from pretrained weights and there were none."""
    for training in (run for node in nodes for run in node.with_ancestors() if run.kind == "train"):
        wanted = training.config["model"]["init_args"]["network"]["init_args"].get("pretrained")
        if wanted and str((training.folder.record or {}).get("initial_weights")).startswith("random"):
            return f"started from random weights: {wanted} was not there"
    return ""


def reproduce(
    table: Table, conditions: Conditions, seeds: Sequence[int], rows: Sequence[int], devices: int, launch_by: str
) -> tuple[list[PlannedCell], bool]:
    """Make all runs of a table's own rows. Returns the cells and whether everything that could run did."""
    wanted = [label for number, label in enumerate((row.label for row in table.rows), 1) if not rows or number in rows]
    cells = [
        PlannedCell(table, row.label, column.name, conditions, seeds)
        for row, column in table.to_measure
        if column.name in row.cells and row.label in wanted
    ]
    titles: dict[str, str] = {}
    for cell in cells:
        for node in cell.nodes:
            for step in node.with_ancestors():
                titles.setdefault(step.hash, f"{step.kind} {cell.row}"[:60])
    nodes = in_order([node for cell in cells for node in cell.nodes])
    todo = [node for node in nodes if node.folder.record is None]
    print(f"{table.id}: {len(nodes)} runs, {len(nodes) - len(todo)} done, {len(todo)} to make", flush=True)
    with_launcher = launcher(launch_by, devices) if todo else InProcess()
    failed: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for number, node in enumerate(todo, 1):
        title = titles[node.hash]
        broken = next((failed[parent.hash] for parent in node.parents if parent.hash in failed), None)
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
        broken = next((failed[node.hash] for node in cell.nodes if node.hash in failed), None)
        pending = next((waiting[node.hash] for node in cell.nodes if node.hash in waiting), "")
        cell.problem = cell.problem or (f"failed: {broken}" if broken else pending)
    if waiting:
        print(
            f"{len(waiting)} jobs are queued or running: `squeue --me` shows them, their output is in "
            f"{runs_root() / 'jobs'}; the same command writes the report when they are done"
        )
    return cells, not failed


def choices_by_row(cells: Sequence[PlannedCell]) -> dict[str, list[Choice]]:
    """The choices of a row's evaluations, each once: cells of other test sets add what is theirs."""
    found: dict[str, dict[Choice, None]] = {}
    for cell in cells:
        if cell.second:
            found.setdefault(cell.row, {}).update(dict.fromkeys(choices_of(cell.second[0])))
    return {row: list(choices) for row, choices in found.items()}


def pictures_of(cells: Sequence[PlannedCell], folder: Path, each: int = 4) -> list[Picture]:
    """Per row a few overlays, of the same objects wherever rows are evaluated on the same data; the learning curves.

    An evaluation that several cells show, and a training that several share, appear once; a row that was evaluated on
    several test sets divides its overlays among them and names the column.
    """
    shown: dict[str, tuple[PlannedCell, Node]] = {}
    for cell in cells:
        for node in cell.second[:1]:
            shown.setdefault(node.hash, (cell, node))
    evaluations = Counter(cell.row for cell, _ in shown.values())
    pictures, trained = [], dict[Path, list[PlannedCell]]()
    for cell, node in shown.values():
        some, several = max(1, each // evaluations[cell.row]), evaluations[cell.row] > 1
        found = sorted((node.folder.path / "pictures").glob("*.png"))
        for path in found[:: max(1, len(found) // some)][:some]:
            iou = path.stem.partition("-iou")[2]
            caption = f"IoU {iou} %" if iou else path.stem
            pictures.append(Picture(f"{cell.column}: {caption}" if several else caption, path, cell.row))
    for cell in cells:
        for node in cell.second[:1]:
            trained.setdefault(node.model.folder.path / "metrics.csv", []).append(cell)
    logs: dict[str, Path] = {}
    for log, users in trained.items():
        label = ", ".join(dict.fromkeys(cell.row for cell in users))
        if log.exists():  # a row whose columns were trained apart has a curve for each
            logs[f"{label} ({users[0].column})" if label in logs else label] = log
    if logs:
        curves = learning_curves(logs, folder / "learning-curves.png", ["train/loss"])
        pictures.append(Picture("Training loss by step.", curves))
    return pictures


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("table", help="number or id; `make tables` lists them")
    parser.add_argument("--profile", default="paper", help="paper (default), quick, small or miniature")
    parser.add_argument("--seeds", type=int, default=1, help="how often what is random is repeated (seeds 0, 1, ...)")
    parser.add_argument("--rows", default="", help="only these rows, e.g. 3,4 (counted from 1)")
    parser.add_argument("--devices", type=int, default=1, help="processes per run, one GPU each where there are any")
    parser.add_argument("--launcher", default="local", help="local or slurm")
    parser.add_argument(
        "--weights", help="official weights: for rows that are a released model, or for those of --rows"
    )
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    options, overrides = parser.parse_known_args(arguments)
    started = time.strftime("%Y-%m-%d %H:%M")
    table = load_table(options.table)
    if not any(column.name in row.cells for row, column in table.to_measure):
        raise ValueError(f"{table.id} has published values only: its rows do not say yet what to run")
    changed = changed_values(overrides)
    profile = f"{options.profile}-changed" if changed else options.profile
    if options.weights:
        file_digest(options.weights)  # a wrong path ends here, not after the first training
    if options.devices > 1:
        synchronised = "true" if torch.cuda.is_available() else "false"  # what PyTorch has no CPU version of
        overrides = [
            f"trainer.devices={options.devices}", "trainer.strategy=ddp", f"trainer.sync_batchnorm={synchronised}",
            *overrides,
        ]  # fmt: skip
    conditions = Conditions(options.profile, tuple(overrides), options.weights, any_row=bool(options.rows))
    rows = [int(number) for number in options.rows.split(",") if number]
    seeds = range(options.seeds)
    cells, complete = reproduce(table, conditions, seeds, rows, options.devices, options.launcher)
    records = Records(runs_root())
    result = table_result(
        table, profile, [cell.result(table, records, profile) for cell in cells], runs_root(),
        seeds=list(seeds), started=started, finished=time.strftime("%Y-%m-%d %H:%M"),
        environment=environment_line(), reduction=", ".join([*REDUCTIONS.get(options.profile, ()), *changed]),
        choices=choices_by_row(cells),
        pictures=pictures_of(cells, options.reports / profile / table.id),
    )  # fmt: skip
    paths = write_report(result, options.reports / profile)
    print_report(result)
    print(f"report: {paths.markdown}, {paths.html}, {paths.json}")
    if not complete:
        raise SystemExit(1)


def changed_values(overrides: Sequence[str]) -> list[str]:
    """The values typed on the command line that change results: with any, a table is not the published one.

    Raises ValueError for those that have an option of their own.
    """
    changed = []
    for key, value in map(parse_override, overrides):
        if key in ("profile", "seed", "reading"):
            option = {"seed": "--seeds", "profile": "--profile"}.get(key, "the table file: a row says its reading")
            raise ValueError(f"{key} cannot be typed as a value of a table; use {option}")
        group, _, name = key.replace("init_args.", "").partition(".")
        harmless = key in ("threads", "channels_last") or name in NOT_IDENTITY.get(group, ())
        if not harmless or key == "evaluation.test":
            changed.append(f"{key}={value}")
    return changed


def environment_line() -> str:
    """The machine and the code, in one line; each record has it in full."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return (
        f"{device}, Python {platform.python_version()}, torch {torch.__version__}, commit {git_commit() or 'unknown'}"
    )


if __name__ == "__main__":
    one_sentence(main)
