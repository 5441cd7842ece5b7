"""A table of clicks shows curves, targets, failures and time, and the facts without which a NoC means nothing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.composition.compose import compose
from experiments.curves import click_curves, click_sweep
from experiments.pictures import save_picture
from experiments.reports.check import check_report
from experiments.reports.choices import choices_of
from experiments.reports.files import write_report
from experiments.reports.gathering import choices_by_row, pictures_of
from experiments.reports.grids import grids
from experiments.reports.measured import measured_models
from experiments.reproduction.cells import Choice, measure, table_result
from experiments.reproduction.tables import load_table
from experiments.runs.folder import RunFolder
from experiments.runs.node import Found, Node
from experiments.runs.records import Records

ABLATION, PEERS = load_table("itis-fig5"), load_table("dextr-9")
ROWS = [row.label for row in ABLATION.rows if row.own][:2]
RISING = [0.5, 0.7, 0.8, 0.84, 0.9, *[0.92] * 15]


def record(root: Path, run: str, curve: list[float], **metrics: Any) -> str:
    """The record of a click benchmark over 40 objects, with these mean IoUs after 1, 2, ... clicks."""
    (root / run).mkdir(parents=True)
    targets = {"noc@0.85": 5.25, "failed@0.85": 3, "wholeset_integer@0.85": 5, "wholeset@0.85": 4.17}
    said = {"n": 40, "mean_iou": curve[-1], "seconds_per_click": 0.0512, "overhead_per_click": 0.0034, **targets}
    said |= {f"iou_{t}": iou for t, iou in enumerate(curve, 1)} | metrics
    content = {"run": run, "kind": "evaluate", "seed": 0, "parents": {}, "metrics": said, "seconds": 60}
    content["scoring"] = {"protocol": "clicks"}
    (root / run / "record.json").write_text(json.dumps(content))
    return run


def result(root: Path, cells, table=ABLATION):
    return table_result(
        table, "miniature", cells, root, seeds=(0,), started="today", finished="later", environment="two cores"
    )


def cell(root: Path, row: str, runs: list[str], table=ABLATION, column: str = "value"):
    metric = {} if table is PEERS else {"metric": "noc@0.85", "scale": 1.0}
    return measure(table, row, column, runs, Records(root), "miniature", **metric)


def grid(of, title: str) -> tuple[tuple[str, ...], ...]:
    return next((found.header, *found.lines) for found in grids(of) if found.title == title)


def test_the_curve_is_shown_at_a_few_clicks_as_mean_and_deviation_over_seeds(tmp_path):
    seeds = [record(tmp_path, f"seed{i}", [iou + offset for iou in RISING]) for i, offset in enumerate((0.0, 0.02))]
    alone = record(tmp_path, "alone", RISING)
    of = result(tmp_path, [cell(tmp_path, ROWS[0], seeds), cell(tmp_path, ROWS[1], [alone])])
    header, two, one = grid(of, "IoU after k clicks")
    assert header == ("Row", "1", "2", "3", "5", "10", "15", "20")
    assert two[:3] == (ROWS[0], "51.00 ± 1.41", "71.00 ± 1.41")
    assert one == (ROWS[1], "50.00", "70.00", "80.00", "90.00", "92.00", "92.00", "92.00")


def test_a_start_mask_is_the_point_without_clicks_and_the_last_click_is_always_shown(tmp_path):
    run = record(tmp_path, "refined", RISING[:12], iou_0=0.31)
    header, line = grid(result(tmp_path, [cell(tmp_path, ROWS[0], [run])]), "IoU after k clicks")
    assert header == ("Row", "0", "1", "2", "3", "5", "10", "12")
    assert line[1] == "31.00"


def test_targets_tell_noc_failures_and_the_whole_set(tmp_path):
    never = {"noc@0.9": 13.5, "failed@0.9": 21, "wholeset_integer@0.9": None, "wholeset@0.9": None}
    run = record(tmp_path, "run", RISING, **never)
    _, low, high = grid(result(tmp_path, [cell(tmp_path, ROWS[0], [run])]), "Clicks to reach an IoU")
    assert low == (ROWS[0], "85 %", "5.25", "3 of 40", "5", "4.17")
    assert high == (ROWS[0], "90 %", "13.50", "21 of 40", ">20", ">20")


def test_one_seed_that_never_arrives_leaves_no_mean_of_the_whole_set(tmp_path):
    lost = {"wholeset_integer@0.85": None, "wholeset@0.85": None, "failed@0.85": 4}
    runs = [record(tmp_path, "reached", RISING), record(tmp_path, "lost", RISING, **lost)]
    _, line = grid(result(tmp_path, [cell(tmp_path, ROWS[0], runs)]), "Clicks to reach an IoU")
    assert line == (ROWS[0], "85 %", "5.25 ± 0.00", "3.5 ± 0.7 of 40", ">20", ">20")


def test_the_remark_says_how_many_seeds_never_arrived(tmp_path):
    runs = [record(tmp_path, "reached", RISING), record(tmp_path, "lost", RISING, **{"wholeset_integer@0.85": None})]
    found = cell(tmp_path, "Ours", runs, PEERS, "clicks_PASCAL_85")
    assert found.reason == "with 1 of 2 seeds the mean IoU stays below 85 % within 20 clicks"


def test_time_is_told_for_the_network_and_for_everything_else(tmp_path):
    run = record(tmp_path, "run", RISING)
    shown = grid(result(tmp_path, [cell(tmp_path, ROWS[0], [run])]), "Seconds per click")
    assert shown == (("Row", "Network", "Everything else"), (ROWS[0], "0.0512", "0.0034"))


def test_a_sweep_of_targets_pairs_clicks_used_with_iou_achieved(tmp_path):
    swept = {"sweep_clicks@0.6": 1.5, "sweep_iou@0.6": 0.66, "sweep_clicks@0.9": 9.25, "sweep_iou@0.9": 0.88}
    of = result(tmp_path, [cell(tmp_path, ROWS[0], [record(tmp_path, "run", RISING, **swept)])])
    _, first, second = grid(of, "IoU achieved by clicks used")
    assert first == (ROWS[0], "60 %", "1.50", "66.00")
    assert second == (ROWS[0], "90 %", "9.25", "88.00")
    paths = write_report(of, tmp_path / "reports")
    assert (tmp_path / "reports/itis-fig5/iou-by-clicks-used.png").exists()
    assert "against mean clicks used" in paths.markdown.read_text()


def test_a_table_of_clicks_has_no_threshold_sweep_and_one_of_thresholds_no_clicks(tmp_path):
    clicks = result(tmp_path, [cell(tmp_path, ROWS[0], [record(tmp_path, "run", RISING)])])
    titles = [found.title for found in grids(clicks)]
    assert "Threshold sweep" not in titles
    assert "IoU achieved by clicks used" not in titles  # nobody swept targets
    write_report(clicks, tmp_path / "reports")
    drawn = [path.name for path in (tmp_path / "reports/itis-fig5").glob("*.png")]
    assert drawn == ["iou-by-clicks.png"]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/record.json").write_text(json.dumps({"metrics": {"mean_iou": 0.9, "n": 4, "mean_iou@0.5": 0.9}}))
    chain = load_table("dextr-4")
    plain = measure(chain, chain.rows[0].label, "value", ["plain"], Records(tmp_path), "miniature")
    assert "clicks" not in measured_models(result(tmp_path, [plain], chain))


def test_rows_of_several_test_sets_are_named_by_column_and_shared_runs_appear_once(tmp_path):
    reached = {"wholeset_integer@0.9": 5, "wholeset@0.9": 5.0}
    pascal, grabcut = record(tmp_path, "pascal", RISING), record(tmp_path, "grabcut", RISING, **reached)
    columns = {"clicks_PASCAL_85": pascal, "clicks_GrabCut_90": grabcut, "IoU4_PASCAL": pascal}
    cells = [cell(tmp_path, "Ours", [run], PEERS, column) for column, run in columns.items()]
    names = list(measured_models(result(tmp_path, cells, PEERS))["clicks"])
    assert names == ["Ours (clicks_PASCAL_85, IoU4_PASCAL)", "Ours (clicks_GrabCut_90)"]
    assert list(measured_models(result(tmp_path, cells[::2], PEERS))["clicks"]) == ["Ours"]


@pytest.mark.parametrize("kind", ["markdown", "html"])
@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("70.00", "79.00", "IoU after k clicks"),
        ("3 of 40", "0 of 40", "Clicks to reach an IoU"),
        ("4.17", "3.17", "Clicks to reach an IoU"),
        ("0.0512", "0.0112", "Seconds per click"),
        ("66.00", "86.00", "IoU achieved by clicks used"),
    ],
)
def test_a_hand_edited_number_of_clicks_is_found(tmp_path, kind, old, new, where):
    run = record(tmp_path / "runs", "run", RISING, **{"sweep_clicks@0.6": 1.5, "sweep_iou@0.6": 0.66})
    of = result(tmp_path / "runs", [cell(tmp_path / "runs", ROWS[0], [run])])
    paths = write_report(of, tmp_path / "reports")
    page = getattr(paths, kind)
    shown = page.read_text()
    body = shown.index("IoU after k clicks</h2>" if kind == "html" else "## IoU after k clicks")
    assert old in shown[body:]
    page.write_text(shown[:body] + shown[body:].replace(old, new))
    complaints = check_report(paths.json, tmp_path / "runs")
    assert complaints
    assert all(f"{page.name}, {where}" in complaint for complaint in complaints)


def test_the_json_holds_whole_curves_and_an_edited_point_is_found(tmp_path):
    of = result(tmp_path / "runs", [cell(tmp_path / "runs", ROWS[0], [record(tmp_path / "runs", "run", RISING)])])
    path = write_report(of, tmp_path / "reports").json
    assert check_report(path, tmp_path / "runs") == []
    tree = json.loads(path.read_text())
    assert [tree["curves"][ROWS[0]][str(t)][0] for t in (1, 4, 20)] == pytest.approx([50, 84, 92])
    tree["curves"][ROWS[0]]["4"][0] = 90.0
    path.write_text(json.dumps(tree))
    assert any(
        "its curves are not those of the run records" in complaint
        for complaint in check_report(path, tmp_path / "runs")
    )


def test_curves_are_drawn_from_the_first_mask_on_with_a_band_over_seeds(tmp_path):
    extreme = {t: (0.0 if t < 4 else 91.0, None) for t in range(1, 21)}
    alone, banded = ({"ITIS": {t: (90 - 40 / t, std) for t in range(1, 21)}, "DEXTR": extreme} for std in (None, 3.0))
    line, band = click_curves(alone, tmp_path / "line.png"), click_curves(banded, tmp_path / "band.png")
    assert _coloured(band) > 1.2 * _coloured(line)
    nothing = click_curves({"lost": dict.fromkeys(range(1, 21), (0.0, None))}, tmp_path / "nothing.png")
    assert Image.open(nothing).size == Image.open(line).size
    assert click_sweep({"ITIS": [(1.0, 60.0), (4.5, 85.0)]}, tmp_path / "sweep.png").exists()


def _coloured(path: Path) -> int:
    """Pixels that are neither white, black nor grey."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.ptp(picture, axis=2) > 15).sum())


@pytest.fixture
def clicked(tmp_path):
    """An evaluation by clicks of a recipe and the training behind it, as folders with records only."""

    def make(recipe: str, *overrides: str, **parents: Node) -> Node:
        config = compose(recipe, profile="paper", overrides=["evaluation.protocol=clicks", *overrides])
        number = len(list(tmp_path.glob("*")))
        train, evaluation = RunFolder(tmp_path / f"train{number}"), RunFolder(tmp_path / f"evaluate{number}")
        for folder, content in ((train, {"initial_weights": "random"}), (evaluation, {"metrics": {"n": 345}})):
            folder.path.mkdir()
            (folder.path / "record.json").write_text(json.dumps(content))
        found = [Found(folder, folder.name, config) for folder in (train, evaluation)]
        return Node("evaluate", config, {"model": Node("train", config, parents, found=found[0])}, found=found[1])

    return make


def facts(node: Node) -> dict[str, str]:
    return {choice.name: choice.value for choice in choices_of(node)}


def test_the_facts_without_which_a_number_of_clicks_means_nothing(clicked):
    said = facts(clicked("itis", "evaluation.test=[davis345]", "data.sample.long_side=384"))
    assert said["objects"] == "davis345, 345 objects"
    assert said["click rule"] == "itis; of equally good pixels drawn per object and round"
    assert said["first click"] == "by the rule, on an empty prediction"
    assert said["clicks per object"] == "20, all given: no early stop"
    assert said["corrections"] == "as many as the clicks allow"
    assert said["targets"] == "IoU >= 80, 85, 90 %, compared in float32"
    assert said["threshold"] == "probability > 0.5"
    assert said["network's view at test"] == "the whole image, its longer side at most 384 px"
    assert said["test-time augmentation, zoom-in"] == "none"
    assert said["void pixels"] == "neither counted nor clicked"
    assert said["training data"] == "sbd_pascal/train"
    assert said["mask channel"] == "none"
    assert said["points at training"].startswith("InitialClicks (ring 40,")
    assert "EpochMemory (reset_probability 0.3, coin each_epoch, rule itis" in said["iteration"]


def test_a_reading_says_what_made_the_published_value_only_where_it_is_known(clicked):
    node = clicked("iog")
    reasons = [choices_of(node, by_code)[0].why for by_code in (True, False)]
    assert reasons[0] == "its published value was made by the released code"
    assert "published value" not in reasons[1]


def test_extreme_points_and_start_masks_are_other_first_clicks(clicked):
    extreme = facts(clicked("dextr"))
    assert extreme["first click"].startswith("ExtremePoints (")
    assert extreme["first click"].endswith("given at once, they count as clicks")
    assert extreme["corrections"] == "none"
    assert "iteration" not in extreme
    assert "mask channel" not in extreme
    assert facts(clicked("itis", "evaluation.clicks.start=mask"))["first click"] == "by the rule, on the start mask"


def test_a_training_that_continues_another_names_its_run(clicked):
    first = clicked("itis").model
    assert facts(clicked("itis", start=first))["training continues"] == f"run {first.hash}"


def test_a_row_of_several_test_sets_tells_each_choice_once(clicked):
    tests = {name: clicked("itis", f"evaluation.test=[{name}]") for name in ("grabcut", "davis345")}
    cells = [SimpleNamespace(row="ITIS", column=name, after=[node]) for name, node in tests.items()]
    (choices,) = choices_by_row(cells).values()
    objects = [choice.value for choice in choices if choice.name == "objects"]
    assert objects == ["grabcut, 345 objects", "davis345, 345 objects"]
    assert choices.count(Choice("void pixels", "neither counted nor clicked")) == 1


def test_pictures_of_a_run_and_curves_of_a_training_appear_once(clicked, tmp_path):
    node = clicked("itis")
    other = replace(node, found=Found(RunFolder(tmp_path / "other"), "other", node.config))
    for folder in (node.folder, other.folder):
        for i in range(8):
            save_picture(np.zeros((4, 4, 3), np.uint8), folder.path / "pictures" / f"{i:07d}-iou50.0.png")
    with (node.model.folder.path / "metrics.csv").open("w") as file:
        csv.writer(file).writerows([["step", "train/loss"], [1, 3.0], [2, 2.0]])
    shown = [("A", "noc", node), ("A", "iou", node), ("A", "grabcut", other), ("B", "noc", node)]
    cells = [SimpleNamespace(row=row, column=column, after=[run]) for row, column, run in shown]
    pictures = pictures_of(cells, tmp_path)
    *overlays, curves = [picture.caption for picture in pictures]
    assert overlays == ["noc: IoU 50.0 %", "noc: IoU 50.0 %", "grabcut: IoU 50.0 %", "grabcut: IoU 50.0 %"]
    assert curves == "Training loss by step."
    assert len({picture.path for picture in pictures}) == 5
