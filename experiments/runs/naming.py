"""How data name the runs that list or label their objects."""

from __future__ import annotations

from typing import Any

LIST = "objects.txt"  # what a `select` run makes: ids of objects, one a line

LABELS = "labels.json"  # what a `label` run makes: masks in COCO's format

NAMING = {"select": ("listed", LIST), "label": ("labelled", LABELS)}  # how data name such runs, and their files


def named_runs(spec: Any) -> dict[str, str]:
    """What an entry of data names of other runs, by key: {listed: <hash or file>}, {labelled: ...}."""
    keys = [key for key, _ in NAMING.values()]
    return {key: spec[key] for key in keys if spec.get(key) is not None} if isinstance(spec, dict) else {}
