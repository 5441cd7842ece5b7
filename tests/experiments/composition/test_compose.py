"""Composition: recipe < data set < reading < row < profile < command line."""

import re
from pathlib import Path

import pytest
import timm

from experiments.composition.compose import CONFIGS, absent_files, compose
from experiments.composition.merging import merge, parse_data, parse_value
from experiments.runs.node import Node


def network(tree):
    return tree["model"]["init_args"]["network"]["init_args"]


def test_each_layer_wins_over_the_one_before():
    assert compose("dextr")["trainer"]["max_epochs"] == 100
    assert compose("dextr", row={"trainer.max_epochs": 7})["trainer"]["max_epochs"] == 7
    small = compose("dextr", row={"trainer.max_epochs": 7}, profile="small")
    assert small["trainer"]["max_epochs"] not in (7, 100)
    assert compose("dextr", profile="small", overrides=["--trainer.max_epochs=3"])["trainer"]["max_epochs"] == 3


def test_a_changed_class_drops_the_arguments_of_its_sibling():
    tree = compose("dextr", reading="code", overrides=["model.guidance=DistanceMap"])
    assert tree["model"]["init_args"]["guidance"] == {
        "class_path": "datamodules.clicks.guidance.DistanceMap",
        "init_args": {},
    }
    assert "channels" not in network(compose("dextr", row={"model.network.head": "ASPP"}))["head"]["init_args"]


def test_a_class_that_inherits_keeps_the_arguments_and_takes_its_own():
    tree = compose("iog", overrides=["model=IterativeIOG", "model.rounds=2", "model.guidance=OutsideMaps"])
    plain = compose("iog")
    arguments = tree["model"]["init_args"]
    assert arguments.pop("rounds") == 2
    assert arguments.pop("guidance")["init_args"] == plain["model"]["init_args"].pop("guidance")["init_args"]
    arguments["network"]["init_args"]["in_channels"] += 1  # one map less
    assert arguments == plain["model"]["init_args"]


def test_a_file_lies_in_the_folder_of_its_data_set(tmp_path, monkeypatch):
    def file(name, root):
        row = {"evaluation.test": [{"name": "pascal/val", "recorded": f"${{data_file:{name}}}"}], "data.root": root}
        return compose("iog", row=row)["evaluation"]["test"][0]["recorded"]

    monkeypatch.setenv("DATA_ROOT", "/shelf")
    monkeypatch.setenv("PASCAL_EXT_ROOT", "/elsewhere")
    assert file("people/inside.json", None) == "/shelf/people/inside.json"
    assert file("people/inside.json", "/mine") == "/mine/people/inside.json"
    assert file("points.json,pascal/ext", None) == "/elsewhere/points.json"
    assert file("points.json,pascal/ext", "/mine") == "/mine/pascal_ext/points.json"


def test_a_tenth_of_a_drawn_data_set_is_all_of_it():
    row = {"data.train": [{"name": "rooftop/train", "share": "${share:0.1}"}]}
    shares = [
        compose("iog", row=row, profile=profile, overrides=["data.root=/drawn"])["data"]["init_args"]["train"]
        for profile in ("paper", "small", "miniature")
    ]
    assert [train[0]["share"] for train in shares] == [0.1, 0.1, 1.0]


def test_the_same_class_keeps_its_arguments():
    tree = {"head": {"class_path": "lightning_modules.networks.deeplab.PSP", "init_args": {"channels": 512}}}
    merge(tree, {"head": {"class_path": "PSP", "init_args": {"skip": True}}})
    assert tree["head"]["init_args"] == {"channels": 512, "skip": True}


def test_lists_are_replaced_whole():
    tree = compose("dextr", overrides=["data.train=[sbd/train, pascal/val]"])
    assert tree["data"]["init_args"]["train"] == ["sbd/train", "pascal/val"]


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("model.network.hed=ASPP", "model.network.head"),
        ("data.sample.sise=3", "data.sample.size"),
        ("trainr.max_epochs=3", "trainer"),
        ("model.network.head=ASP", "ASPP"),
        ("model.network.head.chanels=3", "model.network.head.channels"),
        ("reading=cod", "code"),
    ],
)
def test_a_key_or_class_that_does_not_exist_is_refused_with_the_nearest(override, nearest):
    with pytest.raises(ValueError, match=nearest):
        compose("dextr", overrides=[override])


def test_pixel_constants_scale_with_the_crop():
    full = compose("dextr", reading="paper")["model"]["init_args"]["guidance"]["init_args"]
    half = compose("dextr", reading="paper", overrides=["data.sample.size=256"])["model"]["init_args"]["guidance"]
    assert (full["std"], half["init_args"]["std"]) == (10.0, 5.0)


def test_the_network_has_a_channel_for_each_guidance_map():
    assert network(compose("dextr"))["in_channels"] == 4
    assert network(compose("dextr", row={"model.guidance": None}))["in_channels"] == 3


def test_readings_differ_where_paper_and_code_contradict():
    paper, code = (compose("dextr", reading=reading) for reading in ("paper", "code"))
    assert paper["model"]["init_args"]["guidance"]["init_args"] == {"std": 10.0}
    assert code["model"]["init_args"]["guidance"]["init_args"] == {"fwhm": 10.0, "stretch": True}
    rules = [tree["data"]["init_args"]["sample"]["train_points"]["init_args"] for tree in (paper, code)]
    assert rules == [{"rule": "jitter", "pixels": 10.0}, {"rule": "band", "pixels": 5.0}]
    assert network(code)["new_channels"] == "random"
    assert not code["model"]["init_args"]["loss"]["init_args"]["use_void"]


def test_a_profile_keeps_what_a_row_chose():
    tree = compose("dextr", row={"model.network.head": "ASPP"}, profile="miniature")
    assert network(tree)["head"]["class_path"].endswith("ASPP")
    assert network(tree)["backbone"] != "resnet101"


def identity(monkeypatch, **values):
    monkeypatch.setattr(Node, "manifest", "objects")
    return Node("train", compose("dextr", **values)).hash


def test_a_run_is_named_after_what_determines_its_result(monkeypatch):
    base = identity(monkeypatch)
    for same in ("data.workers=0", "trainer.devices=4", "data.root=elsewhere", "trainer.accelerator=cpu", "threads=2"):
        assert identity(monkeypatch, overrides=[same]) == base, same
    for other in ("seed=1", "data.batch_size=10", "model.loss.balanced=false", "trainer.precision=bf16-mixed"):
        assert identity(monkeypatch, overrides=[other]) != base, other


def test_short_and_long_names_are_the_same_run(monkeypatch):
    short = identity(monkeypatch, overrides=["model.guidance=DistanceMap"])
    assert identity(monkeypatch, overrides=["model.guidance=datamodules.clicks.guidance.DistanceMap"]) == short
    assert identity(monkeypatch, row={"model.guidance": "DistanceMap"}) == short


def model_as_written(**how):
    return compose("dextr", interpolated=False, **how)["model"]


def test_files_that_nobody_named_are_known_by_the_variable_that_names_them(monkeypatch):
    monkeypatch.delenv("DEEPLAB_VOC_WEIGHTS", raising=False)
    assert absent_files(model_as_written()) == {"DEEPLAB_VOC_WEIGHTS": "imagenet"}
    assert absent_files(model_as_written(profile="small")) == {}
    assert absent_files(model_as_written(row={"model.network.pretrained": "imagenet"})) == {}
    monkeypatch.setenv("DEEPLAB_VOC_WEIGHTS", "file.pth")
    assert absent_files(model_as_written()) == {}


def test_every_backbone_says_which_weights_are_meant():
    """timm has several files for most networks; without a tag it would be its newest recipe's."""
    files = [*CONFIGS.rglob("*.yaml"), *(CONFIGS.parent / "tables").glob("*.yaml"), *Path("sweeps").glob("*.yaml")]
    for file in files:
        text = "\n".join(line for line in file.read_text().splitlines() if "setting:" not in line)
        named = re.findall(r"backbone: ([\w.]+)", text)
        for line in re.findall(r"values: \{(.*)\}", text):
            named += re.findall(r"[\w.]+", line)
        for backbone in named:
            if timm.is_model(backbone.partition(".")[0]) and timm.list_pretrained(backbone.partition(".")[0] + ".*"):
                assert "." in backbone, f"{file.name}: {backbone}"


@pytest.mark.parametrize(
    "name", ["folder:/a/set #2", "folder:/a/set: 3", "folder:/a/[b]", "coco_json:/a.json?images=/b"]
)
def test_a_data_set_is_what_is_typed(name):
    assert parse_data(name) == name


def test_a_part_of_a_data_set_is_a_mapping():
    assert parse_data("{name: pascal/val, every: 3}") == {"name": "pascal/val", "every": 3}
    assert parse_value("folder:/a/set #2") == "folder:/a/set #2"
    assert parse_value("3 # comment") == 3
