"""The guidance maps of a batch, beside those drawn in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.clicks.guidance import DistanceMap, GaussianMap
from datamodules.clicks.points import PointKind, Points
from datamodules.clicks.soft_focus import SoftFocus
from tests.bench.loader import SIZE, published_gaussians
from tests.bench.measure import Figure, best_of


def published_distances(points: NDArray) -> NDArray[np.float64]:
    """The truncated distance to the nearest point, drawn in float64."""
    x = np.arange(0, SIZE, 1, np.float64)
    maps = [np.sqrt((x - x0) ** 2 + (x[:, None] - y0) ** 2) for x0, y0 in points]
    return np.minimum(np.min(maps, axis=0), 255) / 255


def published_soft_focus(points: NDArray) -> NDArray[np.float64]:
    """FAIRS' map of extreme points, formula by formula in float64."""
    x, y = np.arange(0, SIZE, 1, np.float64), np.arange(0, SIZE, 1, np.float64)[:, None]
    inverse = np.sum([np.sqrt((x - x0) ** 2 + (y - y0) ** 2) for x0, y0 in points], axis=0) ** -1.0
    (left, top), (right, bottom) = points.min(0), points.max(0)
    box = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    focus = ((inverse - inverse.min()) / (inverse.max() - inverse.min())) ** 5.0 * box
    return np.maximum(focus, published_gaussians(points))


def guidance_figures(passes: int, batch: int = 5, clicks: int = 4) -> Iterator[Figure]:
    """Milliseconds per object of the guidance maps at 512 px on one core."""
    xy = torch.from_numpy(np.random.default_rng(0).integers(0, SIZE, (batch, clicks, 2))).float()
    points = Points(xy, torch.full((batch, clicks), int(PointKind.LEFT)), torch.ones(batch, 2))
    for encoder, reference in (
        (GaussianMap(fwhm=10), published_gaussians),
        (DistanceMap(), published_distances),
        (SoftFocus(fwhm=10), published_soft_focus),
    ):

        def ours(encoder: torch.nn.Module = encoder) -> torch.Tensor:
            return encoder(points, (SIZE, SIZE))

        def theirs(reference: Callable[[NDArray], NDArray] = reference) -> list[NDArray]:
            return [reference(clicks) for clicks in xy.numpy().astype(np.float64)]

        times = best_of(passes, ours=ours, theirs=theirs)
        mine, other = (1e3 * times[name][0] / batch for name in ("ours", "theirs"))
        beside = f"NumPy float64 {other:.1f} ms"
        yield Figure(
            f"{type(encoder).__name__}, {batch} x {clicks} clicks",
            mine,
            "ms/object",
            target=5,
            reference=beside,
            ratio=mine / other,
        )
