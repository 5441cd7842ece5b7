"""Compare trained runs click for click, on the same objects.

    python -m experiments.compare --runs RUN RUN RUN --data coco200/val2017 davis345 --clicks 10 --rule itis

Every run goes through the click benchmark on every data set, as `experiments.evaluate --protocol clicks` does it: the
first points of its method count as clicks, then one rule clicks for all. What is evaluated already is not made again.
Writes compare.md, compare.html and compare.json; the first run is the one that the others are compared with.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from experiments import evaluate
from experiments.choices import data_set as in_words
from experiments.compare_pictures import pictures_of
from experiments.comparison import Run, Seconds, by_data, measured_grids, times_grid
from experiments.compose import Tree
from experiments.evaluation import load_model
from experiments.execute import execute
from experiments.nodes import Node, load_node
from experiments.report_grids import DASH, Grid
from experiments.report_pages import html_document, html_grid, html_pictures, markdown_grid, markdown_pictures
from experiments.runs import RunFolder, find_run, write_atomically
from experiments.sentences import duration, one_sentence

COMPARISON = "comparison"  # what the JSON of such a report calls itself


def trained(references: Sequence[str], names: Sequence[str] | None = None) -> dict[str, Node]:
    """Finished trainings, or released weights, by name; without `names` by method, with the hash where that is needed.

    Raises ValueError for a run that is not there, not finished or given twice, and for names that do not fit.
    """
    nodes = [load_node(find_run(reference)).model for reference in references]
    for reference, node in zip(references, nodes):
        if node.folder.record is None:
            raise ValueError(f"run {reference} is not finished: train it to its end first")
    hashes = [node.hash for node in nodes]
    if again := [name for name in hashes if hashes.count(name) > 1]:
        raise ValueError(f"run {again[0]} is given twice; a run can only be compared with others")
    methods = [str(node.config["method"]) for node in nodes]
    own = [name if methods.count(name) == 1 else f"{name} {key[:6]}" for name, key in zip(methods, hashes)]
    names = own if names is None else names
    if len(names) != len(nodes):
        raise ValueError(f"--names needs a name for each of the {len(nodes)} runs, got {len(names)}")
    if again := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"two runs are called {again[0]!r}; --names must tell them apart")
    return dict(zip(names, nodes))


def evaluation_of(training: Node, data: str, options: argparse.Namespace) -> Node:
    """The click benchmark of a run on a data set: the node that `experiments.evaluate` would make, on one device."""
    every = ["--every", str(options.every)] if options.every else []
    asked = evaluate.parse([
        "--run", training.hash, "--data", data, "--protocol", "clicks", "--rule", options.rule,
        "--clicks", str(options.clicks), *every,
    ])  # fmt: skip
    config = evaluate.configured(with_box(training), asked)
    config["trainer"].update(devices=1, num_nodes=1, strategy="auto")
    return Node("evaluate", config, (training,))


def with_box(training: Node) -> Tree:
    """A training's tree; where it is from before `evaluation.box` moved out of `evaluation.clicks`, with the box."""
    config = copy.deepcopy(training.config)
    evaluation = config["evaluation"]
    if "box" not in evaluation:
        if "box" not in evaluation.get("clicks", {}):
            raise ValueError(f"run {training.hash} is too old to be compared: its recipe has no evaluation.box")
        evaluation["box"] = evaluation["clicks"].pop("box")
    return config


def evaluated(options: argparse.Namespace) -> list[Run]:
    """The runs of a command line, evaluated. Raises ValueError when they are not evaluated on the same objects."""
    runs = []
    for name, training in trained(options.runs, options.names).items():
        evaluations = {}
        for data in options.data:
            node = evaluation_of(training, data, options)
            evaluations[in_words(node.config["evaluation"]["test"][0])] = node
        if len(evaluations) < len(options.data):
            raise ValueError(f"--data names a data set twice: {', '.join(options.data)}")
        runs.append(Run(name, training, evaluations))
    for label, first in runs[0].evaluations.items():
        for run in runs[1:]:
            if run.evaluations[label].manifest() != first.manifest():
                raise ValueError(
                    f"{run.name} and {runs[0].name} read other objects of {label}: their recipes' data.root or "
                    "data.seed differ"
                )
    for run in runs:
        for label, node in run.evaluations.items():
            execute(node, f"{run.name} on {label}")
    return runs


def grids_of(runs: Sequence[Run], seconds: Mapping[str, Seconds]) -> list[Grid]:
    """The grids of the report; all but the times follow from the runs' rows and records."""
    found = [clicked for run in runs for clicked in run.clicked()]
    ordered = [clicked for group in by_data(found).values() for clicked in group]
    return [*measured_grids(ordered), times_grid(seconds), _trainings(runs), _records(runs)]


def _trainings(runs: Sequence[Run]) -> Grid:
    lines = []
    for run in runs:
        config, record = run.training.config, run.training.folder.record or {}
        model, data = config["model"]["init_args"], config["data"]["init_args"]
        size = sum(parameter.numel() for parameter in load_model(run.training, run.training.folder).parameters())
        steps = f"{record['steps']:,}" if "steps" in record else DASH
        what = (_class(config["model"]), _class(model["network"]), _class(model.get("guidance")), f"{size:,}")
        long = (steps, str(data["batch_size"]), f"{data['sample']['size']}", duration(record.get("seconds", 0.0)))
        on = ", ".join(map(in_words, data["train"]))
        lines.append((run.name, run.training.hash, *what, *long, f"{config['evaluation']['threshold']:g}", on))
    numbers = ("Parameters", "Steps", "Batch", "Crop (px)", "Time", "Threshold")
    header = ("Run", "Folder", "Method", "Network", "Guidance", *numbers, "Trained on")
    text = "What each run is and what its training cost; the threshold is that of its recipe."
    return Grid("Trainings", header, tuple(lines), text, numbers)


def _class(node: Tree | None) -> str:
    return DASH if node is None else str(node["class_path"]).rpartition(".")[2]


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


def write(runs: Sequence[Run], options: argparse.Namespace) -> Path:
    """The report's three files and its pictures; returns the Markdown."""
    folder: Path = options.out
    pictures, seconds = pictures_of(runs, options.objects, folder, folder / "compare")
    grids = grids_of(runs, seconds)
    profiles = ", ".join(dict.fromkeys(str(run.training.config["profile"]) for run in runs))
    where = ", ".join(runs[0].evaluations)
    banner = (
        f"PROFILE {profiles}: {len(runs)} runs on the same objects, every object {options.clicks} clicks, the first "
        f"points counted, then by the rule {options.rule} for all"
    )
    records = _used_by(runs)
    spent = sum(float(json.loads(path.read_text()).get("seconds", 0.0)) for path in records)
    cost = f"Trainings and evaluations of this comparison: {duration(spent)} of computing."
    tree = {
        "kind": COMPARISON, "banner": banner, "clicks": options.clicks, "rule": options.rule,
        "runs": [
            {"name": run.name, "folder": str(run.training.folder.path.resolve()),
             "evaluations": {data: str(node.folder.path.resolve()) for data, node in run.evaluations.items()}}
            for run in runs
        ],
        "seconds": seconds, "grids": as_lists(grids),
        "pictures": [{**asdict(picture), "path": picture.path.as_posix()} for picture in pictures],
        "records": {str(path.resolve()): _sha256(path) for path in records},
    }  # fmt: skip
    title = "Runs compared click for click"
    first, *others = grids
    text = [f"# {title}", where, f"**{banner}**", markdown_grid(first), *markdown_pictures(pictures)]
    text += [*map(markdown_grid, others), "## Cost", cost]
    body = html_grid(first) + f"<h2>Pictures</h2>{html_pictures(pictures, folder)}" + "".join(map(html_grid, others))
    html = html_document(title, title, escape(where), profiles, banner, body, cost)
    write_atomically(folder / "compare.md", "\n\n".join(text) + "\n")
    write_atomically(folder / "compare.html", html)
    write_atomically(folder / "compare.json", json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    return folder / "compare.md"


def as_lists(grids: Sequence[Grid]) -> list[dict[str, Any]]:
    """Grids as JSON holds them."""
    return json.loads(json.dumps([asdict(grid) for grid in grids]))  # type: ignore[no-any-return]


def runs_of(tree: Mapping[str, Any]) -> list[Run]:
    """The runs of a report, given as its JSON."""
    found = []
    for each in tree["runs"]:
        training = load_node(RunFolder(Path(each["folder"])))
        folders = {data: RunFolder(Path(place)) for data, place in each["evaluations"].items()}
        nodes = {data: Node("evaluate", at.config["config"], (training,), found=at) for data, at in folders.items()}
        found.append(Run(each["name"], training, nodes))
    return found


def again(tree: Mapping[str, Any]) -> list[Grid]:
    """The grids of a report, given as its JSON, computed again from the rows and records of its runs.

    Raises ValueError where rows are not those that their record was made from.
    """
    runs = runs_of(tree)
    for run in runs:
        for clicked in run.clicked():
            metrics = (run.evaluations[clicked.data].folder.record or {}).get("metrics", {})
            stated = [metrics.get(f"iou_{t}") for t in range(1, clicked.most + 1)]
            if None in stated or not np.allclose(clicked.curve.mean(0), stated, rtol=0, atol=1e-9):
                raise ValueError(f"the rows of {run.name} on {clicked.data} are not those of their record")
    return grids_of(runs, {name: (first, further) for name, (first, further) in tree["seconds"].items()})


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, metavar="RUN", help="folders, or beginnings of hashes")
    parser.add_argument("--data", nargs="+", required=True, help="data sets by name, or {name: ..., min_area: ...}")
    parser.add_argument("--names", nargs="+", help="what the report calls the runs; default: their methods")
    parser.add_argument("--clicks", type=int, default=10, help="per object, first points included")
    parser.add_argument("--rule", default="itis", help="where the next click goes, e.g. itis, ritm or iog")
    parser.add_argument("--every", type=int, help="every n-th object of each data set")
    parser.add_argument("--objects", type=int, default=8, help="objects of each data set that are shown")
    parser.add_argument("--out", type=Path, default=Path("reports/compare"), help="the report's folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parse(arguments)
    if options.objects < 1:
        raise ValueError(f"--objects must be at least 1, got {options.objects}")
    print(f"report: {write(evaluated(options), options)}")


if __name__ == "__main__":
    one_sentence(main)
