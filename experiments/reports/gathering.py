"""What a report shows besides numbers: choices, pictures, the machine."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from experiments.console import Choice
from experiments.curves import learning_curves
from experiments.pictures import Picture
from experiments.reports.choices import choices_of
from experiments.reproduction.planned import PlannedCell
from experiments.runs.environment import git_commit
from experiments.runs.node import Node


def choices_by_row(cells: Sequence[PlannedCell], by_code: Collection[str] = ()) -> dict[str, list[Choice]]:
    """The choices of a row's evaluations, each once: cells of other test sets add what is theirs.

    `by_code`: the rows whose published values the released code made.
    """
    found: dict[str, dict[Choice, None]] = {}
    for cell in cells:
        if cell.after:
            found.setdefault(cell.row, {}).update(dict.fromkeys(choices_of(cell.after[0], cell.row in by_code)))
    return {row: list(choices) for row, choices in found.items()}


def pictures_of(cells: Sequence[PlannedCell], folder: Path, each: int = 4) -> list[Picture]:
    """Per row a few overlays, of the same objects wherever rows are evaluated on the same data; the learning curves.

    An evaluation that several cells show, and a training that several share, appear once; a row that was evaluated on
    several test sets divides its overlays among them and names the column.
    """
    shown: dict[str, tuple[PlannedCell, Node]] = {}
    for cell in cells:
        for node in cell.after[:1]:
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
        for node in cell.after[:1]:
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


def environment_line() -> str:
    """The machine and the code, in one line; each record has it in full."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return (
        f"{device}, Python {platform.python_version()}, torch {torch.__version__}, commit {git_commit() or 'unknown'}"
    )
