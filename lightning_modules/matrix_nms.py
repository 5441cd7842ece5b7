"""How SOLO's many answers about one object become one: by cells, before masks are made, and by masks, all at once."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.deeplab import full_precision

PIXELS = 4096  # of all masks at a time: what a product reads is made where it is read


def point_nms(probabilities: Tensor) -> Tensor:
    """Scores (B, C, S, S) of cells, 0 where one of the three cells above, left and above left is higher.

    A 2x2 maximum, stride 1, padded on all sides, of which the last row and column are dropped.
    """
    highest = F.max_pool2d(probabilities, 2, stride=1, padding=1)[..., :-1, :-1]
    return probabilities * (highest == probabilities)


def mask_ious(masks: Tensor) -> Tensor:
    """IoU of each with each, (N, N) float32, of masks (N, ...) bool; 0 of two empty ones."""
    flat = masks.flatten(1)
    common = torch.zeros(len(flat), len(flat), device=flat.device)
    with full_precision(common):  # counts above 256 are no numbers of half precision
        for part in flat.split(PIXELS, dim=1):
            pixels = part.float()
            common.addmm_(pixels, pixels.T)
    area = common.diagonal()
    return common / (area[:, None] + area - common).clamp_min(1)


def matrix_nms(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    decay: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """Scores that fall the more a better mask of the class overlaps theirs (SOLOv2, Sec. 3.3, Matrix NMS).

    Mask j is decayed by the least of f(iou_ij) / f(comp_i) over all better masks i of its class, comp_i being the
    highest overlap of i with any that is better still: who is itself suppressed suppresses less. f(x) is
    exp(-sigma x^2) or 1 - x. Of equal scores the earlier is the better.

    Args:
        masks: (N, ...) bool. labels: (N,). scores: (N,), in any order.
    Returns: (N,), in the order that came.
    """
    if not len(scores):
        return scores
    order = scores.argsort(descending=True, stable=True)
    ranked = labels[order]
    overlap = mask_ious(masks)[order][:, order].triu(1) * (ranked[:, None] == ranked)
    compensation = overlap.amax(0)[:, None]
    if decay == "gaussian":
        factors = torch.exp(sigma * (compensation.square() - overlap.square()))
    else:  # a mask that is equal to a better one suppresses nobody whom the better one does not
        factors = (1 - overlap) / (1 - compensation).clamp_min(torch.finfo(torch.float32).eps)
    least = factors.amin(0)
    return scores * torch.empty_like(least).scatter_(0, order, least)
