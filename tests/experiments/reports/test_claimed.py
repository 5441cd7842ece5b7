"""Verdicts on claims from rows written by hand, and the user's own command on the miniature data."""

import csv
import json
from types import SimpleNamespace

import pytest

from experiments import claims as command
from experiments.reports import claiming
from experiments.reports.claimed import SAME, claims_grid, outcomes
from experiments.reproduction.claims import claims
from tests.experiments.tiny import SHRUNK

FINENET = next(claim for claim in claims() if claim.name == "iog-finenet")  # higher, in per cent


def node(folder, values, name, column="iou"):
    """An evaluation whose rows give these values to objects 1, 2, ...; None for one without a record."""
    folder = folder / name
    folder.mkdir()
    if values is not None:
        with (folder / "rows.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["position", "object_id", column])
            rows.writerows((place, place + 1, value) for place, value in enumerate(values))
    record = None if values is None else {"kind": "evaluate"}
    return SimpleNamespace(hash=name, folder=SimpleNamespace(path=folder, record=record, changed=lambda name: iter(())))


def planned(first, second, claim=FINENET, problem=""):
    """A claim whose sides have these evaluations, one for each seed."""
    sides = [{"drawn": [[each] for each in side]} if side else {} for side in (first, second)]
    return SimpleNamespace(claim=claim, first=sides[0], second=sides[1], problem=problem, nodes=[])


def outcome(folder, first, second):
    """Of values of both sides, a list for each seed."""
    sides = [
        [node(folder, values, f"{side}{seed}") for seed, values in enumerate(seeds)]
        for side, seeds in (("a", first), ("b", second))
    ]
    (found,) = outcomes(planned(*sides))
    return found


LOW, HIGH = [0.5, 0.6, 0.7, 0.8], [0.6, 0.7, 0.8, 0.9]


def test_ten_points_on_every_object_hold_and_the_interval_has_no_width(tmp_path):
    found = outcome(tmp_path, [LOW], [HIGH])
    assert found.verdict == "holds"
    assert (found.first, found.second, found.objects) == (pytest.approx(65), pytest.approx(75), 4)
    assert found.interval == (pytest.approx(10), pytest.approx(10))


def test_the_other_way_round_it_does_not_hold(tmp_path):
    assert outcome(tmp_path, [HIGH], [LOW]).verdict == "does not hold"


def test_as_much_gained_as_lost_is_noise(tmp_path):
    assert outcome(tmp_path, [[0.5, 0.6, 0.5, 0.6]], [[0.6, 0.5, 0.6, 0.5]]).verdict == "within noise"


def test_seeds_are_averaged_object_by_object_and_must_agree(tmp_path):
    agree = outcome(tmp_path, [LOW, LOW], [HIGH, HIGH])
    assert (agree.verdict, agree.by_seed) == ("holds", (pytest.approx(10), pytest.approx(10)))
    other = tmp_path / "other"
    other.mkdir()
    # 10 points up with the first seed, 5 down with the second: 2.5 up on every object, but nobody knows for the third
    against = outcome(other, [LOW, LOW], [HIGH, [value - 0.05 for value in LOW]])
    assert against.interval == (pytest.approx(2.5), pytest.approx(2.5))
    assert against.verdict == "within noise"
    assert "by seed +10.00, -5.00" in claims_grid([against]).lines[0][-1]


def test_two_rows_that_are_one_run_in_a_profile_test_nothing(tmp_path):
    one = node(tmp_path, LOW, "one")
    (found,) = outcomes(planned([one], [one]))
    assert found.verdict == SAME


def test_what_cannot_be_tested_says_why(tmp_path):
    one = node(tmp_path, LOW, "one")
    reasons = {
        "run two has no record yet": planned([one], [node(tmp_path, None, "two")]),
        "its sides are evaluated on other objects": planned([one], [node(tmp_path, LOW[:3], "three")]),
        "mean_iou is no value of a single object": planned([one], [node(tmp_path, LOW, "four", column="depth")]),
        "no data": planned([], [], problem="no data"),
    }
    for reason, plan in reasons.items():
        (found,) = outcomes(plan)
        assert (found.verdict, found.reason) == ("not tested", reason)
        assert claims_grid([found]).lines[0][-1] == f"not tested: {reason}"


def test_the_list_says_each_reason_why_claims_cannot_be_tested_once(tmp_path, monkeypatch):
    plans = [planned([], [], problem=problem) for problem in ("no COCO", "no SBD", "no COCO")]
    made = planned([node(tmp_path, LOW, "one")], [node(tmp_path, LOW, "two")])
    monkeypatch.setattr(claiming, "planned_claims", lambda request: [*plans, made])
    lines = claiming.listed(claiming.ClaimsRequest()).splitlines()
    states = [line.rpartition(" [")[2] for line in lines[:4]]
    assert states[:3] == [f"cannot be tested: reason {number} below]" for number in (1, 2, 1)]
    assert states[3].endswith("runs to make]")
    assert lines[4:6] == ["reason 1: no COCO", "reason 2: no SBD"]
    assert lines[6].startswith("4 claims, ")


@pytest.mark.slow
def test_the_command_makes_what_is_missing_and_writes_the_page(here, capsys):
    """Two claims that share a training, on the drawn data; the second call makes nothing."""
    asked = [
        *[value for value in SHRUNK if "widths" not in value and "profile" not in value],
        "--profile=miniature",
        "--model.network.channels=8",
        "--claims=iog-finenet,iog-side-losses,exits-point-dropout",
    ]
    command.main([*asked, "--list"])
    assert "3 claims, 6 runs to make, 3 of them trainings" in capsys.readouterr().out
    command.main(asked)
    folder = here / "reports" / "claims" / "miniature"
    tree = json.loads((folder / "claims.json").read_text())
    assert [(each["claim"], each["objects"] > 0) for each in tree["claims"]] == [
        ("iog-finenet", True),
        ("iog-side-losses", True),
        ("exits-point-dropout", False),
    ]
    page = (folder / "claims.md").read_text()
    assert "This is no reproduction of a published number" in page.split("## Claims")[0]
    assert "is a value of a whole data set, not of a single object" in page
    assert (folder / "forest-percent.png").exists()
    assert "forest-percent.png" in page
    assert "objects/" in page
    assert "<html" in (folder / "claims.html").read_text()
    capsys.readouterr()
    command.main(asked)
    assert "6 done, 0 to make" in capsys.readouterr().out
