"""How fast the suite is and what it holds in memory, each figure beside a reference measured in the same run.

    make bench                               or: python -m tests.bench --only loader --json figures.json

It reads the real data below DATA_ROOT where it is there, else the drawn ones, and says which. Times are processor time
of one core, the best of several passes that alternate with those of the reference: a busy machine disturbs them less,
and both alike. Nothing here fails; a figure that misses its target is marked.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import multiprocessing
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from datamodules import catalog, geometry, miniature
from datamodules.clicks.extreme import band_points, tight_box
from datamodules.clicks.guidance import DistanceMap, GaussianMap
from datamodules.index import MaskKind, ObjectIndex, concatenate, object_ids
from datamodules.masks import mask_from_rle
from datamodules.objects import evaluation_loader, loader_options
from datamodules.recipe import PointRule, SampleRecipe
from datamodules.samplers import TrainingSampler
from datamodules.samples import ObjectSamples

SIZE = 512
RECIPE = SampleRecipe(size=SIZE, geometry="fused", interpolation="linear", train_points=PointRule("band", 5))
MIB = 1 << 20


@dataclass
class Figure:
    """One line of the table. `target` is a limit, from below for rates and from above otherwise; None without one."""

    what: str
    value: float
    unit: str
    target: float | None = None
    reference: str = ""
    ratio: float | None = None  # value / reference
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.unit.endswith("/s") else self.value <= self.target


def best_of(passes: int, **tasks: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Processor and wall-clock seconds of each task, the least of so many passes, in which the tasks take turns."""
    best = {name: (float("inf"), float("inf")) for name in tasks}
    for task in tasks.values():
        task()  # warms caches and allocators
    for _ in range(passes):
        for name, task in tasks.items():
            wall, processor = time.perf_counter(), time.process_time()
            task()
            spent = time.process_time() - processor, time.perf_counter() - wall
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


# -- loader ----------------------------------------------------------------------------------------------------------


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
        matrix = geometry.compose(geometry.box_to_grid(box, (SIZE, SIZE)), matrix)
    mask = geometry.warp(mask, matrix, (SIZE, SIZE), "nearest")
    image = geometry.warp(image, matrix, (SIZE, SIZE), "linear")
    return (image, mask, band_points(mask, 5, draw)) if mask.any() else (image, mask)


def loader_figures(index: ObjectIndex, passes: int, count: int = 100) -> Iterator[Figure]:
    """Objects per second from JPEG to crop, mask and points, on one core."""
    chosen = np.linspace(0, len(index) - 1, min(count, len(index))).astype(int).tolist()
    draw = np.random.default_rng(0)
    fused = ObjectSamples(index, RECIPE, train=True)
    chain = ObjectSamples(index, replace(RECIPE, geometry="chain"), train=True)
    times = best_of(
        passes,
        published=lambda: [published_chain(index, i, draw) for i in chosen],
        bare=lambda: [bare_chain(index, i, draw) for i in chosen],
        fused=lambda: [fused[0, i] for i in chosen],
        chain=lambda: [chain[0, i] for i in chosen],
    )
    rate = {name: len(chosen) / processor for name, (processor, _) in times.items()}
    wall = {name: f"{len(chosen) / seconds:.0f}/s by the wall clock" for name, (_, seconds) in times.items()}
    beside = f"published chain {rate['published']:.0f}/s"

    def ratio(name: str) -> float:
        return rate[name] / rate["published"]

    yield Figure("loader, fused", rate["fused"], "objects/s", 160, beside, ratio("fused"), wall["fused"])
    bare = f"bare fused chain {rate['bare']:.0f}/s"
    yield Figure("  the same", rate["fused"], "objects/s", None, bare, rate["fused"] / rate["bare"], wall["bare"])
    yield Figure("loader, chain", rate["chain"], "objects/s", None, beside, ratio("chain"), wall["chain"])


# -- index -----------------------------------------------------------------------------------------------------------


def write_large(file: Path, small: Path, objects: int, polygons: bool) -> int:
    """A COCO file of many objects: the entries of a small one again and again under new ids. Returns their number."""
    tables = json.loads(small.read_text())
    annotations = [entry for entry in tables["annotations"] if not entry.get("iscrowd")]
    if polygons:
        annotations = [_with_polygons(entry) for entry in annotations]
    copies = -(-objects // len(annotations))
    images, many = [], []
    for copy in range(copies):
        shift = copy * 10_000_000
        images += [entry | {"id": entry["id"] + shift} for entry in tables["images"]]
        for entry in annotations:
            many.append(entry | {"id": len(many) + 1, "image_id": entry["image_id"] + shift})
    file.write_text(json.dumps({"images": images, "annotations": many, "categories": tables["categories"]}))
    return len(many)


def _with_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with its run lengths traced, with about as many corners as COCO's annotators set."""
    if isinstance(entry["segmentation"], list) or isinstance(entry["segmentation"]["counts"], list):
        return entry
    mask = mask_from_rle(entry["segmentation"]["counts"].encode(), tuple(entry["segmentation"]["size"]))
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    rings = [cv2.approxPolyDP(contour, 1.0, True).ravel() for contour in contours]
    corners = [[round(value + 0.37, 2) for value in ring.tolist()] for ring in rings if len(ring) >= 6]
    return entry | {"segmentation": corners} if corners else entry


def apart(task: Callable[[], Any]) -> dict[str, Any]:
    """What a task returns, its seconds of processor time and by how many MiB it raised the memory's peak.

    It runs in a process of its own, a fork of this one.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        gc.collect()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, processor = _status("VmRSS"), time.process_time()
        answer = task()
        spent = time.process_time() - processor
        sender.send({"answer": answer, "seconds": spent, "peak": _status("VmHWM") - before})

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError("a measuring process ended without an answer; its error is printed above") from None
    finally:
        process.join()


def _status(key: str, process: int | str = "self", file: str = "status") -> float:
    """A line of /proc/<process>/status or smaps_rollup in MiB, 0 where there is none."""
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def _written_by(process: int) -> float:
    """MiB of memory that this process alone has written.

    Pages of a memory-mapped column do not count, even if no other has read them yet (a file that was just saved makes
    them look written): the system may take them back, and whoever reads them next gets the same ones.
    """
    written, counts = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):  # the head of the next mapping, with its file
            counts = not line.endswith(".npy")
        elif counts and line.startswith("Private_Dirty:"):
            written += int(line.split()[1])
    return written / 1024


def index_figures(annotations: Path, images: Path, folder: Path, passes: int, objects: int) -> Iterator[Figure]:
    """Building and opening the index of a large COCO file, whole as a user has it: parsed, checked, hashed, saved."""
    held: list[Any] = []
    for kind, polygons in (("as in the file", False), ("polygons", True)):
        file = folder / f"instances_{kind.split()[0]}.json"  # real ones here: run lengths; drawn ones: polygons already
        count = write_large(file, annotations, objects, polygons)
        name = f"coco_json:{file}?images={images}"

        def build(name: str = name) -> int:
            os.environ["CACHE_ROOT"] = tempfile.mkdtemp(dir=folder)
            with contextlib.redirect_stderr(io.StringIO()):
                return len(catalog.open_index(name))

        def load(file: Path = file) -> None:
            with file.open() as stream:
                held.append(json.load(stream))  # until the process ends: to let go of it takes time, too

        turns = [(apart(build), apart(load)) for _ in range(max(2, passes // 3))]
        built, loaded = (min((turn[k] for turn in turns), key=lambda run: run["seconds"]) for k in (0, 1))
        ratio = built["seconds"] / loaded["seconds"]
        size = f"{count:,} objects, {file.stat().st_size / MIB:.0f} MiB"
        beside = f"json.load {loaded['seconds']:.2f} s"
        yield Figure(
            f"index built, {kind}", ratio, "x json.load", 3, beside, ratio, f"{built['seconds']:.2f} s; {size}"
        )
        beside = f"json.load {loaded['peak']:.0f} MiB"
        yield Figure("  its peak of memory", built["peak"], "MiB", None, beside, built["peak"] / loaded["peak"])
        build()
        opening = best_of(20, opened=lambda name=name: catalog.open_index(name))["opened"]
        note = f"{opening[1] * 1e3:.1f} ms by the wall clock"
        beside, ratio = f"building {built['seconds']:.2f} s", opening[0] / built["seconds"]
        yield Figure("  opened again", opening[0] * 1e3, "ms", 50, beside, ratio, note)


# -- guidance --------------------------------------------------------------------------------------------------------


def published_distances(points: NDArray) -> NDArray[np.float64]:
    """The truncated distance to the nearest point, drawn in float64."""
    x = np.arange(0, SIZE, 1, np.float64)
    maps = [np.sqrt((x - x0) ** 2 + (x[:, None] - y0) ** 2) for x0, y0 in points]
    return np.minimum(np.min(maps, axis=0), 255) / 255


def guidance_figures(passes: int, batch: int = 5, clicks: int = 4) -> Iterator[Figure]:
    """Milliseconds per object of the guidance maps at 512 px on one core."""
    points = torch.from_numpy(np.random.default_rng(0).integers(0, SIZE, (batch, clicks, 2))).float()
    valid = torch.ones(batch, clicks, dtype=torch.bool)
    for encoder, reference in ((GaussianMap(fwhm=10), published_gaussians), (DistanceMap(), published_distances)):

        def ours(encoder: torch.nn.Module = encoder) -> torch.Tensor:
            return encoder(points, valid, (SIZE, SIZE))

        def theirs(reference: Callable[[NDArray], NDArray] = reference) -> list[NDArray]:
            return [reference(clicks) for clicks in points.numpy().astype(np.float64)]

        times = best_of(passes, ours=ours, theirs=theirs)
        mine, other = (1e3 * times[name][0] / batch for name in ("ours", "theirs"))
        beside = f"NumPy float64 {other:.1f} ms"
        yield Figure(f"{type(encoder).__name__}, {batch} x {clicks} clicks", mine, "ms/object", 5, beside, mine / other)


# -- memory ----------------------------------------------------------------------------------------------------------


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
    for _ in range(batches):
        next(stream)
    helpers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    private = [_written_by(pid) for pid in helpers]

    def shared_out(key: str) -> float:
        return sum(_status(key, pid, "smaps_rollup") for pid in ("self", *helpers))

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
        if 5 * number >= settle:
            sizes.append(_status("VmRSS"))
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
        yield Figure(f"all processes, {workers} workers", large["total"], "MiB", None, beside, ratio, note)
        if workers:
            written = large["total"] - large["files"] - alone
            note = f"PSS without files grows by {written / workers:.0f} MiB per worker"
            beside, ratio = f"{len(small):,} objects {tiny['private']:.1f} MiB", large["private"] / tiny["private"]
            yield Figure("  private memory per worker", large["private"], "MiB", None, beside, ratio, note)
            note = f"{count:,} objects, {on_disk:.0f} MiB of columns on disk"
            yield Figure("  of it for the index", large["private"] - tiny["private"], "MiB", 16, note=note)  # +-12
        else:
            alone = large["total"] - large["files"]
    settle, count = min(100, len(frames) // 3), min(345, len(frames))
    grown = apart(lambda: evaluation_growth(frames, settle, count))["answer"]
    yield Figure("evaluation, growth", grown, "MiB", 32, note=f"from object {settle} to {count} of {frames.dataset}")


# -- the table -------------------------------------------------------------------------------------------------------


def data_root(names: Sequence[str], scratch: Path) -> tuple[Path | None, str]:
    """Where the data sets are, None for DATA_ROOT, and which data that is."""
    if not any(catalog.missing_sources(catalog.find(name)) for name in names):
        return None, "real data"
    return miniature.draw(scratch / "drawn"), "drawn data (for the real ones set DATA_ROOT): no figure for the targets"


def figures(only: Sequence[str], passes: int, scratch: Path) -> Iterator[Figure | str]:
    """All figures in turn, between them what they were measured on."""
    real = ["coco_mval800", "coco200/val2017", "davis345"]
    root, which = data_root(real, scratch)
    coco = real[1] if root is None else "coco2017/val"
    with contextlib.redirect_stderr(io.StringIO()):
        objects, small, frames = (catalog.open_index(name, root) for name in (real[0], coco, real[2]))
    yield f"{which}: {objects.dataset}, {coco}, {frames.dataset}"
    if "loader" in only:
        yield from loader_figures(objects.select(objects.mask_kind == MaskKind.RLE), passes)
    if "guidance" in only:
        yield from guidance_figures(2 * passes)
    if "memory" in only:
        yield from memory_figures(small, frames, scratch, objects=500_000)
    if "index" in only:
        place = catalog.find(coco)
        annotations = place.sources(catalog.root_of(place, root))[0]
        yield from index_figures(annotations, small.image_path(0).parent, scratch, passes, objects=100_000)


def table_of(lines: Sequence[Figure]) -> Table:
    """The figures as a table."""
    table = Table("measure", "figure", "target", "reference", "ratio", "note")
    for line in lines:
        sign = "≥" if line.unit.endswith("/s") else "≤"
        target = "" if line.target is None else f"{sign} {line.target:g} {'met' if line.met else 'MISSED'}"
        ratio = "" if line.ratio is None else f"{line.ratio:.3g}"
        table.add_row(line.what, f"{line.value:.3g} {line.unit}", target, line.reference, ratio, line.note)
    return table


def main() -> None:
    """Measure and print."""
    parts = ("loader", "guidance", "memory", "index")
    parser = argparse.ArgumentParser(description="Speed and memory of loader, index and guidance.")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--passes", type=int, default=9, help="how often each task is timed; the best counts")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    console = Console(width=None if os.isatty(1) else 160)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        os.environ["CACHE_ROOT"] = str(Path(scratch, "cache"))  # leaves nothing behind, finds nothing built before
        lines, data = [], ""
        for line in figures(arguments.only, arguments.passes, Path(scratch)):
            if isinstance(line, str):
                data = line
                console.print(f"on {data}", highlight=False)
            else:
                lines.append(line)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OpenCV {cv2.__version__}"
    console.print(table_of(lines))
    console.print(f"one core of {machine}; processor time, best of {arguments.passes} passes", highlight=False)
    if arguments.json:
        measures = [asdict(line) | {"met": line.met} for line in lines]
        arguments.json.write_text(json.dumps({"data": data, "machine": machine, "measures": measures}, indent=1))


if __name__ == "__main__":
    main()
