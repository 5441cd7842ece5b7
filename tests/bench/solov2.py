"""SOLOv2's own parts beside what they cannot do without: matrix NMS and its product, targets and their step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from datamodules.instances import ImageBatch
from lightning_modules.matrix_nms import matrix_nms
from lightning_modules.networks.solov2 import SOLOv2
from lightning_modules.solo_targets import solo_targets
from tests.bench.measure import Figure, best_of

CANDIDATES, OBJECTS = 500, 8
QUARTER = (200, 336)  # mask features of an image of 800 x 1344
# A step of the smallest network that trains on two cores: targets weigh the most beside it.
MINIATURE = {
    "backbone": "resnet10t",
    "frozen_stages": 0,
    "channels": 64,
    "tower": 64,
    "blocks": 2,
    "kernels": 64,
    "mask_channels": 32,
    "grids": (20, 16, 12, 8, 6),
    "scale_ranges": ((1, 32), (16, 64), (32, 96), (64, 160), (96, 512)),
}


def drawn_instances(height: int, width: int, objects: int = OBJECTS) -> ImageBatch:
    """One image and boxes for objects, from a fortieth of its height to more than half."""
    draw = torch.Generator().manual_seed(0)
    sides = (height * (0.025 + 0.55 * torch.rand(objects, 2, generator=draw) ** 2)).long().clamp_min(1)
    corner = (torch.rand(objects, 2, generator=draw) * (torch.tensor([width, height]) - sides)).long()
    masks = torch.zeros(objects, height, width, dtype=torch.uint8)
    for mask, (x, y), (right, below) in zip(masks, corner.tolist(), (corner + sides).tolist()):
        mask[y:below, x:right] = 1
    size = torch.tensor([[height, width]])
    return ImageBatch(
        image=torch.zeros(1, 3, height, width, dtype=torch.uint8),
        size=size,
        original_size=size,
        position=torch.tensor([0]),
        masks=[masks],
        boxes=[torch.cat([corner, corner + sides], 1).float()],
        labels=[torch.zeros(objects, dtype=torch.int64)],
    )


def nms_figure(passes: int, shrunk: int) -> Figure:
    """Matrix NMS of 500 masks of one class beside the product of these masks, in float32 already, with themselves."""
    draw = torch.Generator().manual_seed(0)
    masks = torch.rand(CANDIDATES, QUARTER[0] // shrunk, QUARTER[1] // shrunk, generator=draw) < 0.3
    scores, labels = torch.rand(CANDIDATES, generator=draw), torch.zeros(CANDIDATES, dtype=torch.int64)
    flat = masks.flatten(1).float()
    with torch.inference_mode():
        times = best_of(passes, ours=lambda: matrix_nms(masks, labels, scores), product=lambda: flat @ flat.T)
    ours, product = (1e3 * times[name][0] for name in ("ours", "product"))
    return Figure(
        f"matrix NMS, {CANDIDATES} masks of {masks.shape[1]} x {masks.shape[2]}",
        ours / product,
        "of its product",
        target=1.3,
        reference=f"the product alone {product:.0f} ms",
        ratio=ours / product,
        note=f"{ours:.0f} ms, masks made float32 on the way",
    )


def target_figure(what: str, network: SOLOv2, batch: ImageBatch, passes: int) -> Figure:
    """Target assignment of one image as a share of a whole training step: forward, losses, backward."""
    image = torch.randn(batch.image.shape)

    def assign() -> Tensor:
        objects = batch.masks[0], batch.boxes[0], batch.labels[0]
        return solo_targets(*objects, network.num_classes, network.grids, network.scale_ranges).classes

    def step() -> None:
        network.zero_grad()
        sum(network.losses(image, batch).values()).backward()  # type: ignore[union-attr]

    targets = best_of(5 * passes, targets=assign)["targets"][0]
    whole = best_of(passes, step=step)["step"][0]
    height, width = batch.image.shape[-2:]
    return Figure(
        f"SOLOv2's targets, {len(batch.labels[0])} objects, {height} x {width}",
        100 * targets / whole,
        "% of a step",
        target=5,
        reference=f"a step of {what} {whole:.2g} s",
        ratio=targets / whole,
        note=f"{1e3 * targets:.1f} ms",
    )


def solov2_figures(passes: int, crop: int = 512) -> Iterator[Figure]:
    """NMS at the published size, targets beside a step of the miniature and, at full size, of ResNet-50."""
    torch.manual_seed(0)
    full = crop >= 512
    yield nms_figure(passes, 1 if full else 8)
    side = 160 if full else 64
    small = SOLOv2(num_classes=8, **MINIATURE)  # type: ignore[arg-type]
    yield target_figure("the miniature", small, drawn_instances(side, side), passes)
    if full:
        large = SOLOv2("resnet50", bn_statistics="frozen")
        yield target_figure("ResNet-50", large, drawn_instances(4 * QUARTER[0], 4 * QUARTER[1]), 1)
