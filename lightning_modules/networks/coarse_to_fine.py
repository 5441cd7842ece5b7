"""IOG's network (Zhang et al., CVPR 2020): semantics first, boundaries second; also with clicks that enter late."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.deeplab import PSP, conv_bn_relu, upsample
from lightning_modules.networks.official import IOG_NAMES, NameTable
from lightning_modules.networks.resnets import ResNetStages, set_stage


class CoarseToFine(nn.Module):
    """Backbone, CoarseNet and FineNet of IOG (Fig. 4); with `click_channels` the refinement network (c), Sec. 3.3.

        stage 4 (+ click branch) -> context -> m_0 -> side 0      level 0, coarsest; 3 blocks -+
        stage 3 -----------------------------> m_1 -> side 1      level 1;           2 blocks -+-> fine
        stage 2 -----------------------------> m_2 -> side 2      level 2;           1 block  -+
        stage 1 -----------------------------> m_3 -> side 3      level 3, finest; as it is   -+

    Every logit is decided at the resolution of stage 1, a quarter of the input's, and stretched from there. The
    authors fix both sizes, 128 and 512; here they follow the input, which gives the same numbers for an input of 512.
    Their third module between two levels is never called (66,048 parameters without gradient): it is left out.

    Shape:
        input: (B, 3 + G, H, W), RGB and then G guidance channels on the same scale; `maps` (B, click_channels, H, W)
            of 0..255 for the click branch, which is shown the first clicks as well as all further ones.
        output: logits (B, 1, H, W) each: the prediction, then those of the side losses, coarsest first.

    Args:
        backbone: a network of timm; every other argument of `adapted_backbone` may follow by its name.
        context: pyramid pooling on the last features ("Context" in Table 3). Off, one 1x1 convolution brings them to
            `context_channels`: the paper does not say what stands in for it, and the code has no such switch.
        fine: FineNet. Off, the finest side output is the prediction, and is not returned a second time: again our
            choice, neither paper nor code say.
        click_channels: of the click branch before the context (the code has 2); 0 for the network without.
        channels: of the levels; FineNet's bottlenecks have half of them, the click branch a quarter to all.
        context_channels: of the map that the context hands to the first level.
        init: `official` draws CoarseNet's convolutions from He's normal distribution over outputs, and leaves the rest
            as PyTorch has it; `timm` leaves CoarseNet so, too. A backbone without weights starts as timm's, which is
            also how the authors' does.
        output_stride: 16 in the code; 32 costs half on small machines.
        dilations: None is the code's multi-grid: 2, 4, 8 in the blocks of the last stage, as many as there are (twice
            that, and 2 in the stage before, at output stride 8). Other networks than ResNets are dilated as timm does.
        stride_on: of bottlenecks, see `adapted_backbone`.
        new_channels: filters for guidance beside the pretrained ones for RGB start at zero in the code.
    """

    official_names: ClassVar[NameTable] = IOG_NAMES

    def __init__(
        self,
        backbone: str = "resnet101.tv_in1k",
        in_channels: int = 5,
        context: bool = True,
        fine: bool = True,
        click_channels: int = 0,
        channels: int = 256,
        context_channels: int = 512,
        init: Literal["timm", "official"] = "official",
        output_stride: Literal[8, 16, 32] = 16,
        dilations: list[int | list[int]] | None = None,
        stride_on: Literal["conv1", "conv2"] = "conv2",
        new_channels: Literal["copy_last", "zero", "random"] = "zero",
        **backbone_options: Any,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"IOG's network has an output stride of 8, 16 or 32, got {output_stride}")
        self.backbone = adapted_backbone(
            backbone,
            in_channels,
            output_stride=output_stride,
            dilations=dilations,
            stride_on=stride_on,
            init="timm",
            new_channels=new_channels,
            **backbone_options,
        )
        if dilations is None and isinstance(self.backbone, ResNetStages):
            multi_grid = [32 // output_stride * 2**block for block in range(len(self.backbone.layer4))]
            set_stage(self.backbone.layer4, 1, multi_grid, stride_on)

        *early, deep = self.backbone.channels
        self.click_channels = click_channels
        self.clicks = ClickBranch(click_channels, channels, output_stride) if click_channels else None
        deep += 0 if self.clicks is None else self.clicks.channels
        self.context = Context(deep, context_channels) if context else conv_bn_relu(deep, context_channels, 1)
        self.coarse = CoarseNet([context_channels, *reversed(early)], channels, init)
        self.fine = FineNet(channels, levels=len(early) + 1) if fine else None

    def forward(self, x: Tensor, maps: Tensor | None = None, sides: bool = True) -> list[Tensor]:
        """Without `sides` only the prediction, alone in its list: nobody looks at the others outside of training."""
        return self.decode(self.encode(x), x.shape[-2:], maps, sides)

    def encode(self, x: Tensor) -> list[Tensor]:
        """What can be computed once per object: the backbone's features, finest first."""
        return self.backbone(x)

    def decode(
        self, features: Sequence[Tensor], size: Sequence[int], maps: Tensor | None = None, sides: bool = True
    ) -> list[Tensor]:
        """Logits of this size (H, W), as `forward` returns them; after a further click, from the same features.

        Raises ValueError for maps of another shape than the network takes.
        """
        *early, deep = features
        self.check(maps, deep.shape[0], size)
        if self.clicks is not None:
            deep = torch.cat([deep, upsample(self.clicks(maps), deep)], dim=1)  # sizes differ with ceil_mode only
        levels = self.coarse([self.context(deep), *reversed(early)])
        logits = [self.coarse.decide(levels, -1) if self.fine is None else self.fine(levels)]
        if sides:
            others = len(levels) - (self.fine is None)
            logits += [self.coarse.decide(levels, number) for number in range(others)]
        return [F.interpolate(logit, tuple(size), mode="bilinear", align_corners=True) for logit in logits]

    def check(self, maps: Tensor | None, objects: int, size: Sequence[int]) -> None:
        """Click maps come to networks with a click branch, and only to these."""
        if not self.click_channels and maps is not None:
            raise ValueError(
                f"this network has no click branch, got click maps {tuple(maps.shape)}; build it with click_channels, "
                "or append the maps to its input"
            )
        expected = (objects, self.click_channels, *size)
        if self.click_channels and (maps is None or tuple(maps.shape) != expected):
            got = "none" if maps is None else str(tuple(maps.shape))
            raise ValueError(f"the click branch needs maps {expected} of 0..255 from the first clicks on, got {got}")


class ClickBranch(nn.Sequential):
    """Clicks as features of the last stage's resolution, to be computed anew for each click ("lightweight", Sec. 3.3).

    Shape: (B, click_channels, H, W) -> (B, channels / 4, H / s, W / s) at output stride s, sizes rounded up.
    """

    def __init__(self, click_channels: int, channels: int, output_stride: int) -> None:
        widths = [click_channels, channels // 4, channels // 2, channels, channels, channels // 4]
        layers: list[Any] = []
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            layers += conv_bn_relu(before, after, 3 if number < 5 else 1)
            if 2**number <= output_stride:
                layers[-3].stride = (2, 2)
        super().__init__(*layers)
        self.channels = widths[-1]


class Context(PSP):
    """DEXTR's pyramid without its decision: each pooled branch has a quarter of the channels of the features.

    Shape: (B, in_channels, h, w) -> (B, channels, h, w); trains on two objects or more at a time.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__([in_channels], in_channels // 4)
        self.bottleneck = conv_bn_relu(in_channels + len(self.stages) * (in_channels // 4), channels, 1)
        self.final = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward([x])


class CoarseNet(nn.Module):
    """From deep to early features, each level adds its own to what came from above, and is trained to decide.

    Shape:
        input: features of each level, coarsest first, of `in_channels` each; the first two of the same resolution, but
            at output stride 32.
        output: levels, coarsest first, (B, channels, h, w) each.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, init: Literal["timm", "official"]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn_relu(depth, channels, 1) for depth in in_channels)
        # The second level takes the first as it is. What comes from above stays signed: no rectifier, nor after the sum
        self.from_above = nn.ModuleList(
            [nn.Identity(), *(conv_bn_relu(channels, channels, 1)[:2] for _ in in_channels[2:])]
        )
        self.decisions = nn.ModuleList(Decision(conv_bn_relu(channels, channels, 1), channels) for _ in in_channels)
        if init == "official":
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        own = [lateral(x) for lateral, x in zip(self.laterals, features)]
        levels = own[:1]
        for project, x in zip(self.from_above, own[1:]):
            levels.append(x + project(upsample(levels[-1], x)))
        return levels

    def decide(self, levels: Sequence[Tensor], number: int) -> Tensor:
        """Logits (B, 1, H, W) of one level, at the resolution of the last one."""
        return self.decisions[number](levels[number], levels[-1])


class FineNet(nn.Module):
    """All levels at once, the coarser the more refined: what the boundary looks like.

    Shape: levels of CoarseNet -> logits (B, 1, H, W) at the resolution of the last level.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.cascade = nn.ModuleList(
            nn.Sequential(*(ProjectedBottleneck(channels, channels) for _ in range(levels - 1 - level)))
            for level in range(levels)
        )
        self.decision = Decision(ProjectedBottleneck(levels * channels, channels), channels)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        finest = levels[-1]
        refined = [upsample(refine(level), finest) for refine, level in zip(self.cascade, levels)]
        return self.decision(torch.cat(refined, dim=1), finest)


class ProjectedBottleneck(Bottleneck):
    """A residual bottleneck of half the channels whose shortcut is always a convolution, also where sizes agree."""

    expansion = 2

    def __init__(self, in_channels: int, channels: int) -> None:
        projection = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        super().__init__(in_channels, channels // self.expansion, downsample=projection)


class Decision(nn.Module):
    """One logit per pixel, stretched to the resolution of `like` and then normalised: batch norm sets its scale.

    Shape: (B, C, h, w) -> (B, 1, H, W), float32 under autocast, too.
    """

    def __init__(self, before: nn.Module, channels: int) -> None:
        super().__init__()
        self.before = before
        self.logit = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.norm(upsample(self.logit(self.before(x)).to(self.norm.weight.dtype), like))
