"""The page of claims: what was tested how, and the pictures where people would rather look."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from experiments.console import duration
from experiments.curves import forest
from experiments.pictures import Picture, contact_sheet, save_picture
from experiments.reports.claimed import SAME, VERDICTS, Outcome, claims_grid
from experiments.reports.gathering import environment_line
from experiments.reports.pages import html_document, html_grid, html_pictures, markdown_grid, markdown_pictures
from experiments.reproduction.tested import PlannedClaim
from experiments.runs.files import write_atomically
from experiments.runs.node import Node
from experiments.runs.records import Records

SHOWN = 3  # objects of a claim
OVERLAY = re.compile(r"(?P<object>.+)-iou(?P<iou>[\d.]+)")


def write_page(planned: Sequence[PlannedClaim], found: Sequence[Outcome], folder: Path, what: str, root: Path) -> Path:
    """`claims.md`, `.html` and `.json`, with their pictures; returns the Markdown.

    Args:
        what: profile, data and seeds, in words. root: where the runs lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [*_forest(found, folder), *_objects(planned, found, folder)]
    banner = (
        f"{what}: claims of the papers tested on smaller runs. This is no reproduction of a published number; it says "
        "whether the difference that a paper claims is seen here, too."
    )
    grid, counts = claims_grid(found), told(found)
    records = Records(root)
    seconds = records.seconds({run for each in found if each.objects for run in each.runs})
    cost = f"Runs behind these claims: {duration(seconds)} of computing. {environment_line()}."
    title = "What the papers claim, tested"
    text = [f"# {title}", f"**{banner}**", counts, markdown_grid(grid), *markdown_pictures(pictures), "## Cost", cost]
    shown = f"<h2>Pictures</h2>{html_pictures(pictures, folder)}" if pictures else ""
    html = html_document(
        title, heading=title, over=counts, profile="small", must_know=banner, body=html_grid(grid) + shown, cost=cost
    )
    write_atomically(folder / "claims.md", "\n\n".join(text) + "\n")
    write_atomically(folder / "claims.html", html)
    tree = {"kind": "claims", "what": what, "claims": [_as_tree(each) for each in found]}
    write_atomically(folder / "claims.json", json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    return folder / "claims.md"


def told(found: Sequence[Outcome]) -> str:
    """How often each verdict was given."""
    given = Counter(each.verdict for each in found)
    return ", ".join(f"{given[verdict]} {verdict}" for verdict in VERDICTS if given[verdict]) + "."


def _as_tree(found: Outcome) -> dict[str, Any]:
    own = {key: value for key, value in asdict(found).items() if key != "claim"}
    return {"claim": found.claim.name, "wanted": found.claim.in_words, "published": found.claim.published, **own}


def _forest(found: Sequence[Outcome], folder: Path) -> list[Picture]:
    """Differences and intervals of all claims that are a direction, by test set, one panel per unit."""
    measured = [each for each in found if each.interval and each.claim.kind != "close" and each.verdict != SAME]
    pictures = []
    for unit in dict.fromkeys(each.claim.second.unit for each in measured):
        lines = {
            f"{each.claim.name}, {each.data}": (_towards(each, each.difference), *_interval(each), each.verdict)
            for each in measured
            if each.claim.second.unit == unit
        }
        file = forest(
            lines,
            folder / f"forest-{re.sub('[^a-z]+', '', unit) or 'percent'}.png",
            f"in the claimed direction ({unit})",
        )
        caption = f"Differences with their 95 % intervals, in {unit}, to the right where they go as claimed."
        pictures.append(Picture(caption, file.relative_to(folder)))
    return pictures


def _towards(found: Outcome, value: float | None) -> float:
    """A difference as positive where it goes as claimed."""
    assert value is not None
    return value if found.claim.kind == "higher" else -value


def _interval(found: Outcome) -> tuple[float, float]:
    assert found.interval is not None
    low, high = sorted(_towards(found, end) for end in found.interval)
    return low, high


def _objects(planned: Sequence[PlannedClaim], found: Sequence[Outcome], folder: Path) -> list[Picture]:
    """Of each claim the pictured objects on which its sides differ most, side by side."""
    by_name = {each.claim.name: each for each in planned}
    pictures = []
    for number, outcome in enumerate(each for each in found if each.objects and each.verdict != SAME):
        plan, claim = by_name[outcome.claim.name], outcome.claim
        first, second = plan.first[outcome.data][0][0], plan.second[outcome.data][0][0]
        for place, (one, other, gap) in enumerate(_pairs(first, second)[:SHOWN]):
            tiles = [np.asarray(Image.open(path).convert("RGB")) for path in (one, other)]
            height = min(tile.shape[0] for tile in tiles)
            tiles = [cv2.resize(tile, (round(tile.shape[1] * height / tile.shape[0]), height)) for tile in tiles]
            names = [f"{side.row}, IoU {_iou(path):g}" for side, path in ((claim.first, one), (claim.second, other))]
            file = save_picture(contact_sheet(tiles, names, 2), folder / "objects" / f"{number:02d}-{place}.png")
            caption = f"{outcome.data}, {_object(one)}: {gap:+.0f} points"
            pictures.append(Picture(caption, file.relative_to(folder), f"{claim.name}: {claim.says}"))
    return pictures


def _pairs(first: Node, second: Node) -> list[tuple[Path, Path, float]]:
    """Pictures of the same objects by both runs, the largest difference of IoU first; none where nothing differs."""
    if first.hash == second.hash:
        return []
    sides = [{_object(path): path for path in _overlays(node)} for node in (first, second)]
    pairs = [
        (path, sides[1][name], _iou(sides[1][name]) - _iou(path)) for name, path in sides[0].items() if name in sides[1]
    ]
    return sorted((pair for pair in pairs if pair[2]), key=lambda pair: -abs(pair[2]))


def _overlays(node: Node) -> list[Path]:
    return [path for path in sorted((node.folder.path / "pictures").glob("*.png")) if OVERLAY.fullmatch(path.stem)]


def _object(path: Path) -> str:
    matched = OVERLAY.fullmatch(path.stem)
    assert matched is not None
    return matched["object"]


def _iou(path: Path) -> float:
    matched = OVERLAY.fullmatch(path.stem)
    assert matched is not None
    return float(matched["iou"])
