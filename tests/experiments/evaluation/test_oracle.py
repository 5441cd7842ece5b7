"""What a user's box leaves to be found: the row of DEXTR's Table 1 that needs no network."""

import json
from pathlib import Path

import numpy as np

from datamodules.objects import evaluation_loader
from datamodules.selection import open_objects
from experiments.composition.building import sample_recipe
from experiments.evaluation.oracle import Oracle, OracleScorer
from experiments.evaluation.rows import merge_rows
from experiments.evaluation.settings import NoSettings
from experiments.reproduction.plan import Conditions, compose_row, evaluation_node, find_spec


def test_the_oracle_misses_what_people_s_boxes_cut_off_and_nothing_else(here):
    config = compose_row(find_spec("dextr-1/oracle-inside-the-manual-box"), Conditions("miniature"), seed=0)
    root = config["data"]["init_args"]["root"]
    index = open_objects(config["evaluation"]["test"], root)
    records = json.loads((Path(root) / "pascal_ext" / "points.json").read_text())["points"]
    clicked = {record["object"]: np.floor(np.add(record["xy"], 0.5)).astype(int) for record in records}
    scorer = OracleScorer(None, index, config, here)
    loader = evaluation_loader(index, sample_recipe(config), batch_size=4, workers=0)
    found = [dict(zip(scorer.columns, row, strict=True)) for batch in loader for row in scorer.score(batch)]
    assert len(found) == len(index) > 10
    for row in found:
        mask = index.read_mask(row["position"]).mask
        x, y = clicked[row["native_id"]].T
        inside = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert row["iou"] == np.count_nonzero(inside) / np.count_nonzero(mask)
    assert 0.5 < np.mean([row["iou"] for row in found]) < 1


def test_its_rows_are_summed_up_like_those_of_other_objects(tmp_path):
    rows = "position,iou,seconds\n0,1.0,0.0\n1,0.5,0.0\n"
    (tmp_path / "rows.0.csv").write_text(rows)
    metrics = Oracle().summarise(merge_rows(tmp_path, 2, processes=1))
    assert (metrics["mean_iou"], metrics["n"]) == (0.75, 2)
    assert Oracle().describe(metrics, NoSettings()).startswith("mean IoU 75.0")


def test_what_only_a_network_s_answer_needs_renames_no_oracle(here):
    """Neither a threshold nor an interpolation changes the object itself."""
    spec = find_spec("dextr-1/oracle-inside-the-manual-box")
    typed = ("evaluation.threshold=0.3", "evaluation.paste=nearest", "evaluation.thresholds=[0.1]")
    hashes = {evaluation_node(spec, Conditions("miniature", more), seed=0).hash for more in ((), typed)}
    assert len(hashes) == 1
