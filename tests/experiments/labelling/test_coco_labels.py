"""labels.json of a drawn COCO file: its own boxes, pieces, crowds, and what an object gets that nothing is found of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copy2

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from datamodules.selection import open_objects
from experiments import label
from experiments.labelling import labeller as labelling
from experiments.labelling.requests import label_node
from experiments.launching.making import execute
from experiments.runs.naming import LABELS
from experiments.runs.node import Node, kind_of
from lightning_modules.metrics.average_precision import is_lvis
from tests.datamodules.test_coco_names import CROWDS, PIECES, SQUARE, THIN, coco_file, said_more
from tests.experiments.labelling.test_labeller import OUTSIDE, Disc, labelling_of, untrained, written


@pytest.fixture
def drawn_file(tmp_path) -> Path:
    return coco_file(tmp_path)


@pytest.fixture
def discs(monkeypatch) -> Callable[..., None]:
    def use(**arguments):
        monkeypatch.setattr(labelling, "load_interactive", lambda node: Disc(**arguments))

    use()
    return use


def labelled_of(file: Path, **values) -> Node:
    return labelling_of(untrained(), test=[f"coco_json:{file}"], **values)


def by_id(node: Node) -> dict[int, dict]:
    return {entry["id"]: entry for entry in written(node)["annotations"]}


def test_annotations_keep_the_files_ids_and_boxes_and_one_stands_for_all_pieces(store, discs, drawn_file):
    node = labelled_of(drawn_file)
    execute(node)
    tree, entries = written(node), by_id(node)
    assert len(tree["annotations"]) == len(entries)
    assert set(entries) == {THIN, PIECES, SQUARE, 900100, 900101}
    assert entries[SQUARE]["bbox"] == [9.75, 8, 20.5, 20]
    assert entries[PIECES]["bbox"] == [3.5, 2.25, 40, 38]
    for number in (SQUARE, PIECES):
        assert entries[number]["area"] == coco_mask.decode(entries[number]["segmentation"]).sum()
        assert "filled" not in entries[number]
    info = tree["info"]
    assert (info["run"], info["method"], info["threshold"]) == (node.hash, "dextr", 0.5)
    assert info["parents"] == {"model": node.model.hash}


def test_crowds_are_copied_as_they_stand_and_their_images_listed_when_all_is_labelled(store, discs, drawn_file):
    node = labelled_of(drawn_file)
    execute(node)
    tree = written(node)
    assert tree["annotations"][-2:] == CROWDS
    assert label.unlabelled_in_words(node.folder.record) == (
        "; not labelled: 2 crowd annotations; 2 crowds are copied into labels.json as annotated"
    )
    assert {image["id"]: image["file_name"] for image in tree["images"]} == {5: "5.png", 7: "7.png", 8: "8.png"}
    labels = open_objects([{"name": f"coco_json:{drawn_file}", "labelled": str(node.folder.path / LABELS)}])
    assert sorted(map(int, labels.native_id)) == [PIECES, THIN, SQUARE]
    again = open_objects([f"coco_json:{node.folder.path / LABELS}?images={drawn_file.parent}"])
    assert sorted(map(int, again.native_id)) == [PIECES, THIN, SQUARE]


def test_labels_keep_what_lvis_says_and_list_all_images_of_a_file_that_is_labelled_whole(store, discs, drawn_file):
    tree = json.loads(drawn_file.read_text())
    said_more(tree)
    copy2(drawn_file.parent / "5.png", drawn_file.parent / "6.png")
    drawn_file.write_text(json.dumps(tree))
    node = labelled_of(drawn_file)
    execute(node)
    made = written(node)
    assert made["images"] == sorted(tree["images"], key=lambda image: image["id"])
    assert made["categories"] == tree["categories"]
    assert is_lvis(made)
    assert [*made] == ["info", "annotations", "images", "categories", "empty"]


def test_labels_of_a_file_with_annotation_0_begin_at_1_and_join_their_objects(store, discs, drawn_file):
    tree = json.loads(drawn_file.read_text())
    tree["annotations"][0]["id"] = 0
    drawn_file.write_text(json.dumps(tree))
    node = labelled_of(drawn_file)
    execute(node)
    entries = written(node)["annotations"]
    assert [entry["id"] for entry in entries] == [1, 2, 3, 4, 5]
    own = open_objects([f"coco_json:{drawn_file}"])
    assert [entry["object_id"] for entry in entries[:3]] == own.object_id.tolist()
    labels = open_objects([{"name": f"coco_json:{drawn_file}", "labelled": str(node.folder.path / LABELS)}])
    assert sorted(map(int, labels.native_id)) == [0, PIECES, SQUARE]
    for i, entry in enumerate(entries[:3]):
        assert np.array_equal(labels.read_mask(i).mask, coco_mask.decode(entry["segmentation"]))


@pytest.mark.parametrize("empty", ["nothing", "box", "quadrilateral"])
def test_what_an_object_gets_that_the_network_finds_nothing_of(store, discs, drawn_file, empty, capsys):
    discs(nothing=True)
    node = labelled_of(drawn_file, empty=empty)
    record = execute(node)
    entries, tree = by_id(node), written(node)
    quality = json.loads((node.folder.path / "quality.json").read_text())["groups"]
    if empty == "nothing":
        assert set(entries) == {900100, 900101}
        assert len(tree["empty"]) == record["metrics"]["empty"] == 3
        assert quality["all"]["empty"] == 1
        assert "warning: 3 objects have no label, 100.0 % of 3" in capsys.readouterr().err
        return
    assert tree["empty"] == []
    assert record["metrics"]["filled"] == 3
    assert quality["all"]["filled"] == quality["all"]["labels_per_box"] == 1
    assert all(entries[number]["filled"] is True for number in (THIN, PIECES, SQUARE))
    own = open_objects([f"coco_json:{drawn_file}"])
    for i, number in enumerate(map(int, own.native_id)):
        mask = coco_mask.decode(entries[number]["segmentation"])
        y, x = np.nonzero(own.read_mask(i).mask)
        box = np.zeros_like(mask)
        box[y.min() : y.max() + 1, x.min() : x.max() + 1] = 1
        if empty == "box":
            assert np.array_equal(mask, box)
        else:  # its points were taken on the crop's grid, in pixels that are not those of the image
            down, across = np.nonzero(mask)
            for found, wanted in ((across, x), (down, y)):
                assert np.allclose([found.min(), found.max()], [wanted.min(), wanted.max()], atol=2), number
            assert mask.sum() <= box.sum() + 60
        assert 0 <= entries[number]["score"] < 0.01


def test_thin_objects_are_filled_and_others_keep_what_was_found(store, discs, drawn_file):
    node = labelled_of(drawn_file, empty="box")
    execute(node)
    entries = by_id(node)
    assert coco_mask.toBbox(entries[THIN]["segmentation"]).tolist() == [50, 10, 2, 30]
    assert entries[THIN]["area"] == 60
    assert entries[THIN]["filled"] is True
    assert "filled" not in entries[SQUARE]


def test_the_report_knows_sizes_and_pieces(store, discs, drawn_file, capsys):
    node = labelled_of(drawn_file)
    record = execute(node)
    groups = json.loads((node.folder.path / "quality.json").read_text())["groups"]
    assert {name: group["objects"] for name, group in groups.items()} == {
        "all": 3,
        "small": 2,
        "medium": 1,
        "large": 0,
        "separated": 1,
    }
    assert groups["all"]["miou_instance"] == pytest.approx(record["metrics"]["mean_iou"])
    assert groups["all"]["miou_class"] == record["metrics"]["mean_iou_class"]
    assert "quality: 100.0 % of 3 boxes labelled; mIoU of objects" in capsys.readouterr().out
    assert (node.folder.path / "pictures" / "worst.png").exists()


def test_without_a_word_on_empty_masks_a_label_run_is_named_as_ever(store):
    model = untrained()
    node, kind = labelling_of(model), kind_of("label")
    plain = {"threshold": 0.5, "stretch": True, "paste": "cubic", "box": "tight"}
    assert kind.identity(labelling_of(model, **plain))["masks"] == plain
    assert kind.identity(labelling_of(model, **plain, empty="nothing"))["masks"] == plain
    assert labelling_of(model, empty="nothing").hash == node.hash
    assert kind.identity(labelling_of(model, **plain, empty="box"))["masks"] == {**plain, "empty": "box"}
    evaluation = Node("evaluate", node.config, {"model": model})
    other = Node("evaluate", labelling_of(model, empty="box").config, {"model": model})
    assert other.hash == evaluation.hash  # it reads no such value


def test_quadrilaterals_are_of_runs_that_begin_with_extreme_points(store):
    model = untrained(*OUTSIDE)
    with pytest.raises(
        ValueError, match=r"evaluation.empty is quadrilateral, .* begins without some of them .*set it to"
    ):
        _ = labelling_of(model, empty="quadrilateral").hash
    assert labelling_of(model, empty="box").hash
    with pytest.raises(ValueError, match="empty"):
        _ = labelling_of(model, empty="circle").hash


def test_the_command_says_what_empty_masks_get_and_where_the_report_lies(store, discs, drawn_file, capsys):
    model = untrained()
    label.main(["--run", model.hash, "--data", f"coco_json:{drawn_file}", "--empty", "box"])
    node = label_node(model, data=f"coco_json:{drawn_file}", empty="box")
    assert f"their quality: {node.folder.path / 'quality.md'}" in capsys.readouterr().out
    assert by_id(node)[THIN]["filled"] is True
