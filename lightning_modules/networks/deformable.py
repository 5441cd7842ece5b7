"""Modulated deformable convolutions (DCNv2, Zhu et al., CVPR 2019): every tap looks where the features tell it to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.resnet import Bottleneck
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from lightning_modules.networks.deeplab import full_precision
from lightning_modules.networks.stages import Stages

DEFORMED = ("layer2", "layer3", "layer4")  # C3 to C5


class DeformableConv(nn.Conv2d):
    """A convolution whose taps are shifted and weighed at each place, both predicted by a convolution like itself.

    `offsets` predicts 3 k^2 channels: 2 k^2 shifts in pixels, (y, x) of each tap, and k^2 weights before their sigmoid.
    It begins at zero, so that this begins as half of a plain convolution. One group of offsets serves all channels.
    Computed in float32 whatever the precision of the rest: on processors torchvision has no other than that and double.

    Args:
        in_channels, channels, size, stride, padding, dilation, groups, bias: as of `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, channels, size, stride, padding, dilation, groups, bias)
        self.offsets = nn.Conv2d(in_channels, 3 * size**2, size, stride, padding, dilation)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.get_parameter("bias"))

    @classmethod
    def of(cls, conv: nn.Conv2d) -> DeformableConv:
        """One that has the very weights of this convolution. Raises ValueError if that is not square."""
        sizes = {conv.kernel_size, conv.stride, conv.padding, conv.dilation}
        if conv.padding_mode != "zeros" or any(isinstance(each, str) or each[0] != each[1] for each in sizes):
            raise ValueError(f"a deformable convolution is square and padded with zeros in pixels, got {conv}")
        size, stride, dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
        with torch.device(conv.weight.device):
            made = cls(
                in_channels=conv.in_channels,
                channels=conv.out_channels,
                size=size,
                stride=stride,
                padding=int(conv.padding[0]),
                dilation=dilation,
                groups=conv.groups,
                bias=conv.bias is not None,
            )
        made.weight, made.bias = conv.weight, conv.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        with full_precision(input):
            x, how = input.float(), self.offsets
            layout = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
            predicted = F.conv2d(x, how.weight, how.bias, how.stride, how.padding, how.dilation)
            shifts, weights = predicted.tensor_split([2 * predicted.shape[1] // 3], dim=1)
            made: Tensor = deform_conv2d(x, shifts, self.weight, self.bias, mask=weights.sigmoid(), **layout)
        return made.to(input.dtype)


def deform_stages(backbone: Stages) -> None:
    """Give every bottleneck of C3 to C5 a deformable 3x3 in place of its own, with the weights that it has.

    Raises ValueError for a backbone without bottlenecks: only ResNets and ResNeXts from 26 layers on have them.
    """
    for name in DEFORMED:
        blocks = list(getattr(backbone, name, ()))
        if not blocks or not all(isinstance(block, Bottleneck) for block in blocks):
            raise ValueError(
                "deformable convolutions replace the 3x3 of a ResNet's bottlenecks, which this backbone lacks; take a "
                "ResNet or ResNeXt of 26 layers or more, or deformable: false"
            )
        for block in blocks:
            block.conv2 = DeformableConv.of(block.conv2)
