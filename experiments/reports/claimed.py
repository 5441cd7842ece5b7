"""Claims measured: second minus first on the same objects, its interval, and what that says of the paper's sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.console import DASH, Grid
from experiments.evaluation.rows import read_rows
from experiments.reports.comparison import Interval, paired
from experiments.reproduction.claims import Claim, Side
from experiments.reproduction.tested import PlannedClaim
from experiments.runs.node import Node

SAME = "same run"  # both sides of a claim are one run in this profile
NOT_TESTED = "not tested"
VERDICTS = ("holds", "does not hold", "within noise", SAME, NOT_TESTED)


@dataclass(frozen=True)
class Outcome:
    """What a claim came out as on one test set; all numbers in the unit of its column.

    Args:
        interval: of the mean difference over objects, see `comparison.paired`; objects are averaged over seeds first.
        by_seed: the mean difference of each seed.
        verdict: one of VERDICTS. reason: why it is not tested.
        runs: hashes of the evaluations.
    """

    claim: Claim
    data: str
    verdict: str
    reason: str = ""
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    by_seed: tuple[float, ...] = ()
    objects: int = 0
    runs: tuple[str, ...] = ()


def outcomes(planned: PlannedClaim) -> list[Outcome]:
    """Of a claim, one for each test set."""
    claim = planned.claim
    if planned.problem or not planned.first:
        return [Outcome(claim, DASH, NOT_TESTED, planned.problem or "it has no evaluations")]
    if [*planned.first] != [*planned.second]:  # as the tables have them; one --dataset tests all alike
        sets = " and ".join(", ".join(side) for side in (planned.first, planned.second))
        return [Outcome(claim, DASH, NOT_TESTED, f"its sides are tested on other data: {sets}")]
    return [_outcome(claim, data, planned.first[data], planned.second[data]) for data in planned.first]


def _outcome(claim: Claim, data: str, first: Sequence[Sequence[Node]], second: Sequence[Sequence[Node]]) -> Outcome:
    hashes = [[node.hash for nodes in side for node in nodes] for side in (first, second)]
    runs = tuple(dict.fromkeys([*hashes[0], *hashes[1]]))
    same = claim.first.metric == claim.second.metric and hashes[0] == hashes[1]
    if missing := [node.hash for side in (first, second) for nodes in side for node in nodes if not node.folder.record]:
        return Outcome(claim, data, NOT_TESTED, f"run {missing[0]} has no record yet", runs=runs)
    try:
        before, after = (_over_seeds(side, nodes) for side, nodes in ((claim.first, first), (claim.second, second)))
        if not np.array_equal(before[0], after[0]):
            raise ValueError("its sides are evaluated on other objects")
    except ValueError as error:
        return Outcome(claim, data, NOT_TESTED, str(error), runs=runs)
    differences = after[1] - before[1]  # (seeds, objects)
    pair = paired(before[1].mean(0), after[1].mean(0))
    by_seed = tuple(float(each) for each in differences.mean(1))
    verdict = claim.holds_for(*pair.interval)
    if len({claim.holds_for(each, each) for each in by_seed} - {"within noise"}) > 1:
        verdict = "within noise"  # the seeds contradict each other
    return Outcome(
        claim=claim,
        data=data,
        verdict=SAME if same else verdict,
        first=float(before[1].mean()),
        second=float(after[1].mean()),
        difference=pair.difference,
        interval=pair.interval,
        by_seed=by_seed,
        objects=differences.shape[1],
        runs=runs,
    )


def _over_seeds(side: Side, seeds: Sequence[Sequence[Node]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Objects (N,) and their values (S, N) of each seed, in the unit of the side's column; the evaluations of a seed
    are averaged."""
    found = [[object_values(node, side.metric) for node in nodes] for nodes in seeds]
    objects = found[0][0][0]
    if any(not np.array_equal(others, objects) for of_seed in found for others, _ in of_seed):
        raise ValueError("its seeds are evaluated on other objects")
    assert side.spec is not None
    return objects, side.spec.scale * np.stack([np.mean([values for _, values in each], axis=0) for each in found])


def object_values(node: Node, metric: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Objects (N,) and their values (N,) of a metric, from the rows of an evaluation.

    Raises ValueError where rows were changed, or where the metric is one of a whole data set.
    """
    if wrong := next(node.folder.changed("rows.csv"), None):
        raise ValueError(wrong)
    rows = list(read_rows(node.folder.path / "rows.csv"))
    column = metric.removeprefix("mean_")  # `mean_iou` of a record is the mean of `iou`
    if not rows or column not in rows[0] or "object_id" not in rows[0]:
        raise ValueError(f"{metric} is no value of a single object")
    return (
        np.array([int(row["object_id"]) for row in rows], np.int64),
        np.array([float(row[column]) for row in rows], np.float64),
    )


def claims_grid(found: Sequence[Outcome]) -> Grid:
    """A line per claim and test set."""
    numbers = ("Published", "First", "Second", "Difference", "95 % interval", "Objects")
    text = (
        "Second minus first, object by object, in the unit of the table's column; the interval is the bootstrap's over "
        "objects. A claim holds where the whole interval says so. The noise of training is seen in several seeds alone "
        "(SEEDS=3), which must agree."
    )
    header = ("Claim", "The paper says", "Rows", "Wanted", "Data", *numbers, "Verdict")
    return Grid("Claims", header, tuple(map(_line, found)), text, numbers)


def _line(found: Outcome) -> tuple[str, ...]:
    claim = found.claim
    rows = f"{claim.first.name} → {claim.second.name}"
    published = DASH if claim.published is None else f"{claim.published:+.2f}"
    about = (claim.name, f"{claim.says} ({claim.where})", rows, claim.in_words, found.data, published)
    if found.difference is None or found.interval is None:
        return (*about, DASH, DASH, DASH, DASH, DASH, f"{found.verdict}: {found.reason}")
    seeds = f"; by seed {', '.join(f'{each:+.2f}' for each in found.by_seed)}" if len(found.by_seed) > 1 else ""
    low, high = found.interval
    values = (f"{found.first:.2f}", f"{found.second:.2f}", f"{found.difference:+.2f}", f"{low:+.2f} to {high:+.2f}")
    return (*about, *values, f"{found.objects:,}", found.verdict + seeds)
