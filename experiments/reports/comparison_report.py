"""A comparison's report: Markdown, HTML, JSON and pictures, and the same grids computed again from its runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.words import data_set_in_words as in_words
from datamodules.words import name_of
from experiments.console import DASH, Grid, duration
from experiments.evaluation.settings import MaskSettings, read_settings
from experiments.reports.comparison import Run, Seconds, by_data, measured_grids, times_grid
from experiments.reports.comparison_pictures import compared_pictures
from experiments.reports.pages import html_document, html_grid, html_pictures, markdown_grid, markdown_pictures
from experiments.runs.files import write_atomically
from experiments.runs.folder import RunFolder
from experiments.runs.models import load_model
from experiments.runs.reading import load_node

COMPARISON = "comparison"  # what the JSON of such a report calls itself


def grids_of(runs: Sequence[Run], seconds: Mapping[str, Seconds]) -> list[Grid]:
    """The grids of the report; all but the times follow from the runs' rows and records."""
    found = [clicked for run in runs for clicked in run.clicked()]
    ordered = [clicked for group in by_data(found).values() for clicked in group]
    return [*measured_grids(ordered), times_grid(seconds), _trainings(runs), _records(runs)]


def _trainings(runs: Sequence[Run]) -> Grid:
    lines = []
    for run in runs:
        config, record = run.training.config, run.training.folder.record or {}
        model, data = config["model"].get("init_args", {}), config["data"]["init_args"]
        size = sum(parameter.numel() for parameter in load_model(run.training).parameters())
        steps = f"{record['steps']:,}" if "steps" in record else DASH
        parts = [DASH if model.get(part) is None else name_of(model[part]) for part in ("network", "guidance")]
        crop = (data.get("sample") or {}).get("size", DASH)
        long = (steps, str(data["batch_size"]), f"{crop}", duration(record.get("seconds", 0.0)))
        threshold = read_settings(MaskSettings, config["evaluation"]).threshold
        on = ", ".join(map(in_words, data["train"]))
        what = (name_of(config["model"]), *parts, f"{size:,}")
        lines.append((run.name, run.training.hash, *what, *long, f"{threshold:g}", on))
    numbers = ("Parameters", "Steps", "Batch", "Crop (px)", "Time", "Threshold")
    header = ("Run", "Folder", "Method", "Network", "Guidance", *numbers, "Trained on")
    text = "What each run is and what its training cost; the threshold is that of its recipe."
    return Grid("Trainings", header, tuple(lines), text, numbers)


def _records(runs: Sequence[Run]) -> Grid:
    lines = []
    for path, users in _used_by(runs).items():
        record = json.loads(path.read_text())
        made = (str(record.get("seed", DASH)), duration(record.get("seconds", 0)), str(record.get("git") or DASH))
        place = f"{path.parent.name}/record.json"
        lines.append((place, str(record.get("kind", "?")), *made, _sha256(path)[:16], ", ".join(users)))
    header = ("Record", "Kind", "Seed", "Time", "Commit", "SHA-256", "Used by")
    text = "Every measured number is computed from the rows beside these records."
    return Grid("Run records", header, tuple(lines), text, ("Seed", "Time"))


def _used_by(runs: Sequence[Run]) -> dict[Path, list[str]]:
    """The records behind a report, parents first, and the runs that use them."""
    found: dict[Path, list[str]] = {}
    for run in runs:
        for node in (node for evaluation in run.evaluations.values() for node in evaluation.with_ancestors()):
            users = found.setdefault(node.folder.path / "record.json", [])
            users += [run.name] if run.name not in users else []
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(runs: Sequence[Run], folder: Path, *, clicks: int, rule: str, objects: int = 8) -> Path:
    """The report's three files and its pictures, of so many objects of each data set; returns the Markdown.

    `clicks`, `rule`: how the runs were evaluated.
    """
    pictures, seconds = compared_pictures(runs, objects, folder, folder / "compare")
    grids = grids_of(runs, seconds)
    profiles = ", ".join(dict.fromkeys(str(run.training.config["profile"]) for run in runs))
    where = ", ".join(runs[0].evaluations)
    banner = (
        f"PROFILE {profiles}: {len(runs)} runs on the same objects, every object {clicks} clicks, the first "
        f"points counted, then by the rule {rule} for all"
    )
    records = _used_by(runs)
    spent = sum(float(json.loads(path.read_text()).get("seconds", 0.0)) for path in records)
    cost = f"Trainings and evaluations of this comparison: {duration(spent)} of computing."
    tree = {
        "kind": COMPARISON,
        "banner": banner,
        "clicks": clicks,
        "rule": rule,
        "runs": [
            {
                "name": run.name,
                "folder": str(run.training.folder.path.resolve()),
                "evaluations": {data: str(node.folder.path.resolve()) for data, node in run.evaluations.items()},
            }
            for run in runs
        ],
        "seconds": seconds,
        "grids": as_lists(grids),
        "pictures": [{**asdict(picture), "path": picture.path.as_posix()} for picture in pictures],
        "records": {str(path.resolve()): _sha256(path) for path in records},
    }
    title = "Runs compared click for click"
    first, *others = grids
    text = [f"# {title}", where, f"**{banner}**", markdown_grid(first), *markdown_pictures(pictures)]
    text += [*map(markdown_grid, others), "## Cost", cost]
    body = html_grid(first) + f"<h2>Pictures</h2>{html_pictures(pictures, folder)}" + "".join(map(html_grid, others))
    html = html_document(
        title, heading=title, over=escape(where), profile=profiles, must_know=banner, body=body, cost=cost
    )
    write_atomically(folder / "compare.md", "\n\n".join(text) + "\n")
    write_atomically(folder / "compare.html", html)
    write_atomically(folder / "compare.json", json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    return folder / "compare.md"


def as_lists(grids: Sequence[Grid]) -> list[dict[str, Any]]:
    """Grids as JSON holds them."""
    return json.loads(json.dumps([asdict(grid) for grid in grids]))


def runs_of(tree: Mapping[str, Any]) -> list[Run]:
    """The runs of a report, given as its JSON."""
    found = []
    for each in tree["runs"]:
        nodes = {data: load_node(RunFolder(Path(place))) for data, place in each["evaluations"].items()}
        found.append(Run(each["name"], load_node(RunFolder(Path(each["folder"]))), nodes))
    return found


def again(tree: Mapping[str, Any]) -> list[Grid]:
    """The grids of a report, given as its JSON, computed again from the rows and records of its runs.

    Raises ValueError where rows are not those that their record was made from.
    """
    runs = runs_of(tree)
    for run in runs:
        for data, evaluation in run.evaluations.items():
            if wrong := next(evaluation.folder.changed("rows.csv"), None):
                raise ValueError(f"the rows of {run.name} on {data} are not those of their record: {wrong}")
        for clicked in run.clicked():
            metrics = (run.evaluations[clicked.data].folder.record or {}).get("metrics", {})
            stated = [metrics.get(f"iou_{t}") for t in range(1, clicked.most + 1)]
            if None in stated or not np.allclose(clicked.curve.mean(0), stated, rtol=0, atol=1e-9):
                raise ValueError(f"the rows of {run.name} on {clicked.data} are not those of their record")
    return grids_of(runs, {name: (first, further) for name, (first, further) in tree["seconds"].items()})
