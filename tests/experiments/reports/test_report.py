"""A report shows what the records hold, calls reproduced only what is, and shows when somebody edited it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from datamodules.clicks.points import PointKind
from experiments import fit
from experiments.curves import learning_curves
from experiments.pictures import contact_sheet, overlay, save_picture
from experiments.reports.check import changed_run, check_report
from experiments.reports.files import print_report, write_report
from experiments.reproduction.cells import Choice, Picture, judge, measure, not_run, table_result
from experiments.reproduction.plan import Conditions
from experiments.reproduction.planned import absent_start
from experiments.reproduction.tables import load_table
from experiments.runs.folder import find_run
from experiments.runs.records import Records
from tests.experiments.tiny import TINY

CHAIN = load_table("dextr-4")
BOXES, PSP, POINTS, SBD = [row.label for row in CHAIN.rows]


def record(
    root: Path,
    run: str,
    seed: int,
    parents: tuple[str, ...] = (),
    seconds: float = 30,
    protocol="object_iou",
    **metrics,
) -> str:
    """A run record as the runs write it."""
    (root / run).mkdir(parents=True)
    content = {"run": run, "kind": "evaluate" if metrics else "train", "seed": seed}
    content |= {"parents": {"model": parents[0]} if parents else {}, "scoring": {"protocol": protocol}}
    content |= {"metrics": metrics, "seconds": seconds, "git": "0123456789ab", "hardware": {"threads": 2, "gpu": None}}
    (root / run / "record.json").write_text(json.dumps(content))
    return run


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two seeds of a model on boxes and two of one on points, each trained and evaluated."""
    root = tmp_path / "runs"
    for name, values in {"boxes": (0.60, 0.64), "points": (0.85, 0.87)}.items():
        for seed, iou in enumerate(values):
            train = record(root, f"{name}-train{seed}", seed)
            sweep = {"mean_iou@0.5": iou - 0.01, "mean_iou@0.8": iou}
            record(root, f"{name}-{seed}", seed, (train,), seconds=6, mean_iou=iou, n=312, **sweep)
    return root


def of(name: str) -> list[str]:
    return [f"{name}-0", f"{name}-1"]


def result(runs: Path, cells, profile: str = "miniature", table=CHAIN, **more):
    return table_result(
        table, profile, cells, runs, seeds=(0, 1), started="today", finished="later", environment="two cores", **more
    )


def chain(runs: Path, profile: str = "miniature", **more):
    records = Records(runs)
    cells = [
        measure(CHAIN, BOXES, "value", of("boxes"), records, profile),
        measure(CHAIN, PSP, "value", of("boxes"), records, profile),
        measure(CHAIN, POINTS, "value", of("points"), records, profile),
        not_run(CHAIN, SBD, "value", "data set pascal_sbd/train is not there"),
    ]
    return result(runs, cells, profile, **more)


@pytest.mark.parametrize(
    ("measured", "std", "unit", "profile", "state"),
    [
        (91.0, None, "%", "paper", "reproduced"),  # exactly half a point
        (91.01, None, "%", "paper", "off"),
        (89.99, 0.1, "%", "paper", "off"),  # 2 std are less than half a point
        (89.5, 0.5, "%", "paper", "reproduced"),  # exactly two std
        (89.49, 0.5, "%", "paper", "off"),
        (90.5, None, "%", "miniature", "reduced profile"),  # equal, and still no reproduction
        (90.5, None, "%", "quick", "reduced profile"),
        (90.6, None, "clicks", "paper", "reproduced"),
        (90.7, None, "clicks", "paper", "off"),
    ],
)
def test_only_the_paper_profile_reproduces_and_only_within_tolerance(measured, std, unit, profile, state):
    assert judge(90.5, measured, std, unit, profile) == state


@pytest.mark.parametrize("published", [None, ">20"])
def test_without_a_published_number_nothing_is_judged(published):
    assert judge(published, 90.0, None, "%", "paper") == "no published value"


def test_a_cell_is_computed_from_its_records(runs):
    cell = measure(CHAIN, POINTS, "value", of("points"), Records(runs), "paper")
    assert (cell.measured, cell.n_seeds, cell.n_objects) == (pytest.approx(86.0), 2, 312)
    assert cell.std == pytest.approx(2**0.5)
    assert cell.difference == pytest.approx(-4.5)
    assert cell.seconds == 72  # two trainings of 30 s and two evaluations of 6 s
    assert cell.state == "off"


def test_a_pair_shows_the_gain_per_seed(runs):
    pairs = load_table("dextr-3")
    label = "Bounding boxes -> Extreme points"
    cell = measure(pairs, label, "value", of("points"), Records(runs), "paper", before_runs=of("boxes"))
    assert cell.measured == pytest.approx(24.0)  # 25 and 23
    assert cell.parts == pytest.approx((62.0, 86.0))
    assert cell.std == pytest.approx(2**0.5)
    with pytest.raises(ValueError, match="1 seeds of the first model, 2 of the second"):
        measure(pairs, label, "value", of("points"), Records(runs), "paper", before_runs=["boxes-0"])


def test_rows_that_became_the_same_run_are_named(runs):
    cells = {cell.row: cell for cell in chain(runs).cells}
    assert cells[BOXES].same_as == (PSP,)
    assert cells[PSP].same_as == (BOXES,)
    assert cells[POINTS].same_as == ()


def test_a_pair_of_one_run_reproduces_nothing(runs):
    pairs = load_table("dextr-3")
    label = "Fixed points -> Distance map"
    cell = measure(pairs, label, "value", of("points"), Records(runs), "paper", before_runs=of("points"))
    cell = result(runs, [cell], "paper", pairs).cell(label, "value")
    assert cell.same_as == (label,)
    assert cell.state == "off"


def test_rows_without_a_cell_say_why(runs):
    states = {cell.row: (cell.state, cell.reason) for cell in result(runs, [], table=load_table("dextr-6")).cells}
    assert states["KernelCut"] == ("quoted", "")
    assert states["Ours"] == ("not run", "left out")
    cells = result(runs, [], table=load_table("dextr-fig6")).cells
    own = [cell for cell in cells if cell.state != "quoted"]
    assert {cell.reason for cell in own} == {"the table file does not say yet what to run"}


CLICKS, TARGET = load_table("dextr-9"), "clicks_PASCAL_85"


def clicked(root: Path, run: str, reached: float | None) -> str:
    """A run of the click benchmark in which the whole set reaches 85 % after so many clicks, or never within 12."""
    curve = {f"iou_{t}": 0.8 for t in range(1, 13)}
    return record(root, run, 0, protocol="clicks", n=7, **curve, **{"wholeset_integer@0.85": reached})


def test_a_target_never_reached_is_shown_as_more_than_the_most_clicks(tmp_path):
    root = tmp_path / "runs"
    cell = measure(CLICKS, "Ours", TARGET, [clicked(root, "never", None)], Records(root), "paper")
    assert (cell.measured, cell.std, cell.difference, cell.never) == (None, None, None, ">12")
    assert (cell.state, cell.n_objects) == ("off", 7)  # 4 clicks are published
    assert cell.reason == "the mean IoU stays below 85 % within 12 clicks"


def test_a_seed_that_never_reaches_the_target_leaves_no_mean(tmp_path):
    root = tmp_path / "runs"
    both = [clicked(root, "reached", 4), clicked(root, "never", None)]
    assert measure(CLICKS, "Ours", TARGET, both, Records(root), "miniature").never == ">12"
    assert measure(CLICKS, "Ours", TARGET, both[:1], Records(root), "paper").state == "reproduced"


@pytest.mark.parametrize(
    ("published", "profile", "state"),
    [
        (3.4, "paper", "off"),
        (">20", "paper", "reproduced"),
        (None, "paper", "no published value"),
        (3.4, "quick", "reduced profile"),
        (">20", "miniature", "reduced profile"),
    ],
)
def test_never_is_judged_by_what_is_published(published, profile, state):
    assert judge(published, ">20", None, "clicks", profile) == state


def test_a_report_prints_never_and_its_check_agrees(tmp_path):
    root = tmp_path / "runs"
    cell = measure(CLICKS, "Ours", TARGET, [clicked(root, "never", None)], Records(root), "miniature")
    paths = write_report(result(root, [cell], table=CLICKS), tmp_path / "reports")
    (line,) = [line for line in paths.markdown.read_text().splitlines() if line.startswith(f"| Ours | {TARGET}")]
    assert "| >12 |" in line
    assert "stays below 85 %" in line
    assert check_report(paths.json, root) == []
    paths.json.write_text(paths.json.read_text().replace('">12"', '">20"'))
    assert any("never is >20" in complaint for complaint in check_report(paths.json, root))


def test_a_missing_metric_or_record_is_named(runs):
    with pytest.raises(ValueError, match="has no metric 'error_rate'; it has mean_iou"):
        measure(load_table("dextr-6"), "Ours", "value", ["points-0"], Records(runs), "paper")
    with pytest.raises(FileNotFoundError, match="run nowhere has no record"):
        measure(CHAIN, SBD, "value", ["nowhere"], Records(runs), "paper")


def test_a_reduced_profile_is_marked_on_top(runs, tmp_path):
    paths = write_report(chain(runs), tmp_path)
    line = (
        "PROFILE miniature: drawn data, reduced network; differences from the published values are not a reproduction"
    )
    for path in (paths.markdown, paths.html):
        text = path.read_text()
        assert line in text
        assert text.index(line) < text.index("62.00")
        assert "same run as + PSP: not distinguishable in this profile" in text
        assert "data set pascal_sbd/train is not there" in text
        assert "reproduced" not in re.sub("<style>.*</style>", "", text, flags=re.DOTALL)


def test_a_choice_of_all_rows_is_told_once(runs, tmp_path):
    choices = {
        row: [Choice("reading", "code"), Choice("threshold", value)] for row, value in [(BOXES, "0.8"), (PSP, "0.5")]
    }
    text = write_report(chain(runs, choices=choices), tmp_path).markdown.read_text()
    assert "| reading | code | all |" in text
    assert f"| threshold | 0.5 | {PSP} |" in text


def test_memory_is_marked_in_the_report(runs, tmp_path):
    text = write_report(result(runs, [], table=load_table("dextr-6")), tmp_path).markdown.read_text()
    assert "| GrabCut | 8.1 † |" in text
    assert "| Ours | 2.3 |" in text


def test_every_measured_number_names_its_records(runs, tmp_path):
    tree = json.loads(write_report(chain(runs), tmp_path).json.read_text())
    points = next(cell for cell in tree["cells"] if cell["row"] == POINTS)
    assert points["runs"] == of("points")
    assert set(tree["records"]) == {
        f"{kind}{i}" for i in (0, 1) for kind in ("boxes-", "boxes-train", "points-", "points-train")
    }
    assert tree["records"]["points-0"]["sha256"] == Records(runs).digest("points-0")


def test_the_console_shows_the_table(runs):
    console = Console(record=True, width=150, force_terminal=False)
    print_report(chain(runs), console)
    text = console.export_text()
    assert "PROFILE miniature" in text
    assert "62.00 ± 2.83" in text


def test_an_untouched_report_passes(runs, tmp_path):
    picture = save_picture(np.zeros((8, 8, 3), np.uint8), tmp_path / "inputs.png")
    more = {"choices": {"": [Choice("threshold", "0.8", "a | b")]}, "pictures": [Picture("inputs", picture, POINTS)]}
    paths = write_report(chain(runs, **more), tmp_path / "reports")
    assert check_report(paths.json, runs) == []
    assert check_report(tmp_path / "reports", runs) == []
    assert 'src="data:image/png;base64,' in paths.html.read_text()
    assert "(dextr-4/01-inputs.png)" in paths.markdown.read_text()
    assert (tmp_path / "reports/dextr-4/threshold-sweep.png").exists()


def test_a_report_passes_wherever_the_runs_were_moved(runs, tmp_path):
    write_report(chain(runs), tmp_path / "reports")
    moved = runs.rename(tmp_path / "elsewhere")
    assert check_report(tmp_path / "reports", moved) == []


@pytest.mark.parametrize("table", ["dextr-9", "iog-1", "fairs-4", "exits-1", "click-peers"])
def test_wide_tables_pass_too(runs, tmp_path, table):
    write_report(result(runs, [], table=load_table(table)), tmp_path)
    assert check_report(tmp_path, runs) == []


@pytest.mark.parametrize("kind", ["markdown", "html"])
@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("86.00", "90.40", "Measured"),
        ("90.5", "86.1", "Published"),
        ("-4.50", "-0.10", "Difference"),
        ("reduced profile", "reproduced", "State"),
        ("2 min of computing", "9 min of computing", "cost"),
        ("85.00", "89.00", "Threshold sweep"),
    ],
)
def test_a_hand_edited_page_is_found(runs, tmp_path, kind, old, new, where):
    page = getattr(write_report(chain(runs), tmp_path), kind)
    shown = page.read_text()
    body = shown.index("Published and measured")
    page.write_text(shown[:body] + shown[body:].replace(old, new))
    complaints = check_report(tmp_path, runs)
    assert complaints
    assert all(page.name in complaint for complaint in complaints)
    assert any(where in complaint for complaint in complaints)


def test_a_removed_warning_is_found(runs, tmp_path):
    page = write_report(chain(runs), tmp_path).markdown
    page.write_text(page.read_text().replace("PROFILE miniature", "PROFILE paper"))
    assert any("profile is missing or changed" in complaint for complaint in check_report(tmp_path, runs))


@pytest.mark.parametrize(
    "change", [{"measured": 90.5}, {"state": "reproduced"}, {"published": 86.0}, {"runs": ["boxes-0"]}]
)
def test_hand_edited_json_is_found(runs, tmp_path, change):
    path = write_report(chain(runs), tmp_path).json
    tree = json.loads(path.read_text())
    next(cell for cell in tree["cells"] if cell["row"] == POINTS).update(change)
    path.write_text(json.dumps(tree))
    assert any(POINTS in complaint for complaint in check_report(tmp_path, runs))


def test_a_report_that_calls_itself_another_profile_is_found(runs, tmp_path):
    path = write_report(chain(runs), tmp_path).json
    path.write_text(path.read_text().replace('"profile": "miniature"', '"profile": "paper"'))
    assert check_report(tmp_path, runs)


def test_a_changed_record_is_found(runs, tmp_path):
    path = write_report(chain(runs), tmp_path / "reports").json
    record_path = Records(runs).path("points-1")
    record_path.write_text(record_path.read_text().replace("0.87", "0.92"))
    assert any("points-1/record.json is not the one" in complaint for complaint in check_report(path, runs))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("config.yaml", lambda text: text.replace("threshold: 0.5", "threshold: 0.4"), "config.yaml is not the file"),
        ("rows.csv", lambda text: text[: len(text) // 2], "rows.csv is not the file that the run made"),
        ("rows.csv", lambda text: "", "rows.csv gives no numbers"),
        ("record.json", lambda text: text.replace('"mean_iou": 0.', '"mean_iou": 0.9'), "mean_iou is 0.9"),
    ],
)
def test_what_was_changed_in_a_run_is_found(here, finished, name, change, sentence):
    run = find_run(finished(TINY)["run"])
    assert list(changed_run(run.record, run)) == []
    (run.path / name).write_text(change((run.path / name).read_text()))
    assert any(sentence in complaint for complaint in changed_run(run.record, run))


@pytest.mark.parametrize("which", ["log", "picture"])
def test_an_edited_log_or_picture_is_found_and_stands_in_nobody_s_way(here, finished, which):
    record = finished(TINY)
    run = find_run(record["parents"]["model"] if which == "log" else record["run"])
    file = run.path / "metrics.csv" if which == "log" else min((run.path / "pictures").glob("*.png"))
    file.write_bytes(file.read_bytes() + b"0")
    assert [sentence.split(" is not ")[0] for sentence in changed_run(run.record, run)] == [str(file)]
    fit.main(TINY)  # whose runs are all there


def test_a_missing_record_is_found(runs, tmp_path):
    path = write_report(chain(runs), tmp_path / "reports").json
    Records(runs).path("points-1").unlink()
    assert "run points-1 has no record" in check_report(path, runs)[0]


def test_an_overlay_enlarges_tints_and_draws_clicks():
    image = np.full((20, 40, 3), 100, np.uint8)
    mask = np.zeros((20, 40), bool)
    mask[5:15, 10:30] = True
    points = np.array([[10, 10], [35, 3], [0, 0]])
    drawn = overlay(image, mask, points, [PointKind.POSITIVE, PointKind.NEGATIVE, PointKind.PADDING], truth=mask)
    assert drawn.shape == (320, 640, 3)
    assert drawn[160, 320, 2] > 140  # blue inside the mask
    assert (drawn[10 * 16 + 8, 10 * 16 + 8] == (40, 200, 90)).all()
    assert (drawn[3 * 16 + 8, 35 * 16 + 8] == (235, 60, 60)).all()
    assert (drawn[8, 8] == 100).all()  # padding is no click


def test_a_contact_sheet_needs_as_many_captions_as_pictures():
    tile = np.zeros((30, 60, 3), np.uint8)
    assert contact_sheet([tile] * 5, ["a"] * 5, columns=3).shape[1] == 3 * 314 + 14
    with pytest.raises(ValueError, match="got 1 pictures, 2 captions"):
        contact_sheet([tile], ["a", "b"])


def test_learning_curves_come_from_the_csv_log(tmp_path):
    log = tmp_path / "metrics.csv"
    with log.open("w") as file:
        csv.writer(file).writerows([["step", "train/loss", "val/iou_crop"], [1, 3.0, ""], [2, 2.0, 0.5]])
    assert learning_curves({"DEXTR": log}, tmp_path / "curves.png").stat().st_size > 1000
    log.write_text("step,lr\n1,0.1\n")
    with pytest.raises(ValueError, match="no train/ or val/ columns"):
        learning_curves({"DEXTR": log}, tmp_path / "curves.png")


@pytest.mark.parametrize(("profile", "state"), [("paper", "other start"), ("small", "reduced profile")])
def test_a_value_from_other_first_weights_than_published_is_never_reproduced(profile, state):
    said = "published start not there: DEEPLAB_VOC_WEIGHTS not set, ImageNet instead"
    assert judge(91.5, 91.5, None, "%", profile, said) == state
    assert judge(91.5, 91.5, None, "%", "paper") == "reproduced"


def test_rows_say_which_published_start_is_not_there(monkeypatch):
    monkeypatch.delenv("DEEPLAB_VOC_WEIGHTS", raising=False)
    cell = load_table("dextr-4").row("+ SBD data (ours)").cells["value"]
    assert absent_start(cell, Conditions("paper")).endswith("DEEPLAB_VOC_WEIGHTS not set, ImageNet instead")
    from_imagenet = load_table("dextr-7").row("PASCAL -> PASCAL")
    assert [absent_start(cell, Conditions("paper")) for cell in from_imagenet.cells.values()] == [""]
    monkeypatch.setenv("DEEPLAB_VOC_WEIGHTS", "file.pth")
    assert absent_start(cell, Conditions("paper")) == ""
