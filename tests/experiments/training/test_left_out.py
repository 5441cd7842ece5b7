"""What of its data a training could not use stands in its record."""

from __future__ import annotations

import json

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.selection import open_objects
from experiments import fit
from experiments.runs.models import finished_training
from tests.experiments.evaluation.test_instances import RECIPE, SIZE, draw


def test_pseudo_labels_that_are_empty_or_missing_are_counted_in_the_record(here, capsys):
    file, labels = draw(here / "images"), here / "labels.json"
    index = open_objects([f"coco_json:{file}"])
    masks = [np.zeros(SIZE, np.uint8, order="F") for _ in index.object_id[1:]]
    entries = []
    for place, mask in enumerate(masks):
        mask[2:9, 3:9] = place > 0
        encoded = coco_mask.encode(mask)
        segmentation = {"size": list(SIZE), "counts": encoded["counts"].decode()}
        shared = {"id": place + 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "area": int(mask.sum())}
        entries.append({**shared, "object_id": int(index.object_id[place]), "segmentation": segmentation})
    labels.write_text(json.dumps({"images": [], "categories": [], "annotations": entries}))
    text = RECIPE % {"here": "tests.experiments.evaluation.test_instances", "file": file, "least": 1}
    spec = f'train: [{{name: "coco_json:{file}", labelled: {labels}}}]'
    (here / "Colours.yaml").write_text(text.replace(f'train: ["coco_json:{file}"]', spec))
    evaluation = fit.run(["--config=Colours.yaml"])[0]
    record = finished_training(evaluation["run"]).folder.record
    assert record["left_out"] == [
        "1 crowd annotations",
        "1 object without a pseudo-label",
        f"1 object whose mask is empty or whose box is below one pixel, the first is {index.native_id[0]}",
    ]
    assert f"training data, left out: {'; '.join(record['left_out'])}\n" in capsys.readouterr().err
