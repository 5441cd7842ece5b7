"""What loading holds in memory, with many workers and many objects."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from datamodules import geometry
from datamodules.index import ObjectIndex, concatenate, object_ids
from datamodules.objects import evaluation_loader, loader_options
from datamodules.samplers import TrainingSampler
from datamodules.samples import ObjectSamples
from tests.bench.loader import RECIPE
from tests.bench.measure import MIB, Figure, apart, status, written_by


def enlarged(index: ObjectIndex, objects: int) -> ObjectIndex:
    """The index again and again, masks included, under new ids."""
    copies = -(-objects // len(index))
    parts = [replace(index, object_id=object_ids(f"copy {k}", index.native_id)) for k in range(copies)]
    return concatenate(parts, "enlarged")


def loading_memory(folder: Path, workers: int, batches: int = 24) -> dict[str, float]:
    """MiB of all processes while training samples are loaded from the index in this folder, and private per worker."""
    objects = ObjectSamples(ObjectIndex.open(folder), RECIPE, train=True)
    sampler = TrainingSampler(len(objects), 5, 5)
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    stream = iter(DataLoader(objects, 5, sampler=sampler, **loader_options(workers)))
    for _ in range(min(batches, len(objects) // 5)):
        next(stream)
    helpers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    private = [written_by(pid) for pid in helpers]

    def shared_out(key: str) -> float:
        return sum(status(key, pid, "smaps_rollup") for pid in ("self", *helpers))

    return {
        "total": shared_out("Pss"),
        "files": shared_out("Pss_File"),
        "private": float(np.mean(private)) if private else 0.0,
    }


def evaluation_growth(index: ObjectIndex, settle: int, count: int) -> float:
    """MiB by which evaluation has grown between its first objects and the last, predictions pasted back."""
    sizes = []
    part = index.select(np.arange(len(index)) < count)
    for number, batch in enumerate(evaluation_loader(part, RECIPE, 5, workers=0)):
        for mask, box, size in zip(batch.mask, batch.crop_box, batch.image_size):
            geometry.paste(mask[0].numpy().astype(np.float32), box.numpy(), (int(size[0]), int(size[1])))
        if 5 * (number + 1) >= settle:
            sizes.append(status("VmRSS"))
    return sizes[-1] - sizes[0]


def memory_figures(small: ObjectIndex, frames: ObjectIndex, folder: Path, objects: int) -> Iterator[Figure]:
    """What workers add to the memory of the host, with half a million objects and with a few hundred."""
    few, many = folder / "few", folder / "many"
    small.save(few)
    apart(lambda: enlarged(small, objects).save(many))
    on_disk = sum(file.stat().st_size for file in many.iterdir()) / MIB
    count = len(ObjectIndex.open(many))
    alone = 0.0
    for workers in (0, 2, 4):
        large = apart(lambda workers=workers: loading_memory(many, workers))["answer"]
        tiny = apart(lambda workers=workers: loading_memory(few, workers))["answer"]
        beside, ratio = f"{len(small):,} objects {tiny['total']:.0f} MiB", large["total"] / tiny["total"]
        note = f"{large['files']:.0f} MiB of it pages of files"
        yield Figure(
            f"all processes, {workers} workers",
            large["total"],
            "MiB",
            reference=beside,
            ratio=ratio,
            note=note,
        )
        if workers:
            written = large["total"] - large["files"] - alone
            note = f"PSS without files grows by {written / workers:.0f} MiB per worker"
            beside, ratio = f"{len(small):,} objects {tiny['private']:.1f} MiB", large["private"] / tiny["private"]
            yield Figure(
                "  private memory per worker",
                large["private"],
                "MiB",
                reference=beside,
                ratio=ratio,
                note=note,
            )
            note = f"{count:,} objects, {on_disk:.0f} MiB of columns on disk"
            yield Figure(
                "  of it for the index", large["private"] - tiny["private"], "MiB", target=16, note=note
            )  # +-12
        else:
            alone = large["total"] - large["files"]
    settle, count = min(100, len(frames) // 3), min(345, len(frames))
    grown = apart(lambda: evaluation_growth(frames, settle, count))["answer"]
    yield Figure(
        "evaluation, growth", grown, "MiB", target=32, note=f"from object {settle} to {count} of {frames.dataset}"
    )
