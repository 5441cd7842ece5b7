"""truth.json edited by hand: a sentence that names file, entry and key for whatever cannot be scored against."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.evaluation.detection_files import AT_ONCE, read_detections, read_truth
from lightning_modules.metrics.average_precision import coco_ap


def edited(folder: Path, change=lambda tree: None) -> Path:
    """Two images of 2 x 3 and 2 x 2 pixels, an object on the first, a crowd on the second."""
    tree = {
        "images": [{"id": 1, "height": 2, "width": 3}, {"id": 2, "height": 2, "width": 2}],
        "categories": [{"id": 0, "name": "dog"}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 0, "segmentation": {"size": [2, 3], "counts": "06"}, "area": 6},
            {"id": 8, "image_id": 2, "category_id": 0, "segmentation": {"size": [2, 2], "counts": [0, 4]}, "area": 4.0}
            | {"iscrowd": 1},
            {"id": 9, "image_id": 2, "category_id": 0, "segmentation": [[0, 0, 1, 0, 1, 1.5]], "area": 0, "iscrowd": 0},
        ],
    }
    change(tree)
    file = folder / "truth.json"
    file.write_text(json.dumps(tree))
    return file


def test_masks_of_every_kind_and_annotations_that_do_not_say_whether_they_are_crowds_are_scored(tmp_path):
    tree = read_truth(edited(tmp_path))
    found = {**tree["annotations"][0], "score": 0.5}
    assert coco_ap(tree, [found]).overall["ap"] == pytest.approx(51 / 101)
    assert "annotations" not in read_truth(edited(tmp_path, lambda tree: tree.pop("annotations")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["annotations"][1].pop("area"), "annotation 8 has no area, expected a number"),
        (lambda t: t["annotations"][1].update(area=None), "annotation 8 has area None, expected a number"),
        (lambda t: t["annotations"][1].update(area="4"), "annotation 8 has area '4', expected a number"),
        (lambda t: t["annotations"][1].update(iscrowd="yes"), "annotation 8 has iscrowd 'yes', expected 0 or 1"),
        (lambda t: t["annotations"][0].pop("segmentation"), "annotation 7 has segmentation None, expected polygons"),
        (lambda t: t["annotations"][0].update(segmentation=[]), "annotation 7 has segmentation [], expected polygons"),
        (
            lambda t: t["annotations"][2].update(segmentation=[[0, 0, 1, 1]]),
            "annotation 9 has segmentation [[0, 0, 1, ",
        ),
        (lambda t: t["annotations"][2]["segmentation"][0].append("1"), "annotation 9 has segmentation [[0, 0"),
        (
            lambda t: t["annotations"][0].update(segmentation={"size": [2, 2], "counts": "04"}),
            "annotation 7 has a segmentation of size [2, 2], its image is [2, 3] (H, W)",
        ),
        (
            lambda t: t["annotations"][0]["segmentation"].pop("size"),
            "annotation 7 has a segmentation of size None, its image is [2, 3]",
        ),
        (
            lambda t: t["annotations"][0]["segmentation"].update(counts="05"),
            "annotation 7 has a segmentation of run lengths that do not fill its mask",
        ),
        (
            lambda t: t["annotations"][1]["segmentation"].update(counts=[1, 4]),
            "annotation 8 has a segmentation of run lengths that do not fill its mask",
        ),
        (
            lambda t: t["annotations"][1]["segmentation"].update(counts=[0, "4"]),
            "annotation 8 has a segmentation of run lengths that do not fill its mask",
        ),
        (lambda t: t["annotations"][0].update(image_id=[1]), "annotation 7 has image_id [1], which its images do not"),
        (
            lambda t: t["annotations"][0].pop("category_id"),
            "annotation 7 has category_id None, which its categories do",
        ),
        (lambda t: t.update(annotations=None), "annotations is None, expected a list of entries"),
        (lambda t: t.update(images={"1": t["images"][0]}), "images is {'1': {'id': 1, 'height': 2, 'width': 3}}, expe"),
        (lambda t: t["images"][1].pop("height"), "image 2 has no height, expected pixels"),
        (lambda t: t["images"][1].update(width="2"), "image 2 has width '2', expected pixels"),
        (lambda t: t["images"][1].update(width=0), "image 2 has width 0, expected pixels"),
        (lambda t: t["categories"][0].pop("name"), "category 0 has no name, expected a text"),
        (lambda t: t["categories"][0].update(name=None), "category 0 has name None, expected a text"),
    ],
)
def test_what_cannot_be_scored_against_names_file_entry_and_key(tmp_path, change, said):
    file = edited(tmp_path, change)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 compared as a whole below
        read_truth(file)
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "\n" not in str(caught.value)


def test_of_many_results_the_one_that_is_damaged_is_named(tmp_path):
    tree, file = read_truth(edited(tmp_path)), tmp_path / "detections.json"
    good = {"image_id": 1, "category_id": 0, "segmentation": {"size": [2, 3], "counts": "06"}, "score": 0.5}
    found = [good] * (AT_ONCE + 5)
    file.write_text(json.dumps(found))
    assert read_detections(file, tree) == found
    found[AT_ONCE + 2] = {**good, "segmentation": {"size": [2, 3], "counts": "07"}}
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"result number {AT_ONCE + 3} has run lengths that do not fill its mask"):
        read_detections(file, tree)
