"""How fast the suite is and what it holds in memory, each figure beside a reference measured in the same run.

    make bench                               or: python -m tests.bench --only loader --json figures.json

It reads the real data below DATA_ROOT where it is there, else the drawn ones, and says which. Times are processor time
of one core, the best of several passes that alternate with those of the reference: a busy machine disturbs them less,
and both alike. Nothing here fails; a figure that misses its target is marked.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import torch
from rich.console import Console
from rich.table import Table

from datamodules import catalog, miniature
from datamodules.index import MaskKind, ObjectIndex
from tests.bench.attention import attention_figures
from tests.bench.clicks import click_figures
from tests.bench.exits import exits_figures
from tests.bench.guidance import guidance_figures
from tests.bench.images import image_figures
from tests.bench.indexing import index_figures
from tests.bench.instances import instance_figures
from tests.bench.iteration import COCO_OBJECTS, iteration_figures
from tests.bench.loader import loader_figures
from tests.bench.measure import Figure
from tests.bench.memory import memory_figures
from tests.bench.solov2 import solov2_figures


def data_root(names: Sequence[str], scratch: Path) -> tuple[Path | None, str]:
    """Where the data sets are, None for DATA_ROOT, and which data that is."""
    if not any(catalog.missing_sources(catalog.find(name)) for name in names):
        return None, "real data"
    return miniature.draw(scratch / "drawn"), "drawn data (for the real ones set DATA_ROOT): no figure for the targets"


@dataclass
class Workload:
    """What is measured on, and how much of it."""

    objects: ObjectIndex  # COCO's, with run lengths
    small: ObjectIndex  # a few hundred of COCO's, from this file
    annotations: Path
    frames: ObjectIndex  # of videos, for the click benchmark
    scratch: Path
    passes: int
    many: int = 500_000  # objects in the memory of loaders; the index has a fifth of them, the click memory all of COCO
    remembered: int = COCO_OBJECTS
    loaded: int = 100
    crop: int = 512

    @property
    def encoded(self) -> ObjectIndex:
        """The objects that are kept as run lengths."""
        return self.objects.select(self.objects.mask_kind == MaskKind.RLE)


SECTIONS: dict[str, Callable[[Workload], Iterator[Figure]]] = {
    "loader": lambda load: loader_figures(load.encoded, load.passes, load.loaded),
    "images": lambda load: image_figures(load.small, load.passes, load.loaded),
    "guidance": lambda load: guidance_figures(2 * load.passes),
    "attention": lambda load: attention_figures(load.passes, load.crop, load.crop),
    "exits": lambda load: exits_figures(load.small, load.scratch, load.passes, load.crop),
    "clicks": lambda load: click_figures(load.frames, load.passes, load.crop),
    "iteration": lambda load: iteration_figures(load.objects, load.passes, load.remembered),
    "instances": lambda load: instance_figures(load.scratch, min(5_000, load.many // 100)),
    "solov2": lambda load: solov2_figures(load.passes, load.crop),
    "memory": lambda load: memory_figures(load.small, load.frames, load.scratch, load.many),
    "index": lambda load: index_figures(
        load.annotations, load.small.image_path(0).parent, load.scratch, load.passes, load.many // 5
    ),
}


def workload(passes: int, scratch: Path) -> tuple[Workload, str]:
    """The real data where they are, else drawn ones, and what they are in words."""
    real = ["coco_mval800", "coco200/val2017", "davis345"]
    root, which = data_root(real, scratch)
    coco = real[1] if root is None else "coco2017/val"
    with contextlib.redirect_stderr(io.StringIO()):
        objects, small, frames = (catalog.open_index(name, root) for name in (real[0], coco, real[2]))
    place = catalog.find(coco)
    annotations = place.sources(catalog.root_of(place, root))[0]
    load = Workload(
        objects=objects, small=small, annotations=annotations, frames=frames, scratch=scratch, passes=passes
    )
    return load, f"{which}: {objects.dataset}, {coco}, {frames.dataset}"


def table_of(lines: Sequence[Figure]) -> Table:
    """The figures as a table."""
    table = Table()
    for heading in ("measure", "figure", "target", "reference", "ratio", "note"):
        table.add_column(heading)
    for line in lines:
        sign = "≥" if line.unit.endswith("/s") else "≤"
        target = "" if line.target is None else f"{sign} {line.target:g} {'met' if line.met else 'MISSED'}"
        ratio = "" if line.ratio is None else f"{line.ratio:.3g}"
        table.add_row(line.what, f"{line.value:.3g} {line.unit}", target, line.reference, ratio, line.note)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed and memory of loader, index, guidance, attention and clicks.")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--passes", type=int, default=9, help="how often each task is timed; the best counts")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    console = Console(width=None if os.isatty(1) else 160)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        os.environ["CACHE_ROOT"] = str(Path(scratch, "cache"))  # leaves nothing behind, finds nothing built before
        load, data = workload(arguments.passes, Path(scratch))
        console.print(f"on {data}", highlight=False)
        lines = [line for name in arguments.only for line in SECTIONS[name](load)]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OpenCV {cv2.__version__}"
    console.print(table_of(lines))
    console.print(f"one core of {machine}; processor time, best of {arguments.passes} passes", highlight=False)
    if arguments.json:
        measures = [asdict(line) | {"met": line.met} for line in lines]
        arguments.json.write_text(json.dumps({"data": data, "machine": machine, "measures": measures}, indent=1))


if __name__ == "__main__":
    main()
