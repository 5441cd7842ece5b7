"""Albumentations transforms that a recipe lists, applied to the crop after its geometry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.rendering import Views


def build_transforms(transforms: Sequence[dict[str, Any]]) -> Any:
    """One albumentations pipeline from a recipe's list. Raises ValueError for a transform that does not exist."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    import albumentations

    def build(spec: dict[str, Any]) -> Any:
        name = spec["class_path"].rpartition(".")[2]
        if not hasattr(albumentations, name):
            raise ValueError(f"no albumentations transform named {spec['class_path']!r}")
        return getattr(albumentations, name)(**spec.get("init_args", {}))

    keypoints = albumentations.KeypointParams(format="xy", remove_invisible=False)
    listed = [build(spec) for spec in transforms]
    # NoOp: colours alone would make it warn that nothing moves the keypoints
    return albumentations.Compose([*listed, albumentations.NoOp()], keypoint_params=keypoints)


def transformed(
    transforms: Any, seed: int, views: Views, others: NDArray[np.uint8] | None
) -> tuple[Views, NDArray[np.uint8] | None]:
    """The crop after the albumentations transforms; four marks that move along say what became of `to_crop`."""
    height, width = views.mask.shape
    marks = np.array([[x, y] for x in (0, width - 1) for y in (0, height - 1)], np.float32)
    image = views.image if views.image.dtype == np.uint8 else np.clip(np.rint(views.image), 0, 255).astype(np.uint8)
    masks = [views.mask, views.void] if others is None else [views.mask, views.void, others]
    transforms.set_random_seed(seed)
    out = transforms(image=image, masks=masks, keypoints=marks)
    moved = np.asarray(out["keypoints"], np.float64).reshape(-1, 2)
    if out["image"].shape[:2] != (height, width):
        made = " x ".join(str(side) for side in out["image"].shape[:2])
        raise ValueError(f"sample.transforms must keep the crop at {height} x {width} pixels, they made it {made}")
    to_crop = views.to_crop
    if not np.array_equal(moved, marks):
        to_crop = geometry.after(_affine_through(marks, moved), to_crop)
    mask, void, *rest = out["masks"]
    return replace(views, image=out["image"], mask=mask, void=void, to_crop=to_crop), rest[0] if rest else None


def _affine_through(source: NDArray, target: NDArray) -> NDArray[np.float64]:
    """The matrix that maps these points (N, 2) to those; raises ValueError where none comes within a pixel."""
    if len(source) == len(target):
        columns = np.concatenate([source, np.ones((len(source), 1))], axis=1).astype(np.float64)
        matrix: NDArray[np.float64] = np.linalg.lstsq(columns, target, rcond=None)[0].T
        if np.abs(geometry.apply(matrix, source) - target).max() < 1:
            return matrix
    raise ValueError(
        "sample.transforms bend the crop, which no affine to_crop can follow; use flips, shifts, scalings, rotations "
        "and transforms of colour"
    )
