"""Instances through files: a method that finds rectangles by their colours, and what a report says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pytorch_lightning import LightningModule
from torch import nn

from experiments import evaluate, fit
from experiments.composition.building import build_part
from experiments.composition.compose import compose
from experiments.console import DASH
from experiments.evaluation.detection_files import read_detections, read_truth
from experiments.evaluation.instance_scorer import InstanceScorer
from experiments.evaluation.instance_settings import InstanceSettings, network_limits, with_limits
from experiments.evaluation.instances import Instances, labels_in
from experiments.evaluation.protocols import protocol
from experiments.evaluation.requests import evaluation_config
from experiments.evaluation.rows import RowWriter, merge_rows, read_rows
from experiments.evaluation.settings import as_plain, read_settings
from experiments.launching.making import execute
from experiments.reports.check import changed_run
from experiments.runs.folder import find_run
from experiments.runs.models import finished_training, load_model
from experiments.runs.node import Node
from lightning_modules.networks.detections import Detections
from lightning_modules.schedules import Warmup

COLOURS = {"dog": (255, 0, 0), "cat": (0, 255, 0)}  # in the order of labels: ids 3 and 9
SIZE = (48, 64)


class Channels(nn.Module):
    """The rectangles of each colour, the largest first; what is smaller than `least` pixels is passed over."""

    def __init__(self, num_classes: int = 2, least: int = 1, score_threshold: float = 0.1) -> None:
        super().__init__()
        self.num_classes, self.least, self.score_threshold = num_classes, least, score_threshold
        self.weight = nn.Parameter(torch.zeros(1))
        self.score = 1.0

    def detect(self, image, size, original_size):
        for pixels, (height, width), original in zip(image, size.tolist(), original_size.tolist()):
            found = []
            for label in range(self.num_classes):
                plane = (pixels[label, :height, :width] > 127).byte().numpy()
                plane = cv2.resize(plane, original[::-1], interpolation=cv2.INTER_NEAREST)
                count, parts = cv2.connectedComponents(plane)
                found += [(label, parts == part) for part in range(1, count) if (parts == part).sum() >= self.least]
            found.sort(key=lambda each: -each[1].sum())
            found = [each for k, each in enumerate(found) if not self.score / (k + 1) < self.score_threshold]
            masks = [mask for _, mask in found] or [np.zeros((0, *original), bool)][:0]
            yield Detections(
                torch.tensor([self.score / (k + 1) for k in range(len(found))]),
                torch.tensor([label for label, _ in found], dtype=torch.int64),
                torch.from_numpy(np.stack(masks)) if masks else torch.zeros((0, *original), dtype=torch.bool),
            )


class Colours(LightningModule):
    def __init__(self, network: Channels) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch, batch_idx):
        return self.network.weight.square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def detect(self, batch):
        return list(self.network.detect(batch.image.float(), batch.size, batch.original_size))

    def facts(self):
        return {"learning_rate": "0.1", "samples": "2 images", "classes": list(self.trainer.datamodule.categories)}


class Scheduled(Colours):
    def __init__(self, network: Channels, optimizer: dict, schedule: Callable, warmup: Warmup) -> None:
        super().__init__(network)


RECIPE = """
{method: colours, reading: paper, profile: miniature, seed: 0, threads: 1, channels_last: false,
 model: {class_path: %(here)s.Colours,
         init_args: {network: {class_path: %(here)s.Channels, init_args: {least: %(least)d, score_threshold: 0.2}}}},
 data: {class_path: datamodules.image_data.ImageData,
        init_args: {train: ["coco_json:%(file)s"], resize: {class_path: datamodules.resizing.ShortSide},
                    test_resize: {class_path: datamodules.resizing.ShortSide, init_args: {sides: [48], longest: 64}},
                    batch_size: 2, workers: 0, root: null, seed: 0}},
 trainer: {max_epochs: 1, max_steps: 1, accelerator: cpu, devices: 1, num_nodes: 1, strategy: auto, precision: 32-true,
           accumulate_grad_batches: 1},
 evaluation: {protocol: instances, test: ["coco_json:%(file)s"], batch_size: 2},
 readings: {paper: {}}, profiles: {miniature: {}}}
"""


def draw(folder: Path, images: int = 5, names: tuple[str, ...] = ("dog", "cat"), ids=(3, 9)) -> Path:
    """A COCO file; image k shows k rectangles of classes in turn, image 1 a crowd besides, image 0 nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, annotations = [], []
    for k in range(images):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        entries.append({"id": 100 - k, "file_name": f"{k}.png", "height": SIZE[0], "width": SIZE[1]})
        for n in range(k % 5):
            x, y, side = 4 + 15 * n, 4 + 8 * n, 8 + n
            pixels[y : y + side, x : x + side] = COLOURS[("dog", "cat")[n % 2]]
            ring = [x, y, x + side, y, x + side, y + side, x, y + side]
            annotations.append(
                {"id": len(annotations), "image_id": 100 - k, "category_id": ids[n % 2], "segmentation": [ring]}
                | {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            )
        Image.fromarray(pixels).save(folder / f"{k}.png")
    counts = {"size": [*SIZE], "counts": [48 * 60, 48, 48 * 3]}
    annotations.append(
        {"id": 900, "image_id": 99, "category_id": ids[0], "segmentation": counts}
        | {"bbox": [60, 0, 1, 48], "area": 48, "iscrowd": 1}
    )
    file = folder / "drawn.json"
    categories = [{"id": number, "name": name} for number, name in zip(ids, names)]
    file.write_text(json.dumps({"images": entries, "categories": categories, "annotations": annotations}))
    return file


@pytest.fixture
def drawn_file(here) -> Path:
    return draw(here / "images")


@pytest.fixture
def evaluated(here, drawn_file):
    """Trains for a step and evaluates; the record of the evaluation."""

    def run(least: int = 1, **changes):
        text = RECIPE % {"here": __name__, "file": drawn_file, "least": least}
        for old, new in changes.values():
            text = text.replace(old, new)
        (here / "Colours.yaml").write_text(text)
        return fit.run(["--config=Colours.yaml"])[0]

    return run


def as_lvis(file: Path) -> None:
    """Give a truth LVIS' fields; all of its categories are rare."""
    tree = json.loads(file.read_text())
    for category in tree["categories"]:
        category["frequency"] = "r"
    for image in tree["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    file.write_text(json.dumps(tree))


def scorer_of(node: Node, folder: Path) -> InstanceScorer:
    scorer = Instances().scorer(node, folder)
    scorer.model.eval()
    return scorer


def node_of(record) -> Node:
    training = finished_training(record["run"])
    return Node("evaluate", training.config, {"model": training})


def test_what_is_found_as_drawn_has_an_ap_of_100_and_every_file_says_the_same(evaluated, capsys):
    record = evaluated()
    folder = find_run(record["run"]).path
    metrics = record["metrics"]
    assert metrics["ap"] == metrics["ap50"] == metrics["ap@dog"] == metrics["ap@cat"] == pytest.approx(1)
    assert (metrics["n"], metrics["objects"], metrics["detections"]) == (5, 10, 10)
    assert metrics["detections_per_image"] == 2
    assert metrics["ap_large"] is metrics["ap_rare"] is None
    assert {"rows.csv", "detections.json", "truth.json"} <= set(record["files"])
    found = json.loads((folder / "detections.json").read_text())
    assert {one["category_id"] for one in found} == {3, 9}
    assert COCO(str(folder / "truth.json")).loadRes(str(folder / "detections.json")).getAnnIds()
    rows = list(read_rows(folder / "rows.csv"))
    assert [float(row["score"]) for row in rows] == [one["score"] for one in found]
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert pictures == [f"{k:07d}-instances.png" for k in range(5)]
    assert (record["units"], record["scoring"]["protocol"]) == (5, "instances")
    assert list(changed_run(record, find_run(record["run"]))) == []
    assert "mask AP 100.0 (AP50 100.0, AP75 100.0), 2.0 detections on each of 5 images" in capsys.readouterr().out


def test_objects_that_are_missed_lower_it(evaluated):
    metrics = evaluated(least=90)["metrics"]  # the 8 x 8 and 9 x 9 ones are missed
    assert metrics["detections"] == 3
    assert metrics["ap@dog"] == pytest.approx(34 / 101)  # 2 of 6
    assert metrics["ap@cat"] == pytest.approx(26 / 101)  # 1 of 4


@pytest.mark.parametrize("name", ["detections.json", "truth.json"])
def test_a_file_edited_by_hand_is_noticed(evaluated, name):
    record = evaluated(least=90)
    file, run = find_run(record["run"]).path / name, find_run(record["run"])
    tree = json.loads(file.read_text())
    if name == "truth.json":
        tree["annotations"] = tree["annotations"][:1]
    else:
        tree[0]["score"] = 0.01
    file.write_text(json.dumps(tree))
    assert any(f"{name} is not the file that the run made" in said for said in changed_run(record, run))
    with pytest.raises(ValueError, match="another SHA-256"):
        execute(node_of(record))
    file.unlink()
    assert any(f"{name} is missing" in said for said in changed_run(record, run))


def test_metrics_edited_by_hand_are_noticed(evaluated):
    record = evaluated()
    file = find_run(record["run"]).path / "record.json"
    file.write_text(file.read_text().replace('"ap50": 1.0', '"ap50": 0.5').replace('"ap50": 0.9999', '"ap50": 0.5'))
    changed = find_run(record["run"])
    assert any("ap50 is 0.5" in said for said in changed_run(changed.record, changed))


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_files(evaluated, tmp_path, processes):
    record = evaluated()
    scorer = scorer_of(node_of(record), tmp_path)
    for rank in range(processes):
        part = RowWriter(tmp_path, rank, scorer.columns)
        for batch in scorer.loader(rank, processes):
            part.write(scorer.rows_of(batch))
        part.close()
    scorer.finish(merge_rows(tmp_path, scorer.units, processes))
    scorer.truth.write(tmp_path / "truth.json")
    for name in ("rows.csv", "detections.json", "truth.json"):
        assert (tmp_path / name).read_bytes() == (find_run(record["run"]).path / name).read_bytes()


def test_a_run_is_evaluated_on_other_data_with_its_classes_in_whatever_order_and_refused_on_others(
    evaluated, here, capsys
):
    run = evaluated()["run"]
    other = draw(here / "other", images=7, ids=(44, 1))  # sorted by id the cat comes first
    evaluate.main(["--run", run, "--data", f"coco_json:{other}"])
    said = capsys.readouterr().out
    assert "mask AP 100.0" in said
    assert "of 7 images" in said
    fewer = draw(here / "fewer", names=("dog", "horse"))
    with pytest.raises(ValueError, match=r"was trained on 2 classes, these data have 2: .* has is 'cat'"):
        evaluate.main(["--run", run, "--data", f"coco_json:{fewer}"])
    with pytest.raises(ValueError, match="--threshold is of the probability of a mask"):
        evaluate.main(["--run", run, "--data", f"coco_json:{other}", "--threshold", "0.5"])


def test_of_a_part_of_the_objects_the_others_are_ignored(evaluated, drawn_file, capsys):
    run = evaluated()["run"]
    evaluate.main(["--run", run, "--data", f"{{name: 'coco_json:{drawn_file}', min_side: 10}}"])
    said = capsys.readouterr().out
    assert "mask AP 100.0" in said
    assert "of 2 images" in said


def test_weights_without_a_training_are_known_by_their_number_of_classes(evaluated):
    training = finished_training(evaluated()["run"])
    record = training.folder.record
    assert labels_in(("dog", "cat"), training, None) == [0, 1]
    assert labels_in(("cat", "dog"), training, None) == [1, 0]
    bare = {**record, "said": {}}
    (training.folder.path / "record.json").write_text(json.dumps(bare))
    model = load_model(training)
    assert labels_in(("a", "b"), training, model) == [0, 1]
    with pytest.raises(ValueError, match="tells 2 classes apart, these data have 3 categories"):
        labels_in(("a", "b", "c"), training, model)


def test_data_without_annotations_are_detected_on_and_a_cell_says_what_to_upload(evaluated, here, monkeypatch, capsys):
    file = draw(here / "coco" / "test2017")
    tree = json.loads(file.read_text())
    del tree["annotations"]
    (here / "coco" / "annotations").mkdir()
    (here / "coco" / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(tree))
    run = evaluated()["run"]
    monkeypatch.setenv("DATA_ROOT", str(here))
    monkeypatch.delenv("COCO_ROOT", raising=False)
    evaluate.main(["--run", run, "--data", "coco2017/test-dev"])
    assert "in detections.json; nobody here has annotations" in capsys.readouterr().out
    training = finished_training(run)
    record = execute(Node("evaluate", evaluation_config(training.config, "coco2017/test-dev"), {"model": training}))
    assert record["metrics"]["ap"] is None
    assert record["metrics"]["detections"] == 10
    shown, why = protocol("instances").without_number("ap", record)
    assert shown == "to upload"
    assert f"detections.json of run {record['run']}" in why
    assert "https://cocodataset.org/#upload" in why
    assert list(changed_run(record, find_run(record["run"]))) == []


def test_a_number_that_the_data_cannot_have_is_a_dash():
    record = {"run": "a", "metrics": {"ap_large": None, "objects": 5}}
    assert Instances().without_number("ap_large", record) == (DASH, "the data have no object that ap_large is about")


def test_what_is_no_number_names_its_image(evaluated, tmp_path):
    record = evaluated()
    scorer = scorer_of(node_of(record), tmp_path)
    scorer.model_run = "abc"
    scorer.model.network.score = float("nan")
    batches = list(scorer.loader(0, 1))
    with pytest.raises(ValueError, match=r"run abc, image .*1\.png: the network answers nan"):
        [scorer.rows_of(batch) for batch in batches[:0:-1]]  # of the last image nothing is found


def test_masks_of_another_size_and_classes_that_nobody_knows_are_refused(evaluated, tmp_path, monkeypatch):
    scorer = scorer_of(node_of(evaluated()), tmp_path)
    batch = next(iter(scorer.loader(0, 1)))

    def answer(label, size):
        one = Detections(torch.ones(1), torch.tensor([label]), torch.ones((1, *size), dtype=torch.bool))
        monkeypatch.setattr(scorer.model, "detect", lambda batch: [one] * len(batch))
        return scorer.rows_of(batch)

    assert len(answer(1, SIZE)) == 1
    with pytest.raises(ValueError, match=r"is \(48, 64\) \(H, W\), the network's masks of it are \(47, 64\)"):
        answer(1, (47, 64))
    with pytest.raises(ValueError, match="tells of class 2, and it was trained on 2"):
        answer(2, SIZE)


def test_methods_that_detect_nothing_and_several_data_sets_are_refused(evaluated, drawn_file):
    config = node_of(evaluated()).config
    with pytest.raises(ValueError, match="scores one data set"):
        Instances().checked({**config, "evaluation": {"test": ["pascal/val", "pascal/train"]}})
    with pytest.raises(ValueError, match="which DEXTR does not"):
        Instances().checked({**config, "model": {"class_path": "lightning_modules.dextr.DEXTR"}})
    with pytest.raises(ValueError, match="1 or more, got 0"):
        InstanceSettings(most=0)


def test_the_style_is_the_datas_unless_it_is_said(evaluated, tmp_path):
    rows = find_run(evaluated()["run"]).path / "rows.csv"
    how = Instances()
    assert how.summarise(rows, InstanceSettings(most=1))["ap"] < how.summarise(rows, InstanceSettings())["ap"]
    with pytest.raises(ValueError, match="has no neg_category_ids and frequency"):
        how.summarise(rows, InstanceSettings("lvis"))
    as_lvis(rows.parent / "truth.json")
    assert how.summarise(rows, InstanceSettings())["ap_rare"] == pytest.approx(1)
    assert how.summarise(rows, InstanceSettings("coco"))["ap_rare"] == pytest.approx(1)


def test_a_report_says_what_was_kept_and_shows_each_class(evaluated):
    record = evaluated()
    node, how = node_of(record), Instances()
    said = {choice.name: choice.value for choice in how.choices(node)}
    assert said["score threshold"] == "0.2"
    assert said["limit of detections"] == "100 per image and category, as COCO's code counts"
    assert [*network_limits({"class_path": "a.B", "init_args": {}})] == []
    mask_rcnn = {"class_path": "lightning_modules.networks.mask_rcnn.MaskRCNN", "init_args": {"score_threshold": 0.05}}
    limits = {choice.name: choice.value for choice in network_limits({"init_args": {"network": mask_rcnn}})}
    assert limits["score threshold"] == "0.05"
    assert limits["mask threshold"] == "0.5"  # where the recipe is silent, the class' own
    assert limits["detections kept per image"] == "300"
    *_, grid = how.grids({"A": [record["metrics"], record["metrics"]], "B": [{"ap": 0.5}]})
    assert grid.header == ("Class", "A")
    assert grid.lines == (("cat", "100.0 ± 0.0"), ("dog", "100.0 ± 0.0")) or dict(grid.lines)["dog"] == "100.0 ± 0.0"
    assert not list(how.grids({"B": [{"ap": 0.5}]}))
    assert how.measures(InstanceSettings()) >= {"ap", "ap75", "ap_rare", "detections_per_image"}
    assert how.metric("ap@dog").scale == 100
    assert how.metric("detections_per_image").scale == 1


def test_the_limit_that_is_said_is_the_one_that_counted(evaluated, drawn_file, capsys):
    """LVIS' fields are in the data, not in the recipe: only a finished evaluation knows."""
    record = evaluated()
    assert record["scored"] == {"style": "coco", "most": 100}
    open_still = InstanceSettings().limit()
    assert "100 per image and category, as COCO's code counts; of LVIS 300 per image over all" in open_still
    as_lvis(drawn_file)
    run, data = record["run"], f"coco_json:{drawn_file}"
    training = finished_training(run)

    def limit(**asked):
        node = Node("evaluate", evaluation_config(training.config, data, **asked), {"model": training})
        before = Instances().choices(node)[0]
        record, after = execute(node), Instances().choices(node)[0]
        return before.value, record["scored"], after.value

    counted = "300 per image over all categories, as LVIS' code counts"
    assert limit() == (open_still, {"style": "lvis", "most": 300}, counted)
    coco = "7 per image and category, as COCO's code counts"
    assert limit(style="coco", most=7) == (coco, {"style": "coco", "most": 7}, coco)
    capsys.readouterr()


def test_a_command_prints_what_an_ap_means_nothing_without(evaluated, drawn_file, capsys):
    optimizer = "optimizer: {lr: 0.1}"
    steps = "schedule: {class_path: lightning_modules.schedules.Steps, init_args: {at: [0.5], factors: [1.0, 0.1]}}"
    warmup = "warmup: {class_path: lightning_modules.schedules.Warmup, init_args: {steps: 500, start: 0.001}}"
    plain, scheduled = (f"{__name__}.{kind.__name__}" for kind in (Colours, Scheduled))
    init = "init_args: {network: {class_path:"
    run = evaluated(
        kind=(f"class_path: {plain},", f"class_path: {scheduled},"),
        more=(init, f"init_args: {{{optimizer}, {steps}, {warmup}, network: {{class_path:"),
    )["run"]
    capsys.readouterr()
    evaluate.main(["--run", run, "--data", f"coco_json:{drawn_file}", "--network", "score_threshold=0.01"])
    said = dict(line.strip().split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert said["limit of detections"] == "100 per image and category, as COCO's code counts"
    assert said["score threshold"] == "0.01"
    assert said["learning rate"] == "0.1"
    assert said["samples"] == "2 images"
    assert said["length of training"] == "1 epochs, batch 2"
    assert "0.5" in said["schedule"]
    assert "500" in said["warmup"]


def test_what_a_network_keeps_is_changed_for_an_evaluation_without_a_training(evaluated, drawn_file, capsys):
    record = evaluated()
    run, data = record["run"], f"coco_json:{drawn_file}"
    training = finished_training(run)
    evaluate.main(["--run", run, "--data", data, "--network", "score_threshold=0.3", "--most", "50"])
    said = capsys.readouterr().out
    assert "1.8 detections on each of 5 images" in said  # the fourth of image 4, whose score is a quarter, is not kept
    config = evaluation_config(training.config, data, network={"score_threshold": 0.3}, most=50)
    node = Node("evaluate", config, {"model": training})
    assert execute(node)["scoring"]["network"] == {"score_threshold": 0.3}
    choices = {choice.name: (choice.value, choice.why) for choice in Instances().choices(node)}
    assert choices["score threshold"] == ("0.3", "changed for this evaluation")
    assert finished_training(run).config["model"] == training.config["model"]
    for nothing in (None, {}):
        same = {**training.config, "evaluation": {**training.config["evaluation"], "network": nothing}}
        assert Node("evaluate", same, {"model": training}).hash == record["run"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--network", "box_nms=0.5"], "evaluation.network: Channels has no limit 'box_nms'"),
        (["--network", "least=5"], "changes what a network keeps of its detections, not 'least'; did you mean"),
        (["--network", "score_treshold=0.5"], "not 'score_treshold'; did you mean 'score_threshold'"),
        (["--network", "score_threshold=2"], "evaluation.network.score_threshold must be between 0 and 1, got 2"),
        (["--network", "most=0.5"], "evaluation.network.most must be a whole number at least 1, got 0.5"),
        (["--network", "score_threshold"], "--network must be a limit of the network, NAME=VALUE"),
        (["--most", "0"], "--most must be at least 1, got 0"),
        (["--style", "lvis"], "has no neg_category_ids and frequency"),
        (["--clicks", "3"], "are of `--protocol clicks`, not of instances"),
    ],
)
def test_limits_that_are_none_are_refused_in_a_sentence(evaluated, drawn_file, asked, said):
    run = evaluated()["run"]
    with pytest.raises(ValueError, match=said):
        evaluate.main(["--run", run, "--data", f"coco_json:{drawn_file}", *asked])


def test_limits_are_those_of_the_networks_class():
    def model(name, **arguments):
        network = {"class_path": f"lightning_modules.networks.{name}", "init_args": arguments}
        return {"class_path": "lightning_modules.instance_segmentation.InstanceSegmentation"} | {
            "init_args": {"network": network, "schedule": None}
        }

    solo = with_limits(model("solov2.SOLOv2", sigma=2.0, channels=64), {"decay": "linear", "sigma": 1.0, "most": 9})
    expected = {"sigma": 1.0, "channels": 64, "decay": "linear", "most": 9}
    assert solo["init_args"]["network"]["init_args"] == expected
    assert solo["init_args"]["schedule"] is None
    rcnn = {choice.name: choice.value for choice in network_limits(model("mask_rcnn.MaskRCNN"), {"box_nms": 0.7})}
    assert (rcnn["box nms"], rcnn["score threshold"]) == ("0.7", "0.0001")
    with pytest.raises(ValueError, match="Mask2Former has no limit 'mask_threshold'"):
        with_limits(model("mask2former.Mask2Former"), {"mask_threshold": 0.4})  # its logits are above 0, always


@pytest.mark.parametrize(
    ("name", "limits", "read"),
    [
        ("solov2.SOLOv2", {"decay": "linear", "kept_threshold": 0.01}, lambda n: (n.nms.keywords, n.kept_threshold)),
        (
            "mask_rcnn.MaskRCNN",
            {"box_nms": 0.7, "detections": 9},
            lambda n: (n.heads.nms_thresh, n.heads.detections_per_img),
        ),
    ],
)
def test_a_limit_reaches_the_part_of_the_network_that_reads_it(name, limits, read):
    """SOLOv2 keeps decay within its matrix NMS, Mask R-CNN the limits of boxes within torchvision's heads."""
    small = {"solov2.SOLOv2": {"channels": 8, "tower": 8, "kernels": 8, "mask_channels": 8, "norm_groups": 4}}
    common = {"backbone": "resnet10t.c3_in1k", "num_classes": 2, "frozen_stages": 0, "widths": [8, 8, 16, 16]}
    rcnn = {"channels": 8, "box_width": 8, "mask_layers": 1}
    arguments = {**common, **small.get(name, rcnn)}
    model = {"init_args": {"network": {"class_path": f"lightning_modules.networks.{name}", "init_args": arguments}}}
    network = build_part(nn.Module, with_limits(model, limits)["init_args"]["network"])
    expected = {"solov2.SOLOv2": ({"decay": "linear", "sigma": 2.0}, 0.01), "mask_rcnn.MaskRCNN": (0.7, 9)}
    assert read(network) == expected[name]


def test_a_report_shows_ap_by_frequency_and_size_as_far_as_the_data_have_such_objects():
    lvis = {"ap": 0.25, "ap_rare": 0.125, "ap_common": 0.25, "ap_frequent": 0.5, "ap_small": 0.1, "ap_large": None}
    other = {**lvis, "ap_rare": 0.0, "ap_common": None}
    (grid,) = Instances().grids({"A": [lvis, {**lvis, "ap_rare": 0.375}], "B": [other], "C": [{"ap": None}]})
    assert grid.title == "Mask AP by frequency and size"
    assert grid.header == ("Model", "AP", "APr", "APc", "APf", "AP small")  # nobody has large ones, or medium
    assert grid.lines == (
        ("A", "25.0 ± 0.0", "25.0 ± 17.7", "25.0 ± 0.0", "50.0 ± 0.0", "10.0 ± 0.0"),
        ("B", "25.0", "0.0", DASH, "50.0", "10.0"),
    )


@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_a_network_that_finds_nothing_anywhere_has_an_ap_of_0(evaluated, style, capsys):
    record = evaluated(least=10_000)
    run = find_run(record["run"])
    assert json.loads((run.path / "detections.json").read_text()) == []
    assert len(list(read_rows(run.path / "rows.csv"))) == 0
    metrics = record["metrics"]
    if style == "lvis":
        as_lvis(run.path / "truth.json")
        metrics = Instances().summarise(run.path / "rows.csv", InstanceSettings("lvis"))
        assert metrics["ap_rare"] == 0
    assert [metrics[name] for name in ("ap", "ap50", "ap75", "ap@dog", "ap@cat", "detections")] == [0] * 6
    assert "mask AP 0.0 (AP50 0.0, AP75 0.0), 0.0 detections on each of 5 images" in capsys.readouterr().out
    assert "ap_small" not in Instances().table({**metrics, "ap_small": None}, InstanceSettings())
    assert next(iter(Instances().grids({"A": [metrics]}))).lines[0][:2] == ("A", "0.0")


def wrong_files(tmp_path):
    """(truth, results) with one thing wrong, and what is said of it."""
    mask = {"size": [2, 2], "counts": "04"}
    good = {"image_id": 1, "category_id": 0, "segmentation": mask, "score": 0.5}
    own = {"id": 0, "image_id": 1, "category_id": 0, "segmentation": mask, "area": 4, "bbox": [0, 0, 2, 2]}
    image, category = {"id": 1, "height": 2, "width": 2}, {"id": 0, "name": "a"}
    tree = {"images": [image], "categories": [category], "annotations": [own]}
    return tree, good


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["annotations"].append(t["annotations"][0]), "id 0 is used by two of its annotations"),
        (lambda t: t["images"].append(t["images"][0]), "id 1 is used by two of its images"),
        (lambda t: t["annotations"][0].pop("id"), "number 1 of its annotations has no id"),
        (lambda t: t["annotations"][0].update(image_id=7), "annotation 0 has image_id 7, which its images do not list"),
        (lambda t: t["annotations"][0].update(category_id=7), "which its categories do not list"),
        (lambda t: t.pop("images"), "is no file in COCO's format"),
    ],
)
def test_a_truth_with_missing_or_doubled_ids_is_refused(tmp_path, change, said):
    tree, _ = wrong_files(tmp_path)
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(tree))
    assert read_truth(file)["annotations"][0]["id"] == 0
    change(tree)
    file.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=f"{file}.*{said}"):
        read_truth(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 2}, "has image_id 2, which is no image"),
        ({"category_id": 3}, "has category_id 3, which is no category"),
        ({"score": "0.5"}, "has score '0.5'"),
        ({"score": float("nan")}, "has score nan"),
        ({"segmentation": {"size": [2, 3], "counts": "06"}}, "has a mask of size"),
        ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, "has no segmentation of compressed run lengths"),
        ({"segmentation": {"size": [2, 2], "counts": "05"}}, "has run lengths that do not fill its mask"),
    ],
)
def test_results_edited_by_hand_are_refused_in_a_sentence(tmp_path, change, said):
    tree, good = wrong_files(tmp_path)
    file = tmp_path / "detections.json"
    file.write_text(json.dumps([good, {**good, "bbox": [0, 0, 2, 2]}]))
    assert len(read_detections(file, tree)) == 2
    file.write_text(json.dumps([good, {**good, **change}]))
    with pytest.raises(ValueError, match=f"{file}: result number 2 {said}".replace("[", r"\[")):
        read_detections(file, tree)
    file.write_text("[{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_detections(file, tree)
    file.write_text("{}")
    with pytest.raises(ValueError, match="is no list"):
        read_detections(file, tree)


def test_run_lengths_of_any_length_pass_through_the_rows(tmp_path):
    """A ragged mask on a large image has more than the 128 KiB that Python's CSV reader takes by default."""
    rows = RowWriter(tmp_path, 0, ["position", "counts"])
    rows.write([[0, "1" * 500_000]])
    rows.close()
    assert len(next(read_rows(merge_rows(tmp_path, 1, 1)))["counts"]) == 500_000


@pytest.mark.parametrize("recipe", ["solov2", "mask2former", "mask_rcnn"])
def test_a_recipe_can_change_what_counts_and_what_is_kept(recipe):
    plain = compose(recipe)["evaluation"]
    assert as_plain(read_settings(InstanceSettings, plain)) == {"style": "auto", "most": None}  # as before, in names
    asked = ["evaluation.network={score_threshold: 0.01}", "evaluation.most=50", "evaluation.style=coco"]
    settings = read_settings(InstanceSettings, compose(recipe, overrides=asked)["evaluation"])
    assert settings == InstanceSettings("coco", 50, {"score_threshold": 0.01})
