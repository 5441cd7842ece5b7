"""The network of EXITS and MAL: a ViT, and a decoder in which one query per object asks every pixel."""

import math
from bisect import bisect_right
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.official import MAL_NAMES, NameTable
from lightning_modules.networks.vit import ViT

# Box areas in pixels of the image from which an object is medium, and large (as in COCO's evaluation).
MEDIUM, LARGE = 32**2, 96**2


class AttentionMaskDecoder(nn.Module):
    """Attention-based mask decoder of MAL (Lan et al., CVPR 2023), which EXITS keeps (Sec. 4.1).

    A query is made of the crop's mean token, features of pixels by four 3x3 convolutions; a mask logit is their dot
    product, without scale or bias. Small objects are decoded on half the token grid, medium ones on the grid, large
    ones on twice the grid, and the last convolution works at twice that.

    MAL's code compares strictly and leaves areas of exactly 0, 1024 and 9216 without logits; ranges are half open here.

    Shape:
        input: tokens (B, C, h, w); areas (B,), of the objects' boxes in pixels of the image (not of the crop).
        output: logits (B, 1, side, side).

    Args:
        channels: of the query and of the features.
        side: of the mask grid; 128 for tokens of 32 x 32.
    """

    def __init__(self, in_channels: int, channels: int = 256, side: int = 128) -> None:
        super().__init__()
        if side < 1:
            raise ValueError(f"a mask grid has a side of at least 1, got {side}")
        self.side = side
        self.query = nn.Sequential(nn.Linear(in_channels, channels), nn.ReLU(), nn.Linear(channels, channels))
        widths = [in_channels, channels, channels, channels]
        convs = [nn.Conv2d(width, channels, 3, padding=1) for width in widths]
        self.pixels = nn.ModuleList(convs)
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, tokens: Tensor, areas: Tensor) -> Tensor:
        queries = self.query(tokens.mean(dim=(2, 3)))
        chosen_scales = scales(areas, len(tokens))
        logits: list[Tensor] = [tokens] * len(tokens)  # to be replaced, each by its own
        for scale in set(chosen_scales):  # all objects of one go through the convolutions together
            numbers = [number for number, each in enumerate(chosen_scales) if each == scale]
            for number, each in zip(numbers, self._decode(tokens[numbers], queries[numbers], scale), strict=True):
                logits[number] = each
        return torch.stack(logits)

    def _decode(self, tokens: Tensor, queries: Tensor, scale: int) -> Tensor:
        """(B, 1, side, side) of objects of one scale: 0 small, 1 medium, 2 large."""
        grid = [max(side * 2**scale // 2, 1) for side in tokens.shape[-2:]]
        features = _bilinear(tokens, grid)
        for conv in self.pixels[:-1]:
            features = F.relu(conv(features))
        features = F.relu(self.pixels[-1](_bilinear(features, [2 * side for side in grid])))
        logits = torch.einsum("bc,bchw->bhw", queries, features)
        return _bilinear(logits[:, None], [self.side, self.side])


def scales(areas: Tensor, objects: int) -> list[int]:
    """0, 1 or 2 of each object, by its area in [0, 32^2), [32^2, 96^2) or from there on.

    Raises ValueError unless there is one number of pixels for each.
    """
    if areas.shape != (objects,):
        raise ValueError(f"areas must be ({objects},), one for each object, got {tuple(areas.shape)}")
    values: list[float] = areas.tolist()
    if odd := [value for value in values if not 0 <= value < math.inf]:
        raise ValueError(f"areas are those of boxes in pixels of the image, at least 0, got {odd[0]}")
    return [bisect_right((MEDIUM, LARGE), value) for value in values]


def _bilinear(x: Tensor, size: list[int]) -> Tensor:
    """Resized with the outer edges kept in place, as everywhere in MAL; as it is if it has this size."""
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class MaskGenerator(nn.Module):
    """Crop and box area -> mask: student, teacher and similarity extractor of EXITS are three of this network.

    Shape:
        input: (B, 3, H, W), normalised RGB; areas (B,), of the objects' boxes in pixels of the image.
        output: logits (B, 1, side, side).

    Args:
        model, size, patch_embed, stride: see `ViT`, whose other arguments may follow by their names.
        channels, side: of the decoder, see `AttentionMaskDecoder`.
    """

    official_names: ClassVar[NameTable] = MAL_NAMES

    def __init__(
        self,
        model: str = "vit_base_patch16_224.mae",
        size: int = 512,
        patch_embed: str = "conv_stem",
        channels: int = 256,
        side: int = 128,
        **vit_options: Any,
    ) -> None:
        super().__init__()
        self.backbone = ViT(model, size, patch_embed, **vit_options)
        self.decoder = AttentionMaskDecoder(self.backbone.channels, channels, side)

    @property
    def grid(self) -> int:
        """Tokens along a side of the crop."""
        return self.backbone.grid

    @property
    def depth(self) -> int:
        """Layers of the transformer."""
        return len(self.backbone.blocks)

    @property
    def side(self) -> int:
        """Of the mask grid."""
        return self.decoder.side

    def forward(self, image: Tensor, areas: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.backbone(image), areas)
        return made.to(image.dtype)  # under autocast, too, logits are float32

    def similarity(self, image: Tensor, layer: int) -> Tensor:
        """(B, N, N) float32: attention between the N tokens of the crop, see `ViT.attention`.

        Layer 0 is none of the transformer's: how alike its final tokens are, see `ViT.likeness`.
        """
        return self.backbone.attention(image, layer) if layer else self.backbone.likeness(image)
