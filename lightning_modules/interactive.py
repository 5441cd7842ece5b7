"""The one shape that interactive use has for every method: `start` once per object, `predict` after each click."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from datamodules.clicks.points import Points


class Interactive(Protocol):
    """A method that turns clicks into logits. The click benchmark, the predictor and evaluation know no more of it.

    For one batch of objects: `start` once with the first clicks, then `predict` with them, and again after each further
    click with all so far, in the order they were made. Between two calls only clicks are added, a column for the whole
    batch; an object without a new one has padding there, and what is predicted for it then is not looked at.
    """

    def start(self, image: Tensor, points: Points) -> Any:
        """(B, 3, H, W) crops, 0..255, and the first clicks -> a state that holds what is computed once per object."""

    def predict(self, state: Any, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Any]:
        """All clicks so far, and the last mask -> logits (B, 1, H, W) and the next state.

        Args:
            previous_mask: (B, 1, H, W) float of 0 and 1 on the crops' grid, the last logits above the threshold; before
                the first, the mask that the objects start from. None where there is neither.
        """
