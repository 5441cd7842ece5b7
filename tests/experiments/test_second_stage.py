"""EXITS' second stage by command: extractor, generators, labels, instance models and their AP, in one graph."""

from __future__ import annotations

import json

import pytest

from experiments import reproduce
from experiments.reports.check import check_report
from experiments.reproduction.tables import load_table
from experiments.runs.folder import RunFolder
from experiments.runs.reading import load_node
from tests.experiments.tiny import CHANGED, report_of

# As short as it goes; sizes are the profile's, since both stages share what is typed.
SHORT = ["--profile=miniature", "--threads=1", "--data.batch_size=4", "--trainer.max_steps=2"]
ROWS = {
    "exits-5": ["no points (MAL)", "initial and propagated points"],
    "exits-3": ["Mask R-CNN, ResNeXt-101-32", "EXITS, ResNeXt-101-32"],
    "exits-1": ["Mask2Former, Swin-Small", "MAL, Swin-Small"],
}


@pytest.fixture(params=list(ROWS))
def made(request, shared_store, tmp_path):
    """The cells of some rows of a table, by row and column; trainings are shared by the tables."""
    table = load_table(request.param)
    numbers = [number for number, row in enumerate(table.rows, 1) if row.label in ROWS[table.id]]
    reproduce.main([table.id, f"--rows={','.join(map(str, numbers))}", *SHORT])
    report = report_of(tmp_path, table.id)
    cells = {(cell["row"], cell["column"]): cell for cell in report["cells"] if cell["row"] in ROWS[table.id]}
    return table, cells, shared_store, tmp_path / CHANGED / f"{table.id}.json"


@pytest.mark.slow
def test_a_table_of_labels_goes_from_points_to_ap(made):
    table, cells, store, report = made
    for (row, column), cell in cells.items():
        if column.startswith("ret_") and table.row(row).cells.get(column) is None:
            assert cell["state"] == "quoted"  # a fully supervised model retains nothing
            continue
        if column.startswith("ret_"):
            # Two steps find nothing, and nothing is a share of nothing; else the share is that of both records.
            assert cell["measured"] is None or cell["measured"] == pytest.approx(
                100 * cell["parts"][1] / cell["parts"][0]
            )
            continue
        record = json.loads((store / cell["runs"][0] / "record.json").read_text())
        training = json.loads((store / record["parents"]["model"] / "record.json").read_text())
        assert training["said"]["samples"] == "8 images seen in 2 steps"
        detections = json.loads((store / cell["runs"][0] / "detections.json").read_text())
        assert len(detections) == record["metrics"]["detections"]
        if column == "mask_ap_testdev":
            assert (cell["measured"], cell["never"]) == (None, "to upload")
            assert "detections.json" in cell["reason"]
            continue
        assert cell["state"] == "reduced profile"
        assert cell["measured"] == pytest.approx(100 * record["metrics"][table.row(row).cells[column].metric])
        labelled = table.row(row).cells[column].train[0].labelled
        kinds = [node.kind for node in load_node(RunFolder(store / cell["runs"][0])).with_ancestors()]
        assert ("label" in kinds) == (labelled is not None)
    assert check_report(report, store) == []
