"""The one shape that interactive use has for every method: `start` once per object, `predict` after each click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
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


class NotFinite(ValueError):
    """A network's answer that is no number; `place` is the object's in its batch."""

    advice: ClassVar[str] = (
        "its weights cannot be used, train it anew with a lower model.optimizer.lr or with trainer.precision=32-true"
    )

    def __init__(self, value: float, place: int) -> None:
        super().__init__(f"the network answers {value} somewhere, which says neither object nor background")
        self.place = place


def finite(logits: Tensor, looked_at: Sequence[bool] | None = None) -> Tensor:
    """The same logits (B, ...). Raises NotFinite for the first object with one that is not finite: NaN is above or
    below every threshold, as the comparison goes.

    Args:
        looked_at: of the batch's objects, those whose answers count; all without.
    """
    wrong = ~torch.isfinite(logits).flatten(1).all(1).cpu()
    if looked_at is not None:
        wrong &= torch.tensor(looked_at)
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        answers = logits[place]
        raise NotFinite(float(answers[~torch.isfinite(answers)][0]), place)
    return logits
