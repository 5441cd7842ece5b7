"""EXITS' random walk beside the transformer it walks on, and its mean field beside one compiled loop in C++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch import Tensor

from datamodules.index import ObjectIndex
from experiments.composition.building import build_part
from experiments.composition.compose import compose
from experiments.evaluation.scorer import run_through
from experiments.labelling.labeller import Labeller
from experiments.runs.identity import without_starts
from lightning_modules.mean_field import mean_field
from lightning_modules.point_retrieval import transition, walk_scores
from tests.bench.measure import Figure, best_of

CROPS = 16  # of the walk
OBJECTS = 8  # of the mean field
ROUNDS, ZETA = 100, 0.1
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Everything of a round in two passes over the pixels, which the compiler turns into vector code, logarithms and
# exponentials included. Weights lie in four planes, those of the pixel before are read in the same ones; planes have
# W + 1 unused values on both sides, so that no pixel asks where it is.
FUSED = """
#include <algorithm>
#include <cmath>
extern "C" void fused(const float* image, const float* box, float* q, float* room, int H, int W, int rounds, float z) {
  const int n = H * W, pad = W + 1, row = n + 2 * pad, shift[4] = {1, W - 1, W, W + 1}, dx[4] = {1, -1, 0, 1};
  float *k = room, *f = room + 4 * row + pad, *b = f + row;
  for (int s = 0; s < 4; s++)
    for (int y = 0; y < H - (s > 0); y++)
      for (int x = std::max(0, -dx[s]); x < W - std::max(0, dx[s]); x++) {
        float sum = 0;
        for (int c = 0; c < 3; c++) {
          float d = image[c * n + y * W + x] - image[c * n + y * W + x + shift[s]];
          sum += d * d;
        }
        k[s * row + pad + y * W + x] = expf(-sum / (2 * z * z));
      }
  for (int r = 0; r < rounds; r++) {
    #pragma omp simd
    for (int i = 0; i < n; i++) { f[i] = logf(q[i]); b[i] = logf(1 - q[i]); }
    #pragma omp simd
    for (int i = 0; i < n; i++) {
      float fg = f[i], bg = b[i];
      #pragma GCC unroll 4
      for (int s = 0; s < 4; s++) {
        float u = k[s * row + pad + i], v = k[s * row + pad + i - shift[s]];
        fg += u * f[i + shift[s]] + v * f[i - shift[s]];
        bg += u * b[i + shift[s]] + v * b[i - shift[s]];
      }
      fg = expf(fg) * box[i];
      q[i] = std::min(std::max(fg / (1e-6f + fg + expf(bg)), .1f), .9f);
    }
  }
}
"""


def fused_mean_field(folder: Path) -> Callable[[NDArray, NDArray, NDArray], NDArray] | None:
    """(image (3, H, W), probability and box (H, W)) -> (H, W) by the compiled loop; None without a compiler."""
    if (compiler := shutil.which("g++")) is None:
        return None
    source, compiled, library = (folder / f"fused{ending}" for ending in (".cpp", ".o", ".so"))
    source.write_text(FUSED)
    # In two steps: linked with -ffast-math, a library makes its whole process round subnormal numbers to 0 for good.
    options = ["-O3", "-march=native", "-ffast-math", "-fopenmp-simd", "-fPIC"]
    subprocess.run([compiler, *options, "-c", str(source), "-o", str(compiled)], check=True)
    subprocess.run([compiler, "-shared", str(compiled), "-o", str(library), "-lmvec", "-lm"], check=True)
    function = ctypes.CDLL(str(library)).fused

    def run(image: NDArray, probability: NDArray, box: NDArray) -> NDArray:
        height, width = box.shape
        q = np.clip(probability * box, 0.1, 0.9)
        room = np.zeros(6 * (height * width + 2 * width + 2), np.float32)
        planes = [plane.ctypes.data_as(ctypes.c_void_p) for plane in (image, box, q, room)]
        function(*planes, height, width, ROUNDS, ctypes.c_float(ZETA))
        return q

    return run


def scenes(objects: ObjectIndex, side: int) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Crops as EXITS' with a prediction half learned: image (3, H, W), probability and box (H, W), float32."""
    draw = np.random.default_rng(0)
    for i in draw.permutation(len(objects))[:OBJECTS]:
        picture, mask = objects.read_image(int(i)), objects.read_mask(int(i)).mask.astype(np.float32)
        x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
        dx, dy = width * 3 // 20 + 1, height * 3 // 20 + 1
        window = np.s_[max(0, y - dy) : y + height + dy, max(0, x - dx) : x + width + dx]
        inside = np.zeros_like(mask)
        inside[y : y + height, x : x + width] = 1
        picture, mask, inside = (
            cv2.resize(plane[window], (side, side), interpolation=cv2.INTER_AREA) for plane in (picture, mask, inside)
        )
        noise = cv2.GaussianBlur(draw.normal(size=mask.shape).astype(np.float32), (0, 0), 4)
        logits = 5 * cv2.GaussianBlur(mask, (0, 0), 6) - 2.5 + 6 * noise
        image = (picture / np.float32(255) - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
        yield np.ascontiguousarray(image.transpose(2, 0, 1)), 1 / (1 + np.exp(-logits)), inside


def mean_field_figures(objects: ObjectIndex, passes: int, side: int) -> Iterator[Figure]:
    """Milliseconds per crop of 100 rounds, on crops of real objects and on noise, where no pixel settles."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(3, side, side)).astype(np.float32), *draw.random((2, side, side), np.float32)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        fused = fused_mean_field(Path(folder))
        for what, crops in (("crops of objects", list(scenes(objects, side))), ("noise, nothing settles", [noise])):
            tensors = [
                (torch.from_numpy(image)[None], *(torch.from_numpy(plane)[None, None] for plane in planes))
                for image, *planes in crops
            ]

            def ours(tensors: list[tuple[Tensor, ...]] = tensors) -> list[Tensor]:
                return [mean_field(*each, rounds=ROUNDS, zeta=ZETA) for each in tensors]

            def theirs(crops: list = crops) -> list[NDArray]:
                return [fused(*crop) for crop in crops] if fused else []

            times = best_of(passes, ours=ours, theirs=theirs)
            mine, other = (1e3 * times[name][0] / len(crops) for name in ("ours", "theirs"))
            pairs = zip(ours(), theirs()) if fused else []
            differ = max((float(((a[0, 0].numpy() > 0.5) != (b > 0.5)).mean()) for a, b in pairs), default=0.0)
            yield Figure(
                f"mean field, {side} px, {what}",
                mine,
                "ms/crop",
                target=40,
                reference=f"fused C++ {other:.1f} ms" if fused else "no C++ compiler here",
                ratio=mine / other if fused else None,
                note=f"targets differ in at most {100 * differ:.2g} % of pixels" if fused else "",
            )


def walk_figures(passes: int, size: int) -> Iterator[Figure]:
    """Sinkhorn and three hops of 16 crops, as a share of the transformer's forward pass over the same crops."""
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch16_224", dynamic_img_size=True, num_classes=0).eval()
    image, nodes = torch.randn(1, 3, size, size), (size // 16) ** 2
    similarity = torch.randn(CROPS, nodes, nodes).softmax(2)
    seeds = torch.rand(CROPS, 2, nodes) < 0.1

    def walk() -> Tensor:
        return walk_scores(transition(similarity), seeds, 3)

    with torch.inference_mode():
        times = best_of(passes, walk=walk, forward=lambda: network(image))
    mine, forward = times["walk"][0], CROPS * times["forward"][0]
    yield Figure(
        f"Sinkhorn and walk, {CROPS} crops of {size // 16} x {size // 16} tokens",
        100 * mine / forward,
        "% of ViT-B's forward pass",
        target=2,
        reference=f"ViT-B/16 {forward:.1f} s",
        ratio=mine / forward,
        note=f"{1e3 * mine:.0f} ms; the forward pass is {CROPS} times that of one crop",
    )


def labelling_figure(objects: ObjectIndex, folder: Path, passes: int, count: int = 48) -> Figure:
    """Objects per second from image to a row of labels, with the network of `small`, beside that network alone."""
    config = compose("exits", profile="small", overrides=["model.points=null", "data.workers=0", "threads=1"])
    model = build_part(LightningModule, without_starts(config["model"])).eval()
    few = objects.select(np.arange(min(count, len(objects))))
    size = config["data"]["init_args"]["sample"]["size"]
    image, areas = torch.zeros(8, 3, size, size), torch.full((8,), 5000.0)

    def label() -> None:
        done = np.zeros(len(few), bool)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            run_through(Labeller(model, few, config, Path(place), done), "bench")

    with torch.inference_mode():
        times = best_of(passes, label=label, alone=lambda: model.network(image, areas))
    mine, alone = len(few) / times["label"][0], len(image) / times["alone"][0]
    return Figure(
        f"labelling, network of `small` at {size} px",
        mine,
        "objects/s",
        reference=f"the network alone, medium objects {alone:.0f}/s",
        ratio=mine / alone,
        note=f"{len(few)} objects, set-up of the loop and pictures of the first ones included",
    )


def exits_figures(objects: ObjectIndex, scratch: Path, passes: int, size: int = 512) -> Iterator[Figure]:
    """The random walk and the mean field for crops of this size, and labelling."""
    yield from walk_figures(min(passes, 3), size)
    yield from mean_field_figures(objects, passes, size // 4)
    yield labelling_figure(objects, scratch, min(passes, 3))
