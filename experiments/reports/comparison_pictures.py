"""What a comparison of runs shows: curves, and masks of the same objects side by side, clicked again from the rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import collate
from datamodules.clicks.points import PointKind, Points, clicks_made
from datamodules.index import ObjectIndex
from datamodules.samples import ObjectSamples
from datamodules.selection import open_objects
from experiments.curves import click_curves
from experiments.evaluation.settings import ClickSettings, read_settings
from experiments.interactive.predictor import Predictor, Session
from experiments.pictures import RGB, Picture, contact_sheet, overlay, save_picture
from experiments.reports.comparison import Clicked, Run, Seconds, by_data, common_clicks, spread
from experiments.runs.models import load_model
from lightning_modules.interactive import Interactive


class Timed:
    """A method that remembers how long each look took, in seconds; `start` belongs to the first."""

    def __init__(self, model: Interactive) -> None:
        self.model = model
        self.looks: list[float] = []
        self._started: float | None = None

    def start(self, image: Tensor, points: Points) -> Any:
        """See Interactive."""
        self._started = time.perf_counter()
        return self.model.start(image, points)

    def predict(self, state: Any, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """See Interactive."""
        started = time.perf_counter() if self._started is None else self._started
        found = self.model.predict(state, points, previous_mask)
        self.looks.append(time.perf_counter() - started)
        self._started = None
        return found


def compared_pictures(
    runs: Sequence[Run], count: int, folder: Path, home: Path
) -> tuple[list[Picture], dict[str, Seconds]]:
    """Curves and, for some objects, every run's mask after as many clicks; and what a look of each network costs.

    The masks are made again from the clicks that the rows hold; the files go into `home`, below the report's `folder`.
    """
    found = by_data([clicked for run in runs for clicked in run.clicked()])
    common = common_clicks([clicked for group in found.values() for clicked in group])
    looks: dict[str, list[list[float]]] = {run.name: [] for run in runs}
    shown: list[Picture] = []
    for number, (data, group) in enumerate(found.items()):
        curves = {clicked.name: {t: (mean, None) for t, mean in clicked.means().items()} for clicked in group}
        file = click_curves(curves, home / str(number) / "iou-by-clicks.png")
        shown.append(Picture(f"{data}: mean IoU over objects by number of clicks.", file.relative_to(folder)))
    for number, (data, group) in enumerate(found.items()):
        chosen = spread(group, count, common)
        tiles: list[list[RGB]] = [[] for _ in chosen]
        for run, clicked in zip(runs, group):
            for tile, (pixels, seconds) in zip(tiles, _again(run, data, clicked, chosen, common)):
                tile.append(pixels)
                looks[run.name].append(seconds)
        for place, (position, tile) in enumerate(zip(chosen, tiles)):
            ious = [clicked.after(common)[position] for clicked in group]
            captions = [f"{clicked.name}, IoU {iou:.1f}" for clicked, iou in zip(group, ious)]
            file = save_picture(
                contact_sheet(tile, captions, len(tile)), home / str(number) / f"object-{place:02d}.png"
            )
            what = f"{data}, {group[0].titles[position]}, {group[0].area[position]:,} px"
            caption = f"{what}, after {common} clicks, mean IoU over runs {np.mean(ious):.1f}"
            shown.append(Picture(caption, file.relative_to(folder)))
    return shown, {name: _medians(times) for name, times in looks.items()}


def _medians(times: Sequence[Sequence[float]]) -> Seconds:
    further = [seconds for each in times for seconds in each[1:]]
    return median(each[0] for each in times if each), median(further) if further else None


def _again(
    run: Run, data: str, clicked: Clicked, positions: Sequence[int], common: int
) -> Iterator[tuple[RGB, list[float]]]:
    """Objects clicked again as their rows say: the mask after `common` clicks, and how long each look took."""
    config = run.evaluations[data].config
    source, clicks = config["data"]["init_args"], read_settings(ClickSettings, config["evaluation"]).clicks
    index = open_objects(config["evaluation"]["test"], source["root"], source["seed"])
    timed = Timed(load_model(run.training))  # type: ignore[arg-type]
    predictor = Predictor.of(timed, config)
    samples = ObjectSamples(index, predictor.recipe, train=False, seed=source["seed"])
    for position in positions:
        timed.looks = []
        batch = collate([samples[position]])
        made = [(int(x), int(y), sign) for x, y, sign in (text.split(",") for text in clicked.clicks[position].split())]
        given = batch.points.shape[1]
        start = index.start_mask(position) if clicks.start == "mask" else None
        session = Session(predictor, batch, np.array([click[:2] for click in made[:given]]).reshape(-1, 2), start)
        first = clicks_made(batch.point_kinds[0].numpy())
        mask, points, kinds = session.mask, session.points, session.kinds
        for number, (x, y, sign) in enumerate(made[given:], start=first + 1):
            session.click(x, y, positive=sign == "+")
            if number <= common:
                mask, points, kinds = session.mask, session.points, session.kinds
        yield cut_out(index, position, mask, points, kinds), timed.looks


def cut_out(
    index: ObjectIndex, position: int, mask: NDArray, points: Sequence[tuple[float, float]], kinds: Sequence[PointKind]
) -> RGB:
    """An object with some of its surroundings, its mask, its true outline and the clicks."""
    image, truth = index.read_image(position), index.read_mask(position).mask
    x_min, y_min, x_max, y_max = index.box[position].tolist()
    margin = max(24, round(0.4 * max(x_max - x_min, y_max - y_min)))
    left, top = max(x_min - margin, 0), max(y_min - margin, 0)
    window = slice(top, y_max + margin + 1), slice(left, x_max + margin + 1)
    places = np.array(points, np.float64).reshape(-1, 2) - [left, top]
    return overlay(image[window], mask[window], places, kinds, truth=truth[window])
