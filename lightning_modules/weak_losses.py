"""Losses of masks that nobody drew (EXITS; MAL): pure functions of probabilities, one value per object.

They compute in float32 whatever comes; float64 stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMOOTH = 1e-3  # added to each sum of squares, as in the authors' code


def precise(values: Tensor) -> Tensor:
    """The same in float32, or in float64 where it is that already: half precision loses what is summed here."""
    return values if values.dtype == torch.float64 else values.float()


def dice(prediction: Tensor, target: Tensor) -> Tensor:
    """Dice loss of every object: 1 - 2 sum(p t) / (sum(p^2) + 0.001 + sum(t^2) + 0.001), in 0..1.

    As the sums are of squares, a target of zeros alone has the loss 1 whatever is predicted, nothing included.

    Args:
        prediction, target: (B, ...) of one shape, probabilities in [0, 1].
    Returns: (B,).
    """
    if prediction.shape != target.shape:
        raise ValueError(
            "dice needs a prediction and a target of one shape (B, ...), got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}; resize one to the other's grid"
        )
    p, t = precise(prediction).flatten(1), precise(target).flatten(1)
    return 1 - 2 * (p * t).sum(1) / (p.square().sum(1) + t.square().sum(1) + 2 * SMOOTH)


def projection(prediction: Tensor, box: Tensor) -> Tensor:
    """MIL loss of every object: its highest probability in each row and in each column against the box' (eq. 1).

    A row or column of the box is a bag that holds the object somewhere, one beside the box a bag without it.

    Args:
        prediction: (B, 1, H, W), probabilities in [0, 1].
        box: (B, 1, H, W), 1 in the object's box and 0 elsewhere, fractional at its border where it was resized.
    Returns: (B,), in 0..2: the sum of two dice losses.
    """
    if prediction.ndim != 4 or prediction.shape != box.shape:
        raise ValueError(
            "the projection loss needs a prediction and a box (B, 1, H, W) of one shape, got "
            f"{tuple(prediction.shape)} and {tuple(box.shape)}; resize the box to the mask's grid"
        )
    return dice(prediction.amax(3), box.amax(3)) + dice(prediction.amax(2), box.amax(2))
