"""DeepLab as DEXTR uses it: a dilated ResNet, a head that sees context, one logit per pixel."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.official import DEXTR_NAMES, NameTable
from lightning_modules.networks.pretrained import initialise


class DeepLab(nn.Module):
    """Backbone and head of DEXTR (Sec. 3.2); logits are brought to the size of the input with aligned corners.

    Shape:
        input: (B, 3 + G, H, W), RGB and then G guidance channels on the same scale.
        output: logits (B, 1, H, W), or a list of such, the prediction first, if the head makes several: see `outputs`.

    Args:
        backbone: a network of timm; every other argument of `adapted_backbone` may follow by its name.
        head: makes the head from the channels of the four stages (`PSP`, `ASPP`, `DualAttention`, with their arguments
            bound); it returns one map of logits or a list of them.
        init: random start of all convolutions, see `adapted_backbone`.
    """

    official_names: ClassVar[NameTable] = DEXTR_NAMES

    def __init__(
        self,
        backbone: str = "resnet101.tv_in1k",
        in_channels: int = 4,
        head: Callable[[Sequence[int]], nn.Module] | None = None,
        init: Literal["timm", "official"] = "timm",
        **backbone_options: Any,
    ) -> None:
        super().__init__()
        self.backbone = adapted_backbone(backbone, in_channels, init=init, **backbone_options)
        self.head = (head or PSP)(self.backbone.channels)
        initialise(self.head, init)

    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor | list[Tensor]:
        """`regions` are for networks that are shown the whole image; here the crop is the region."""
        made = self.head(self.backbone(x))
        logits = [upsample(each.to(x.dtype), x) for each in outputs(made)]  # under autocast, too, logits are float32
        return logits[0] if isinstance(made, Tensor) else logits


def outputs(made: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """All logits of a network's result, be it one map or several; the first is the prediction, the rest supervise."""
    return [made] if isinstance(made, Tensor) else list(made)


class PSP(nn.Module):
    """Pyramid scene parsing of DEXTR's code: what a region holds on average, beside each pixel's own features.

    Against PSPNet: the bottleneck is 1x1 instead of 3x3, and there is no dropout and no auxiliary loss.

    Shape:
        input: maps of the four stages, finest first; the last (B, C, h, w) is used, with `skip` also the first.
        output: logits (B, 1, h, w), at the resolution of the first stage with `skip`.

    Args:
        in_channels: of the four stages.
        channels: of each pooled branch and of the bottleneck.
        bins: pooled sizes, in the order of concatenation; the features themselves come last.
        skip: decide at the resolution of the first stage, with its features (not in DEXTR).
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 512, bins: Sequence[int] = (1, 2, 3, 6), skip: bool = False
    ) -> None:
        super().__init__()
        deep = in_channels[-1]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), *conv_bn_relu(deep, channels, 1)) for size in bins
        )
        self.bottleneck = conv_bn_relu(deep + len(bins) * channels, channels, 1)
        self.decoder = SkipDecoder(in_channels[0], channels) if skip else None
        self.final: nn.Module = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        alone = not isinstance(self.bottleneck[1], nn.SyncBatchNorm) and x.shape[0] < 2
        if self.training and alone:
            raise ValueError("PSP trains on two objects or more at a time, got one: batch norm sees its 1x1 bin alone")
        x = self.bottleneck(torch.cat([*(upsample(stage(x), x) for stage in self.stages), x], dim=1))
        if self.decoder is not None:
            x = self.decoder(x, features[0])
        return self.final(x)


class ASPP(nn.Module):
    """Atrous pyramid of DeepLab-v2: four 3x3 classifiers of different reach, summed. Shapes as in `PSP`."""

    def __init__(self, in_channels: Sequence[int], rates: Sequence[int] = (6, 12, 18, 24)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(in_channels[-1], 1, 3, padding=rate, dilation=rate) for rate in rates)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return torch.stack([stage(features[-1]) for stage in self.stages]).sum(dim=0)


class SkipDecoder(nn.Module):
    """Decoder of DeepLabv3+: context, brought to the resolution of early features and refined beside them.

    Shape:
        context (B, channels, h, w) and early (B, early_channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, early_channels: int, channels: int, skip_channels: int = 48) -> None:
        super().__init__()
        self.skip = conv_bn_relu(early_channels, skip_channels, 1)
        self.refine = nn.Sequential(
            conv_bn_relu(channels + skip_channels, channels, 3), conv_bn_relu(channels, channels, 3)
        )

    def forward(self, context: Tensor, early: Tensor) -> Tensor:
        return self.refine(torch.cat([upsample(context, early), self.skip(early)], dim=1))


def conv_bn_relu(in_channels: int, channels: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, size, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear with aligned corners, as everywhere in DEXTR and IOG: first and last pixels stay where they are."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


def full_precision(x: Tensor) -> AbstractContextManager:
    """Autocast, if any, does not reach what is computed from `x` within."""
    return torch.autocast(x.device.type, enabled=False) if x.device.type != "meta" else nullcontext()
