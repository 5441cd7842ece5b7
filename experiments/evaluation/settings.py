"""The section `evaluation` of a recipe, typed: each protocol says which of its values it reads.

What a protocol does not read determines no result of it, and so no run's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, TypeVar

from datamodules.names import hint
from experiments.composition.building import build_part
from experiments.composition.tree import Tree
from experiments.evaluation.pasting import Paste

# Of every protocol: which one, on what, how many at a time; `study` is what a study reads, without any network.
SHARED = ("protocol", "test", "batch_size", "study")
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class NoSettings:
    """Nothing: what a network answers is all there is."""


@dataclass(frozen=True)
class MaskSettings:
    """How probabilities on a crop become a mask in its image; see `pasting.Paste`.

    Args:
        threshold: of the probability, 0..1, exceeded by the object.
        stretch: the pasted map is stretched to 256 levels first, as DEXTR's code does.
        paste: interpolation on the way back.
        box: where predictions count: the object's own box, that of the first clicks, or all of the crop.
    """

    threshold: float = 0.5
    stretch: bool = False
    paste: Literal["nearest", "linear", "cubic"] = "cubic"
    box: Literal["tight", "clicked", "crop"] = "tight"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:  # NaN, too
            raise ValueError(f"evaluation.threshold is of a probability, 0 to 1, got {self.threshold}")

    @property
    def pasting(self) -> Paste:
        """The same as what does it."""
        return Paste(self.threshold, self.paste, self.stretch, self.box)


@dataclass(frozen=True)
class LabelSettings(MaskSettings):
    """The same, and what a label run writes for an object whose mask is empty or whose box is at most 2 pixels thin.

    Args:
        empty: of a thin one what the network says, and of an empty one `nothing`; or, of both, the filled `box` or the
            filled `quadrilateral` of the extreme points.
    """

    empty: Literal["nothing", "box", "quadrilateral"] = "nothing"


@dataclass(frozen=True)
class SweepSettings(MaskSettings):
    """The same, and other thresholds that a report shows for comparison."""

    thresholds: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shares("evaluation.thresholds", self.thresholds)


@dataclass(frozen=True)
class Clicking:
    """The section `evaluation.clicks`: what a number of clicks means nothing without.

    Args:
        rule: where the next click goes.
        most: clicks of every object, first points included.
        corrections: after the first points; None for as many as `most` allows.
        start: from `nothing`, or from a `mask` of the data set.
        targets: IoUs, 0..1, that are to be reached.
        sweep: IoUs at which a user stops, for curves of IoU by clicks used.
        seed: of ties and of careless users; None for the data's.
    """

    rule: str = "itis"
    most: int = 20
    corrections: int | None = None
    start: Literal["nothing", "mask"] = "nothing"
    targets: Sequence[float] = (0.85, 0.9)
    sweep: Sequence[float] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.most < 1 or (self.corrections or 0) < 0:
            raise ValueError(
                f"evaluation.clicks needs at least one click, got most {self.most}, corrections {self.corrections}"
            )
        _check_shares("evaluation.clicks.targets", self.targets)
        _check_shares("evaluation.clicks.sweep", self.sweep)


@dataclass(frozen=True)
class ClickSettings(MaskSettings):
    """The same, and how the simulated user clicks."""

    clicks: Clicking = field(default_factory=Clicking)


def _check_shares(name: str, values: Sequence[float]) -> None:
    if wrong := [value for value in values if not 0 <= value <= 1]:  # NaN, too
        raise ValueError(f"{name} are shares, 0 to 1, got {wrong[0]}")


def check_section(evaluation: Tree, kinds: Iterable[type]) -> None:
    """Raises ValueError for a key that no one of `kinds` reads, the settings of all protocols, and no label run does,
    and for wrong shared values.
    """
    known = {*SHARED, *(each.name for kind in (LabelSettings, *kinds) for each in fields(kind))}
    for key in evaluation:
        if key not in known:
            raise ValueError(f"no value evaluation.{key}; {hint(key, sorted(known))}")
    if not isinstance(evaluation.get("test"), list):
        raise ValueError(f"evaluation.test is a list of data sets, got {evaluation.get('test')!r}")
    size = evaluation.get("batch_size")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"evaluation.batch_size is a number of objects, 1 or more, got {size!r}")


def read_settings(kind: type[Settings], evaluation: Tree) -> Settings:
    """What a protocol reads of a recipe's section. Raises ValueError in one sentence for a value of another type."""
    names: Any = kind
    asked = {f.name: evaluation[f.name] for f in fields(names) if f.name in evaluation}
    settings: Settings = _settings(names, json.dumps(asked, sort_keys=True, default=str))
    return settings


@cache
def _settings(kind: Any, asked: str) -> Any:
    """The same of values as JSON: one section names, checks, makes and describes all evaluations of a table."""
    return build_part(kind, json.loads(asked)) if fields(kind) else kind()


def as_plain(value: Any) -> Any:
    """Settings as a record and a hash hold them; a field that is `unsaid` where it is empty renames no older run."""
    if hasattr(value, "__dataclass_fields__"):
        said = [f.name for f in fields(value) if getattr(value, f.name) or not f.metadata.get("unsaid")]
        return {name: as_plain(getattr(value, name)) for name in said}
    return [as_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
