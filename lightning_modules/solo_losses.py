"""What SOLOv2's cells are told: their class by a focal loss, the masks of the objects they answer for by dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lightning_modules.solo_targets import SoloTargets
from lightning_modules.weak_losses import dice


def dynamic_logits(kernels: Tensor, features: Tensor) -> Tensor:
    """Mask logits of cells: a 1x1 convolution of the image's features by the numbers that each cell predicts.

    Args:
        kernels: (P, K). features: (K, h, w).
    Returns: (P, h, w) float32.
    """
    return (kernels @ features.flatten(1)).float().unflatten(1, features.shape[1:])


def solo_mask_loss(kernels: Tensor, features: Tensor, targets: Sequence[SoloTargets]) -> Tensor:
    """Dice of every positive, averaged over those of all grids and images of this batch.

    Without any it is 0, with a gradient of 0 for kernels and features: processes agree on what they average.

    Args:
        kernels: (B, T, K), of all cells. features: (B, K, h, w). targets: one per image.
    """
    losses = [
        dice(dynamic_logits(kernel[target.cells], feature).sigmoid(), target.masks[target.objects])
        for kernel, feature, target in zip(kernels, features, targets, strict=True)
    ]
    positives = sum(len(each) for each in losses)
    return torch.cat(losses).sum() / max(positives, 1)


def solo_class_loss(logits: Tensor, classes: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) summed over cells and classes, over the cells that have one + 1.

    Cells are counted once, however many objects share them, and those of this process alone.

    Args:
        logits: (..., C). classes: (...) int64 in [0, C]; C is background.
    """
    count = logits.shape[-1]
    wanted = F.one_hot(classes, count + 1)[..., :count].float()
    summed = sigmoid_focal_loss(logits.float(), wanted, alpha, gamma, reduction="sum")
    loss: Tensor = summed / ((classes < count).sum() + 1)
    return loss
