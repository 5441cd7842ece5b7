"""The one function that makes a backbone of timm fit a method: channels in, strides, dilations, first weights."""

from typing import Literal

import timm
from torch import nn

from lightning_modules.networks.families import family_stages, names_of
from lightning_modules.networks.first_weights import IMAGENET
from lightning_modules.networks.pretrained import initialise, load_pretrained
from lightning_modules.networks.resnets import resnet_stages
from lightning_modules.networks.stages import Stages
from lightning_modules.networks.statistics import batch_norms


def adapted_backbone(
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
) -> Stages:
    """A backbone of timm, adapted. The defaults are DEXTR's layout: its dilations, and its stride on the first 1x1.

    Args:
        name: a ResNet of timm, or another of its networks with features at strides 4, 8, 16 and 32 (EfficientNets,
            MobileNets, ConvNeXts, HRNets), or a ViT with patches of 16. With its tag if its weights matter:
            `resnet101.tv_in1k` are torchvision's first.
        output_stride: input pixels per pixel of the last stage; later stages lose their stride. Networks that timm
            cannot dilate (HRNets) have 32, or are refused.
        dilations: per stage one number for all of its blocks, the first included, or one number per block (IOG's
            multi-grid is [1, 1, 1, [2, 4, 8]]); None makes up for the lost strides (8: [1, 1, 2, 4]). Other networks
            than ResNets take None or [1, 1, 1, 1].
        stride_on: a bottleneck's stride sits on its first 1x1 (Caffe, DEXTR) or on its 3x3 (torchvision, IOG). The
            blocks of ResNet-18 and 34 have no 1x1: their first 3x3 has it. Of ResNets only, as is
        ceil_mode: of the max-pooling; True in DeepLab's Caffe networks, False in DEXTR.
        bn_affine: scale and shift of batch norm; DEXTR's code does not train them.
        bn_statistics: of the batch in training (live), the stored ones for ever, which needs pretrained weights, or
            those where there are any (loaded), see `KeepsStatistics`.
        init: timm's random start (He), or every convolution ~ N(0, 0.01) as in DEXTR's code.
        pretrained: None or False: random; True, "timm" or "imagenet": the first that is there of the sources in
            `first_weights`; else a file of these weights.
        new_channels: what the first convolution does with channels that the pretrained one lacks. Copies of its last
            one (what DEXTR intends), zeros (IOG), or all of its channels stay random (what DEXTR's code does).
        widths: planes of a ResNet's stages in place of 64, 128, 256, 512, for smaller networks.
    """
    of_timm: nn.Module
    if timm.models.is_model_in_modules(name.split(".")[0], ["resnet"]):
        backbone: Stages = resnet_stages(name, in_channels, output_stride, dilations, stride_on, ceil_mode, widths)
        of_timm, whole = backbone, None
    else:
        backbone = family_stages(name, in_channels, output_stride, dilations, widths)
        of_timm, whole = backbone.body, names_of(name) if pretrained else None
    backbone.bn_statistics = bn_statistics
    initialise(backbone, init)
    source = load_pretrained(of_timm, name, pretrained, new_channels, whole)
    backbone.weights_source, backbone.loaded = source or f"random ({init})", source is not None
    if not source or pretrained not in IMAGENET:
        backbone.adapted = ""
    if bn_affine == "frozen":
        for norm in batch_norms(backbone):
            norm.requires_grad_(False)
    return backbone.train()
