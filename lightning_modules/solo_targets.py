"""What SOLOv2 learns from the objects of an image: which cell of which grid answers for which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class SoloTargets(NamedTuple):
    """Targets of one image, the cells of all grids in one row: finest grid first, each row by row.

    Args:
        classes: (T,) int64, of each cell; `num_classes` is background.
        cells: (P,) int64 in [0, T), of each positive: a pair of an object and a cell that answers for it. Ordered by
            grid, object and cell; two objects that share a cell are two positives there.
        objects: (P,) int64 in [0, N), of each positive.
        masks: (N, H / 4, W / 4) bool, of each object.
    """

    classes: Tensor
    cells: Tensor
    objects: Tensor
    masks: Tensor


def solo_targets(
    masks: Tensor,
    boxes: Tensor,
    labels: Tensor,
    num_classes: int,
    grids: Sequence[int],
    scale_ranges: Sequence[Sequence[float]],
    region: float = 0.2,
) -> SoloTargets:
    """Targets of one image (SOLOv2, Wang et al., NeurIPS 2020; SOLO, Sec. 3.3).

    An object is a target of every grid in whose range its scale lies, the square root of its box' area, both ends
    included. There it belongs to the cell of its mask's centre of mass and to those of the eight around that a box of
    `region` times its own size around that centre touches. Later objects take cells from earlier ones. An object
    without mask is none.

    Places are divided by the size of the padded image. A cell is floor(centre * S / size), exact where an object's
    centre lies between two cells; authors divide by 1 / S, which may round to either side there.

    Args:
        masks: (N, H, W) uint8 or bool, on the padded grid; H and W divisible by 4.
        boxes: (N, 4) as annotated, xyxy in pixels.
        labels: (N,) int64 in [0, num_classes).
        grids: cells along a side of each grid, finest first.
        scale_ranges: (least, most) pixels of each.
    """
    height, width = masks.shape[-2:]
    device = masks.device
    centre, area = centres_of_mass(masks)
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    scale = sides.prod(1).sqrt()
    bounds = torch.tensor(scale_ranges, dtype=torch.float64, device=device)
    in_range = (scale >= bounds[:, :1]) & (scale <= bounds[:, 1:]) & (area > 0)  # (L, N)

    grid, size = torch.tensor(grids, device=device), torch.tensor([width, height], dtype=torch.float64, device=device)

    def cell_of(place: Tensor) -> Tensor:  # (N, 2) as (x, y) -> (L, N, 2)
        return (place * grid.view(-1, 1, 1) / size).floor().long()

    middle = cell_of(centre)
    first, last = (cell_of(centre + sign * region / 2 * sides) for sign in (-1, 1))
    around = middle[:, :, None] + torch.arange(-1, 2, device=device).view(1, 1, 3, 1)  # (L, N, 3, 2)
    touched = (around >= first[:, :, None]) & (around <= last[:, :, None])
    touched &= (around >= 0) & (around < grid.view(-1, 1, 1, 1))
    columns, rows = touched.unbind(3)
    level, object_, y, x = (in_range[:, :, None, None] & rows[:, :, :, None] & columns[:, :, None, :]).nonzero().T
    begins = (grid.square().cumsum(0) - grid.square())[level]
    cells = begins + around[level, object_, y, 1] * grid[level] + around[level, object_, x, 0]

    total = sum(side**2 for side in grids)
    owner = torch.full((total,), -1, device=device).scatter_reduce(0, cells, object_, "amax")
    classes = torch.cat([labels, labels.new_tensor([num_classes])])[owner]  # the last one where nobody is
    return SoloTargets(classes, cells, object_, quarter_masks(masks))


def centres_of_mass(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (x, y) of the pixels of each mask (N, H, W), whole numbers at their centres, and how many there are.

    Returns: (N, 2) and (N,), float64; an empty mask has its centre at 0.
    """
    height, width = masks.shape[-2:]
    by_row, by_column = (masks.sum(side, dtype=torch.int32).double() for side in (2, 1))
    area = by_row.sum(1)
    x = by_column @ torch.arange(width, dtype=torch.float64, device=masks.device)
    y = by_row @ torch.arange(height, dtype=torch.float64, device=masks.device)
    return torch.stack([x, y], 1) / area.clamp_min(1)[:, None], area


def quarter_masks(masks: Tensor) -> Tensor:
    """Masks (N, H, W) of 0 and 1 at a quarter of their size, bool: bilinear samples of at least one half.

    The sample of a square of 4 x 4 pixels lies between its four inner ones.
    """
    above, below = masks.byte()[:, 1::4], masks.byte()[:, 2::4]
    return above[:, :, 1::4] + above[:, :, 2::4] + below[:, :, 1::4] + below[:, :, 2::4] >= 2
