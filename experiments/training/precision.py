"""What half precision costs on a CPU: without instructions for it, it is many times slower than single precision."""

from __future__ import annotations

import time

import torch
from torch.nn.functional import conv2d

WORTH_A_WORD = 1.2  # times slower


def slowdown(repeats: int = 3) -> float:
    """How many times slower this CPU convolves in bfloat16 than in single precision; a few milliseconds of trying."""

    def fastest(dtype: torch.dtype) -> float:
        image, kernel = torch.ones(1, 32, 64, 64, dtype=dtype), torch.ones(32, 32, 3, 3, dtype=dtype)
        times = []
        for _ in range(repeats + 1):  # the first one prepares
            started = time.perf_counter()
            conv2d(image, kernel, padding=1)
            times.append(time.perf_counter() - started)
        return min(times[1:])

    with torch.inference_mode():
        return fastest(torch.bfloat16) / fastest(torch.float32)


def cost_in_words(precision: str, times_slower: float) -> str:
    """The note on a precision of this cost; empty where it costs nothing."""
    if times_slower < WORTH_A_WORD:
        return ""
    return (
        f"note: trainer.precision={precision} is about {times_slower:.1f} times slower than 32-true on this CPU, which "
        "has no instructions for it; write trainer.precision=32-true"
    )
