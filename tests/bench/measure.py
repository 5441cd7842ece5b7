"""What every figure is measured with."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        before, processor = status("VmRSS"), time.process_time()
        answer = task()
        spent = time.process_time() - processor
        sender.send({"answer": answer, "seconds": spent, "peak": status("VmHWM") - before})

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError("a measuring process ended without an answer; its error is printed above") from None
    finally:
        process.join()


def status(key: str, process: int | str = "self", file: str = "status") -> float:
    """A line of /proc/<process>/status or smaps_rollup in MiB, 0 where there is none."""
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def written_by(process: int) -> float:
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
