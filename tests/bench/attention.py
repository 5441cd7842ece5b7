"""Position attention without its N x N weights, beside the printed formula that stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from lightning_modules.networks.attention import PositionAttention
from tests.bench.measure import MIB, Figure, apart, best_of
from tests.lightning_modules.networks.test_attention import plain_position, saved_tensors


def saved_mib(task: Callable[[], Tensor]) -> float:
    """MiB that a forward pass keeps for its backward pass, each storage once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in saved_tensors(task)}
    return sum(storage.nbytes() for storage in storages.values()) / MIB


def attention_figures(passes: int, size: int = 512, channels: int = 512, stride: int = 8) -> Iterator[Figure]:
    """One image of this size through FAIRS' position attention: time, memory kept and the memory's peak."""
    torch.manual_seed(0)
    module = PositionAttention(channels)
    x = torch.randn(1, channels, size // stride, size // stride, requires_grad=True)
    forwards: dict[str, Callable[[], Tensor]] = {
        "fused": partial(module, x),
        "plain": partial(plain_position, module, x),
    }
    steps: dict[str, Callable[[], object]] = {
        name: lambda forward=forward: forward().sum().backward() for name, forward in forwards.items()
    }
    what, beside = f"position attention, {(size // stride) ** 2} cells", "all weights at once"
    times = best_of(passes, **steps)
    saved = {name: saved_mib(forward) for name, forward in forwards.items()}
    peaks = {name: apart(step)["peak"] for name, step in steps.items()}
    fused, plain = (times[name][0] for name in ("fused", "plain"))
    yield Figure(
        what,
        fused,
        "s",
        reference=f"{beside} {plain:.2f} s",
        ratio=fused / plain,
        note="forward and backward, one image",
    )
    for label, sizes in (("kept for the backward pass", saved), ("memory's peak", peaks)):
        ratio = sizes["fused"] / sizes["plain"]
        yield Figure(
            f"  {label}",
            sizes["fused"],
            "MiB",
            reference=f"{beside} {sizes['plain']:.0f} MiB",
            ratio=ratio,
        )
