"""What the rows of IOG's and FAIRS' tables run: each changes what its paper changes, and builds on what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.reproduction.plan import Conditions, compose_row
from experiments.reproduction.specs import RowData
from experiments.reproduction.tables import load_table


def cell(table, label, column=None):
    """What a row runs, in its first column unless another is named."""
    cells = load_table(table).row(label).cells
    return cells[column or next(iter(cells))]


def test_the_ablation_of_iog_takes_one_part_away_at_a_time():
    runs = {row.label: row.cells["iou"] for row in load_table("iog-3").rows}
    full = dict(runs["R50, full"].differs)
    parts = {label: dict(run.differs.items() - full.items()) for label, run in runs.items()}
    deeper = {"model.network.backbone": "resnet101"}
    assert parts == {
        "R50, no context": {"model.network.context": False},
        "R50, no FineNet": {"model.network.fine": False},
        "R50, no side losses": {"model.side_weight": 0.0},
        "R50, full": {},
        "R50, full, 10k": {},
        "R101, full": deeper,
        "R101, full, 10k": deeper,
    }
    trained = [run.train[0].name == "pascal_sbd/train" for run in runs.values()]
    assert trained == ["10k" in label for label in runs]
    assert {run.reading for run in runs.values()} == {"code"}


def test_a_box_alone_is_the_network_of_the_ablation_that_sees_less():
    crop, geo, sim, outside, outside_101, two = (row.cells["iou"] for row in load_table("iog-8").rows)
    inside = "data.sample.{}_points.inside"
    seen = [
        (run.differs.get(inside.format("train")), run.differs.get(inside.format("test"))) for run in (crop, geo, sim)
    ]
    assert seen == [("none", "none"), ("box_centre", "box_centre"), (None, "box_centre")]
    assert [run.differs.get("model.guidance", "both") for run in (crop, geo, outside)] == [None, "both", "OutsideMaps"]
    assert two.first_stage == replace(outside_101, first_stage=None)
    assert (two.differs, two.train) == (
        cell("iog-3", "R101, full, 10k").differs,
        cell("iog-3", "R101, full, 10k").train,
    )


@pytest.mark.parametrize(("table", "tuned_on"), [("iog-4", "cityscapes/train"), ("iog-5", "rooftop/train")])
def test_fine_tuning_goes_on_from_models_of_this_and_other_tables(table, tuned_on):
    r50, pascal, coco = (
        cell(table, f"IOG {name}, fine-tuned") for name in ("R50, PASCAL", "R101, PASCAL", "R101, COCO")
    )
    assert [run.train for run in (r50, pascal, coco)] == 3 * [(RowData(tuned_on, {"share": "${share:0.1}"}),)]
    assert r50.start == cell(table, "IOG R50, PASCAL, no fine-tune")
    assert pascal.start == cell("iog-3", "R101, full, 10k")
    assert coco.start == cell("iog-2", "COCO -> PASCAL")
    assert (r50.start.reading, coco.start.reading) == ("code", "code")


def test_trained_on_coco_iog_differs_in_data_epochs_batch_and_band_alone():
    pascal, coco = (cell("iog-2", f"{name} -> PASCAL") for name in ("PASCAL", "COCO"))
    trees = [compose_row(spec, Conditions("paper"), 0) for spec in (pascal, coco)]
    assert trees[0]["model"] == trees[1]["model"]  # the head's rate among it
    assert trees[1]["model"]["init_args"]["head_lr_factor"] == 10
    assert coco.differs == {"trainer.max_epochs": 10, "data.batch_size": 10, "data.sample.void_band": 5}


def test_mval_of_iog_is_dextrs_and_800_objects_a_second_reading():
    rows = [row for row in load_table("iog-2").rows if "MVal" in row.label]
    tests = [(row.label.startswith("800"), row.cells["ours"].test.name) for row in rows]
    assert tests == 4 * [(False, "coco_minival5k")] + 4 * [(True, "coco_mval800")]


def test_fairs_sigma_is_a_deviation_and_its_void_background():
    tree = compose_row(cell("fairs-1", "+ SFG"), Conditions("paper"), 0)["model"]["init_args"]
    assert tree["guidance"]["init_args"]["std"] == 10  # as in DEXTR's paper
    assert tree["loss"]["init_args"]["use_void"] is False
    by_code = compose_row(replace(cell("fairs-1", "+ SFG"), reading="code"), Conditions("paper"), 0)
    assert by_code["model"]["init_args"]["guidance"]["init_args"]["fwhm"] == 10


def test_with_three_points_predictions_stay_in_their_box():
    three = [cell("fairs-3points", "PASCAL"), cell("fairs-4", "FAIRS", "PASCAL_85")]
    assert [run.differs["evaluation.box"] for run in three] == ["clicked", "clicked"]
    assert "evaluation.box" not in cell("fairs-4", "FAIRS", "Berkeley_90").differs  # which has four


def test_cityscapes_has_the_mean_over_classes_beside_that_over_objects():
    row = load_table("iog-4").row("IOG R50, PASCAL, fine-tuned")
    shown = {name: run.metric for name, run in row.cells.items()}
    assert shown == {"iou": "mean_iou", "iou_classes": "mean_iou_over_classes"}
    assert (row.published["iou"], row.published["iou_classes"]) == (82.2, None)


def test_five_annotators_are_five_evaluations_of_one_training():
    manual = cell("iog-7", "Manual inside points", "r30")
    annotators = [run.differs["data.sample.test_points.annotator"] for run in manual.repeated]
    assert annotators == [0, 1, 2, 3, 4]
    assert {run.differs["data.sample.train_points.radius"] for run in manual.repeated} == {"${px:30}"}
    assert cell("iog-7", "Simulated inside points", "r0").repeated == [cell("iog-7", "Simulated inside points", "r0")]


def test_further_clicks_of_iog_differ_in_where_they_enter_and_in_iteration():
    runs = [row.cells["clicks_4"] for row in load_table("iog-fig6-left").rows]
    assert [(run.differs.get("model", "IOG"), run.differs.get("model.network.click_channels", 0)) for run in runs] == [
        ("IOG", 0),
        ("IOG", 2),
        ("IterativeIOG", 0),
        ("IterativeIOG", 2),
        ("IterativeIOG", 2),
    ]
    assert [run.metric for run in load_table("iog-fig6-left").rows[0].cells.values()] == [
        f"iou_{clicks}" for clicks in range(3, 9)
    ]


def test_labels_that_a_model_made_are_all_that_its_successor_learns_from():
    (labelled,) = cell("fairs-7", "PASCAL / FAIRS-WS").train
    assert labelled.name == "coco2017/val"
    assert labelled.labelled.train == cell("fairs-3", "PASCAL+SBD / FAIRS").train
    assert labelled.labelled.test == RowData("coco2017/val")
    assert cell("fairs-4", "FAIRS-WS").train == (labelled,)


def test_the_gain_of_a_corrective_click_is_between_the_rows_above_it():
    before, after, gain = (row.cells["value"] for row in load_table("fairs-refine").rows)
    assert gain.after == after
    assert gain.before == replace(after, differs={**after.differs, "evaluation.clicks.corrections": 0})
    assert (before.test, before.test.hard.by.test) == (after.test, RowData("pascal/val"))
    assert (before.test.hard.below, before.train) == (0.7, after.train)


def test_clicks_of_fairs_are_counted_from_as_many_points_as_are_printed():
    cells = load_table("fairs-4").row("FAIRS").cells
    points = {name: run.differs.get("data.sample.test_points.counts", [4])[0] for name, run in cells.items()}
    published = load_table("fairs-4").row("FAIRS").published
    assert {name: points[name] for name in points if not name.startswith("IoU")} == {
        name: value for name, value in published.items() if not name.startswith("IoU")
    }
    assert all(cells[name].metric == f"iou_{points[name]}" for name in points if name.startswith("IoU"))
    assert {run.train[0].name for name, run in cells.items() if "SBD" in name} == {"sbd/train"}
