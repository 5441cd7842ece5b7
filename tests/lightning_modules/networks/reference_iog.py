"""A second implementation of IOG's two networks, on the official names and with plain functions.

It shares nothing with the suite, and with the reference of DEXTR only blocks. Every rule is a value, see `reference`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.lightning_modules.networks.reference import Rules, bilinear, norm
from tests.lightning_modules.networks.reference import bottleneck as resnet_block

NETWORKS = ("main_resnet50", "main_resnet101", "refine_resnet50", "refine_resnet101")


def official_shapes(network: str) -> dict[str, list[int]]:
    return json.loads(Path(__file__).with_name(f"iog_{network}.json").read_text())


@dataclass(frozen=True)
class IOGRules(Rules):
    depths: tuple[int, ...] = (3, 4, 6, 3)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    dilations: tuple[tuple[int, ...], ...] = ((1,) * 3, (1,) * 4, (1,) * 23, (2, 4, 8))
    stride_on_first_1x1: bool = False
    channel_order: tuple[int, ...] = (0, 1, 2, 3, 4)
    click_order: tuple[int, ...] = (0, 1)
    branch_first: bool = False  # in front of stage 4, before the pyramid
    lateral_rectifier: bool = True
    second_level_as_is: bool = True  # else through the module that the checkpoint has for it
    upsamples: tuple[int, ...] = (1, 2)  # the numbers of the modules that lead to the third and to the fourth level
    convolve_before_upsampling: bool = False
    rectify_from_above: bool = False
    rectify_sum: bool = False
    side_rectifier: bool = True
    normalise_before_upsampling: bool = False
    normalised_logits: bool = True
    quarter_size_first: bool = True
    blocks_per_level: tuple[int, ...] = (3, 2, 1, 0)
    upsample_before_blocks: bool = False
    projected_shortcut: bool = True
    block_rectifier: bool = True
    fine_order: tuple[int, ...] = (0, 1, 2, 3)


def iog(state: Mapping[str, Tensor], x: Tensor, rules: IOGRules, maps: Tensor | None = None) -> list[Tensor]:
    """Fine logits, then the four coarse ones, deepest first."""
    stages = backbone(state, x[:, list(rules.channel_order)], rules)
    deep = stages[3]
    if maps is not None:
        clicks = bilinear(click_branch(state, maps[:, list(rules.click_order)], rules), deep.shape[-2:], rules)
        deep = torch.cat([clicks, deep] if rules.branch_first else [deep, clicks], 1)
    size, quarter = x.shape[-2:], stages[0].shape[-2:]
    levels = coarse_levels(state, [pyramid(state, deep, rules), stages[2], stages[1], stages[0]], rules)
    logits = [fine(state, levels, quarter, rules)]
    for number, level in enumerate(levels):
        logits.append(coarse_logits(state, number, level, quarter if rules.quarter_size_first else size, rules))
    return [bilinear(logit, size, rules) for logit in logits]


def conv(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def backbone(state: Mapping[str, Tensor], x: Tensor, rules: IOGRules) -> list[Tensor]:
    x = F.conv2d(x, state["backbone.conv1.weight"], stride=2, padding=3)
    x = F.relu(norm(state, "backbone.bn1", x, rules))
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=rules.ceil_mode)
    stages = []
    for stage, (depth, stride) in enumerate(zip(rules.depths, rules.strides)):
        for block in range(depth):
            name, step = f"backbone.layer{stage + 1}.{block}", stride if block == 0 else 1
            x = resnet_block(state, name, x, step, rules.dilations[stage][block], rules)
        stages.append(x)
    return stages


def click_branch(state: Mapping[str, Tensor], maps: Tensor, rules: IOGRules) -> Tensor:
    for layer, stride in ((0, 2), (3, 2), (6, 2), (9, 2), (12, 1)):
        maps = conv(state, f"iog_points.{layer}", maps, stride)
        maps = F.relu(norm(state, f"iog_points.{layer + 1}", maps, rules))
    return maps


def pyramid(state: Mapping[str, Tensor], x: Tensor, rules: IOGRules) -> Tensor:
    parts = {"features": x}
    for stage, size in enumerate((1, 2, 3, 6)):
        pooled = conv(state, f"psp4.stages.{stage}.1", F.adaptive_avg_pool2d(x, size))
        pooled = F.relu(norm(state, f"psp4.stages.{stage}.2", pooled, rules))
        parts[f"p{size}"] = bilinear(pooled, x.shape[-2:], rules)
    x = conv(state, "psp4.bottleneck.0", torch.cat([parts[part] for part in rules.concatenation], 1))
    return F.relu(norm(state, "psp4.bottleneck.1", x, rules))


def coarse_levels(state: Mapping[str, Tensor], features: list[Tensor], rules: IOGRules) -> list[Tensor]:
    levels: list[Tensor] = []
    for number, x in enumerate(features):
        x = norm(state, f"Coarse_net.laterals.{number}.1", conv(state, f"Coarse_net.laterals.{number}.0", x), rules)
        x = F.relu(x) if rules.lateral_rectifier else x
        if number == 1:
            x = x + (levels[0] if rules.second_level_as_is else from_above(state, 0, levels[0], x, rules))
        elif number > 1:
            x = x + from_above(state, rules.upsamples[number - 2], levels[-1], x, rules)
        levels.append(F.relu(x) if rules.rectify_sum and number else x)
    return levels


def from_above(state: Mapping[str, Tensor], module: int, x: Tensor, like: Tensor, rules: IOGRules) -> Tensor:
    name = f"Coarse_net.upsamples.{module}"
    if rules.convolve_before_upsampling:
        x = bilinear(norm(state, f"{name}.2", conv(state, f"{name}.1", x), rules), like.shape[-2:], rules)
    else:
        x = norm(state, f"{name}.2", conv(state, f"{name}.1", bilinear(x, like.shape[-2:], rules)), rules)
    return F.relu(x) if rules.rectify_from_above else x


def coarse_logits(state: Mapping[str, Tensor], number: int, x: Tensor, size: torch.Size, rules: IOGRules) -> Tensor:
    name = f"Coarse_net.predict.{number}"
    x = norm(state, f"{name}.1", conv(state, f"{name}.0", x), rules)
    x = conv(state, f"{name}.3", F.relu(x) if rules.side_rectifier else x)
    if rules.normalise_before_upsampling:
        return bilinear(norm(state, f"{name}.5", x, rules), size, rules)
    x = bilinear(x, size, rules)
    return norm(state, f"{name}.5", x, rules) if rules.normalised_logits else x


def fine(state: Mapping[str, Tensor], levels: list[Tensor], size: torch.Size, rules: IOGRules) -> Tensor:
    refined = []
    for number, x in enumerate(levels):
        x = bilinear(x, size, rules) if rules.upsample_before_blocks else x
        for block in range(rules.blocks_per_level[number]):
            x = fine_block(state, f"Fine_net.cascade.{number}.{block}", x, rules)
        refined.append(bilinear(x, size, rules))
    x = torch.cat([refined[number] for number in rules.fine_order], 1)
    x = conv(state, "Fine_net.final_predict.1", fine_block(state, "Fine_net.final_predict.0", x, rules))
    return norm(state, "Fine_net.final_predict.2", x, rules) if rules.normalised_logits else x


def fine_block(state: Mapping[str, Tensor], name: str, x: Tensor, rules: IOGRules) -> Tensor:
    y = F.relu(norm(state, f"{name}.bn1", conv(state, f"{name}.conv1", x), rules))
    y = F.relu(norm(state, f"{name}.bn2", conv(state, f"{name}.conv2", y), rules))
    y = norm(state, f"{name}.bn3", conv(state, f"{name}.conv3", y), rules)
    if rules.projected_shortcut or x.shape != y.shape:
        x = norm(state, f"{name}.downsample.1", conv(state, f"{name}.downsample.0", x), rules)
    return F.relu(x + y) if rules.block_rectifier else x + y
