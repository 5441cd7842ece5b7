"""All instances on a picture of one's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from experiments import predict
from experiments.interactive.instance_predictor import category_ids_of
from experiments.runs.models import finished_training
from tests.experiments.evaluation.test_instances import COLOURS, draw, drawn_file, evaluated  # noqa: F401


@pytest.fixture
def picture(here):
    """A large dog and a small cat, on 100 x 130 pixels: twice what the run sees."""
    pixels = np.zeros((100, 130, 3), np.uint8)
    pixels[20:60, 10:70] = COLOURS["dog"]
    pixels[70:90, 90:110] = COLOURS["cat"]
    Image.fromarray(pixels).save(here / "own.png")
    return here / "own.png"


def test_instances_are_written_as_results_with_names_and_drawn_from_a_score_on(evaluated, picture, capsys):  # noqa: F811
    run = evaluated()["run"]
    predict.main(["--run", run, str(picture)])
    assert "2 instances, 2 with a score of at least 0.3" in capsys.readouterr().out
    found = json.loads((picture.parent / "own.instances.json").read_text())
    assert [(one["category"], one["category_id"], one["score"]) for one in found] == [("dog", 3, 1.0), ("cat", 9, 0.5)]
    assert {(one["image_id"], one["file_name"]) for one in found} == {(1, "own.png")}
    dog = coco_mask.decode(found[0]["segmentation"])
    assert dog.shape == (100, 130)
    assert abs(int(dog.sum()) - 40 * 60) < 300
    overlay = np.asarray(Image.open(picture.parent / "own.overlay.png"))
    predict.main(["--run", run, str(picture), "--threshold", "0.6", "--out", str(picture.parent / "b.json")])
    assert "2 instances, 1 with a score of at least 0.6" in capsys.readouterr().out
    assert json.loads((picture.parent / "b.json").read_text()) == found
    fewer = np.asarray(Image.open(picture.parent / "b.overlay.png"))
    scale = fewer.shape[0] // 100
    cat = (slice(82 * scale, 88 * scale), slice(100 * scale, 108 * scale))
    assert fewer[cat].std(axis=(0, 1)).max() == 0  # as it is in the picture
    assert not np.array_equal(fewer[cat], overlay[cat])


def test_without_the_training_data_classes_have_their_names_and_no_ids(evaluated, picture, drawn_file):  # noqa: F811
    run = evaluated()["run"]
    drawn_file.unlink()
    predict.main(["--run", run, str(picture)])
    found = json.loads((picture.parent / "own.instances.json").read_text())
    assert [(one["category"], one["score"]) for one in found] == [("dog", 1.0), ("cat", 0.5)]
    assert not any("category_id" in one for one in found)


def test_of_several_data_sets_ids_are_known_where_they_agree(evaluated, here, drawn_file):  # noqa: F811
    training = finished_training(evaluated()["run"])

    def ids(*files):
        data = {
            **training.config["data"],
            "init_args": {"train": [f"coco_json:{file}" for file in files], "root": None},
        }
        return category_ids_of(replace(training, config={**training.config, "data": data}))

    assert ids(drawn_file) == {"dog": 3, "cat": 9}
    assert ids(drawn_file, draw(here / "more", names=("dog", "horse"), ids=(3, 4))) == {"dog": 3, "cat": 9, "horse": 4}
    assert ids(drawn_file, draw(here / "other", ids=(1, 9))) == {}


@pytest.mark.parametrize("given", [["--points", "1,2", "3,4"], ["--box", "1,2,30,40"], ["--positive", "5,5"]])
def test_points_are_refused_by_a_run_that_finds_instances_by_itself(evaluated, picture, given):  # noqa: F811
    run = evaluated()["run"]
    with pytest.raises(ValueError, match=rf"finds all instances by itself; leave out {given[0]}"):
        predict.main(["--run", run, str(picture), *given])
