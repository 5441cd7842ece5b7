"""Aligned Xceptions of timm, DeepLabv3+'s backbones, whose stride, dilation and padding are set block by block."""

from itertools import accumulate
from operator import mul
from typing import Any, Literal

import timm
from torch import Tensor, nn

from lightning_modules.networks.first_weights import IMAGENET
from lightning_modules.networks.pretrained import load_pretrained
from lightning_modules.networks.statistics import KeepsStatistics, batch_norms

STEM_STRIDE = 2


class XceptionStages(KeepsStatistics):
    """Stem and blocks of an aligned Xception (DeepLabv3+, Fig. 4), under timm's names.

    The low-level map is the one that the authors' decoder takes: inside the block that goes from stride 4 to 8, after
    its second separable convolution (`entry_flow/block2/.../separable_conv2_pointwise`), with batch norm, but before
    the rectifier. (timm's own features are taken after that rectifier.)

    Shape:
        input: (B, in_channels, H, W).
        output: the low-level map (B, 256, H / 4, W / 4) and the last one (B, 2048, H / s, W / s) at output stride s,
            sizes rounded up.
    """

    def __init__(self, xception: Any, output_stride: int, bn_statistics: Literal["live", "frozen", "loaded"]) -> None:
        super().__init__()
        self.stem, self.blocks = xception.stem, xception.blocks
        strides = [
            *accumulate((block.stack.conv3.conv_dw.stride[0] for block in self.blocks), mul, initial=STEM_STRIDE)
        ]
        self.low_level = strides.index(8) - 1  # the block that ends at stride 8
        # In place, this rectifier would reach the map before the decoder does.
        self.blocks[self.low_level].stack.act3 = nn.ReLU()
        self.channels = (self.blocks[self.low_level].stack.conv2.conv_pw.out_channels, self.blocks[-1].out_channels)
        self.strides = (4, output_stride)
        self.adapted = ""
        self.bn_statistics = bn_statistics

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.blocks[: self.low_level](self.stem(x))
        block = self.blocks[self.low_level]
        low = block.stack[:4](x)  # act1, conv1, act2, conv2
        x = block.stack[4:](low) + block.shortcut(x)
        return [low, self.blocks[self.low_level + 1 :](x)]


def aligned_xception(
    name: str = "xception65.tf_in1k",
    in_channels: int = 3,
    output_stride: Literal[8, 16, 32] = 16,
    bn_affine: Literal["trainable", "frozen"] = "trainable",
    bn_statistics: Literal["live", "frozen", "loaded"] = "live",
    init: Literal["timm", "official"] = "timm",
    pretrained: bool | str | None = None,
    new_channels: Literal["copy_last", "zero", "random"] = "copy_last",
) -> XceptionStages:
    """An aligned Xception of timm, adapted. Arguments are those of `adapted_backbone`.

    As in the authors' code a block that loses its stride keeps the dilation of the block before it, and the blocks
    after it make up for the loss. Xception-65: at output stride 16 only the last block is dilated (2); at 8 the
    middle flow and the first block of the exit flow are dilated by 2, the last one by 4.

    Args:
        name: xception41, xception65 or xception71, its tag included if its weights matter: `tf_in1k` are DeepLab's own.
        init: timm's random start (He), or every convolution from a truncated normal of deviation 0.09, as DeepLab's.
    """
    if not timm.models.is_model_in_modules(name.split(".")[0], ["xception_aligned"]) or name.split(".")[0][-1] == "p":
        raise ValueError(f"Xceptions of DeepLabv3+ are xception41, xception65 and xception71 of timm; got {name}")
    if output_stride not in (8, 16, 32):
        raise ValueError(f"an Xception has an output stride of 8, 16 or 32, got {output_stride}")
    xception: Any = timm.create_model(name, in_chans=in_channels, num_classes=0)
    stride, dilation = STEM_STRIDE, 1
    for block in xception.blocks:
        step = block.stack.conv3.conv_dw.stride[0]
        keeps = stride * step <= output_stride
        set_block(block, step if keeps else 1, dilation)
        stride, dilation = (stride * step, dilation) if keeps else (stride, dilation * step)

    if init == "official":
        for layer in xception.modules():
            if isinstance(layer, nn.Conv2d):
                truncated_normal(layer.weight, 0.09)
    source = load_pretrained(xception, name, pretrained, new_channels)
    backbone = XceptionStages(xception, output_stride, bn_statistics)
    backbone.weights_source, backbone.loaded = source or f"random ({init})", source is not None
    if source and pretrained in IMAGENET and output_stride != 32:
        backbone.adapted = f"stride {output_stride}, later blocks dilated by up to {dilation}"
    if bn_affine == "frozen":
        for norm in batch_norms(backbone):
            norm.requires_grad_(False)
    return backbone.train()


def set_block(block: Any, stride: int, dilation: int) -> None:
    """Stride of a block, which its third separable convolution and its shortcut have, and dilation of all three."""
    for number, separable in enumerate((block.stack.conv1, block.stack.conv2, block.stack.conv3), start=1):
        separable.conv_dw.dilation = separable.conv_dw.padding = (dilation, dilation)
        separable.conv_dw.stride = (stride, stride) if number == 3 else (1, 1)
    if block.shortcut is not None:
        block.shortcut.conv.stride = (stride, stride)


def truncated_normal(weight: Tensor, std: float) -> None:
    """TensorFlow's: a normal of this deviation, drawn again beyond two of them (what is left deviates by 0.88 std)."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
