"""Pretrained starts of a backbone: from a file, from timm's cache or its hub; without any, training says so."""

import os
import re
import warnings
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from torch import Tensor, nn

from lightning_modules.networks.official import NameTable, deeplab_names, load_exactly, read_weights, rename

IMAGENET = (True, "timm", "imagenet")
# Of a method with such a backbone: the argument that names first weights -> the one that says which backbone they fit.
FIRST_WEIGHTS = {"network.pretrained": "network.backbone"}
HUB_FILE = "model.safetensors"
# Classifiers are left out (fc of ResNets, head of Xceptions); DeepLab-v2's multi-scale checkpoint, DEXTR's start, keeps
# the ResNet below `Scale`.
BACKBONE_NAMES: NameTable = {r"^(Scale\.)?(fc|layer5|head)\.": None, r"^(Scale|backbone)\.": ""}
# Of TensorFlow's checkpoints: what only training reads, and DeepLab's output layer, which has other classes.
LEFT_OUT = re.compile(r"^global_step$|/Momentum$|^logits/")


def load_pretrained(backbone: nn.Module, name: str, pretrained: bool | str | None, new_channels: str) -> str | None:
    """Fill a backbone; the arguments are those of `dilated_resnet`. Returns where the weights came from, or None.

    A file may be of timm or torchvision, DeepLab-v2's `MS_DeepLab_resnet_trained_VOC.pth`, or a whole DeepLabv3+.

    Stored batch statistics come along. DEXTR's code leaves them at 0 and 1 and learns them anew, which differs for the
    first fifty steps or so, and only in evaluation.
    """
    conv_name, conv = next((name, layer) for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d))
    if not pretrained or conv.weight.is_meta:
        return None
    path = find_pretrained(name, pretrained)
    if path is None:
        warnings.warn(
            f"no ImageNet weights for {name} in timm's cache; training starts from random ones (HUB=1 lets timm fetch "
            "them, `pretrained` may name a file)",
            stacklevel=2,
        )
        return None
    source = f"timm {name}" if pretrained in IMAGENET else path.name
    weights = read_start(path)
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


def find_pretrained(name: str, pretrained: bool | str | None) -> Path | None:
    """The file of weights that a recipe asks for, None where training starts from random ones.

    ImageNet weights are looked for in timm's cache; they are fetched only with the user's word, HUB=1, and are an error
    then when they cannot be had.
    """
    if not pretrained:
        return None
    if pretrained not in IMAGENET:
        return Path(str(pretrained))
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not known.hf_hub_id:
        return None
    cached = try_to_load_from_cache(known.hf_hub_id, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    if os.environ.get("HUB", "0") in ("", "0"):
        return None
    try:
        return Path(hf_hub_download(known.hf_hub_id, HUB_FILE))
    except Exception as error:  # the hub's client raises many unrelated types
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OSError(f"HUB=1, but {known.hf_hub_id} cannot be fetched: {reason}") from error
