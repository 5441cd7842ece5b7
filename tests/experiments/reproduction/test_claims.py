"""Claims as data: every one names rows and columns that exist, and the papers' own numbers support it."""

import textwrap

import pytest

from experiments.composition.compose import dataset_values
from experiments.reproduction.claims import FOLDER, chosen_claims, claims, read_claims
from experiments.reproduction.plan import Conditions
from experiments.reproduction.tables import tables
from experiments.reproduction.tested import PlannedClaim

CLAIMS = {claim.name: claim for claim in claims()}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_paper_printed_supports_what_it_claims(name):
    """A claim that its own table contradicts would be our mistake."""
    claim = CLAIMS[name]
    if claim.published is not None:
        assert claim.holds_for(claim.published, claim.published) == "holds"
    assert claim.says.endswith(".")
    assert claim.where


def test_every_paper_has_claims_and_its_untested_tables_say_why():
    assert {claim.paper for claim in claims()} == {table.paper for table in tables()} - {"click-peers", "all", "suite"}
    runnable = {table.id for table in tables() if any(row.cells for row in table.rows)}
    for claim in claims():
        assert bool(claim.untested) == (not {claim.first.table, claim.second.table} <= runnable), claim.name


@pytest.mark.parametrize(
    ("kind", "within", "interval", "verdict"),
    [
        ("higher", 0, (0.1, 0.5), "holds"),
        ("higher", 0, (-0.1, 0.5), "within noise"),
        ("higher", 0, (0.0, 0.5), "within noise"),
        ("higher", 0, (-0.5, -0.1), "does not hold"),
        ("lower", 0, (-0.5, -0.1), "holds"),
        ("lower", 0, (0.1, 0.5), "does not hold"),
        ("close", 1, (-0.9, 0.2), "holds"),
        ("close", 1, (-1.5, 0.2), "within noise"),
        ("close", 1, (1.1, 2.0), "does not hold"),
        ("close", 1, (-2.0, -1.1), "does not hold"),
    ],
)
def test_an_interval_says_whether_a_claim_holds(kind, within, interval, verdict, tmp_path):
    (claim,) = read_claims(file_of(tmp_path, f"claim: {kind}" + (f"\n    within: {within}" if within else "")))
    assert claim.holds_for(*interval) == verdict


def file_of(folder, more, sides="first: + PSP\n    second: + Extreme points"):
    path = folder / "dextr.yaml"
    path.write_text(
        textwrap.dedent("""\
        paper: dextr
        claims:
          - id: a
            says: This is better.
            where: Sec. 1
            table: dextr-4
        """)
        + f"    {sides}\n    {more}\n"
    )
    return path


@pytest.mark.parametrize(
    ("more", "sides", "said"),
    [
        ("claim: better", None, "claim 'a': a claim is not 'better'"),
        ("claim: close", None, "`within` says how close"),
        ("claim: higher\n    within: 1", None, "`within` says how close"),
        ("claim: higher\n    colum: value", None, "no key 'colum'; did you mean 'column'"),
        ("claim: higher\n    column: mean", None, "dextr-4 has no measured column 'mean'"),
        ("claim: higher", "first: + PSP", "give `first` and `second`, or a `pair`"),
        ("claim: higher", "first: + PSP\n    second: + Points", r"dextr-4 has no row '\+ Points'"),
        ("claim: higher", "pair: + PSP", r"'\+ PSP' is no difference of two models"),
    ],
)
def test_a_claim_that_names_nothing_is_refused_by_file_and_name(tmp_path, more, sides, said):
    path = file_of(tmp_path, more, sides) if sides else file_of(tmp_path, more)
    with pytest.raises(ValueError, match=said):
        read_claims(path)


def test_claims_are_asked_for_by_name():
    assert [claim.name for claim in chosen_claims(["iog-finenet"])] == ["iog-finenet"]
    assert len(chosen_claims([])) == len(claims())
    with pytest.raises(ValueError, match="no claim 'iog-fine'; did you mean 'iog-finenet'"):
        chosen_claims(["iog-fine"])
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {claim.paper for claim in claims()}


def test_a_claim_is_tested_by_the_runs_of_its_tables_rows(store):
    """A pair's two models, and of two rows theirs; on one training of both where only the clicks differ."""
    conditions = Conditions("miniature")
    planned = PlannedClaim(CLAIMS["dextr-gaussians-over-distances"], conditions, range(2))
    assert [len(seeds) for seeds in planned.first.values()] == [2]
    guidances = {
        node.config["model"]["init_args"]["guidance"]["class_path"].rpartition(".")[2] for node in planned.nodes
    }
    assert guidances == {"GaussianMap", "DistanceMap"}
    clicks = PlannedClaim(CLAIMS["iog-gain-of-more-clicks"], conditions, range(1))
    assert len({node.hash for node in clicks.nodes}) == 1
    assert clicks.claim.first.metric, clicks.claim.second.metric == ("iou_3", "iou_8")


def test_a_row_that_goes_over_several_evaluations_has_them_all(store):
    planned = PlannedClaim(CLAIMS["itis-insensitive-to-the-user"], Conditions("miniature"), range(1))
    assert [len(nodes) for seeds in planned.second.values() for nodes in seeds] == [3]
    assert [len(nodes) for seeds in planned.first.values() for nodes in seeds] == [1]


def test_an_overlay_of_data_tests_every_row_on_the_same_sets():
    values = dataset_values("real_small")
    assert any(value.startswith("data.train=[{") for value in values)
    assert 'davis345"]' in next(value for value in values if value.startswith("evaluation.test="))
