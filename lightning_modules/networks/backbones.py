"""ResNets of timm whose stride, dilation and padding are set block by block, as the recipe of a method says."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import timm
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_modules.networks.pretrained import IMAGENET, load_pretrained

STAGES = ("layer1", "layer2", "layer3", "layer4")


class KeepsStatistics(nn.Module):
    """A part of a network that knows which batch statistics its batch norms see in training.

    `bn_statistics`: the batch's (live), the stored ones for ever (frozen), or the stored ones if they were `loaded` and
    the batch's where the part began at random: frozen there, mean 0 and variance 1 would stay for ever.
    """

    bn_statistics: Literal["live", "frozen", "loaded"] = "live"
    loaded: bool = False
    weights_source: str = "random"  # for the record of a run ...
    adapted: str = ""  # ... strides and dilations, if they are others than those that its weights were trained with

    def train(self, mode: bool = True) -> Self:
        """As ever, but frozen batch statistics stay frozen: those layers never leave eval mode."""
        super().train(mode)
        if self.bn_statistics == "frozen" or (self.bn_statistics == "loaded" and self.loaded):
            for norm in batch_norms(self):
                norm.eval()
        return self


def statistics_loaded(module: nn.Module) -> None:
    """Say to every part that its weights came from elsewhere, with their statistics."""
    for part in module.modules():
        if isinstance(part, KeepsStatistics):
            part.loaded = True
            part.train(part.training)


class ResNetStages(KeepsStatistics):
    """Stem and four stages of a ResNet, under the names that timm, torchvision and the official DEXTR share.

    Shape:
        input: (B, in_channels, H, W).
        output: one map per stage, finest first, (B, channels[i], H / strides[i], W / strides[i]), sizes rounded up.
    """

    def __init__(self, resnet: Any, strides: Sequence[int], bn_statistics: Literal["live", "frozen", "loaded"]) -> None:
        super().__init__()
        self.conv1 = resnet.conv1
        self.bn1 = resnet.bn1
        self.act1 = resnet.act1
        self.maxpool = resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(resnet, stage) for stage in STAGES)
        stages: list[dict[str, Any]] = resnet.feature_info[-4:]
        self.channels: tuple[int, ...] = tuple(stage["num_chs"] for stage in stages)
        self.strides = tuple(strides)
        self.bn_statistics = bn_statistics

    def forward(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4)[:stages]:
            x = stage(x)
            features.append(x)
        return features


def dilated_resnet(
    name: str = "resnet101.tv_in1k",
    in_channels: int = 4,
    output_stride: Literal[4, 8, 16, 32] = 8,
    dilations: list[int | list[int]] | None = None,
    stride_on: Literal["conv1", "conv2"] = "conv1",
    ceil_mode: bool = False,
    bn_affine: Literal["trainable", "frozen"] = "trainable",
    bn_statistics: Literal["live", "frozen", "loaded"] = "live",
    init: Literal["timm", "official"] = "timm",
    pretrained: bool | str | None = None,
    new_channels: Literal["copy_last", "zero", "random"] = "copy_last",
    widths: list[int] | None = None,
) -> ResNetStages:
    """A ResNet of timm, adapted. The defaults are DEXTR's layout: its dilations, and its stride on the first 1x1.

    timm's own `output_stride` keeps the stride on the 3x3 and leaves the first block of a stage at the dilation of
    the stage before it; the authors of DEXTR and of IOG do neither, so every block is set here.

    Args:
        name: a ResNet of timm, its tag included if its weights matter (`resnet101.tv_in1k` are torchvision's first).
        output_stride: input pixels per pixel of the last stage; later stages lose their stride.
        dilations: per stage one number for all of its blocks, the first included, or one number per block (IOG's
            multi-grid is [1, 1, 1, [2, 4, 8]]); None makes up for the lost strides (8: [1, 1, 2, 4]).
        stride_on: a bottleneck's stride sits on its first 1x1 (Caffe, DEXTR) or on its 3x3 (torchvision, IOG). The
            blocks of ResNet-18 and 34 have no 1x1: their first 3x3 has it.
        ceil_mode: of the max-pooling; True in DeepLab's Caffe networks, False in DEXTR.
        bn_affine: scale and shift of batch norm; DEXTR's code does not train them.
        bn_statistics: of the batch in training (live), the stored ones for ever, which needs pretrained weights, or
            those where there are any (loaded), see `KeepsStatistics`.
        init: timm's random start (He), or every convolution ~ N(0, 0.01) as in DEXTR's code.
        pretrained: None or False: random; True, "timm" or "imagenet": from timm's hub; else a file of these weights.
        new_channels: what the first convolution does with channels that the pretrained one lacks. Copies of its last
            one (what DEXTR intends), zeros (IOG), or all of its channels stay random (what DEXTR's code does).
        widths: planes of the four stages in place of 64, 128, 256, 512, for smaller networks.
    """
    if not timm.models.is_model_in_modules(name.split(".")[0], ["resnet"]):
        raise ValueError(f"backbones are the ResNets of timm, such as resnet101 or resnet50d; got {name}")
    # A deep stem (resnet10t, resnet50d) ends at twice its width; the plain 7x7 has 64 channels whatever is asked.
    smaller: dict[str, Any] = {"channels": tuple(widths), "stem_width": widths[0] // 2} if widths else {}
    # timm would start the last scale of every residual branch at 0: none of the papers does, a scale that is frozen
    # would stay there, and small networks learn late with it.
    resnet = timm.create_model(name, in_chans=in_channels, num_classes=0, zero_init_last=False, **smaller)

    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    if dilations is None:
        dilations = [full // stride for full, stride in zip((4, 8, 16, 32), strides)]
    if len(dilations) != 4:
        raise ValueError(f"dilations need one entry for each of the four stages, got {dilations}")
    steps = [strides[0] // 4, *(after // before for before, after in pairwise(strides))]
    for stage, step, dilation in zip(STAGES, steps, dilations):
        set_stage(getattr(resnet, stage), step, dilation, stride_on)
    if isinstance(resnet.maxpool, nn.MaxPool2d):
        resnet.maxpool.ceil_mode = ceil_mode

    backbone = ResNetStages(resnet, strides, bn_statistics)
    initialise(backbone, init)
    source = load_pretrained(backbone, name, pretrained, new_channels)
    backbone.weights_source, backbone.loaded = source or f"random ({init})", source is not None
    if source and pretrained in IMAGENET and dilations != [1, 1, 1, 1]:
        backbone.adapted = f"stride {strides[-1]}, stages dilated by {', '.join(map(str, dilations))}"
    if bn_affine == "frozen":
        for norm in batch_norms(backbone):
            norm.requires_grad_(False)
    return backbone.train()


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


def initialise(module: nn.Module, init: str) -> None:
    """`official`: every convolution ~ N(0, 0.01), biases and batch norm as PyTorch has them. `timm`: left as built."""
    if init == "official":
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.01)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All of them, those included that Lightning turned into `SyncBatchNorm`, which is no BatchNorm2d."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
