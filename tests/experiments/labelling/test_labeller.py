"""Labelling: what is written for an object, what a kill leaves, what boxes ask of a run, tables built on labels."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from datamodules.clicks.points import PointKind, Points
from datamodules.selection import open_objects
from experiments import label
from experiments.composition.building import build_part
from experiments.evaluation.stages import load_interactive
from experiments.labelling import labeller as labelling
from experiments.labelling.boxes import unsaid_by_boxes
from experiments.labelling.coco_file import write_labels
from experiments.labelling.quality_page import FIGURES
from experiments.labelling.rows import Places, RemainingBatches, opened_part, whole_rows
from experiments.launching import slurm
from experiments.launching.making import execute
from experiments.reproduction.plan import Conditions, evaluation_node, find_spec, nodes_of
from experiments.reproduction.requests import FitRequest
from experiments.reproduction.spec_reader import FOLDER
from experiments.reproduction.specs import Pair, RowData
from experiments.reproduction.tables import read_table
from experiments.runs.folder import RunFolder
from experiments.runs.naming import LABELS
from experiments.runs.node import Node, in_order
from experiments.runs.reading import load_node
from tests.experiments.processes import done_by, forked
from tests.experiments.tiny import SHRUNK, TINY

CONDITIONS = Conditions("miniature", tuple(SHRUNK[1:]))
OUTSIDE = ["--config=iog", *TINY[1:], "--data.sample.test_points.inside=none"]


def untrained(*arguments: str) -> Node:
    """A training that ended before its first step."""
    from pytorch_lightning import LightningModule

    config = FitRequest.read(arguments or TINY).config
    node = Node("train", config)
    torch.manual_seed(0)
    torch.save(build_part(LightningModule, config["model"]).state_dict(), prepared(node) / "weights.pt")
    node.folder.finish(kind="train", metrics={}, seconds=0.0, parents={})
    return node


def prepared(node: Node):
    for run in node.with_ancestors():
        run.folder.prepare(run.describe())
    return node.folder.path


def labelling_of(model: Node, **values) -> Node:
    config = {**model.config, "evaluation": {**model.config["evaluation"], "batch_size": 3, **values}}
    return Node("label", config, {"model": model})


class Disc(nn.Module):
    """Predicts a disc of a probability of 0.9 in the middle of every crop; nothing where the object's id says so."""

    calls = 0

    def __init__(self, fails_after: int = 1_000_000, nothing: bool = False) -> None:
        super().__init__()
        self.fails_after, self.nothing = fails_after, nothing

    def start(self, image: Tensor, points: Points) -> Tensor:
        return image

    def predict(self, state: Tensor, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        type(self).calls += 1
        if self.calls > self.fails_after:
            raise RuntimeError("the power is gone")
        side = state.shape[-1]
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        near = ((x - side / 2 + 0.5) ** 2 + (y - side / 2 + 0.5) ** 2) < (side / 4) ** 2
        logits = torch.where(near & (not self.nothing), 2.1972, -9.0)
        return logits.expand(len(state), 1, side, side), state


@pytest.fixture
def discs(monkeypatch):
    Disc.calls = 0

    def use(**arguments):
        monkeypatch.setattr(labelling, "load_interactive", lambda node: Disc(**arguments))

    use()
    return use


def written(node: Node) -> dict:
    return json.loads((node.folder.path / LABELS).read_text())


def test_every_object_gets_the_mask_that_an_evaluation_would_paste(store, discs):
    node = labelling_of(untrained(), threshold=0.5, box="crop")
    record = execute(node)
    index = open_objects(node.config["evaluation"]["test"], node.config["data"]["init_args"]["root"], 0)
    tree = written(node)
    assert [entry["object_id"] for entry in tree["annotations"]] == index.object_id.tolist()
    assert record["metrics"]["n"] == 11
    assert record["metrics"]["empty"] == 0
    images = {image["id"]: image for image in tree["images"]}
    ious = []
    for i, entry in enumerate(tree["annotations"]):
        image, mask = images[entry["image_id"]], coco_mask.decode(entry["segmentation"])
        assert index.image_path(i).as_posix().endswith(image["file_name"])
        assert mask.shape == (image["height"], image["width"]) == tuple(index.image_size[index.image[i]])
        left, top, right, bottom = index.box[i].tolist()
        assert entry["bbox"] == [left, top, right - left + 1, bottom - top + 1]  # no annotation file says another
        assert entry["area"] == mask.sum()
        assert entry["score"] == pytest.approx(0.9, abs=0.03)  # the paste blurs the disc's border
        own = index.read_mask(i)
        labelled = np.ones_like(mask, bool) if own.void is None else own.void == 0
        both = (mask & own.mask)[labelled].sum()
        ious.append(both / (mask | own.mask)[labelled].sum())
        assert tree["categories"][entry["category_id"] - 1]["name"] == index.categories[index.category[i]]
    assert record["metrics"]["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-5)
    assert execute(node) == record  # and not made again


def test_an_object_without_a_mask_is_no_annotation_and_counted(store, discs):
    discs(nothing=True)
    node = labelling_of(untrained())
    record = execute(node)
    assert record["metrics"]["empty"] == record["metrics"]["n"] == 11
    assert record["metrics"]["mean_iou"] == 0
    assert written(node)["annotations"] == []
    assert len(written(node)["empty"]) == 11


@pytest.mark.slow
def test_what_stops_in_the_middle_goes_on_and_ends_the_same(store, discs):
    whole = labelling_of(untrained())
    execute(whole)
    expected, seen = (whole.folder.path / LABELS).read_text(), Disc.calls
    for file in (LABELS, "record.json"):
        (whole.folder.path / file).unlink()
    Disc.calls = 0
    discs(fails_after=2)
    with pytest.raises(RuntimeError, match="the power is gone"):
        execute(whole)
    (part,) = whole.folder.path.glob("labels.*.jsonl")
    assert len(part.read_text().splitlines()) == 6  # two batches of three
    with part.open("a") as file:  # a kill in the middle of a write
        file.write('{"position": 6, "object_id": 1')
    Disc.calls = 0
    discs()
    execute(whole)
    assert (whole.folder.path / LABELS).read_text() == expected
    assert Disc.calls == seen - 2
    assert not list(whole.folder.path.glob("labels.*.jsonl"))


def test_a_run_that_was_killed_before_its_last_line_predicts_nothing_again(store, discs, monkeypatch):
    node = labelling_of(untrained())
    monkeypatch.setattr(labelling, "write_labels", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        execute(node)
    monkeypatch.setattr(labelling, "write_labels", write_labels)
    calls = Disc.calls
    assert execute(node)["metrics"]["n"] == 11
    assert Disc.calls == calls


def row(position: int) -> bytes:
    return f'{{"position": {position}, "iou": null}}\n'.encode()


def test_a_line_that_was_cut_off_is_dropped_and_those_before_stay(tmp_path):
    part = tmp_path / "labels.0.jsonl"
    part.write_bytes(row(0) + row(1) + row(2)[:9])
    assert [found["position"] for _, _, found in whole_rows(part)] == [0, 1]
    with opened_part(tmp_path, 0) as file:
        file.write(row(3))
    assert part.read_bytes() == row(0) + row(1) + row(3)
    part.write_bytes(row(0) + b"\0\0\0\0\n" + row(1))  # a machine that crashed
    assert [found["position"] for _, _, found in whole_rows(part)] == [0]


def test_rows_of_several_processes_come_in_order_and_once(tmp_path):
    (tmp_path / "labels.0.jsonl").write_bytes(row(0) + row(1) + row(4) + row(2))
    (tmp_path / "labels.1.jsonl").write_bytes(row(3) + row(2) + row(0))
    assert [found["position"] for found in Places.of(tmp_path, 5).rows()] == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="1 of 6 objects have no row"):
        next(Places.of(tmp_path, 6).rows())


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_batches_stay_whole_and_are_dealt_out_once(processes):
    done = np.zeros(11, bool)
    done[[0, 1, 2, 3, 7]] = True  # the batch of 0, 1, 2 is whole, that of 3, 4, 5 is not
    dealt = [list(RemainingBatches(done, 3, rank, processes)) for rank in range(processes)]
    batches = [batch for part in dealt for batch in part]
    assert {tuple(batch) for batch in batches} == {(3, 4, 5), (6, 7, 8), (9, 10)}
    assert all(dealt)  # Lightning allows no idle process


def boxes_file(folder, boxes: list[list[float]], **more) -> str:
    """Two images and these boxes, dealt out to them in turn, with ids that nobody would guess."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("b", "a"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / f"{name}.png")
    images = [{"id": k, "file_name": f"{n}.png", "height": 48, "width": 64} for k, n in ((70, "a"), (9, "b"))]
    annotations = [
        {"id": 500 - i, "image_id": 70 if i % 2 else 9, "category_id": 18, "bbox": box} for i, box in enumerate(boxes)
    ]
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}], **more}
    file = folder / "boxes.json"
    file.write_text(json.dumps(tree))
    return str(file)


BOXES = [[4, 5, 20, 20], [30, 10, 17, 24], [8, 20, 22, 22]]


def test_boxes_become_masks_under_the_numbers_of_their_file(store, discs, tmp_path, capsys):
    model, file = untrained(*OUTSIDE), boxes_file(tmp_path / "data", BOXES)
    out = tmp_path / "masks.json"
    command = ["--run", model.hash, "--boxes", file, "--images", str(tmp_path / "data"), "--out", str(out)]
    label.main(command)
    tree = json.loads(out.read_text())
    assert [(entry["id"], entry["image_id"]) for entry in tree["annotations"]] == [(500, 9), (498, 9), (499, 70)]
    assert {entry["category_id"] for entry in tree["annotations"]} == {18}
    assert {(image["id"], image["file_name"]) for image in tree["images"]} == {(9, "b.png"), (70, "a.png")}
    assert tree["categories"] == [{"id": 18, "name": "dog"}]
    for entry, (x, y, width, height) in zip(tree["annotations"], [BOXES[0], BOXES[2], BOXES[1]]):
        centre = np.array(entry["bbox"][:2]) + np.array(entry["bbox"][2:]) / 2
        assert np.allclose(centre, [x + width / 2, y + height / 2], atol=1)
    (folder,) = [run for run in store.iterdir() if (run / LABELS).exists()]
    assert "mean_iou" not in json.loads((folder / "record.json").read_text())["metrics"]  # a box is no ground truth
    assert len(list((folder / "pictures").glob("*.png"))) == 3
    calls = Disc.calls
    label.main(command)
    assert Disc.calls == calls


def test_labels_keep_the_folders_of_file_names_and_count_what_was_left_out(store, discs, tmp_path, capsys):
    model, file = untrained(*OUTSIDE), Path(boxes_file(tmp_path / "data", BOXES))
    content = json.loads(file.read_text())
    (tmp_path / "data" / "camA").mkdir()
    for image in content["images"]:
        (tmp_path / "data" / image["file_name"]).rename(tmp_path / "data" / "camA" / image["file_name"])
        image["file_name"] = f"camA/{image['file_name']}"
    content["annotations"][0]["bbox"] = None
    file.write_text(json.dumps(content))
    out = tmp_path / "data" / "masks.json"
    label.main(["--run", model.hash, "--boxes", str(file), "--images", str(tmp_path / "data"), "--out", str(out)])
    assert {image["file_name"] for image in json.loads(out.read_text())["images"]} == {"camA/a.png", "camA/b.png"}
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith(
            f"not labelled: 1 annotations without a box on their image, the first is {content['annotations'][0]['id']}"
        )
    )
    assert len(open_objects([f"coco_json:{out}?images={tmp_path / 'data'}"])) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (TINY, r"begins with points that a box does not say \(.*top.*\); label boxes with a run of outside points"),
        (["--config=iog", *TINY[1:]], "begins with an inside point, which a box does not say; give --first RUN"),
    ],
)
def test_a_run_that_needs_more_than_a_box_says_what_to_give(store, tmp_path, arguments, sentence):
    model = untrained(*arguments)
    with pytest.raises(ValueError, match=sentence):
        label.main(["--run", model.hash, "--boxes", boxes_file(tmp_path / "data", BOXES)])


def test_what_a_box_says_is_enough_for_its_middle_and_its_corners(store):
    for inside in ("box_centre", "none"):
        config = FitRequest.read(["--config=iog", *TINY[1:], f"--data.sample.test_points.inside={inside}"]).config
        assert unsaid_by_boxes(Node("train", config)) == set()
    config = FitRequest.read([*TINY, "--model.guidance=null"]).config
    assert unsaid_by_boxes(Node("train", config)) == set()  # sees the crop alone
    config = FitRequest.read(["--config=itis", *TINY[1:]]).config
    assert unsaid_by_boxes(Node("train", config)) == {PointKind.PADDING}


@pytest.mark.slow
def test_two_stages_label_boxes_with_a_run_that_needs_an_inside_point(store, tmp_path):
    first, second = untrained(*OUTSIDE, "--model.guidance=OutsideMaps"), untrained("--config=iog", *TINY[1:])
    file = boxes_file(tmp_path / "data", BOXES)
    label.main(["--run", second.hash, "--first", first.hash, "--boxes", file])
    (folder,) = [run for run in store.iterdir() if (run / LABELS).exists()]
    record = json.loads((folder / "record.json").read_text())
    assert record["parents"] == {"model": second.hash, "first_stage": first.hash}
    assert record["metrics"]["n"] == 3
    again = load_node(RunFolder(folder))
    assert (again.model.hash, again.parents["first_stage"].hash) == (second.hash, first.hash)
    with pytest.raises(ValueError, match=f"--first {second.hash} needs more than a box, too"):
        label.main(["--run", second.hash, "--first", second.hash, "--boxes", file])


def test_stages_that_see_different_crops_are_refused(store):
    first, second = untrained(*OUTSIDE, "--data.sample.relax=3"), untrained("--config=iog", *TINY[1:])
    node = Node("evaluate", second.config, {"model": second, "first_stage": first})
    with pytest.raises(ValueError, match=r"same crop: .* margin 3 px .* of the first, .* margin 4 px .* of the second"):
        load_interactive(node)


def test_a_label_run_is_named_by_what_its_masks_depend_on(store):
    model = untrained()
    names = {
        labelling_of(model, **values).hash
        for values in ({}, {"threshold": 0.3}, {"stretch": True}, {"box": "crop"}, {"test": ["pascal/train"]})
    }
    assert len(names) == 5
    same = labelling_of(model, batch_size=8, thresholds=[0.5], protocol="grabcut_error")
    assert same.hash == labelling_of(model).hash


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_was(store, discs, tmp_path, monkeypatch):
    node = labelling_of(untrained(), test=[{"name": "pascal/val", "limit": 30}])
    execute(node)
    whole, quality = ((node.folder.path / name).read_text() for name in (LABELS, FIGURES))
    for name in (LABELS, FIGURES, "record.json"):
        (node.folder.path / name).unlink()

    def predict(self, state, points, previous_mask=None, quick=Disc.predict):
        time.sleep(0.05)
        return quick(self, state, points, previous_mask)

    with monkeypatch.context() as patched:
        patched.setattr(Disc, "predict", predict)
        killed, part = forked(lambda: execute(node), tmp_path / "log"), node.folder.path / "labels.0.jsonl"
        while not part.exists() or not part.read_text():
            assert killed.poll() is None, "it was through before it could be killed"
            time.sleep(0.01)
        killed.kill()
        killed.wait()
    assert 0 < len(part.read_text().splitlines()) < 30
    execute(node)
    assert (node.folder.path / LABELS).read_text() == whole
    assert (node.folder.path / FIGURES).read_text() == quality


@pytest.mark.slow
def test_several_processes_write_the_same_file(store, tmp_path):
    rng = np.random.default_rng(1)
    boxes = [[*rng.integers(0, 20, 2).tolist(), *rng.integers(8, 24, 2).tolist()] for _ in range(21)]
    model, file = untrained(*OUTSIDE, "--trainer.accelerator=cpu"), boxes_file(tmp_path / "data", boxes)
    command = ["--run", model.hash, "--boxes", file]
    label.main([*command, "--out", str(tmp_path / "one.json")])
    (folder,) = [run for run in store.iterdir() if (run / LABELS).exists()]
    quality = (folder / FIGURES).read_text()
    for name in (LABELS, FIGURES, "record.json"):
        (folder / name).unlink()
    on_two = [*command, "--devices", "2", "--out", str(tmp_path / "two.json")]
    done_by(2, lambda: label.main(on_two), tmp_path / "log")
    assert (tmp_path / "two.json").read_text() == (tmp_path / "one.json").read_text()
    assert (folder / FIGURES).read_text() == quality
    assert json.loads((folder / "record.json").read_text())["devices"]["processes"] == 2


# Tables


def self_labelled(**more) -> dict:
    """dextr-4 with a last row that is trained on what the third one says of other images."""
    import yaml

    tree = yaml.safe_load((FOLDER / "dextr-4.yaml").read_text())
    labelled = {"name": "pascal/train", "every": 2, "labelled": {"by": "+ Extreme points"}}
    tree["rows"][3]["run"] = {"train": [labelled], **more}
    return tree


def table_of(tmp_path, tree):
    import yaml

    (tmp_path / "dextr-4.yaml").write_text(yaml.safe_dump(tree))
    return read_table(tmp_path / "dextr-4.yaml")


def test_a_row_trained_on_labels_is_a_graph_that_trains_labels_and_trains(store, tmp_path):
    table = table_of(tmp_path, self_labelled())
    spec = table.rows[3].cells["value"]
    by = table.rows[2].cells["value"]
    (data,) = spec.train
    assert (data.name, data.part) == ("pascal/train", {"every": 2})
    assert data.labelled == replace(by, test=RowData("pascal/train", {"every": 2}))
    node = evaluation_node(spec, CONDITIONS, 0)
    assert [run.kind for run in in_order([node])] == ["train", "label", "train", "evaluate"]
    assert not store.exists()  # named before anything is run
    training = node.model
    (made,) = training.lists
    assert training.start is None  # from scratch
    assert made.model.hash == evaluation_node(by, CONDITIONS, 0).model.hash  # which the table trains anyway
    (entry,) = training.config["data"]["init_args"]["train"]
    assert entry == {"name": "pascal/train", "every": 2, "labelled": made.hash}
    prepared(node)
    assert load_node(node.folder).hash == node.hash
    assert training.manifest.endswith(made.hash)
    assert training.opened["data"]["init_args"]["train"][0]["labelled"] == str(made.folder.path / LABELS)


def test_jobs_of_a_cluster_wait_for_the_labels(store, tmp_path, monkeypatch):
    class Executor:
        def update_parameters(self, **parameters):
            self.asked = parameters["slurm_additional_parameters"].get("dependency")

        def submit(self, job):
            waits.append(self.asked)
            return type("Submitted", (), {"job_id": str(len(waits))})

    waits: list = []
    monkeypatch.setattr(slurm, "states_of_jobs", dict)
    cluster = slurm.Slurm(1, Executor())
    spec = table_of(tmp_path, self_labelled()).rows[3].cells["value"]
    for node in in_order([evaluation_node(spec, CONDITIONS, 0)]):
        cluster.launch(node, node.kind)
    assert waits == [None, "afterok:1", "afterok:2", "afterok:3"]


def test_a_data_set_cannot_be_listed_and_labelled_at_once(tmp_path):
    tree = self_labelled()
    tree["rows"][3]["run"]["train"][0]["hard"] = {"below": 0.8, "by": "+ PSP"}
    with pytest.raises(ValueError, match="a data set cannot be hard and labelled at once"):
        table_of(tmp_path, tree)


def test_rows_of_other_tables_can_be_built_on(tmp_path):
    tree = self_labelled()
    tree["rows"][3]["run"]["train"][0]["labelled"]["by"] = "dextr-7/coco-pascal"
    (data,) = table_of(tmp_path, tree).rows[3].cells["value"].train
    own = find_spec("dextr-7/coco-pascal")
    assert data.labelled == replace(own, test=RowData("pascal/train", {"every": 2}))
    tree["rows"][3]["run"]["train"][0]["labelled"]["by"] = "dextr-7/coco-pascall"
    with pytest.raises(ValueError, match="dextr-7 has no own row 'coco-pascall'; did you mean 'coco-pascal'"):
        table_of(tmp_path, tree)


def test_a_first_stage_is_a_second_network_of_the_evaluation(store, tmp_path):
    table = table_of(tmp_path, self_labelled(first="+ PSP"))
    spec = table.rows[3].cells["value"]
    assert not isinstance(spec, Pair)
    assert spec.first_stage.differs == {"model.guidance": None}
    node = evaluation_node(spec, CONDITIONS, 0)
    assert node.parents["first_stage"].hash == evaluation_node(table.rows[1].cells["value"], CONDITIONS, 0).model.hash
    assert node.model.hash != node.parents["first_stage"].hash
    alone = evaluation_node(replace(spec, first_stage=None), CONDITIONS, 0)
    assert alone.model.hash == node.model.hash
    assert alone.hash != node.hash


def test_values_that_a_cell_is_averaged_over_are_evaluations_of_one_training(store, tmp_path):
    points = "data.sample.test_points"
    over = {f"{points}.rule": ["band", "jitter"], f"{points}.pixels": [0.0, 2.0, 4.0]}
    tree = self_labelled(train=["pascal/train"], over=over)
    spec = table_of(tmp_path, tree).rows[3].cells["value"]
    second, first = nodes_of(spec, CONDITIONS, [0, 1])
    assert first == []
    assert len({node.hash for node in second}) == 12
    assert [node.config["seed"] for node in second] == [0] * 6 + [1] * 6
    assert len({node.model.hash for node in second}) == 2
    values = [node.config["data"]["init_args"]["sample"]["test_points"]["init_args"] for node in second[:6]]
    assert values == [{"rule": rule, "pixels": pixels} for pixels in (0, 2, 4) for rule in ("band", "jitter")]
    with pytest.raises(ValueError, match="expected a list of values for each key"):
        table_of(tmp_path, self_labelled(over={"evaluation.threshold": 0.5}))


def test_labels_of_the_store_can_be_typed_as_data(store, discs, capsys):
    made = labelling_of(untrained(), box="crop", threshold=0.5)
    execute(made)
    typed = f"--data.train=[{{name: pascal/val, limit: 11, labelled: '{made.hash}'}}]"
    training = FitRequest.read([*TINY[:5], typed]).training
    assert [run.hash for run in training.lists] == [made.hash]
    opened = training.opened["data"]["init_args"]
    index = open_objects(opened["train"], opened["root"], 0)
    assert index.object_id.tolist() == [entry["object_id"] for entry in written(made)["annotations"]]
    for i, entry in enumerate(written(made)["annotations"]):
        assert np.array_equal(index.read_mask(i).mask, coco_mask.decode(entry["segmentation"]))
        assert index.area[i] == entry["area"]


@pytest.mark.slow
def test_a_model_learns_from_what_another_one_labelled(store, tmp_path):
    spec = table_of(tmp_path, self_labelled()).rows[3].cells["value"]
    node = evaluation_node(spec, Conditions("miniature", (*SHRUNK[1:], "evaluation.threshold=0.3")), 0)
    for run in in_order([node]):
        record = execute(run)
    assert record["metrics"]["n"] > 0
    training = json.loads((node.model.folder.path / "record.json").read_text())
    assert training["parents"] == {"lists": [node.model.lists[0].hash]}
    assert training["initial_weights"].startswith("random")


@pytest.mark.slow
def test_two_stages_are_evaluated_like_one(store):
    first, second = untrained(*OUTSIDE, "--model.guidance=OutsideMaps"), untrained("--config=iog", *TINY[1:])
    node = Node("evaluate", second.config, {"model": second, "first_stage": first})
    record = execute(node)
    assert record["parents"] == {"model": second.hash, "first_stage": first.hash}
    assert record["metrics"]["n"] == 11
    alone = Node("evaluate", second.config, {"model": second})
    assert alone.hash != node.hash
    assert load_interactive(alone).__class__.__name__ == "IOG"
