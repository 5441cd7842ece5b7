"""The region-based variant of DEXTR's ablation: the network sees the whole image, features are cropped, not pixels."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.pretrained import initialise


class RegionNet(nn.Module):
    """ResNet-C4 with a mask branch (DEXTR Table 3, "region-based"; Mask R-CNN, He et al. 2017, Fig. 4 left).

    The whole image, clicks beside it, is seen by three stages, up to stride 16 (C4); RoI-Align takes 14 x 14 features
    of the region, the last stage (C5) runs on these at stride 1, a deconvolution doubles them, and a 1x1 convolution
    decides 28 x 28 mask logits, which are resampled into the region.

    Shape:
        input: (B, 3 + G, H, W), RGB and then G guidance channels; regions (B, 4).
        output: logits (B, 1, H, W); `outside` wherever the region is not, without gradient.

    Args:
        backbone: a network of timm; every other argument of `adapted_backbone` may follow by its name.
        channels: of the deconvolution.
        size: of the features of a region; the mask has twice this size.
        sampling_ratio: bilinear samples per output cell and direction in RoI-Align. Two, as Mask R-CNN's own four per
            cell; 0 would adapt it to the region, at a cost that depends on the data.
        outside: logit outside of the region; -20 is a probability of 2e-9.
        init: random start of all convolutions, see `adapted_backbone`.
    """

    behaviour = 2  # 2: the loss weighs its classes by the pixels of the regions, where there is a gradient

    def __init__(
        self,
        backbone: str = "resnet101.tv_in1k",
        in_channels: int = 4,
        channels: int = 256,
        size: int = 14,
        sampling_ratio: int = 2,
        outside: float = -20.0,
        init: Literal["timm", "official"] = "timm",
        **backbone_options: Any,
    ) -> None:
        super().__init__()
        self.backbone = adapted_backbone(
            backbone, in_channels, output_stride=16, dilations=[1, 1, 1, 1], init=init, **backbone_options
        )
        self.head = nn.Sequential(
            nn.ConvTranspose2d(self.backbone.channels[-1], channels, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 1),
        )
        initialise(self.head, init)
        self.size, self.sampling_ratio, self.outside = size, sampling_ratio, outside

    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor:
        """Regions are (B, 4) xyxy in pixels of the input, both ends inclusive; None is the whole input.

        Pixel 3 covers [3, 4), so that region (0, 0, 31, 31) is [0, 32) and holds whole cells of stride 16. A region may
        leave the input: RoI-Align reads zeros there.
        """
        height, width = x.shape[-2:]
        if regions is None:
            regions = x.new_tensor([[0, 0, width - 1, height - 1]]).expand(len(x), 4)
        edges = region_edges(regions)
        c4 = self.backbone(x, stages=3)[-1]
        numbered = torch.cat([torch.arange(len(x), device=x.device)[:, None], edges], dim=1)
        scale = 1 / self.backbone.strides[2]
        cells = roi_align(c4.float(), numbered, self.size, scale, self.sampling_ratio, aligned=True)
        masks = self.head(self.backbone.last_stage(cells.to(c4.dtype)))
        return paste_regions(masks, edges, (height, width), self.outside)


def region_edges(regions: Tensor) -> Tensor:
    """Edges [x_min, x_max + 1) of inclusive boxes, at least one pixel apart, in float32."""
    low, high = regions.float().split(2, dim=1)
    return torch.cat([low, torch.maximum(high, low) + 1], dim=1)


def paste_regions(masks: Tensor, edges: Tensor, size: tuple[int, int], outside: float) -> Tensor:
    """Stretch each mask over its region of a grid of pixels, bilinearly between cell centres; `outside` elsewhere.

    Args:
        masks: (B, 1, h, w). edges: (B, 4) as (left, top, right, bottom) in pixels; a pixel's centre is at + 0.5.
    Returns: (B, 1, H, W).
    """
    grid = _grid(edges, size)
    pasted = F.grid_sample(masks.float(), 2 * grid - 1, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(_inside(grid), pasted, outside)


def inside_regions(edges: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) bool: the pixels whose centre lies in a region, of the edges (B, 4) that `paste_regions` takes."""
    return _inside(_grid(edges, size))


def _grid(edges: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 2): where each pixel's centre lies in its region, 0..1 inside along x and y."""
    height, width = size
    left, top, right, bottom = edges[:, :, None].unbind(dim=1)  # (B, 1) each
    u = (torch.arange(width, device=edges.device) + 0.5 - left) / (right - left)
    v = (torch.arange(height, device=edges.device) + 0.5 - top) / (bottom - top)
    return torch.stack([u[:, None, :].expand(-1, height, -1), v[:, :, None].expand(-1, -1, width)], dim=-1)


def _inside(grid: Tensor) -> Tensor:
    return ((grid > 0) & (grid < 1)).all(dim=-1)[:, None]
