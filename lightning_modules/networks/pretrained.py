"""Pretrained starts of a backbone: from a file, from timm's cache or its hub; without any, training says so."""

import socket
import warnings
from pathlib import Path
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from lightning_modules.networks.official import NameTable, load_exactly, read_weights, rename

# Classifiers are left out; DeepLab-v2's multi-scale checkpoint, DEXTR's start, keeps the ResNet below `Scale`.
BACKBONE_NAMES: NameTable = {r"^(Scale\.)?(fc|layer5)\.": None, r"^Scale\.": ""}


def load_pretrained(backbone: nn.Module, name: str, pretrained: bool | str | None, new_channels: str) -> str | None:
    """Fill a backbone; the arguments are those of `dilated_resnet`. Returns where the weights came from, or None.

    A file may be of timm or torchvision, or DeepLab-v2's `MS_DeepLab_resnet_trained_VOC.pth`.

    Stored batch statistics come along. DEXTR's code leaves them at 0 and 1 and learns them anew, which differs for the
    first fifty steps or so, and only in evaluation.
    """
    conv_name, conv = next((name, layer) for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d))
    if not pretrained or conv.weight.is_meta:
        return None
    if pretrained is True or pretrained in ("timm", "imagenet"):
        found = cached_weights(name) or hub_weights(name)
        if found is None:
            return None
        source, weights = f"timm {name}", found
    else:
        source, weights = Path(pretrained).name, read_weights(pretrained)
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


def cached_weights(name: str) -> dict[str, Tensor] | None:
    """ImageNet weights that timm fetched before, found without asking the hub."""
    known = timm.models.get_pretrained_cfg(name)
    path = try_to_load_from_cache(known.hf_hub_id, "model.safetensors") if known and known.hf_hub_id else None
    return read_weights(path) if isinstance(path, str) else None


def hub_weights(name: str) -> dict[str, Tensor] | None:
    """ImageNet weights from timm's hub; None, with a warning, where there are none to get."""
    try:
        if not getproxies():
            socket.getaddrinfo("huggingface.co", 443)  # without a network the hub's client retries for a minute
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the hub's client raises many unrelated types
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warnings.warn(f"no pretrained weights for {name} ({reason}); training starts from random ones", stacklevel=2)
        return None
