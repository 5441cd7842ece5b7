"""ResNets of timm whose stride, dilation and padding are set block by block, as the recipe of a method says."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import timm
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from lightning_modules.networks.stages import STRIDES, Stages

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNetStages(Stages):
    """Stem and four stages of a ResNet, under the names that timm, torchvision and the official DEXTR share."""

    def __init__(self, resnet: Any, strides: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = resnet.conv1
        self.bn1 = resnet.bn1
        self.act1 = resnet.act1
        self.maxpool = resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(resnet, stage) for stage in STAGES)
        stages: list[dict[str, Any]] = resnet.feature_info[-4:]
        self.channels = tuple(stage["num_chs"] for stage in stages)
        self.strides = tuple(strides)

    def forward(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4)[:stages]:
            x = stage(x)
            features.append(x)
        return features

    def last_stage(self, x: Tensor) -> Tensor:
        made: Tensor = self.layer4(x)
        return made


def resnet_stages(
    name: str,
    in_channels: int,
    output_stride: int,
    dilations: Sequence[int | list[int]] | None,
    stride_on: str,
    ceil_mode: bool,
    widths: Sequence[int] | None,
) -> ResNetStages:
    """A ResNet of timm with its strides and dilations set; arguments are those of `adapted_backbone`.

    timm's own `output_stride` keeps the stride on the 3x3 and leaves the first block of a stage at the dilation of
    the stage before it; the authors of DEXTR and of IOG do neither, so every block is set here.
    """
    # A deep stem (resnet10t, resnet50d) ends at twice its width; the plain 7x7 has 64 channels whatever is asked.
    smaller: dict[str, Any] = {"channels": tuple(widths), "stem_width": widths[0] // 2} if widths else {}
    # timm would start the last scale of every residual branch at 0: none of the papers does, a scale that is frozen
    # would stay there, and small networks learn late with it.
    resnet = timm.create_model(name, in_chans=in_channels, num_classes=0, zero_init_last=False, **smaller)

    strides = [min(stride, output_stride) for stride in STRIDES]
    if dilations is None:
        dilations = [full // stride for full, stride in zip(STRIDES, strides)]
    if len(dilations) != 4:
        raise ValueError(f"dilations need one entry for each of the four stages, got {dilations}")
    steps = [strides[0] // 4, *(after // before for before, after in pairwise(strides))]
    for stage, step, dilation in zip(STAGES, steps, dilations):
        set_stage(getattr(resnet, stage), step, dilation, stride_on)
    if isinstance(resnet.maxpool, nn.MaxPool2d):
        resnet.maxpool.ceil_mode = ceil_mode
    backbone = ResNetStages(resnet, strides)
    if list(dilations) != [1, 1, 1, 1]:
        backbone.adapted = f"stride {strides[-1]}, stages dilated by {', '.join(map(str, dilations))}"
    return backbone


def set_stage(stage: nn.Sequential, stride: int, dilation: int | list[int], stride_on: str) -> None:
    """Stride of the first block of a stage, and dilation with equal padding of all its 3x3 convolutions."""
    rates = [dilation] * len(stage) if isinstance(dilation, int) else dilation
    if len(rates) != len(stage):
        raise ValueError(f"dilations need one number for each of the {len(stage)} blocks of a stage, got {rates}")
    for block, rate, step in zip(stage, rates, [stride] + [1] * (len(stage) - 1)):
        if not isinstance(block, BasicBlock | Bottleneck) or not isinstance(block.aa, nn.Identity):
            raise ValueError(f"blocks of {type(block).__name__} with anti-aliasing are not known; take a plain ResNet")
        for conv in (block.conv1, block.conv2):
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (rate, rate)
        on_first = stride_on == "conv1" or isinstance(block, BasicBlock)
        (block.conv1 if on_first else block.conv2).stride = (step, step)
        shortcut: Any = block.downsample
        if shortcut is not None and isinstance(shortcut[0], nn.AvgPool2d):  # ResNet-D averages, then projects
            shortcut[0] = nn.AvgPool2d(step, step, ceil_mode=True) if step > 1 else nn.Identity()
        elif shortcut is not None and isinstance(shortcut[0], nn.Conv2d):
            shortcut[0].stride = (step, step)
