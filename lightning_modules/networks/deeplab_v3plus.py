"""DeepLabv3+ (Chen et al., ECCV 2018) of ITIS and of IOG's Figure 6: atrous pyramid, light decoder, logits in full."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.deeplab import full_precision, upsample
from lightning_modules.networks.pretrained import load_head
from lightning_modules.networks.stages import Stages
from lightning_modules.networks.statistics import KeepsStatistics, batch_norms
from lightning_modules.networks.xception import XceptionStages, aligned_xception, truncated_normal


class DeepLabV3Plus(nn.Module):
    """Encoder and decoder of DeepLabv3+ (Fig. 2); ITIS shows it RGB and click maps, and reads two classes.

    The plain network of IOG's Figure 6 right, for extreme as for inside and outside points, is the common PyTorch port:
    a ResNet with `stride_on: conv2` and `dilations: [1, 1, 1, [2, 4, 8]]`, `classes: 1`, `separable: false`,
    `dropout: 0.5`, `decoder_dropout: [0.5, 0.1]`, `bn_statistics: live` and `final_grid: aligned`, all else as here.

    Shape:
        input: (B, 3 + G, H, W), RGB and then G guidance channels, in the range the recipe gives both (ITIS: [-1, 1]);
            H, W >= 32, odd ones included.
        output: logits (B, classes, H, W).

    Args:
        backbone: `xception41`, `xception65`, `xception71` or another network of timm, see `adapted_backbone`, its tag
            included if its weights matter (`xception65.tf_in1k` are the authors'); options of that, such as `widths`,
            may follow by name.
        output_stride: input pixels per pixel of the last features.
        aspp_channels: of each branch of the pyramid and of their projection.
        rates: dilations of the pyramid's 3x3 convolutions at output stride 16; doubled at 8, where a cell is half, and
            halved at 32.
        low_level_channels: of the projection of the stride-4 features.
        dropout: after the projection of the pyramid.
        separable: 3x3 convolutions of the head are depthwise and then pointwise, each with batch norm and rectifier.
        backbone_eps: of its batch norms; None: what its weights were trained with, 1e-3 in Xceptions, 1e-5 in ResNets.
        head_eps: of the batch norms of pyramid and decoder.
        init: random start of what is not loaded: He, or the deviations of the authors' code (the head of both kinds of
            backbone, and Xceptions). The output layer has deviation 0.01 in both.
        pretrained: weights of the backbone, see `adapted_backbone`; of pyramid and decoder, too, if a file has them.
        new_channels: what the first convolution does with channels that the pretrained one lacks: a truncated
            normal of deviation 0.09 beside the kept RGB (`random`, as ITIS' code; DEXTR's loses RGB, too), zeros, or
            copies of its last one.
        bn_affine: scale and shift of batch norm; ITIS trains them.
        bn_statistics: the stored ones for ever (frozen), the batch's (live), or the stored ones of parts that were
            loaded, live in others (loaded): with the authors' start all are frozen.
        final_grid: of the last resize. `legacy` is TensorFlow 1's, see `legacy_upsample`; `aligned` has aligned
            corners, as every resize inside has.
        decoder_dropout: after each of the decoder's two 3x3 convolutions.
    """

    behaviour: ClassVar[int] = 2  # parts that begin at random have live statistics

    def __init__(
        self,
        backbone: str = "xception65.tf_in1k",
        in_channels: int = 5,
        classes: int = 2,
        output_stride: Literal[8, 16, 32] = 16,
        aspp_channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        low_level_channels: int = 48,
        decoder_channels: int = 256,
        dropout: float = 0.1,
        separable: bool = True,
        backbone_eps: float | None = None,
        head_eps: float = 1e-5,
        init: Literal["timm", "official"] = "timm",
        pretrained: bool | str | None = None,
        new_channels: Literal["random", "zero", "copy_last"] = "random",
        bn_affine: Literal["trainable", "frozen"] = "trainable",
        bn_statistics: Literal["frozen", "live", "loaded"] = "loaded",
        final_grid: Literal["legacy", "aligned"] = "legacy",
        decoder_dropout: tuple[float, float] = (0.0, 0.0),
        **backbone_options: Any,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"DeepLabv3+ has an output stride of 8, 16 or 32, got {output_stride}")
        self.backbone: XceptionStages | Stages
        known: dict[str, Any] = {
            "output_stride": output_stride,
            "pretrained": pretrained,
            "new_channels": "zero" if new_channels == "random" else new_channels,
            "bn_affine": bn_affine,
            "bn_statistics": bn_statistics,
        }
        if backbone.startswith("xception"):
            refuse_resnet_options(backbone_options)
            self.backbone = aligned_xception(backbone, in_channels, init=init, **known)
        else:
            self.backbone = adapted_backbone(backbone, in_channels, **known, **backbone_options)
        if new_channels == "random":
            fill_new_channels(self.backbone)
        if backbone_eps is not None:
            for norm in batch_norms(self.backbone):
                norm.eps = backbone_eps

        self.head = DeepLabV3PlusHead(
            low_level=self.backbone.channels[0],
            deep=self.backbone.channels[-1],
            classes=classes,
            aspp_channels=aspp_channels,
            rates=[rate * 16 // output_stride for rate in rates],
            low_level_channels=low_level_channels,
            decoder_channels=decoder_channels,
            dropout=dropout,
            separable=separable,
            decoder_dropout=decoder_dropout,
        )
        initialise_head(self.head, init)
        for norm in batch_norms(self.head):
            norm.eps = head_eps
            norm.requires_grad_(bn_affine == "trainable")
        source = load_head(self.head, pretrained)
        self.head.loaded, self.head.weights_source = source is not None, source or "random pyramid and decoder"
        self.head.bn_statistics, self.final_grid = bn_statistics, final_grid
        self.train()

    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor:
        """`regions` are for networks that are shown the whole image; here the input is the region."""
        logits = self.head(self.backbone(x)).to(x.dtype)  # under autocast, too, logits are float32
        return legacy_upsample(logits, x.shape[-2:]) if self.final_grid == "legacy" else upsample(logits, x)


class DeepLabV3PlusHead(KeepsStatistics):
    """All of DeepLabv3+ that is not the backbone: pyramid, decoder and the 1x1 convolution that decides.

    Shape:
        input: maps of the backbone, finest first; the first (B, C, h, w) and the last are used.
        output: logits (B, classes, h, w).
    """

    def __init__(
        self,
        low_level: int,
        deep: int,
        classes: int,
        aspp_channels: int,
        rates: Sequence[int],
        low_level_channels: int,
        decoder_channels: int,
        dropout: float,
        separable: bool,
        decoder_dropout: Sequence[float] = (0.0, 0.0),
    ) -> None:
        super().__init__()
        self.aspp = ASPPWithImagePooling(deep, aspp_channels, rates=rates, dropout=dropout, separable=separable)
        self.decoder = Decoder(
            low_level=low_level,
            context_channels=aspp_channels,
            low_level_channels=low_level_channels,
            channels=decoder_channels,
            separable=separable,
            dropout=decoder_dropout,
        )
        self.logits = nn.Conv2d(decoder_channels, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.logits(self.decoder(self.aspp(features[-1]), features[0]))


class ASPPWithImagePooling(nn.Module):
    """Atrous spatial pyramid pooling with the image's average (DeepLabv3, Fig. 5); its separable form is v3+'s.

    Shape: (B, in_channels, h, w) -> (B, channels, h, w). The average is over the whole map, whatever its size.
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int], dropout: float, separable: bool) -> None:
        super().__init__()
        conv3x3: Callable[..., nn.Module] = SeparableConv if separable else conv
        self.image_pooling = conv(in_channels, channels, 1)
        self.branches = nn.ModuleList(
            [conv(in_channels, channels, 1), *(conv3x3(in_channels, channels, 3, rate) for rate in rates)]
        )
        self.projection = conv((2 + len(rates)) * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        live = isinstance(self.image_pooling[1], nn.BatchNorm2d) and self.image_pooling[1].training
        if live and x.shape[0] < 2:
            raise ValueError(
                "DeepLabv3+ with live batch statistics trains on two objects or more at a time, got one: batch norm "
                "sees the image's average alone; take a larger batch, or bn_statistics: frozen (needs pretrained ones)"
            )
        average = upsample(self.image_pooling(x.mean(dim=(2, 3), keepdim=True)), x)
        return self.dropout(self.projection(torch.cat([average, *(branch(x) for branch in self.branches)], dim=1)))


class Decoder(nn.Module):
    """Decoder of DeepLabv3+ (Fig. 2): the pyramid's context is refined beside a thin copy of low-level features.

    Shape:
        context (B, context_channels, h, w) and low_level (B, low_level, H, W) -> (B, channels, H, W).
    """

    def __init__(
        self,
        low_level: int,
        context_channels: int,
        low_level_channels: int,
        channels: int,
        separable: bool,
        dropout: Sequence[float] = (0.0, 0.0),
    ) -> None:
        super().__init__()
        conv3x3: Callable[..., nn.Module] = SeparableConv if separable else conv
        self.projection = conv(low_level, low_level_channels, 1)
        self.refine = nn.Sequential(
            conv3x3(context_channels + low_level_channels, channels, 3), conv3x3(channels, channels, 3)
        )
        if len(dropout) != 2:
            raise ValueError(f"the decoder has two convolutions, each with its dropout; got {list(dropout)}")
        self.dropouts = nn.ModuleList(nn.Dropout(share) for share in dropout)

    def forward(self, context: Tensor, low_level: Tensor) -> Tensor:
        x = torch.cat([upsample(context, low_level), self.projection(low_level)], dim=1)
        for refine, dropout in zip(self.refine, self.dropouts):
            x = dropout(refine(x))
        return x


def conv(in_channels: int, channels: int, size: int, rate: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the size of the map, batch norm and rectifier."""
    layer = nn.Conv2d(in_channels, channels, size, padding=rate * (size // 2), dilation=rate, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class SeparableConv(nn.Module):
    """Depthwise at this dilation, then pointwise; both with batch norm and rectifier, as in the authors' head."""

    def __init__(self, in_channels: int, channels: int, size: int, rate: int = 1) -> None:
        super().__init__()
        self.depthwise = conv(in_channels, in_channels, size, rate, groups=in_channels)
        self.pointwise = conv(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def legacy_upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of TensorFlow 1 without aligned corners: output pixel i reads input position i * in / out.

    It is not the grid of today's align_corners=False, which has pixel centres at + 0.5. Here the first pixels coincide,
    and behind the last input pixel its value is repeated.

    Shape: (B, C, h, w) -> (B, C, *size), differentiable; autocast does not reach it.
    """
    rows, columns = (legacy_matrix(n_in, n_out, x) for n_in, n_out in zip(x.shape[-2:], size))
    with full_precision(x):
        return rows @ (x @ columns.T)


def legacy_matrix(n_in: int, n_out: int, like: Tensor) -> Tensor:
    """Weights (n_out, n_in) of input pixels in output pixels, in the type and on the device of `like`."""
    # Distances in whole n_out-ths of an input pixel, so that a position that falls on a pixel does so exactly.
    position = (torch.arange(n_out, device=like.device) * n_in).clamp(max=(n_in - 1) * n_out)
    distance = (position[:, None] - torch.arange(n_in, device=like.device) * n_out).abs()
    return ((n_out - distance).clamp(min=0) / n_out).to(like.dtype)


def refuse_resnet_options(options: dict[str, Any]) -> None:
    """Options of `adapted_backbone` other than its defaults, which a command line hands over unasked."""
    defaults = {name: parameter.default for name, parameter in signature(adapted_backbone).parameters.items()}
    asked = sorted(name for name, value in options.items() if name not in defaults or value != defaults[name])
    if asked:
        raise ValueError(f"an Xception has none of these options of ResNets: {', '.join(asked)}")


def fill_new_channels(backbone: nn.Module, std: float = 0.09) -> None:
    """Give input channels of the first convolution that are all zero, hence new to its weights, a random start."""
    weight = next(layer.weight for layer in backbone.modules() if isinstance(layer, nn.Conv2d))
    if weight.is_meta:
        return
    with torch.no_grad():
        for channel in (~weight.any(dim=3).any(dim=2).any(dim=0)).nonzero().flatten():
            filters = torch.empty_like(weight[:, channel])
            truncated_normal(filters, std)
            weight[:, channel] = filters


def initialise_head(head: DeepLabV3PlusHead, init: Literal["timm", "official"]) -> None:
    """He's start, or the authors' deviations: 0.33 depthwise, 0.06 pointwise after it, Xavier's elsewhere.

    The output layer has 0.01 in both: the first predictions are undecided.
    """
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d) and init == "official":
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    for pair in head.modules():
        if isinstance(pair, SeparableConv) and init == "official":
            truncated_normal(pair.depthwise.get_parameter("0.weight"), 0.33)
            truncated_normal(pair.pointwise.get_parameter("0.weight"), 0.06)
    truncated_normal(head.logits.weight, 0.01)
    nn.init.zeros_(head.logits.get_parameter("bias"))
