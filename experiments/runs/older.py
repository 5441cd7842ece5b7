"""Runs that older versions of the suite made: recognised, read where that can be done, and said to be older."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from experiments.composition.tree import Tree
from experiments.runs.files import digest

FORMAT = 2  # of config.yaml and of names; CHANGELOG.md says what each number changed


class HasKind(Protocol):
    """A node, of which the kind is all that matters here."""

    @property
    def kind(self) -> str: ...


Run = TypeVar("Run", bound=HasKind)


def modern(content: Mapping[str, Any], folder: str) -> tuple[Tree, str]:
    """What a run's config.yaml would say today, and in words what is older about it; nothing where it is not.

    `folder` is the folder's name: format 1 knew a run by it alone.
    """
    if content.get("format") == FORMAT:
        return dict(content), ""
    if content.get("format", 1) > FORMAT:
        raise ValueError(
            f"run {folder} was made by a newer version of the suite (format {content['format']}, this one reads up to "
            f"{FORMAT}): update the suite"
        )
    upgraded = copy.deepcopy(dict(content))
    evaluation = upgraded["config"]["evaluation"]
    if "box" not in evaluation:  # where it stood before it became every protocol's, or DEXTR's, when there was no other
        evaluation["box"] = (evaluation.get("clicks") or {}).pop("box", "tight")
    # Names were digests; a folder that somebody renamed is known by what it says of itself.
    upgraded["run"] = folder if re.fullmatch(r"[0-9a-f]{16}", folder) else digest(content)
    return upgraded, (
        f"run {upgraded['run']} was made by an older version of the suite (format 1, today's is {FORMAT}): it is "
        "read as it is, and a table of today makes a run of its own in its place"
    )


def by_role(kind: str, runs: Sequence[Run]) -> tuple[dict[str, Run], tuple[Run, ...]]:
    """The parents of format 1, which stood in a fixed order, by role; and those that the data named."""
    models = [run for run in runs if run.kind in ("train", "weights")]
    if kind == "select":
        return {"evaluation": runs[0]}, ()
    roles = ("start",) if kind == "train" else ("model", "first_stage")
    return dict(zip(roles, models)), tuple(run for run in runs if run.kind in ("select", "label"))


def older_runs(root: Path) -> int:
    """How many finished runs of older versions lie in a store."""
    files = root.glob("*/config.yaml")
    return sum(is_older(file.parent) and (file.parent / "record.json").exists() for file in files)


def is_older(folder: Path) -> bool:
    """Whether an older version of the suite made this run; not for a newer one, or where there is no run."""
    try:
        with (folder / "config.yaml").open() as text:
            found = re.fullmatch(r"format: (\d+)\n", text.readline())
    except FileNotFoundError:
        return False
    return found is None or int(found[1]) < FORMAT
