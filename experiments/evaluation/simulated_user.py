"""Who clicks in the click benchmark: a user that wants one object, sees a prediction and corrects it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.clicks.points import EXTREME_KINDS, Click, PointKind, clicks_made
from datamodules.clicks.rules import ClickRule

SIGNS = {
    PointKind.POSITIVE: "+",
    PointKind.NEGATIVE: "-",
    PointKind.INSIDE: "i",
    PointKind.OUTSIDE: "o",
    **dict.fromkeys(EXTREME_KINDS, "e"),
}


@dataclass
class SimulatedUser:
    """Who wants one object and clicks where the prediction is wrong. All in pixels of the full image, points (x, y).

    Args:
        mask: (H, W) of 0 and 1, the object.
        void: (H, W), 1 at pixels nobody labelled: never clicked, never counted; None without.
        rule: says where the next click goes.
        first_points: what the method begins with, (K, 2), and their `first_kinds`, (K,); several may be one click.
        most: clicks in all; `corrections`: after the first points, None for as many as `most` allows.
        start: (H, W), the mask that the object starts from; None for an empty one.
        draws: the generator of a rule's draws in round t; None for the first of equally good pixels.
    """

    mask: NDArray[np.uint8]
    void: NDArray[np.uint8] | None
    rule: ClickRule
    first_points: NDArray = field(default_factory=lambda: np.zeros((0, 2)))
    first_kinds: NDArray = field(default_factory=lambda: np.zeros(0, np.int64))
    most: int = 20
    corrections: int | None = None
    start: NDArray[np.uint8] | None = None
    draws: Callable[[int], np.random.Generator | None] = np.random.default_rng

    def __post_init__(self) -> None:
        self.first_clicks = clicks_made(self.first_kinds)
        if self.first_clicks > self.most:
            raise ValueError(
                f"the method takes {self.first_clicks} clicks before its first mask, more than the {self.most} of "
                "evaluation.clicks.most"
            )
        self.mask = np.ascontiguousarray(self.mask)  # run lengths decode to columns, which cost every pass dearly
        self.void = None if self.void is None else np.ascontiguousarray(self.void)
        self._labelled = None if self.void is None else self.void == 0
        truth = self.mask > 0 if self._labelled is None else (self.mask > 0) & self._labelled
        x, y, width, height = cv2.boundingRect(truth.view(np.uint8))
        self._window = slice(y, y + height), slice(x, x + width)
        self._truth = np.ascontiguousarray(truth[self._window])  # nothing outside can be met
        self._area = int(np.count_nonzero(self._truth))
        height, width = self.mask.shape
        pixels = np.clip(np.round(self.first_points), 0, [width - 1, height - 1]).astype(np.int64)
        self.clicks: list[tuple[int, int]] = [(int(x), int(y)) for x, y in pixels]
        self.kinds = [PointKind(int(kind)) for kind in self.first_kinds]
        start = np.zeros_like(self.mask) if self.start is None else self.start
        self.prediction = np.ascontiguousarray(start > 0).view(np.uint8)
        self.iou = self._iou()
        self.start_iou = None if self.start is None else self.iou
        self.rounds = self.first_clicks  # clicks so far, those included that found nothing to correct
        self.ious: list[float] = [self.start_iou or 0.0] * max(0, self.rounds - 1)
        self.pictures: dict[int, tuple[NDArray[np.uint8], int, float]] = {}
        self._kept: Sequence[int] = ()
        self.seconds_network, self.network_calls = 0.0, 0

    @property
    def may_click(self) -> bool:
        """Whether a round is left in which the mask may still change."""
        corrected = self.rounds - self.first_clicks
        allowed = self.rounds < self.most and (self.corrections is None or corrected < self.corrections)
        return allowed and self.iou < 1

    def next_click(self) -> Click | None:
        """Takes the round's turn: where the prediction must be corrected, None where the rule finds no place."""
        self.rounds += 1
        before = np.array(self.clicks, np.int64).reshape(-1, 2)
        click = self.rule(self.mask, self.prediction, self.void, before, self.draws(self.rounds))
        if click is None:
            self._note()
        else:
            self.clicks.append((int(click.x), int(click.y)))
            self.kinds.append(click.kind)
        return click

    def sees(self, prediction: NDArray[np.uint8]) -> None:
        """The mask (H, W) of 0 and 1 that the last click gave."""
        self.prediction = prediction
        self.iou = self._iou()
        self._note()

    def curve(self) -> list[float]:
        """IoU after 1, 2, ..., `most` clicks."""
        held = self.ious[-1] if self.ious else self.iou
        return self.ious + [held] * (self.most - len(self.ious))

    def written(self) -> str:
        """The clicks as a row holds them, `x,y,+ x,y,- ...`; `e` are extreme points, `i` and `o` inside, outside."""
        return " ".join(f"{x},{y},{SIGNS.get(kind, '?')}" for (x, y), kind in zip(self.clicks, self.kinds))

    def keep_pictures(self, rounds: Sequence[int]) -> None:
        """Remember the prediction, how many clicks gave it, and its IoU after these rounds; a start mask is round 0."""
        self._kept = rounds
        if self.start is not None:
            self.pictures[0] = self.prediction, 0, self.iou

    def _note(self) -> None:
        self.ious.append(self.iou)
        if self.rounds in self._kept:
            self.pictures[self.rounds] = self.prediction, len(self.clicks), self.iou

    def _iou(self) -> float:
        """`object_iou` of the prediction, with what does not change between clicks counted once."""
        predicted = self.prediction.view(bool)
        intersection = np.count_nonzero(predicted[self._window] & self._truth)
        seen = predicted if self._labelled is None else predicted & self._labelled
        union = np.count_nonzero(seen) + self._area - intersection
        return float(intersection / union) if union else 1.0
