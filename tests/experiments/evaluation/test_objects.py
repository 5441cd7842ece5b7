"""Protocol object_iou: what a row holds follows from the prediction, pasted as the recipe says."""

import copy

import numpy as np
import pytest

from datamodules.objects import evaluation_loader
from datamodules.selection import open_objects
from experiments import reproduce
from experiments.composition.building import sample_recipe
from experiments.composition.compose import compose
from experiments.evaluation.objects import MaskScorer, ObjectIoU
from experiments.reproduction.tables import FOLDER
from tests.experiments.evaluation.test_clicks import Discs


@pytest.fixture
def rows(here):
    """Rows of the first objects of the drawn PASCAL val, predicted by discs around the extreme points."""

    def make(**evaluation):
        config = compose("dextr", profile="miniature")
        config["evaluation"] |= {"test": [{"name": "pascal/val", "limit": 6}], **evaluation}
        data = config["data"]["init_args"]
        index = open_objects(config["evaluation"]["test"], data["root"])
        scorer = MaskScorer(Discs(9.0).eval(), index, copy.deepcopy(config), here)
        loader = evaluation_loader(index, sample_recipe(config), batch_size=3, workers=0)
        return [dict(zip(scorer.columns, row, strict=True)) for batch in loader for row in scorer.score(batch)]

    return make


def test_predictions_are_pasted_by_the_interpolation_of_the_recipe(rows):
    ious = {name: np.array([row["iou"] for row in rows(paste=name)]) for name in ("nearest", "linear", "cubic")}
    assert (ious["cubic"] > 0).all()
    assert not np.array_equal(ious["cubic"], ious["nearest"])
    assert np.abs(ious["cubic"] - ious["nearest"]).max() < 0.1  # only boundaries move
    np.testing.assert_array_equal(ious["cubic"], [row["iou"] for row in rows()])  # the recipe's own


def test_the_threshold_of_the_recipe_is_one_of_the_sweep(rows):
    for row in rows(threshold=0.65, thresholds=[0.5, 0.8]):
        assert row["iou"] == row["iou@0.65"]
        assert {"iou@0.5", "iou@0.65", "iou@0.8"} <= set(row)


def test_a_metric_that_nobody_measures_is_refused_before_anything_is_trained(here):
    text = (
        (FOLDER / "dextr-4.yaml")
        .read_text()
        .replace("protocol: object_iou", "protocol: object_iou\n  metric: mean_iuo")
    )
    (here / "dextr-4.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"does not measure 'mean_iuo' with these values; did you mean 'mean_iou'"):
        reproduce.main(["dextr-4.yaml", "--profile=miniature"])
    assert not (here / "runs").exists()


def test_the_mean_over_classes_weighs_rare_ones_as_much(tmp_path):
    lines = ["position,object_id,category,iou,seconds", "0,1,car,0.9,0", "1,2,car,0.7,0", "2,3,train,0.4,0"]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    metrics = ObjectIoU().summarise(tmp_path / "rows.csv")
    assert metrics["mean_iou"] == pytest.approx(2 / 3)
    assert metrics["mean_iou_over_classes"] == pytest.approx(0.6)
    (tmp_path / "rows.csv").write_text("\n".join(line.replace("car", "").replace("train", "") for line in lines) + "\n")
    assert "mean_iou_over_classes" not in ObjectIoU().summarise(tmp_path / "rows.csv")
