"""Runs compared click for click: numbers that can be told by hand, and a report that says what the rows say."""

import csv
import json
import re

import numpy as np
import pytest

from experiments import compare
from experiments.composition.compose import compose
from experiments.console import DASH, one_sentence
from experiments.evaluation import stages
from experiments.reports import compared, comparison_report
from experiments.reports import comparison_pictures as compare_pictures
from experiments.reports.check import check_report
from experiments.reports.comparison import Clicked, common_clicks, measured_grids, paired, spread, thirds
from experiments.runs.files import digest
from experiments.runs.folder import RunFolder
from lightning_modules.metrics.masks import object_iou
from tests.experiments.evaluation.test_clicks import Discs

PASCAL, BERKELEY = "{name: pascal/val, limit: 6}", "{name: berkeley, limit: 3}"


def clicked(curve, name="a", data="d", first=1, area=None):
    curve = np.array(curve, float)
    number = len(curve)
    area = np.arange(number) if area is None else np.array(area)
    firsts = np.full(number, first) if np.isscalar(first) else np.array(first)
    return Clicked(name, data, evaluation="0", object_id=np.arange(number), area=area, first_clicks=firsts, curve=curve)


def test_differences_are_counted_object_by_object():
    pair = paired([50, 60, 70, 80], [60, 60, 60, 90])
    assert pair.difference == 2.5
    assert (pair.better, pair.worse) == (50, 25)  # two of four, one of four; an equal one is neither
    low, high = pair.interval
    assert -10 <= low < 2.5 < high <= 10
    assert paired([1, 2, 3], [3, 4, 5]).interval == (2, 2)  # nothing varies
    assert paired([50, 60, 70, 80], [60, 60, 60, 90]) == pair  # drawn from a seed


def test_the_interval_is_as_wide_as_the_mean_of_so_many_objects_varies():
    differences = np.random.default_rng(1).normal(3, 10, 400)
    low, high = paired(np.zeros(400), differences).interval
    error = differences.std() / 20
    np.testing.assert_allclose([low, high], differences.mean() + np.array([-1.96, 1.96]) * error, atol=0.15 * error * 2)


def test_a_method_is_measured_from_its_first_mask_on():
    found = clicked([[0, 0, 0.5, 0.7], [0, 0.9, 0.9, 0.9]], first=[3, 2])
    np.testing.assert_allclose(found.at_first(), [50, 90])
    assert found.means() == pytest.approx({2: 45, 3: 70, 4: 80})
    other = clicked([[0.2, 0.4, 0.6, 0.8]] * 2, name="b")
    assert common_clicks([found, other]) == 3
    summary, curves, differences, sizes = measured_grids([found, other])
    assert summary.lines[0][2:5] == ("2", "2 to 3", "70.00")
    assert summary.lines[0][5:7] == ("3.00", "1")  # at 80 %: 4 clicks in vain and 2
    assert curves.lines[0][2:] == (DASH, "45.00", "70.00", "80.00")
    assert curves.lines[1][2:] == ("20.00", "40.00", "60.00", "80.00")
    assert [line[2:4] for line in differences.lines] == [
        ("the first mask", "-50.00"),
        ("3 clicks", "-10.00"),
        ("4 clicks", "+0.00"),
    ]
    assert differences.lines[2][5:] == ("50.0 %", "50.0 %")
    assert [line[4:] for line in sizes.lines] == [("50.00", "60.00"), ("90.00", "60.00")]


def test_a_run_alone_has_nothing_to_differ_from():
    assert [grid.title for grid in measured_grids([clicked([[0.5]])])] == [
        "Runs and data sets",
        "IoU after k clicks",
        "IoU by object size",
    ]


def test_every_object_is_in_one_third_and_the_largest_in_the_last():
    area = np.array([50, 3, 900, 7, 7, 40, 2])
    small, medium, large = thirds(area)
    assert sorted(np.concatenate([small, medium, large])) == list(range(7))
    assert area[small].max() <= area[medium].min()
    assert area[medium].max() <= area[large].min()
    assert 2 in large


def test_objects_are_shown_from_the_worst_to_the_best():
    one, two = clicked([[0.9], [0.1], [0.5], [0.6], [0.4]]), clicked([[0.7], [0.3], [0.5], [0.6], [0.4]])
    assert spread([one, two], 3, 1) == [1, 2, 0]
    assert spread([one, two], 99, 1) == [1, 4, 2, 3, 0]
    assert spread([one, two], 1, 1) == [1]


@pytest.fixture
def runs(here, monkeypatch):
    """Makes finished trainings of methods whose networks paint a disc at every click."""
    for module in (stages, comparison_report, compare_pictures):
        monkeypatch.setattr(module, "load_model", lambda *_: Discs(6.0).eval())

    def make(method, finished=True, change=lambda config: None):
        config = compose(method, profile="miniature")
        change(config)
        folder = RunFolder(here / "runs" / digest(config))
        folder.prepare({"kind": "train", "config": config, "parents": []})
        if finished:
            folder.finish(kind="train", metrics={}, seed=0, seconds=61.0, steps=7, parents=[])
        return folder.name

    return make


def command(*runs, data=(PASCAL,), more=()):
    compare.main(["--runs", *runs, "--data", *data, "--clicks", "6", "--objects", "3", *more])


def report(here):
    return json.loads((here / "reports" / "compare" / "compare.json").read_text())


@pytest.mark.slow
def test_the_report_says_what_the_rows_say(here, runs, monkeypatch):
    names = ["dextr", "itis", "iog"]
    shown = []
    cut_out = compare_pictures.cut_out
    monkeypatch.setattr(compare_pictures, "cut_out", lambda *arguments: shown.append(arguments) or cut_out(*arguments))
    command(*map(runs, names), data=(PASCAL, BERKELEY))
    tree = report(here)
    grids = {grid["title"]: grid for grid in tree["grids"]}
    curves = {tuple(line[:2]): line[2:] for line in grids["IoU after k clicks"]["lines"]}
    assert len(curves) == 6
    rows = {}
    for run in tree["runs"]:
        for data, place in run["evaluations"].items():
            with open(f"{place}/rows.csv", newline="") as file:
                rows[run["name"], data] = list(csv.DictReader(file))
    for key, found in rows.items():
        first = {"dextr": 4, "itis": 1, "iog": 3}[key[0]]
        means = [np.mean([100 * float(row[f"iou_{t}"]) for row in found]) for t in range(1, 7)]
        assert curves[key] == [DASH] * (first - 1) + [f"{mean:.2f}" for mean in means[first - 1 :]]
        assert max(means) > 1
    assert len(set(curves["dextr", "pascal/val (limit 6)"][3:])) == 1  # it takes no corrections
    assert len(set(curves["itis", "pascal/val (limit 6)"])) > 1

    # The pictures show the masks after 4 clicks, the first number at which all methods have one.
    assert len(shown) == 3 * (3 + 3)
    for number, (index, position, mask, points, _) in enumerate(shown):
        data = "pascal/val (limit 6)" if number < 9 else "berkeley (limit 3)"
        row = rows[names[number // 3 % 3], data][position]
        truth, void = index.read_mask(position)
        void = np.zeros_like(truth) if void is None else void
        assert object_iou(mask, truth, void) == pytest.approx(float(row["iou_4"]), abs=1e-6)
        assert len(points) <= 6  # IOG's three clicks are five points
    captions = [picture["caption"] for picture in tree["pictures"]]
    means = [float(re.search(r"mean IoU over runs ([\d.]+)$", caption)[1]) for caption in captions[2:5]]
    assert means == sorted(means)
    assert all((here / "reports" / "compare" / picture["path"]).exists() for picture in tree["pictures"])

    # Whoever changes a number is found out, in each of the three files.
    file = here / "reports" / "compare" / "compare.json"
    assert check_report(file, here / "runs") == []
    number = curves["itis", "pascal/val (limit 6)"][5]
    for path, complaint in (
        (file, "not those of the runs' rows"),
        (file.with_suffix(".md"), "prints '99.99'"),
        (file.with_suffix(".html"), "prints '99.99'"),
    ):
        true = path.read_text()
        path.write_text(true.replace(number, "99.99"))
        assert any(complaint in found for found in check_report(file, here / "runs"))
        path.write_text(true)
    rows_file = here / "runs" / tree["runs"][0]["evaluations"]["pascal/val (limit 6)"].rpartition("/")[2] / "rows.csv"
    true = rows_file.read_text()
    value = rows["dextr", "pascal/val (limit 6)"][0]["iou_4"]
    rows_file.write_text(true.replace(f",{value},", ",0.999,", 1))
    assert any("rows of dextr on pascal/val (limit 6) are not" in found for found in check_report(file, here / "runs"))
    rows_file.write_text(true)
    first = here / "runs" / tree["runs"][0]["folder"].rpartition("/")[2] / "record.json"
    first.write_text(first.read_text().replace("61.0", "16.0"))
    assert any("is not the one the report was made from" in found for found in check_report(file, here / "runs"))


@pytest.mark.slow
def test_what_is_evaluated_already_is_not_made_again(here, runs):
    one, two = runs("itis"), runs("itis", change=lambda config: config.update(seed=1))
    command(one, two)
    made = {path: path.stat().st_mtime_ns for path in (here / "runs").glob("*/rows.csv")}
    assert len(made) == 2
    assert [run["name"] for run in report(here)["runs"]] == [f"itis {one[:6]}", f"itis {two[:6]}"]
    command(two, one, more=["--names", "B", "A"])
    assert {path: path.stat().st_mtime_ns for path in (here / "runs").glob("*/rows.csv")} == made
    assert [run["name"] for run in report(here)["runs"]] == ["B", "A"]
    differences = next(grid for grid in report(here)["grids"] if grid["title"] == "Object by object, against B")
    assert {line[3] for line in differences["lines"]} == {"+0.00"}  # the same discs


def test_a_run_of_an_older_version_is_read_and_said_to_be_older(runs, capsys):
    def older(config):
        config["evaluation"]["clicks"]["box"] = config["evaluation"].pop("box")

    training = compared.trained([runs("iog", change=older)])["iog"]
    assert training.config["evaluation"]["box"] == "clicked"
    assert "box" not in training.config["evaluation"]["clicks"]
    assert "was made by an older version of the suite (format 1" in capsys.readouterr().err


def test_bad_input_gets_one_sentence(here, runs, capsys):
    one, two = runs("itis"), runs("dextr")
    undone = runs("iog", finished=False)
    elsewhere = runs("itis", change=lambda config: config["data"]["init_args"].update(seed=5))

    def refused(*arguments, **options):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            one_sentence(lambda: command(*arguments, **options))
        return capsys.readouterr().err

    assert "no run begins with 'nowhere'" in refused(one, "nowhere")
    assert f"run {undone} is not finished" in refused(one, undone)
    assert f"run {one} is given twice" in refused(one, two, one)
    assert "a name for each of the 2 runs, got 1" in refused(one, two, more=["--names", "a"])
    assert "two runs are called 'a'" in refused(one, two, more=["--names", "a", "a"])
    assert "did you mean 'itis'" in refused(one, two, more=["--rule", "itiss"])
    assert "no data set named 'nothing'" in refused(one, data=["nothing"])
    assert "--data names a data set twice" in refused(one, data=[PASCAL, PASCAL])
    assert "4 clicks before its first mask, more than the 3" in refused(two, more=["--clicks", "3"])
    assert "--objects must be at least 1" in refused(one, more=["--objects", "0"])
    assert "read other objects of pascal/val (limit 6)" in refused(one, elsewhere)
