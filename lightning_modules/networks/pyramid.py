"""Backbones as detectors train them, and the feature pyramid on top (FPN, Lin et al., CVPR 2017)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.deformable import deform_stages
from lightning_modules.networks.families import PROBED
from lightning_modules.networks.stages import Stages


def detection_backbone(
    name: str = "resnet50.tv_in1k",
    pretrained: bool | str | None = None,
    frozen_stages: int = 1,
    bn_statistics: Literal["live", "frozen", "loaded"] = "loaded",
    deformable: bool = False,
    widths: list[int] | None = None,
) -> Stages:
    """A backbone with strides 4, 8, 16 and 32, on the 3x3 of a bottleneck as torchvision has it.

    Args:
        frozen_stages: stem and so many stages never learn; 0 for a random start.
        bn_statistics: batch norms see the stored statistics for ever (frozen), the batch's (live), or the stored ones
            where there are any (loaded), see `KeepsStatistics`. Their scale and shift learn outside the frozen part.
        deformable: see `deform_stages`.
        name, pretrained, widths: see `adapted_backbone`.
    """
    backbone = adapted_backbone(
        name,
        3,
        output_stride=32,
        stride_on="conv2",
        bn_statistics=bn_statistics,
        pretrained=pretrained,
        widths=widths,
    )
    freeze_stages(backbone, frozen_stages, name)
    if deformable:
        deform_stages(backbone)
    return backbone


def freeze_stages(backbone: Stages, stages: int, name: str = "this backbone") -> None:
    """Freeze every weight that the maps of the first so many stages are made of, the stem's included; none for 0.

    Raises ValueError for a number of stages that there is not, and where nothing would be left to learn: the first map
    of a plain transformer is made of its last.
    """
    if not 0 <= stages <= 4:
        raise ValueError(f"a backbone has four stages, frozen_stages is 0 to 4, got {stages}")
    if not stages:
        return
    weights, training = list(backbone.parameters()), backbone.training
    backbone.eval()
    with torch.enable_grad():
        maps = backbone(torch.zeros(1, 3, PROBED, PROBED, device=weights[0].device), stages)
        reached = torch.autograd.grad(sum(each.sum() for each in maps), weights, allow_unused=True)
    backbone.train(training)
    if stages < 4 and all(gradient is not None for gradient in reached):
        raise ValueError(f"the first map of {name} is made of all its weights; set frozen_stages to 0")
    for weight, gradient in zip(weights, reached):
        if gradient is not None:
            weight.requires_grad_(False)


class FeaturePyramid(nn.Module):
    """Five maps of one width, each told of what the coarser ones see: P2 to P6 at strides 4, 8, 16, 32 and 64.

    Coarser maps are added to finer ones by their nearest pixel; convolutions are plain, with bias. P6 is every second
    pixel of P5.

    Shape:
        input: maps of the four stages, finest first, (B, in_channels[i], H / 4 / 2^i, W / 4 / 2^i).
        output: five maps (B, channels, H / 4 / 2^i, W / 4 / 2^i), finest first.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.channels = channels
        self.fpn = FeaturePyramidNetwork(list(in_channels), channels, extra_blocks=LastLevelMaxPool())

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        named = OrderedDict((f"C{2 + stage}", each) for stage, each in enumerate(maps))
        return list(self.fpn(named).values())
