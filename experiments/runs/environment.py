"""What a result may depend on besides its recipe: code, versions, hardware; which process writes."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy", "opencv-python-headless", "albumentations")


def is_rank_zero() -> bool:
    """Whether this process speaks for its group: the only one, or rank 0 of several."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def environment() -> dict[str, Any]:
    """What a result may depend on besides its configuration: code, versions, hardware."""
    return {
        "git": git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "host": platform.node(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def git_commit() -> str | None:
    """The commit of the code, marked when files differ from it; None outside a repository."""

    def git(*arguments: Sequence[str] | str) -> str:
        where = Path(__file__).parent
        done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True)  # type: ignore[list-item]
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
