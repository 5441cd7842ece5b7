"""Training samples: objects per second, beside the published chain and a bare one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from datamodules import geometry
from datamodules.clicks.extreme import ExtremePoints, band_points, tight_box
from datamodules.clicks.vertices import VertexPoints
from datamodules.expanded import ExpandedBox
from datamodules.index import ObjectIndex
from datamodules.recipe import SampleRecipe
from datamodules.samples import ObjectSamples
from tests.bench.measure import Figure, best_of

SIZE = 512
RECIPE = SampleRecipe(size=SIZE, geometry="fused", interpolation="linear", train_points=ExtremePoints("band", 5))
WRAPPED = SampleRecipe(
    size=SIZE,
    view=ExpandedBox(),
    geometry="fused",
    interpolation="linear",
    flip=0.5,
    rotation=0.0,
    scale=(1.0, 1.0),
    supervision="box",
    train_points=VertexPoints(),
    test_points=VertexPoints(),
    extras=["clean_image"],
)
COLOURS = [
    {"class_path": f"albumentations.{name}", "init_args": arguments}
    for name, arguments in (
        ("ColorJitter", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "p": 0.5}),
        ("ToGray", {"p": 0.2}),
        ("GaussianBlur", {"sigma_limit": (0.1, 2), "blur_limit": 0, "p": 0.5}),
    )
]


def published_chain(index: ObjectIndex, i: int, draw: np.random.Generator) -> torch.Tensor:
    """DEXTR's published pipeline for one object, step by step as in its code, to the (4, 512, 512) input."""
    image = cv2.cvtColor(cv2.imread(str(index.image_path(i))), cv2.COLOR_BGR2RGB).astype(np.float32)
    mask = index.read_mask(i).mask.astype(np.float32)
    arrays = {"image": image, "mask": mask, "void": np.zeros_like(mask)}
    if draw.random() < 0.5:
        arrays = {name: cv2.flip(array, 1) for name, array in arrays.items()}
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), draw.uniform(-20, 20), draw.uniform(0.75, 1.25))
    for name, array in arrays.items():
        arrays[name] = cv2.warpAffine(array, matrix, (width, height), flags=_published_interpolation(array))
    ys, xs = np.where(arrays["mask"] > 0)
    if not len(xs):
        return torch.zeros(4, SIZE, SIZE)
    box = np.array([xs.min() - 50, ys.min() - 50, xs.max() + 50, ys.max() + 50])
    crops = [geometry.crop(arrays[name], box) for name in ("image", "mask")]
    image, mask = (cv2.resize(crop, (SIZE, SIZE), interpolation=_published_interpolation(crop)) for crop in crops)
    heat = published_gaussians(_published_points(mask, draw))
    heat = 255 * (heat - heat.min()) / (heat.max() - heat.min() + 1e-10)
    return torch.from_numpy(np.concatenate([image, heat[..., None].astype(np.float32)], axis=2).transpose(2, 0, 1))


def _published_interpolation(array: NDArray) -> int:
    return cv2.INTER_NEAREST if ((array == 0) | (array == 1)).all() else cv2.INTER_CUBIC


def _published_points(mask: NDArray, draw: np.random.Generator, band: int = 5) -> NDArray:
    ys, xs = np.where(mask > 0.5)
    if not len(xs):
        return np.zeros((0, 2))
    sides = (xs <= xs.min() + band, xs >= xs.max() - band, ys <= ys.min() + band, ys >= ys.max() - band)
    chosen = [draw.choice(np.where(side)[0]) for side in sides]
    return np.stack([xs[chosen], ys[chosen]], axis=1)


def published_gaussians(points: NDArray) -> NDArray[np.float64]:
    """The map of DEXTR's code: a whole Gaussian per point in float64, merged by their maximum."""
    heat = np.zeros((SIZE, SIZE))
    x = np.arange(0, SIZE, 1, np.float64)
    for x0, y0 in points:
        heat = np.maximum(heat, np.exp(-4 * np.log(2) * ((x - x0) ** 2 + (x[:, None] - y0) ** 2) / 10**2))
    return heat


def bare_chain(index: ObjectIndex, i: int, draw: np.random.Generator) -> tuple[NDArray, ...]:
    """The least that makes such a sample: decode, one affine map for image and mask, points; nothing is checked."""
    image = cv2.imdecode(np.fromfile(index.image_paths[int(index.image[i])], np.uint8), cv2.IMREAD_COLOR_RGB)
    size = (image.shape[0], image.shape[1])
    mask = coco_mask.decode({"size": list(size), "counts": index.run_lengths(i)})
    matrix = geometry.scale_and_rotate(size, draw.uniform(-20, 20), draw.uniform(0.75, 1.25))
    warped = geometry.warp(mask, matrix, size, "nearest")
    if warped.any():
        box = geometry.relax_box(tight_box(warped), 50)
        matrix = geometry.after(geometry.box_to_grid(box, (SIZE, SIZE)), matrix)
    mask = geometry.warp(mask, matrix, (SIZE, SIZE), "nearest")
    image = geometry.warp(image, matrix, (SIZE, SIZE), "linear")
    return (image, mask, band_points(mask, 5, draw)) if mask.any() else (image, mask)


def loader_figures(index: ObjectIndex, passes: int, count: int = 100) -> Iterator[Figure]:
    """Objects per second from JPEG to crop, mask and points, on one core.

    EXITS' crop is MAL's: expanded, wrapped and flipped, box and points alone; then with the colours of the student's
    view: ColorJitter (brightness and contrast 0.4, saturation 0.2, hue 0.1; p 0.5), gray (0.2), blur (0.1 to 2; 0.5).
    """
    chosen = np.linspace(0, len(index) - 1, min(count, len(index))).astype(int).tolist()
    draw = np.random.default_rng(0)
    fused = ObjectSamples(index, RECIPE, train=True)
    chain = ObjectSamples(index, replace(RECIPE, geometry="chain"), train=True)
    wrapped = ObjectSamples(index, WRAPPED, train=True)
    coloured = ObjectSamples(index, replace(WRAPPED, transforms=COLOURS), train=True)
    times = best_of(
        passes,
        published=lambda: [published_chain(index, i, draw) for i in chosen],
        bare=lambda: [bare_chain(index, i, draw) for i in chosen],
        fused=lambda: [fused[0, i] for i in chosen],
        chain=lambda: [chain[0, i] for i in chosen],
        wrapped=lambda: [wrapped[0, i] for i in chosen],
        coloured=lambda: [coloured[0, i] for i in chosen],
    )
    rate = {name: len(chosen) / processor for name, (processor, _) in times.items()}
    wall = {name: f"{len(chosen) / seconds:.0f}/s by the wall clock" for name, (_, seconds) in times.items()}
    beside = f"published chain {rate['published']:.0f}/s"

    def ratio(name: str) -> float:
        return rate[name] / rate["published"]

    yield Figure(
        "loader, fused",
        rate["fused"],
        "objects/s",
        target=160,
        reference=beside,
        ratio=ratio("fused"),
        note=wall["fused"],
    )
    bare = f"bare fused chain {rate['bare']:.0f}/s"
    yield Figure(
        "  the same",
        rate["fused"],
        "objects/s",
        reference=bare,
        ratio=rate["fused"] / rate["bare"],
        note=wall["bare"],
    )
    yield Figure(
        "loader, chain",
        rate["chain"],
        "objects/s",
        reference=beside,
        ratio=ratio("chain"),
        note=wall["chain"],
    )
    yield Figure(
        "EXITS' wrapped crop, 512 px",
        rate["wrapped"],
        "objects/s",
        target=120,
        reference=bare,
        ratio=rate["wrapped"] / rate["bare"],
        note=wall["wrapped"],
    )
    yield Figure(
        "  with the colours of its student",
        rate["coloured"],
        "objects/s",
        reference=bare,
        ratio=rate["coloured"] / rate["bare"],
        note=wall["coloured"],
    )
