"""Official weights: read without running code, renamed by one small table per network, loaded whole or not at all."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NameTable = Mapping[str, str | None]  # a pattern of official names -> its replacement, None to leave such entries out

# DEXTR-PyTorch, ResNet-101 + PSP: timm kept the names of the backbone, and layer5 is the head.
DEXTR_NAMES: NameTable = {r"^layer5\.": "head.", r"^(?=(conv1|bn1|layer[1-4])\.)": "backbone."}

# IOG, main and refinement network on ResNet-50 and 101. The authors number the layers of a prediction, the rectifiers
# and upsamplings between them included, and keep a module that is never called.
IOG_NAMES: NameTable = {
    r"^psp4\.": "context.",
    r"^iog_points\.": "clicks.",
    r"^Coarse_net\.upsamples\.0\.": None,
    r"^Coarse_net\.upsamples\.(\d)\.1\.": r"coarse.from_above.\1.0.",
    r"^Coarse_net\.upsamples\.(\d)\.2\.": r"coarse.from_above.\1.1.",
    r"^Coarse_net\.predict\.(\d)\.([01])\.": r"coarse.decisions.\1.before.\2.",
    r"^Coarse_net\.predict\.(\d)\.3\.": r"coarse.decisions.\1.logit.",
    r"^Coarse_net\.predict\.(\d)\.5\.": r"coarse.decisions.\1.norm.",
    r"^Coarse_net\.": "coarse.",
    r"^Fine_net\.final_predict\.0\.": "fine.decision.before.",
    r"^Fine_net\.final_predict\.1\.": "fine.decision.logit.",
    r"^Fine_net\.final_predict\.2\.": "fine.decision.norm.",
    r"^Fine_net\.": "fine.",
}

# MAL, whose network EXITS keeps: timm's names in the blocks; its query is made in the "roi_head".
MAL_NAMES: NameTable = {
    r"^backbone\.patch_embed\.proj\.3\.3\.": "backbone.patch_embed.project.",
    r"^backbone\.patch_embed\.proj\.(?=\d)": "backbone.patch_embed.stages.",
    r"^roi_head\.mlp1\.": "decoder.query.0.",
    r"^roi_head\.mlp2\.": "decoder.query.2.",
    r"^mask_head\.convs\.(\d)\.conv\.": r"decoder.pixels.\1.",
}

UNSAFE = re.compile("Unsupported global")
LISTED = 8  # names shown per kind of mismatch; the count says how many there are


def load_official(network: nn.Module, path: str | Path, table: NameTable | None = None) -> None:
    """Fill `network` with official weights; a file of another network is refused and changes nothing.

    Args:
        table: the official names; None for those that the network's class knows as its `official_names`. Of a class
            without, a file has our own names.

    Names and shapes are all a file can be checked by. Stride place, dilation, ceil_mode and channel order carry no
    weights: build the network as the official recipe says (DEXTR: output stride 8, stride_on conv1, RGB then points).
    """
    path = Path(path)
    names: NameTable = getattr(network, "official_names", {}) if table is None else table
    official = read_weights(path)
    renamed = {ours: weight for name, weight in official.items() if (ours := rename(name, names)) is not None}
    load_exactly(network, renamed, source=path.name)
    getattr(network, "backbone", network).weights_source = f"official {path.name}"


def rename(name: str, table: NameTable) -> str | None:
    """Our name of an official one by the first pattern that is found in it; a name without pattern stays as it is."""
    for pattern, ours in table.items():
        if re.search(pattern, name):
            return None if ours is None else re.sub(pattern, ours, name, count=1)
    return name


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """State dict of a .pth or .safetensors file, also a nested or a DataParallel one; nothing in it is executed."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the path of a .pth or .safetensors file")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .pth or .safetensors file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(_unreadable(path, error)) from None
    for nest in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(nest), Mapping):
            state = state[nest]
    if not isinstance(state, Mapping) or not state or not all(isinstance(w, Tensor) for w in state.values()):
        raise ValueError(f"{path} holds no state dict: expected names with tensors, got {type(state).__name__}")
    if numbers := [name for name in state if not isinstance(name, str)]:
        raise ValueError(f"{path} holds no state dict: its names must be text, got {numbers[0]!r}")
    if all(name.startswith("module.") for name in state):  # saved from within DataParallel
        state = {name.removeprefix("module."): weight for name, weight in state.items()}
    return dict(state)


def _unreadable(path: Path, error: BaseException) -> str:
    """Why a file is no weights, in our words: PyTorch's advice would have a stranger's code run."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return f"{path} is empty; fetch it again"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"{path} is a web page, not weights; fetch the file that the page links to"
    if path.suffix == ".safetensors":
        return f"{path} is no whole .safetensors file: cut off or damaged; fetch it again"
    if head.startswith(b"PK"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if not any(name.endswith("data.pkl") for name in archive.namelist()):
                    return f"{path} is a zip archive, but no PyTorch checkpoint; unpack it and give the file of weights"
        else:
            return f"{path} is cut off or damaged; fetch it again"
    if isinstance(error, pickle.UnpicklingError) and UNSAFE.search(str(error)):
        return f"{path} holds more than plain weights (objects that would run code); save a state dict of tensors"
    return f"{path} cannot be read as plain weights: damaged, cut off or no PyTorch file; fetch it again"


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load every tensor of `network` from `weights`, or raise with what is missing, left over and of another shape.

    Only batch counters (num_batches_tracked) may be absent: files older than PyTorch 0.4.1 have none.
    """
    own = network.state_dict()
    counters = {name: own[name] for name in own.keys() - weights.keys() if name.endswith("num_batches_tracked")}
    weights = {**weights, **counters}
    problems = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in weights and weights[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        lists = "\n".join(_listed(kind, names) for kind, names in problems.items() if names)
        raise ValueError(f"{source} holds other weights than this {type(network).__name__}; nothing loaded:\n{lists}")
    network.load_state_dict(weights)


def _listed(kind: str, names: list[str]) -> str:
    rest = len(names) - LISTED
    return f"  {len(names)} {kind}: {', '.join(names[:LISTED])}" + (f", and {rest} more" if rest > 0 else "")


def deeplab_names() -> dict[str, str]:
    """Names in DeepLab's released Xception-65 checkpoints (TensorFlow, ImageNet's or a whole DeepLabv3+) -> ours.

    Ours are timm's in the backbone; pyramid and decoder lie below `head`. The output layer is left out.
    """
    layers = {f"xception_65/entry_flow/conv1_{n}": (f"stem.{n - 1}.conv", f"stem.{n - 1}.bn") for n in (1, 2)}
    flows = [
        *(f"entry_flow/block{n}/unit_1" for n in (1, 2, 3)),
        *(f"middle_flow/block1/unit_{n}" for n in range(1, 17)),
        *(f"exit_flow/block{n}/unit_1" for n in (1, 2)),
    ]
    kinds = {"depthwise": "dw", "pointwise": "pw"}
    for number, flow in enumerate(flows):
        theirs, ours = f"xception_65/{flow}/xception_module", f"blocks.{number}"
        if number in (0, 1, 2, 19):  # the width changes
            layers[f"{theirs}/shortcut"] = (f"{ours}.shortcut.conv", f"{ours}.shortcut.bn")
        for n in (1, 2, 3):
            for kind, short in kinds.items():
                conv = f"{ours}.stack.conv{n}"
                layers[f"{theirs}/separable_conv{n}_{kind}"] = (f"{conv}.conv_{short}", f"{conv}.bn_{short}")
    head = {
        "image_pooling": "aspp.image_pooling",
        "aspp0": "aspp.branches.0",
        "concat_projection": "aspp.projection",
        "decoder/feature_projection0": "decoder.projection",
        **{f"aspp{n}_{kind}": f"aspp.branches.{n}.{kind}" for n in (1, 2, 3) for kind in kinds},
        **{f"decoder/decoder_conv{n}_{kind}": f"decoder.refine.{n}.{kind}" for n in (0, 1) for kind in kinds},
    }
    layers |= {theirs: (f"head.{ours}.0", f"head.{ours}.1") for theirs, ours in head.items()}
    norms = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    names = {}
    for theirs, (conv, norm) in layers.items():
        names[f"{theirs}/{'depthwise_' * theirs.endswith('_depthwise')}weights"] = f"{conv}.weight"
        names |= {f"{theirs}/BatchNorm/{name}": f"{norm}.{ours}" for name, ours in norms.items()}
    return names
