"""Claims tested: planned, made and written, as tables are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.composition.compose import dataset_values
from experiments.launching.graph import make_runs
from experiments.reports.claimed import outcomes
from experiments.reports.claimed_page import told, write_page
from experiments.reports.remaking import in_processes
from experiments.reproduction.claims import chosen_claims
from experiments.reproduction.plan import Conditions
from experiments.reproduction.tested import PlannedClaim
from experiments.runs.folder import runs_root
from experiments.runs.node import Node, in_order


@dataclass(frozen=True)
class ClaimsRequest:
    """Which claims are to be tested, and how.

    Attributes:
        dataset: an overlay of data that all rows train and test on; None for those of the tables.
        claims: their names; empty for all.
        overrides: values of all recipes, `key=value`.
        others: as of `remaking.TableRequest`.
    """

    profile: str = "small"
    dataset: str | None = None
    claims: Sequence[str] = ()
    overrides: Sequence[str] = ()
    seeds: int = 1
    devices: int = 1
    launcher: str = "local"
    reports: Path = Path("reports")

    @property
    def what(self) -> str:
        """For the page's first line."""
        parts = [f"PROFILE {self.profile}", self.dataset and f"data {self.dataset}", *self.overrides]
        return ", ".join([*filter(None, parts), f"{self.seeds} seed{'s' * (self.seeds > 1)}"])

    @property
    def folder(self) -> Path:
        """Of the page: one for each profile and data."""
        return self.reports / "claims" / "-".join(filter(None, (self.profile, self.dataset)))


@dataclass(frozen=True)
class Tested:
    """The page, how often each verdict was given, and what went wrong, by claim."""

    page: Path
    told: str
    failed: Mapping[str, str]


def planned_claims(request: ClaimsRequest) -> list[PlannedClaim]:
    """The claims and their evaluations. Raises ValueError where the request cannot be met."""
    data = dataset_values(request.dataset) if request.dataset else []
    conditions = Conditions(request.profile, (*in_processes(request.devices), *data, *request.overrides))
    return [PlannedClaim(claim, conditions, range(request.seeds)) for claim in chosen_claims(request.claims)]


def listed(request: ClaimsRequest) -> str:
    """The claims, whether they can be tested, and how many runs are still to be made; each reason why not once."""
    lines: list[str] = []
    todo: dict[str, Node] = {}
    reasons: dict[str, int] = {}
    for planned in planned_claims(request):
        open_runs = {node.hash: node for node in in_order(planned.nodes) if node.folder.record is None}
        todo |= open_runs
        state = f"{len(open_runs)} of {len(in_order(planned.nodes))} runs to make"
        if planned.problem:
            state = f"cannot be tested: reason {reasons.setdefault(planned.problem, len(reasons) + 1)} below"
        lines.append(f"{planned.claim.name}: {planned.claim.says} [{state}]")
    trainings = sum(node.kind == "train" for node in todo.values())
    total = f"{len(lines)} claims, {len(todo)} runs to make, {trainings} of them trainings"
    return "\n".join([*lines, *(f"reason {number}: {why}" for why, number in reasons.items()), total])


def test_claims(request: ClaimsRequest) -> Tested:
    """Make what is missing and write the page; what fails in one claim leaves the others alone."""
    planned = planned_claims(request)
    untested = {id(each) for each in planned if each.problem}
    make_runs("claims", planned, request.devices, request.launcher)
    found = [outcome for each in planned for outcome in outcomes(each)]
    page = write_page(planned, found, request.folder, request.what, runs_root())
    failed = {each.claim.name: each.problem for each in planned if each.problem and id(each) not in untested}
    return Tested(page, told(found), {name: why for name, why in failed.items() if why.startswith("failed")})
