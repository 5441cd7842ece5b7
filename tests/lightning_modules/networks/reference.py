"""A second implementation of DEXTR's network, written from the paper's and the code's rules with plain functions.

It shares nothing with the suite. Every rule is a value, so that a test can break one and see that it matters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

OFFICIAL_SHAPES: dict[str, list[int]] = json.loads(Path(__file__).with_name("dextr_resnet101.json").read_text())


@dataclass(frozen=True)
class Rules:
    depths: tuple[int, ...] = (3, 4, 23, 3)
    strides: tuple[int, ...] = (1, 2, 1, 1)
    dilations: tuple[tuple[int, ...], ...] = ((1,) * 3, (1,) * 4, (2,) * 23, (4,) * 3)  # one per block
    stride_on_first_1x1: bool = True
    ceil_mode: bool = False
    batch_statistics: bool = False
    align_corners: bool = True
    concatenation: tuple[str, ...] = ("p1", "p2", "p3", "p6", "features")
    channel_order: tuple[int, ...] = (0, 1, 2, 3)


DEXTR = Rules()


def official_weights(shapes: Mapping[str, list[int]] = OFFICIAL_SHAPES, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the official names, scaled so that 33 residual blocks keep the signal in bounds."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.long)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) == 4:
            fan_in = shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        elif name.endswith("weight"):
            state[name] = (0.3 if ".bn3." in name else 1.0) * (0.8 + 0.4 * torch.rand(shape, generator=generator))
        else:
            state[name] = 0.1 * torch.randn(shape, generator=generator)
    return state


def backbone(state: Mapping[str, Tensor], x: Tensor, rules: Rules = DEXTR) -> Tensor:
    x = x[:, list(rules.channel_order)] if x.shape[1] == 4 else x
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.relu(norm(state, "bn1", x, rules))
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=rules.ceil_mode)
    for stage, (depth, stride) in enumerate(zip(rules.depths, rules.strides)):
        for block in range(depth):
            step = stride if block == 0 else 1
            x = bottleneck(state, f"layer{stage + 1}.{block}", x, step, rules.dilations[stage][block], rules)
    return x


def bottleneck(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int, dilation: int, rules: Rules) -> Tensor:
    first, second = (stride, 1) if rules.stride_on_first_1x1 else (1, stride)
    y = F.relu(norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=first), rules))
    y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=second, padding=dilation, dilation=dilation)
    y = F.relu(norm(state, f"{name}.bn2", y, rules))
    y = norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]), rules)
    if f"{name}.downsample.0.weight" in state:
        x = norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), rules)
    return F.relu(x + y)


def psp(state: Mapping[str, Tensor], x: Tensor, rules: Rules = DEXTR) -> Tensor:
    parts = {"features": x}
    for stage, size in enumerate((1, 2, 3, 6)):
        pooled = F.conv2d(F.adaptive_avg_pool2d(x, size), state[f"layer5.stages.{stage}.1.weight"])
        pooled = F.relu(norm(state, f"layer5.stages.{stage}.2", pooled, rules))
        parts[f"p{size}"] = bilinear(pooled, x.shape[-2:], rules)
    x = F.conv2d(torch.cat([parts[part] for part in rules.concatenation], 1), state["layer5.bottleneck.0.weight"])
    x = F.relu(norm(state, "layer5.bottleneck.1", x, rules))
    return F.conv2d(x, state["layer5.final.weight"], state["layer5.final.bias"])


def dextr(state: Mapping[str, Tensor], x: Tensor, rules: Rules = DEXTR) -> Tensor:
    return bilinear(psp(state, backbone(state, x, rules), rules), x.shape[-2:], rules)


def norm(state: Mapping[str, Tensor], name: str, x: Tensor, rules: Rules) -> Tensor:
    mean, var = state[f"{name}.running_mean"].clone(), state[f"{name}.running_var"].clone()
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], rules.batch_statistics)


def bilinear(x: Tensor, size: torch.Size, rules: Rules) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=rules.align_corners)
