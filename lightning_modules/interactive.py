"""The one shape that interactive use has for every method: `start` once per object, `predict` after each click."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from datamodules.clicks.points import Points


class Interactive(Protocol):
    """A method that turns clicks into logits. The click benchmark, the predictor and evaluation know no more of it."""

    def start(self, image: Tensor, points: Points) -> Any:
        """(B, 3, H, W) crops, 0..255, and the first clicks -> a state that holds what is computed once per object."""

    def predict(self, state: Any, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """All clicks so far (and, for methods that use it, the last mask) -> logits (B, 1, H, W) and the next state."""
