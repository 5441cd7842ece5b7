"""The click benchmark: the next click beside the same rule written plainly, and all that a click costs by its network.

Predictions are the truth made wrong: shifted, eroded, with invented and missing ellipses, empty.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from datamodules.batch import collate
from datamodules.clicks.guidance import SignedGaussians
from datamodules.clicks.points import Click, PointKind, Points
from datamodules.clicks.rules import RULES
from datamodules.index import ObjectIndex
from datamodules.samples import ObjectSamples
from experiments.composition.building import sample_recipe
from experiments.composition.compose import compose
from experiments.evaluation.clicks import ClickScorer
from lightning_modules.itis import ITIS
from lightning_modules.networks.coarse_to_fine import CoarseToFine
from tests.bench.measure import Figure, best_of

CLICKS = 20
EVERY_REFERENCE = 5  # the plain rules take long


def click_figures(frames: ObjectIndex, passes: int, crop: int = 512) -> Iterator[Figure]:
    """Milliseconds of one core for a click on DAVIS' frames at their native size; for IOG on a crop, as a share."""
    for rule, plainly in (("itis", plain_itis), ("ritm", plain_ritm)):
        yield next_click_figure(frames, rule, plainly, max(2, passes // 3))
    for rule in ("itis", "ritm"):
        yield overhead_figure(frames, rule)
    yield incremental_figure(frames, passes)
    yield further_click_figure(max(1, passes // 3), crop)


def corrupted(mask: NDArray[np.uint8], way: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    """A wrong prediction (H, W) of 0 and 1, in one of four ways."""
    height, width = mask.shape
    if way % 4 == 0:
        return np.roll(mask, tuple(draw.integers(-15, 16, 2)), (0, 1))
    if way % 4 == 1:
        return cv2.erode(mask, np.ones((11, 11), np.uint8))
    prediction = mask.copy() if way % 4 == 2 else np.zeros_like(mask)
    for _ in range(8 if way % 4 == 2 else 0):
        centre = int(draw.integers(width)), int(draw.integers(height))
        axes = int(draw.integers(5, 60)), int(draw.integers(5, 60))
        cv2.ellipse(
            prediction, centre, axes, angle=0, startAngle=0, endAngle=360, color=int(draw.integers(2)), thickness=-1
        )
    return prediction


def plain_itis(mask: NDArray, prediction: NDArray, void: None, clicks: NDArray) -> Click | None:
    """The rule `itis`, on whole images with SciPy."""
    error = mask != prediction
    labels, _ = ndimage.label(error, np.ones((3, 3)))
    labels[clicks[:, 1], clicks[:, 0]] = 0
    inside = labels == np.bincount(labels.ravel())[1:].argmax() + 1 if labels.any() else np.zeros_like(error)
    inside[[0, -1]] = inside[:, [0, -1]] = False
    distance = ndimage.distance_transform_edt(inside)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return Click(int(x), int(y), bool(mask[y, x])) if distance[y, x] else None


def plain_ritm(mask: NDArray, prediction: NDArray, void: None, clicks: NDArray) -> Click:
    """The rule `ritm`, on whole images with SciPy."""
    missed, invented = (
        ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
        for error in ((mask == 1) & (prediction == 0), (mask == 0) & (prediction == 1))
    )
    missed[clicks[:, 1], clicks[:, 0]] = invented[clicks[:, 1], clicks[:, 0]] = 0
    positive = bool(missed.max() > invented.max())
    distance = missed if positive else invented
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return Click(int(x), int(y), positive)


def next_click_figure(frames: ObjectIndex, rule: str, plainly: Callable[..., Click | None], passes: int) -> Figure:
    """The median over all frames, each the best of some passes; up to five clicks were made before."""
    draw, ours, pairs, equal = np.random.default_rng(0), [], [], 0
    for i in range(len(frames)):
        mask = np.ascontiguousarray(frames.read_mask(i).mask)
        prediction = corrupted(mask, i, draw)
        earlier = draw.integers(0, mask.shape[::-1], (i % 6, 2))
        case = mask, prediction, None, earlier
        ours.append(best_of(passes, ours=partial(RULES[rule], *case))["ours"][0])
        if i % EVERY_REFERENCE == 0:
            pairs.append((ours[-1], best_of(1, plain=partial(plainly, *case))["plain"][0]))
            equal += RULES[rule](*case) == plainly(*case)
    mine, plain = (1e3 * np.median(pairs, axis=0)).tolist()
    note = f"{len(ours)} error maps; {equal} of {len(pairs)} clicks are the plain rule's"
    return Figure(
        f"next click, {rule}",
        1e3 * float(np.median(ours)),
        "ms",
        target=4,
        reference=f"SciPy {plain:.1f} ms",
        ratio=mine / plain,
        note=note,
    )


class Answers(nn.Module):
    """A network that answers with logits made before, in turn, and says how long it took itself."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Tensor] = []
        self.calls, self.seconds = 0, 0.0

    def prepare(self, mask: NDArray[np.uint8], draw: np.random.Generator) -> None:
        """Soft wrong predictions of an object, of two classes."""
        self.answers, self.calls, self.seconds = [], 0, 0.0
        for way in (0, 1, 2, 2, 2):
            soft = 10 * cv2.GaussianBlur(corrupted(mask, way, draw).astype(np.float32), (0, 0), 2) - 5
            self.answers.append(torch.from_numpy(np.stack([-soft, soft])[None]))

    def forward(self, seen: Tensor) -> Tensor:
        started = time.process_time()
        self.calls += 1
        answer = self.answers[self.calls % len(self.answers)]
        self.seconds += time.process_time() - started
        return answer


def overhead_figure(frames: ObjectIndex, rule: str) -> Figure:
    """What the benchmark's own loop spends per click on an object, start included and the network left out."""
    config = compose("itis", overrides=[f"evaluation.clicks.rule={rule}", f"evaluation.clicks.most={CLICKS}"])
    network, draw = Answers(), np.random.default_rng(0)
    model = ITIS(network, SignedGaussians(), nn.Identity(), torch.optim.Adam)
    samples = ObjectSamples(frames, sample_recipe(config), train=False)
    spent, rules = [], []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        scorer = ClickScorer(model, frames, config, Path(folder))
        scorer.pictured = set()
        whole, scorer.rule = scorer.rule, None
        for i in range(len(frames)):
            batch = collate([samples[i]])
            network.prepare(np.ascontiguousarray(frames.read_mask(i).mask), draw)
            timed = Timed(whole)
            scorer.rule = timed
            started = time.process_time()
            scorer.score(batch)
            clicks = max(1, network.calls)
            spent.append((time.process_time() - started - network.seconds) / clicks)
            rules.append(timed.seconds / clicks)
    mine, of_rule = 1e3 * float(np.median(spent)), 1e3 * float(np.median(rules))
    height, width = (int(side) for side in np.median(frames.image_size, axis=0))
    note = f"{len(spent)} objects of about {height} x {width}, {CLICKS} clicks each"
    return Figure(
        f"a click beside its network, {rule}",
        mine,
        "ms",
        target=8,
        reference=f"its rule {of_rule:.1f} ms",
        ratio=mine / of_rule,
        note=note,
    )


class Timed:
    """A click rule, and the processor time that it took."""

    def __init__(self, rule: Callable[..., Click | None]) -> None:
        self.rule, self.seconds = rule, 0.0

    def __call__(self, *case: object) -> Click | None:
        started = time.process_time()
        click = self.rule(*case)
        self.seconds += time.process_time() - started
        return click


def incremental_figure(frames: ObjectIndex, passes: int) -> Figure:
    """ITIS' maps of an object that is clicked 20 times: each click added, or all of them drawn anew."""
    height, width = (int(side) for side in np.median(frames.image_size, axis=0))
    guidance, draw = SignedGaussians(), np.random.default_rng(0)
    xy = torch.from_numpy(draw.integers(0, [width, height], (1, CLICKS, 2))).float()
    kinds = torch.from_numpy(draw.choice([PointKind.POSITIVE, PointKind.NEGATIVE], (1, CLICKS)))
    scale = torch.ones(1, 2)

    def added() -> Tensor:
        maps = guidance.blank(1, (height, width))
        for t in range(1, CLICKS + 1):
            guidance.add(maps, Points(xy[:, :t], kinds[:, :t], scale).since(t - 1))
        return maps

    def anew() -> None:
        for t in range(1, CLICKS + 1):
            guidance(Points(xy[:, :t], kinds[:, :t], scale), (height, width))

    times = best_of(passes, added=added, anew=anew)
    mine, other = (1e3 * times[name][0] / CLICKS for name in ("added", "anew"))
    return Figure(
        "  its guidance, incremental",
        mine,
        "ms",
        reference=f"drawn anew {other:.2f} ms",
        ratio=mine / other,
    )


@torch.no_grad()
def further_click_figure(passes: int, size: int) -> Figure:
    """IOG's second look: the features of the image are kept, the clicks' branch and what follows it run again."""
    network = CoarseToFine("resnet101", click_channels=2).eval()
    x, maps = torch.rand(1, 5, size, size), torch.rand(1, 2, size, size)
    features = network.encode(x)
    times = best_of(
        passes,
        first=lambda: network(x, maps, sides=False),
        further=lambda: network.decode(features, (size, size), maps, sides=False),
    )
    first, further = times["first"][0], times["further"][0]
    what = f"a further click of IOG, {size} px"
    return Figure(
        what, further / first, "x the first", target=0.5, reference=f"the first {first:.2f} s", ratio=further / first
    )
