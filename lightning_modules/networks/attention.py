"""FAIRS' head (Sec. 3.2): DANet's dual attention, over positions and over channels, with three supervised outputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.deeplab import SkipDecoder, conv_bn_relu, full_precision


class DualAttention(nn.Module):
    """Dual attention head of DANet (Fu et al., CVPR 2019, Fig. 2), which FAIRS puts in the place of DEXTR's PSP.

    Two branches over the deepest features, each convolution, attention, convolution; the sum of both is the prediction,
    and each branch decides alone, too, so that its loss supervises it.

    Shape:
        input: maps of the four stages, finest first; the last (B, C, h, w) is used, with `skip` also the first.
        output: a list of logits, the prediction first: of both branches' sum, of the positions, of the channels, each
            (B, 1, h, w); with `skip` the first has the resolution of the first stage. With one branch the list has one
            entry, as the sum is that branch.

    Args:
        in_channels: of the four stages.
        channels: of each branch, a multiple of 8; None for a quarter of the deepest stage's (2048 -> 512).
        position, channel: which branches there are.
        dropout: of whole channels before each output, drawn for each of them.
        skip: the prediction is decided at the resolution of the first stage, with its features; the branches' own
            outputs stay coarse, as they only supervise (not in FAIRS: for small networks of a large stride).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int | None = None,
        position: bool = True,
        channel: bool = True,
        dropout: float = 0.1,
        skip: bool = False,
    ) -> None:
        super().__init__()
        if not (position or channel):
            raise ValueError("dual attention needs position, channel or both, got neither; without attention take PSP")
        deep = in_channels[-1]
        width = deep // 4 if channels is None else channels
        branches: dict[str, nn.Module] = {}
        if position:
            branches["position"] = PositionAttention(width)
        if channel:
            branches["channel"] = ChannelAttention()
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(conv_bn_relu(deep, width, 3), attention, conv_bn_relu(width, width, 3))
                for name, attention in branches.items()
            }
        )
        self.decoder = SkipDecoder(in_channels[0], width) if skip else None
        self.final = decision(width, dropout)
        self.sides = nn.ModuleDict({name: decision(width, dropout) for name in branches if len(branches) > 1})

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        attended = {name: branch(features[-1]) for name, branch in self.branches.items()}
        fused = torch.stack(list(attended.values())).sum(dim=0)
        if self.decoder is not None:
            fused = self.decoder(fused, features[0])
        return [self.final(fused), *(side(attended[name]) for name, side in self.sides.items())]


class PositionAttention(nn.Module):
    """Position attention (PAM): every cell adds a mean over all cells, weighted by how well their keys fit its query.

    y_i = x_i + gamma * sum_j softmax_j(q_i . k_j) v_j, without the 1 / sqrt(d) of transformers. gamma starts at 0: the
    module is an identity at first, and query, key and value learn nothing in the first step.

    The N x N weights of the N = h * w cells are never stored where PyTorch has a fused kernel. Not all of these take a
    value that is wider than the query, so the value, 8 times as wide, is cut into 8 heads that share query and key.
    At 512 px (N = 4096, 512 channels) the module then keeps 35 MiB of one image for the backward pass, where all
    weights at once keep 91, and raises the memory's peak by 98 instead of 320 MiB; it takes 1.6 times as long (one CPU
    core, float32: `make bench`). A kernel that does not take the width of a head costs this memory, nothing else:
    PyTorch falls back to the plain form, on CPUs at 8 channels, on CUDA at what is no multiple of 32.

    Shape: (B, channels, h, w), channels a multiple of 8 -> the same. Attention is float32 under autocast, too.
    """

    heads = 8  # query and key have C / 8 channels

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % self.heads or channels < 1:
            raise ValueError(f"position attention needs a multiple of {self.heads} channels, got {channels}")
        self.query = nn.Conv2d(channels, channels // self.heads, 1)
        self.key = nn.Conv2d(channels, channels // self.heads, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self.cells(layer(x)) for layer in (self.query, self.key, self.value))
        with full_precision(x):
            query, key = query.expand_as(value), key.expand_as(value)  # (B, 8, N, C / 8)
            mean = F.scaled_dot_product_attention(query, key, value, scale=1.0)
            return x + (self.gamma * mean.mT.reshape(x.shape)).to(x.dtype)

    def cells(self, x: Tensor) -> Tensor:
        """(B, n * C / 8, h, w) -> (B, n, N, C / 8), float32 or finer, as the fused kernels want it laid out."""
        parts = x.flatten(2).unflatten(1, (-1, self.query.out_channels))
        return parts.mT.contiguous().to(torch.promote_types(x.dtype, torch.float32))


class ChannelAttention(nn.Module):
    """Channel attention (CAM): every channel adds a mean over all channels, in which the unlike weigh most.

    y_a = x_a + gamma * sum_b softmax_b(max_c E_ac - E_ab) x_b with E = x x^T over the cells. A softmax ignores what is
    added to a whole row, so the row's maximum, which DANet's code subtracts from, is left out here. There is nothing to
    learn but gamma, which starts at 0: an identity.

    Shape: (B, C, h, w) -> the same. E sums over all cells, beyond float16's range: it is float32 under autocast, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            channels = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))
            mean = torch.softmax(-(channels @ channels.mT), dim=-1) @ channels
            return x + (self.gamma * mean.reshape(x.shape)).to(x.dtype)


def decision(channels: int, dropout: float) -> nn.Sequential:
    """One logit per cell, whole channels dropped before it."""
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, 1, 1))
