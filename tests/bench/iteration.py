"""Iterative training: the simulated user of a training step, and the memory of its clicks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import Batch, collate
from datamodules.clicks.points import PointKind, Points, Target
from datamodules.index import MaskKind, ObjectIndex
from datamodules.keys import rng
from datamodules.samples import ObjectSamples
from experiments.composition.building import sample_recipe
from experiments.composition.compose import compose
from lightning_modules.click_memory import ClickMemory
from lightning_modules.iterative import EpochMemory
from tests.bench.clicks import corrupted
from tests.bench.measure import MIB, Figure, apart, status

COCO_OBJECTS, CLICKS = 860_000, 10  # COCO's objects, and about what they gather in 20 epochs


def iteration_figures(objects: ObjectIndex, passes: int, remembered: int = COCO_OBJECTS) -> Iterator[Figure]:
    """Milliseconds per batch of ITIS' training, and what its memory holds of so many objects."""
    yield from step_figures(objects.select(objects.mask_kind == MaskKind.RLE), passes)
    yield memory_figure(remembered)


def step_figures(objects: ObjectIndex, passes: int, count: int = 6, size: int = 16) -> Iterator[Figure]:
    """All but the network of a training step on windows of 350 px.

    The initial clicks are timed here one object after the other; in a training the loader's workers simulate those of
    all objects, beside the steps.
    """
    recipe = sample_recipe(compose("itis"))
    recipe = replace(recipe, extras=["others"])
    samples, draw = ObjectSamples(objects, recipe, train=True), np.random.default_rng(0)
    shuffled = draw.permutation(len(objects))[: count * size].reshape(count, -1)
    batches = [collate([samples[0, int(i)] for i in rows]) for rows in shuffled]
    answers = [_wrong(batch, draw) for batch in batches]
    iteration = EpochMemory()

    def begin(batch: Batch, epoch: int, only_resets: bool) -> None:
        others = batch.others
        assert others is not None
        for i, key in enumerate(batch.object_id.tolist()):
            mask, void = batch.mask[i, 0].numpy(), batch.void[i, 0].numpy()
            if mask.any() and (iteration.resets(key, epoch) or not only_resets):
                labels = others[i, 0].numpy()
                target = Target(mask, void if void.any() else None, lambda labels=labels: labels)
                recipe.train_points(target, rng(0, epoch, key, 0))

    def simulated(batch: Batch, answer: Tensor, epoch: int) -> None:
        begin(batch, epoch, only_resets=True)
        start = iteration.before(batch, epoch, 0, _no_segment)
        iteration.after(batch, start, answer, epoch)
        iteration.settle()

    first = np.full((count, 2), np.inf)
    step = np.full((count, 2), np.inf)
    for epoch in range(passes + 1):
        for k, (batch, answer) in enumerate(zip(batches, answers)):
            times = [(perf_counter(), process_time())]
            simulated(batch, answer, epoch)
            times.append((perf_counter(), process_time()))
            begin(batch, epoch, only_resets=False)
            times.append((perf_counter(), process_time()))
            if epoch:  # the first knows no object yet
                step[k], first[k] = np.minimum([step[k], first[k]], 1e3 * np.diff(times, axis=0))
    (wall, processor), (wall_all, processor_all) = np.median(step, axis=0).tolist(), np.median(first, axis=0).tolist()
    busy = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    beside = f"fresh clicks of all {wall_all:.1f} ms"
    note = f"by the wall clock, {processor:.1f} ms of processor time; {busy}"
    yield Figure(
        f"simulation, {size} objects at {recipe.size} px",
        wall,
        "ms",
        target=25,
        reference=beside,
        ratio=wall / wall_all,
        note=note,
    )
    note = f"by the wall clock, {processor_all:.1f} ms of processor time; one core, in loader workers; {busy}"
    yield Figure(f"  initial clicks for all {size}", wall_all, "ms", note=note)


def _wrong(batch: Batch, draw: np.random.Generator) -> Tensor:
    """Logits (B, 1, H, W) of wrong predictions."""
    masks = batch.mask[:, 0].numpy()
    predictions = [corrupted(np.ascontiguousarray(mask), way, draw) for way, mask in enumerate(masks)]
    return torch.from_numpy(np.stack(predictions)[:, None]).float() - 0.5


def _no_segment(image: Tensor, points: Points, masks: Tensor | None) -> Tensor:
    raise AssertionError("a memory of epochs needs no forward pass of its own")


def filled_memory(objects: int, clicks: int, at_once: int = 1024) -> tuple[float, float]:
    """MiB of the columns of a full memory, and by how many it has made its process grow."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 2**63 - 1, objects)
    before, memory = status("VmRSS"), ClickMemory()
    kinds = np.full(clicks, int(PointKind.POSITIVE), np.int64)
    for start in range(0, objects, at_once):
        some = ids[start : start + at_once]
        places = draw.integers(0, 640, (len(some), clicks, 2)).astype(np.float32)
        memory.note(0, some, [(xy, kinds) for xy in places])
    memory.gather()
    return memory.nbytes / MIB, status("VmRSS") - before


def memory_figure(objects: int) -> Figure:
    """As large as it gets in COCO."""
    filled = apart(lambda: filled_memory(objects, CLICKS))
    columns, grown = filled["answer"]
    note = (
        f"{columns * MIB / objects / CLICKS:.1f} bytes per object and click in columns; peak {filled['peak']:.0f} MiB"
    )
    what = f"click memory, {objects:,} objects x {CLICKS}"
    return Figure(
        what, grown, "MiB", target=1024, reference=f"columns {columns:.0f} MiB", ratio=grown / columns, note=note
    )
