"""A retention rate is the share that training on labels reaches of training on masks, both runs of this suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.reports.grids import grids
from experiments.reports.measured import measured_models
from experiments.reproduction.cells import measure, table_result
from experiments.reproduction.plan import find_spec
from experiments.reproduction.specs import Pair
from experiments.reproduction.tables import load_table
from experiments.runs.records import Records

COCO, LVIS = load_table("exits-1"), load_table("exits-3")
WEAK, WHOLE = "EXITS, ResNet-50", "SOLOv2, ResNet-50"
SHARES = [
    (table, row, kind)
    for table in (COCO, LVIS)
    for row in table.rows
    for kind in ("val", "testdev")
    if row.published.get(f"ret_{kind}") is not None and row.own
]


def record(root: Path, run: str, ap: float | None) -> str:
    """The record of an evaluation that reached this AP (0..1)."""
    (root / run).mkdir(parents=True)
    content: dict[str, Any] = {"run": run, "kind": "evaluate", "seed": 0, "parents": {}, "seconds": 60, "units": 7}
    content |= {"metrics": {"ap": ap, "n": 7}, "scoring": {"protocol": "instances"}}
    (root / run / "record.json").write_text(json.dumps(content))
    return run


@pytest.mark.parametrize(("table", "row", "kind"), SHARES, ids=lambda each: getattr(each, "label", str(each)[:8]))
def test_the_published_retention_is_the_share_of_the_published_values(table, row, kind):
    cell = row.cells[f"ret_{kind}"]
    whole = table.row(cell.share_of).published[f"mask_ap_{kind}"]
    share = 100 * row.published[f"mask_ap_{kind}"] / whole
    assert round(share, 1) == row.published[f"ret_{kind}"]


def test_both_models_of_a_share_are_tested_alike_and_the_second_is_the_rows_own():
    row = COCO.row(WEAK)
    share = row.cells["ret_val"]
    assert isinstance(share, Pair)
    assert share.after == row.cells["mask_ap_val"]
    assert share.before == COCO.row(WHOLE).cells["mask_ap_val"]
    assert row.cells["ret_testdev"].before.test == COCO.row(WHOLE).cells["mask_ap_testdev"].test


def test_labels_come_from_the_first_stage_on_all_training_images():
    (data,) = COCO.row(WEAK).cells["mask_ap_val"].train
    assert (data.name, data.labelled.recipe, data.labelled.test.name) == ("coco2017/train", "exits", "coco2017/train")
    assert data.labelled.parents["extractor"].differs["model.points"] is None
    (mal,) = COCO.row("MAL, ResNet-50").cells["mask_ap_val"].train
    assert mal.labelled.differs["model.points"] is None
    assert not mal.labelled.parents


def test_a_share_is_computed_from_two_records_and_shown_with_both(tmp_path):
    runs = record(tmp_path, "weak", 0.36), record(tmp_path, "whole", 0.40)
    cell = measure(COCO, WEAK, "ret_val", runs[:1], Records(tmp_path), "miniature", before_runs=runs[1:])
    assert (cell.measured, cell.difference) == (pytest.approx(90.0), pytest.approx(90.0 - 96.3))
    result = table_result(
        COCO, "miniature", [cell], tmp_path, seeds=(0,), started="today", finished="later", environment="here"
    )
    assert set(measured_models(result)["instances"]) == {WHOLE, WEAK}
    assert "36.00 of 40.00 of SOLOv2, ResNet-50" in str([grid.lines for grid in grids(result)])


def test_nothing_is_a_share_of_a_model_that_finds_nothing(tmp_path):
    runs = record(tmp_path, "weak", 0.36), record(tmp_path, "whole", 0.0)
    cell = measure(COCO, WEAK, "ret_val", runs[:1], Records(tmp_path), "miniature", before_runs=runs[1:])
    assert (cell.measured, cell.state) == (None, "not run")
    assert "reaches 0" in cell.reason


def test_a_fully_supervised_row_has_no_retention_of_its_own():
    assert "ret_val" not in COCO.row(WHOLE).cells
    assert find_spec("exits-1/solov2-resnet-50").train == COCO.row(WHOLE).cells["mask_ap_val"].train


def test_ablations_share_their_trainings_with_each_other():
    rows = [load_table(name).row(label).cells["ap"] for name, label in (
        ("exits-5", "initial and propagated points"),
        ("exits-6", "with point dropout"),
        ("exits-2", "EXITS, ResNet-50"),
    )]  # fmt: skip
    assert rows[0] == rows[1] == rows[2]
