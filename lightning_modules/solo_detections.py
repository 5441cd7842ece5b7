"""From SOLOv2's maps of one image to its objects: scores, their decay, and masks at the size of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.matrix_nms import point_nms
from lightning_modules.networks.detections import Detections
from lightning_modules.solo_losses import dynamic_logits

CHUNK = 1 << 24  # values of masks that are held in float32 at a time, 64 MiB


def solo_detections(
    logits: Sequence[Tensor],
    kernels: Sequence[Tensor],
    features: Tensor,
    size: tuple[int, int],
    original_size: tuple[int, int],
    nms: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    strides: Sequence[float],
    score_threshold: float = 0.1,
    kept_threshold: float = 0.05,
    mask_threshold: float = 0.5,
    candidates: int = 500,
    most: int = 100,
) -> Detections:
    """Objects of one image, in the order of SOLOv2's steps (Sec. 3.3).

    Scores of cells after point NMS; masks at stride 4; away with those of no more pixels than their grid's stride;
    scores times the mean probability within the mask; the best `candidates`; matrix NMS; the best `most`, at the size
    of the file. Masks are made some at a time, and again for those that are left: what is held does not grow with the
    number of cells that pass.

    Args:
        logits, kernels: of each grid, (C, S, S) and (K, S, S).
        features: (K, h, w), at a quarter of the padded image.
        size, original_size: (H, W) of the image before it was padded, and of its file.
        nms: masks (N, h, w) bool, labels and scores -> decayed scores, `matrix_nms` with its settings.
        strides: of each grid.
        score_threshold: scores of cells are above it.
        kept_threshold: final scores are at least that.
        mask_threshold: pixels above it are the object's, both at stride 4 and at the size of the file.
    """
    scores = [point_nms(each[None].float().sigmoid())[0].flatten(1).T for each in logits]  # (S * S, C)
    stride = torch.cat([each.new_full((len(each),), least) for each, least in zip(scores, strides, strict=True)])
    kernel, score = torch.cat([each.flatten(1).T for each in kernels]), torch.cat(scores)
    cells, labels = (score > score_threshold).nonzero().T

    own, which = cells.unique(return_inverse=True)  # a cell of several classes has one mask
    area, certainty = mask_statistics(kernel[own], features, mask_threshold)
    found = score[cells, labels] * certainty[which]
    large = (area > stride[own])[which].nonzero()[:, 0]
    best = large[found[large].argsort(descending=True, stable=True)[:candidates]]
    cells, labels, found = cells[best], labels[best], found[best]

    binary = torch.cat([part > mask_threshold for part in soft_masks(kernel[cells], features)])
    found = nms(binary, labels, found)
    order = found.argsort(descending=True, stable=True)
    order = order[found[order] >= kept_threshold][:most]
    pixels = max(16 * features[0].numel(), original_size[0] * original_size[1])
    masks = [
        full_size(part, size, original_size) > mask_threshold
        for part in soft_masks(kernel[cells[order]], features, pixels)
    ]
    return Detections(found[order], labels[order], torch.cat(masks))


def soft_masks(kernels: Tensor, features: Tensor, pixels: int | None = None) -> Iterator[Tensor]:
    """Probabilities (n, h, w) of some cells at a time, so few that as many `pixels` of each fit into CHUNK."""
    pixels = pixels or features[0].numel()
    for part in kernels.split(max(CHUNK // pixels, 1)):
        yield dynamic_logits(part, features).sigmoid()


def mask_statistics(kernels: Tensor, features: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Of each cell's mask the pixels above the threshold and their mean probability, (n,) and (n,)."""
    areas, sums = [], []
    for part in soft_masks(kernels, features):
        inside = part > threshold
        areas.append(inside.sum((1, 2)))
        sums.append((part * inside).sum((1, 2)))
    area = torch.cat(areas)
    return area, torch.cat(sums) / area.clamp_min(1)


def full_size(masks: Tensor, size: tuple[int, int], original_size: tuple[int, int]) -> Tensor:
    """Probabilities (n, h, w) at stride 4 of a padded image -> (n, H, W) of the file, bilinear both times."""
    if not len(masks):
        return masks.new_zeros(0, *original_size)
    height, width = masks.shape[1:]
    padded = F.interpolate(masks[None], (4 * height, 4 * width), mode="bilinear", align_corners=False)
    own = padded[..., : size[0], : size[1]]
    return F.interpolate(own, original_size, mode="bilinear", align_corners=False)[0]
