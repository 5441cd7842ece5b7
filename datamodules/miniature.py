"""The embedded data: small drawn data sets in the official layouts, so that everything runs without a download.

    python -m datamodules.miniature ROOT            draws them below ROOT, in seconds, once

They are written from the formats' definitions and read by the readers of the real data. A seed fixes every pixel: each
picture has a generator of its own, keyed by seed and name.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from datamodules.drawn.layouts import LAYOUTS
from datamodules.files import remove_partial, whole_folder
from datamodules.locks import alone
from datamodules.ranges import WHOLE

VERSION = 4  # raise when anything drawn or written changes

MARKER = "miniature.json"


def draw(root: Path, seed: int = 0) -> Path:
    """Draw all data sets below `root`, which becomes a DATA_ROOT; at once when they are there already.

    The folder appears in one step, whole, and processes that ask for it at the same time draw it once. What an older
    version or another seed drew is replaced. Raises FileExistsError when `root` holds anything else.
    """
    root = Path(root).absolute()
    wanted = {"version": VERSION, "seed": seed}
    if _drawn(root).items() >= wanted.items():
        return root
    with alone(root.with_name(f".{root.name}.lock"), f"the drawing {root}"):
        if _drawn(root).items() >= wanted.items():  # by another process, while this one waited
            return root
        found = {path.name for path in root.iterdir()} if root.exists() else set()
        if foreign := found - set(_drawn(root).get("holds", ())):
            raise FileExistsError(f"{root} holds {min(foreign)}; expected a new folder or one of drawn data sets only")
        remove_partial(root)
        with whole_folder(root, durable=False) as drawing:
            for draw_layout in LAYOUTS:
                draw_layout(drawing, seed)
            holds = [MARKER, *sorted(path.name for path in drawing.iterdir())]
            (drawing / MARKER).write_text(json.dumps({**wanted, "holds": holds}))
    return root


def _drawn(root: Path) -> dict[str, Any]:
    """What the marker of a finished drawing says; empty where there is none. A damaged one says what lies there."""
    marker = root / MARKER
    try:
        return dict(json.loads(marker.read_text())) if marker.exists() else {}
    except (ValueError, TypeError):
        return {"holds": [path.name for path in root.iterdir()]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the small data sets this suite brings along.")
    parser.add_argument("root", type=Path, help="a new folder; it becomes a DATA_ROOT")
    parser.add_argument("--seed", type=WHOLE, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    draw(arguments.root, arguments.seed)
    print(f"drawn data sets in {arguments.root} ({time.perf_counter() - started:.1f} s)")


if __name__ == "__main__":
    main()
