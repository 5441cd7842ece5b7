"""Figure 6 of EXITS, for one object: where its walk begins, what it finds and finds similar, label and truth."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import Batch
from datamodules.index import MaskKind
from experiments.evaluation.scorer import ObjectScorer
from experiments.pictures import RGB, contact_sheet, overlay, save_picture
from lightning_modules.point_retrieval import Retrieved

FOUND = {"object": (40, 200, 90), "background": (235, 60, 60)}
SEED, CHOSEN = (255, 196, 0), (255, 255, 255)
CAPTIONS = ("seeds", "retrieved points", "similarity of a seed", "label", "truth")
IN_WORDS = (
    "the seeds (yellow), the points that the walk finds (green: object, red: background), what the seed marked white "
    "finds similar, the label, and the object in its image with its four points and its true mask (white outline)"
)
SIDE = 320  # pixels of a panel
ENDING = "-retrieval.png"


def save_walks(
    scorer: ObjectScorer,
    batch: Batch,
    found: Retrieved,
    similarity: Tensor,
    positions: Collection[int],
    probability: NDArray[np.float32],
    threshold: float,
) -> None:
    """A picture of each object of a batch that is among these positions, below the scorer's folder.

    Args:
        found, similarity: of the batch: the nodes, and (B, n, n) between them.
        probability: (B, H, W), of the label, which is where it is above the threshold and in the box.
    """
    for i, key in enumerate(batch.object_id.tolist()):
        if (position := scorer.position(key)) not in positions:
            continue
        crop = batch.image[i].permute(1, 2, 0).round().clamp(0, 255).byte().cpu().numpy()
        drawn = scorer.index.mask_kind[position] != MaskKind.BOX
        truth = scorer.truth(batch, i)[0] if drawn else None
        label = overlay(crop, (probability[i] > threshold) & (batch.mask[i, 0].cpu().numpy() > 0))
        image = overlay(scorer.index.read_image(position), None, *scorer.clicked(batch, i), truth=truth)
        sheet = walk_sheet(crop, found, similarity, i, label, image)
        save_picture(sheet, scorer.folder / "pictures" / f"{position:07d}{ENDING}")


def pictured_walks(folder: Path) -> list[int]:
    """The positions of the objects of which a run's folder has such a picture, in order."""
    return sorted(int(path.name.removesuffix(ENDING)) for path in (folder / "pictures").glob(f"*{ENDING}"))


def walk_sheet(crop: RGB, found: Retrieved, similarity: Tensor, i: int, label: RGB, truth: RGB) -> RGB:
    """Five pictures side by side of an object on its crop (H, W, 3).

    Args:
        found, similarity: of the batch in which the object has place `i`: the nodes, and (B, n, n) between them.
        label, truth: the last two pictures.
    """
    panels = [
        _marked(crop, {SEED: found.seeds[i]}),
        _marked(crop, {FOUND["object"]: found.foreground[i], FOUND["background"]: found.background[i]}),
        _similar(crop, similarity[i], found.seeds[i]),
        label,
        truth,
    ]
    return contact_sheet(panels, CAPTIONS, columns=len(panels), tile=240)


def _centre(node: int, grid: int) -> tuple[int, int]:
    """(x, y) of a node's middle, in pixels of a panel."""
    y, x = divmod(node, grid)
    return round((x + 0.5) * SIDE / grid), round((y + 0.5) * SIDE / grid)


def _marked(crop: RGB, nodes: dict[tuple[int, int, int], Tensor]) -> RGB:
    """A crop with a dot at each of these nodes, (n,) bool."""
    canvas: RGB = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    for colour, marked in nodes.items():
        grid = math.isqrt(len(marked))  # crops are square
        for node in marked.nonzero()[:, 0].tolist():
            cv2.circle(canvas, _centre(node, grid), max(2, round(SIDE / grid / 4)), colour, -1, cv2.LINE_AA)
    return canvas


def _similar(crop: RGB, similarity: Tensor, seeds: Tensor) -> RGB:
    """A crop tinted by how much its first seed attends to each place, and that seed."""
    node, grid = int(seeds.int().argmax()), math.isqrt(len(seeds))
    weight = similarity[node].reshape(grid, grid).float().cpu().numpy()
    weight = np.clip(weight / max(float(np.quantile(weight, 0.98)), 1e-12), 0, 1).astype(np.float32)
    shown: NDArray = cv2.resize(weight, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap((255 * shown).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    canvas = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    mixed: RGB = (0.4 * canvas + 0.6 * heat).astype(np.uint8)
    cv2.circle(mixed, _centre(node, grid), 7, CHOSEN, -1, cv2.LINE_AA)
    return mixed
