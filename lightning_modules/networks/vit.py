"""The transformer of EXITS and MAL: a ViT of timm on three kinds of tokens, and the attention of one of its blocks."""

import warnings
from collections import OrderedDict
from itertools import pairwise
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.deeplab import full_precision
from lightning_modules.networks.families import FamilyStages
from lightning_modules.networks.first_weights import IMAGENET, find_start
from lightning_modules.networks.official import NameTable, load_exactly, read_weights, rename
from lightning_modules.networks.pretrained import absent
from lightning_modules.networks.resnets import STAGES, ResNetStages
from lightning_modules.networks.stages import STRIDES, Stages

PUBLISHED = "vit_base_patch16_224.mae"
OF_TIMM = ("vision_transformer", "deit")  # where timm keeps plain ViTs
PATCH = 16  # pixels of a ViT's own patches, and of the stem that MAL puts in their place
TOKEN_STRIDES = (8, 16)
LIKE = 0.1  # a cosine less by this much is e times as unlike
# What a file of a ViT holds beside it: classifiers, and the decoder of a masked autoencoder.
VIT_NAMES: NameTable = {r"^(head|mask_token|decoder_\w+)(\.|$)": None}
LEFT_OUT = "without its patch projection"


class ViT(nn.Module):
    """Encoder of EXITS (Sec. 4.1) and MAL (Lan et al., CVPR 2023): a standard ViT, started as a masked autoencoder.

    Class token, position embedding, blocks and final norm keep timm's names; what makes tokens of pixels is a value.

    Shape:
        input: (B, 3, H, W), normalised RGB; H and W divisible by `stride`.
        output: tokens (B, C, H / stride, W / stride) after the final norm, without the class token.

    Args:
        model: a ViT of timm with a class token and patches of 16; with its tag if its weights matter.
        size: side of the crops in pixels, a multiple of the stride; `grid` follows from it.
        patch_embed: `conv_stem` is MAL's, which the paper's "standard ViT-Base" does not mention and which starts at
            random; `patch16` is the ViT's own projection; else a CNN of timm whose features become tokens.
        stride: pixels per token along a side: 16, for a CNN also 8.
        pretrained: weights of the ViT. None or False: random; True, "timm" or "imagenet": those of its tag from the
            first of the sources in `first_weights` that has them; else a file. The patch projection is taken with
            `patch16` alone.
        embed_pretrained: the same for a CNN as `patch_embed`.
        embed_dim, depth, num_heads: other sizes than timm's, for small machines; no weights of ImageNet fit them.
    """

    def __init__(
        self,
        model: str = PUBLISHED,
        size: int = 512,
        patch_embed: str = "conv_stem",
        stride: Literal[8, 16] = 16,
        pretrained: bool | str | None = "imagenet",
        embed_pretrained: bool | str | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
    ) -> None:
        super().__init__()
        if size <= 0 or size % stride:
            raise ValueError(f"the crop's side must be a multiple of the stride of {stride} pixels, got {size}")
        asked = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        sizes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if sizes and pretrained in IMAGENET:
            raise ValueError(
                f"no weights of {model} fit a ViT of other sizes ({', '.join(sizes)}); set pretrained: false, or name "
                "a file of such a ViT"
            )
        body = standard_vit(model, sizes)
        self.size, self.stride = size, stride
        self.channels: int = body.embed_dim
        self.patch_embed = token_maker(patch_embed, body, stride, embed_pretrained)
        self.cls_token, self.pos_embed = body.cls_token, body.pos_embed
        self.blocks: nn.Sequential = body.blocks
        self.norm: nn.Module = body.norm
        self.weights_source = load_vit(self, model, pretrained) or "random (timm)"

    @property
    def grid(self) -> int:
        """Tokens along a side of the crop."""
        return self.size // self.stride

    def forward(self, image: Tensor) -> Tensor:
        height, width = self._grid_of(image)
        tokens = self.norm(self.blocks(self._embed(image)))[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def attention(self, image: Tensor, layer: int) -> Tensor:
        """How much each token attends to each other one, the mean over the heads (EXITS Sec. 3.2.1).

        Blocks before this one run as ever; of this one, its first norm, queries and keys alone: fused attention has no
        weights to show. The softmax is in float32 whatever autocast says, one head at a time.

        Args:
            layer: counted from one, as the paper counts its tenth.
        Returns: (B, N, N) float32 with N tokens in row-major order. Rows sum to slightly less than 1: what went to the
            class token is missing.
        """
        if not 1 <= layer <= len(self.blocks):
            raise ValueError(f"this ViT has layers 1 to {len(self.blocks)}, got layer {layer}")
        block: Any = self.blocks[layer - 1]
        x = block.norm1(self.blocks[: layer - 1](self._embed(image)))
        attn = block.attn
        wide = 2 * self.channels  # queries and keys come first in timm's joint projection
        bias = None if attn.qkv.bias is None else attn.qkv.bias[:wide]
        both = F.linear(x, attn.qkv.weight[:wide], bias).unflatten(2, (2, attn.num_heads, attn.head_dim))
        with full_precision(x):
            mean = torch.zeros((), device=x.device)
            for queries, keys in zip(*(each.unbind(2) for each in both.unbind(2)), strict=True):
                q, k = attn.q_norm(queries[:, 1:].float()), attn.k_norm(keys.float())
                weights = (q * attn.scale @ k.transpose(1, 2)).softmax(dim=-1)
                mean = mean + weights[..., 1:] / attn.num_heads
        return mean

    def likeness(self, image: Tensor) -> Tensor:
        """How much each token's features are like each other one's: cosines after the final norm, through a softmax.

        Not in the paper. A transformer that begins at random attends evenly for long, while its final tokens soon tell
        object and background apart: the mask is read off them.

        Returns: (B, N, N) float32; rows sum to 1.
        """
        tokens = F.normalize(self(image).float().flatten(2), dim=1)
        with full_precision(image):
            return (tokens.mT @ tokens / LIKE).softmax(dim=-1)

    def _grid_of(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens. Raises ValueError for an image that they do not fill."""
        height, width = image.shape[-2:]
        if image.ndim != 4 or height % self.stride or width % self.stride:
            raise ValueError(
                f"the ViT takes images (B, 3, H, W) with sides that are multiples of {self.stride}, "
                f"got {tuple(image.shape)}"
            )
        return height // self.stride, width // self.stride

    def _embed(self, image: Tensor) -> Tensor:
        """(B, 1 + N, C): the class token and then the image's, with their positions."""
        grid = self._grid_of(image)
        tokens = self.patch_embed(image).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(image), -1, -1), tokens], dim=1) + resized(self.pos_embed, grid)


def resized(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embedding for another grid (rows, columns); the class token's, which is first, stays as it is.

    MAL asks for the scale (n + 0.1) / 14 instead of a size, so as to be sure of n after rounding down, and samples by
    that scale: slightly other places than a resize to n. Published weights have learnt with these.

    Args:
        positions: (1, 1 + own * own, C), for a square grid.
    Returns: (1, 1 + rows * columns, C).
    """
    own = round((positions.shape[1] - 1) ** 0.5)
    if grid == (own, own):
        return positions
    square = positions[:, 1:].transpose(1, 2).unflatten(2, (own, own))
    scale = [(side + 0.1) / own for side in grid]
    other = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], other.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def standard_vit(name: str, sizes: dict[str, Any]) -> Any:
    """timm's ViT without a classifier. Raises ValueError for other transformers than the paper's."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise ValueError(f"no ViT {name} in timm; the published one is {PUBLISHED}")
    if not timm.models.is_model_in_modules(architecture, OF_TIMM):
        raise ValueError(f"{name} is no plain ViT; take one as {PUBLISHED} is")
    body: Any = timm.create_model(architecture, num_classes=0, **sizes)
    own = body.patch_embed.grid_size
    lacking = {
        "without class token": not body.has_class_token,
        "with registers": bool(body.num_reg_tokens),
        f"with patches of {body.patch_embed.patch_size[0]}": body.patch_embed.patch_size != (PATCH, PATCH),
        "with other positions than one per patch of a square and one for the class": body.pos_embed is None
        or body.pos_embed.shape[1] != 1 + own[0] ** 2,
        "with a norm before its blocks": not isinstance(body.norm_pre, nn.Identity),
        "without a final norm of tokens": isinstance(body.norm, nn.Identity),
        "with other blocks": any(type(each) is not Block or type(each.attn) is not Attention for each in body.blocks),
    }
    if found := [what for what, holds in lacking.items() if holds]:
        raise ValueError(f"{name} is a ViT {', '.join(found)}; take one as {PUBLISHED} is")
    return body


def load_vit(vit: ViT, name: str, pretrained: bool | str | None) -> str | None:
    """Fill all but the tokens' maker, and that too if it is the ViT's own. Returns where the weights came from."""
    if not pretrained or vit.cls_token.is_meta:
        return None
    start = find_start(name, pretrained)
    if start is None:
        warnings.warn(absent(name), stacklevel=3)
        return None
    weights = {
        ours: weight
        for theirs, weight in read_weights(start.path).items()
        if (ours := rename(theirs, VIT_NAMES)) is not None
    }
    source = start.known_as
    if not isinstance(vit.patch_embed, Patches):
        weights = {name: weight for name, weight in weights.items() if not name.startswith("patch_embed.")}
        weights |= {f"patch_embed.{name}": own for name, own in vit.patch_embed.state_dict().items()}
        source = f"{source} {LEFT_OUT}"
    load_exactly(vit, weights, start.known_as)
    return source


def token_maker(name: str, body: Any, stride: int, pretrained: bool | str | None) -> nn.Module:
    """What makes (B, C, H / stride, W / stride) of an image. Raises ValueError for an unknown name or stride."""
    if stride not in TOKEN_STRIDES or (name in ("conv_stem", "patch16") and stride != PATCH):
        raise ValueError(f"tokens of {name} have stride {PATCH}, those of a CNN 8 or 16, got {stride}")
    if name == "conv_stem":
        return ConvStem(body.embed_dim)
    if name == "patch16":
        return Patches(OrderedDict(proj=body.patch_embed.proj))
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"patch_embed is conv_stem, patch16 or the name of a CNN of timm, got {name!r}")
    return FeatureTokens(name, body.embed_dim, stride, pretrained)


class Patches(nn.Sequential):
    """The ViT's own tokens, one linear map of 16 x 16 pixels each; timm's name of it is `proj`."""


class ConvStem(nn.Module):
    """Tokens of MAL's code: four 3x3 convolutions of stride 2, each normalised over all channels, and a 1x1.

    Shape:
        (B, 3, H, W) -> (B, channels, H / 16, W / 16); widths channels / 8, / 4, / 2 and channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"the convolutional stem halves its width three times; embed_dim is {channels}")
        widths = [3, channels // 8, channels // 4, channels // 2, channels]
        self.stages = nn.Sequential(*(_halved(narrow, wide) for narrow, wide in pairwise(widths)))
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.project(self.stages(image))
        return made


def _halved(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(1, channels, eps=1e-6), nn.GELU())


class FeatureTokens(nn.Module):
    """Features of a CNN as tokens (not in the papers): a pretrained start for machines that cannot train a stem.

    The layers after the features of this stride are left out: they would get no gradient.

    Shape:
        (B, 3, H, W) -> (B, channels, H / stride, W / stride).
    """

    def __init__(self, name: str, channels: int, stride: int, pretrained: bool | str | None) -> None:
        super().__init__()
        # Stored batch statistics where there are any: crops come few at a time, and a teacher averages weights alone.
        stages = adapted_backbone(name, 3, output_stride=32, bn_statistics="loaded", pretrained=pretrained)
        self.count = STRIDES.index(stride) + 1
        cut_after(stages, self.count, name)
        self.stages, self.project = stages, nn.Conv2d(stages.channels[self.count - 1], channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.project(self.stages(image, self.count)[-1])
        return made


def cut_after(stages: Stages, count: int, name: str) -> None:
    """Leave out the layers after so many maps. Raises ValueError for a transformer."""
    if isinstance(stages, FamilyStages):
        body: Any = stages.body
        stages.indices = stages.indices[:count]
        body.prune_intermediate_layers(stages.indices, prune_norm=True)
    elif isinstance(stages, ResNetStages):
        for stage in STAGES[count:]:
            setattr(stages, stage, nn.Identity())
    else:
        raise ValueError(f"{name} is a transformer itself; patch_embed is conv_stem, patch16 or a CNN of timm")
