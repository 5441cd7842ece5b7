"""What a recipe becomes: plain values, classes as {class_path, init_args}."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]
