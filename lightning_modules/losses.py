"""Losses: pure functions of logits, mask and void, and small modules that name their settings in a recipe."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.objects import class_counts


def pixel_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of every pixel, of logits and labels 0 and 1 of the same shape.

    Softplus of the logit turned against the label: its gradient is soft also where a pixel is sure, while that of
    `binary_cross_entropy_with_logits`, sigmoid(z) - 1, loses the digits below 6e-8 (all of them from z = 17 on).
    """
    return F.softplus(torch.where(label > 0, -logits, logits))


def balanced_bce(
    logits: Tensor,
    mask: Tensor,
    void: Tensor | None = None,
    *,
    counts: Tensor | None = None,
    balanced: bool = True,
    reduction: Literal["mean", "batch", "sum"] = "batch",
) -> Tensor:
    """Cross entropy whose classes weigh as their inverse frequency in the mini-batch (DEXTR, Sec. 3.2).

    L = (N- / N) L+ + (N+ / N) L-, with L+ and L- summed over object and background pixels. As in the authors' code,
    void pixels leave L+, L- and N but still count in N+ and N-; a batch of one class only has no loss at all.

    Args:
        logits, mask, void: (B, 1, H, W); the object is mask >= 0.5, void > 0.5 is not labelled. None: no void.
        counts: (3,) object, background, void pixels that the weights are taken over, when that is more than this batch.
        balanced: False weighs both classes by 0.5, which keeps the scale that balanced weights have at balance.
        reduction: sum over pixels divided by all pixels (`mean`), by objects (`batch`) or not at all (`sum`).
    """
    logits = logits.float()
    label = (mask >= 0.5).float()
    if counts is None:
        counts = class_counts(mask, torch.zeros_like(label) if void is None else void)
    positive, negative, unlabelled = counts.to(logits.device, torch.float32)
    total = (positive + negative - (0 if void is None else unlabelled)).clamp_min(1)
    pixel_loss = pixel_cross_entropy(logits, label)
    if balanced:
        pixel_loss = pixel_loss * torch.where(label > 0, negative / total, positive / total)
    else:
        pixel_loss = pixel_loss * 0.5
    if void is not None:
        pixel_loss = pixel_loss * (void <= 0.5)
    divisor = {"mean": logits.numel(), "batch": len(logits), "sum": 1}[reduction]
    return pixel_loss.sum() / divisor


class BalancedBCE(nn.Module):
    """`balanced_bce` as a recipe names it; the class weights are taken over the global batch of all processes.

    Args:
        balanced: weigh the classes by inverse frequency (the paper), or equally (its ablation).
        reduction: `batch` is the authors' sum over pixels, for learning rates around 1e-8; `mean` goes with 0.0025.
        use_void: leave pixels without label out. The authors' training passes no void: they count as background.
    """

    behaviour = 2  # 2: gradients of sure pixels keep their digits

    def __init__(
        self, balanced: bool = True, reduction: Literal["mean", "batch"] = "batch", use_void: bool = True
    ) -> None:
        super().__init__()
        self.balanced, self.reduction, self.use_void = balanced, reduction, use_void

    def forward(self, logits: Tensor, mask: Tensor, void: Tensor, counts: Tensor | None = None) -> Tensor:
        """Loss of this process' batch; `counts` as in `balanced_bce`, for the process' whole optimiser step."""
        counts = class_counts(mask, void) if counts is None else counts
        counts = counts.to(logits.device, copy=True)  # reduced in place, and every pass of a step gets the same one
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        return balanced_bce(
            logits,
            mask,
            void if self.use_void else None,
            counts=counts,
            balanced=self.balanced,
            reduction=self.reduction,
        )


def pixel_bce(
    logits: Tensor,
    mask: Tensor,
    void: Tensor | None = None,
    *,
    reduction: Literal["mean", "batch", "sum"] = "batch",
) -> Tensor:
    """Plain cross entropy of every labelled pixel, as IOG trains with: no class weighs more than the other.

    Args:
        logits, mask, void: (B, 1, H, W); the object is mask >= 0.5, void > 0.5 is not labelled. None: no void.
        reduction: sum over pixels divided by all pixels (`mean`), by objects (`batch`) or not at all (`sum`); void
            pixels are not in the sum and do not change what it is divided by.
    """
    logits = logits.float()  # a sum near 1e6 overflows half precision
    pixel_loss = pixel_cross_entropy(logits, (mask >= 0.5).float())
    if void is not None:
        pixel_loss = pixel_loss * (void <= 0.5)
    return pixel_loss.sum() / {"mean": logits.numel(), "batch": len(logits), "sum": 1}[reduction]


class PixelBCE(nn.Module):
    """`pixel_bce` as a recipe names it.

    Args:
        reduction: `batch` is the authors' sum over pixels, for a learning rate of 1e-8; `mean` needs it 512 * 512 times
            as large, 2.62e-3, and the weight decay as much smaller, 1.9e-9, for the same steps.
        use_void: leave pixels without label out; without, they count as background.
    """

    behaviour = 2  # 2: gradients of sure pixels keep their digits

    def __init__(self, reduction: Literal["mean", "batch"] = "batch", use_void: bool = True) -> None:
        super().__init__()
        self.reduction, self.use_void = reduction, use_void

    def forward(self, logits: Tensor, mask: Tensor, void: Tensor, counts: Tensor | None = None) -> Tensor:
        """`counts` of a step are what class-balanced losses need."""
        return pixel_bce(logits, mask, void if self.use_void else None, reduction=self.reduction)


def bootstrapped_cross_entropy(
    logits: Tensor, mask: Tensor, void: Tensor | None = None, fraction: float = 0.25
) -> Tensor:
    """Cross entropy of the worst pixels of each image (ITIS: the worst quarter), averaged over the images.

    As in the authors' code the share is of the pixels with a label: k = max(round(fraction * labelled), 1), rounded
    half to even as in Python, NumPy and TensorFlow. Void pixels cost nothing; an image without any label has loss 0 and
    no gradient.

    Args:
        logits: (B, 2, H, W), background and object; taken to float32.
        mask, void: (B, 1, H, W); the object is mask >= 0.5, void > 0.5 is not labelled. None: no void.
        fraction: in (0, 1]; 1 is plain cross entropy, averaged over each image's labelled pixels.
    """
    if logits.ndim != 4 or logits.shape[1] != 2 or mask.shape != (len(logits), 1, *logits.shape[2:]):
        expected = "bootstrapped cross entropy needs logits (B, 2, H, W) and a mask (B, 1, H, W)"
        raise ValueError(
            f"{expected}, got {tuple(logits.shape)} and {tuple(mask.shape)}; take a network of two classes"
        )
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of worst pixels is in (0, 1], got {fraction}")
    background, object_ = logits.float().unbind(dim=1)
    label = (mask >= 0.5).squeeze(1).float()
    pixel_loss = pixel_cross_entropy(object_ - background, label).flatten(1)
    labelled = [pixel_loss.shape[1]] * len(pixel_loss)
    if void is not None:
        unlabelled = (void > 0.5).flatten(1)
        pixel_loss = pixel_loss.masked_fill(unlabelled, 0)
        labelled = (~unlabelled).sum(dim=1).tolist()
    worst = [losses.topk(max(round(fraction * n), 1), sorted=False)[0] for losses, n in zip(pixel_loss, labelled)]
    return torch.stack([losses.mean() for losses in worst]).mean()


class BootstrappedCrossEntropy(nn.Module):
    """`bootstrapped_cross_entropy` as a recipe names it.

    The loss is a mean over images, so that accumulated passes and processes of equal size average to the joined batch.

    Args:
        fraction: share of labelled pixels of an image that count, its worst ones.
        use_void: leave pixels without label out; without, they count as background.
    """

    behaviour = 2  # 2: gradients of sure pixels keep their digits

    def __init__(self, fraction: float = 0.25, use_void: bool = True) -> None:
        super().__init__()
        self.fraction, self.use_void = fraction, use_void

    def forward(self, logits: Tensor, mask: Tensor, void: Tensor, counts: Tensor | None = None) -> Tensor:
        """`counts` of a step are what class-balanced losses need; here every image has its own."""
        return bootstrapped_cross_entropy(logits, mask, void if self.use_void else None, self.fraction)
