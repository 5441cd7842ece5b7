"""What names a run: roles of its parents, classes by name and behaviour, files by content; runs of older versions."""

import copy
import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from datamodules.objects import ObjectData
from datamodules.views import Crop
from experiments import reproduce
from experiments.composition.building import sample_recipe
from experiments.composition.compose import compose
from experiments.evaluation.evaluate import protocol_of
from experiments.reports.check import foreign_runs
from experiments.reproduction.plan import Conditions, evaluation_node, find_spec
from experiments.runs.files import digest
from experiments.runs.folder import RunFolder
from experiments.runs.identity import (
    by_content,
    data_in_evaluation,
    data_in_training,
    model_in_training,
    start_files,
    wanted_starts,
    without_starts,
)
from experiments.runs.models import load_model, read_run
from experiments.runs.node import Node, _file_of, kind_of
from experiments.runs.older import older_runs
from experiments.runs.reading import load_node
from experiments.training.train import check_roles, take_parents
from lightning_modules.dextr import DEXTR
from tests.experiments.tiny import SHRUNK, TINY

CONDITIONS = Conditions("miniature", tuple(SHRUNK[1:]))


def network(tree):
    return tree["init_args"]["network"]["init_args"]


def test_a_class_that_moves_renames_no_run(monkeypatch):
    here = by_content({"class_path": "lightning_modules.dextr.DEXTR", "init_args": {"corrections": 1}})
    elsewhere = ModuleType("lightning_modules.moved")
    elsewhere.DEXTR = type("DEXTR", (DEXTR,), {"__module__": "lightning_modules.moved"})
    monkeypatch.setitem(sys.modules, "lightning_modules.moved", elsewhere)
    assert by_content({"class_path": "lightning_modules.moved.DEXTR", "init_args": {"corrections": 1}}) == here
    assert here == {"class": "DEXTR", "behaviour": 1, "arguments": {"corrections": 1}}
    assert by_content({"class_path": "torch.optim.SGD", "init_args": {}})["class"] == "torch.optim.sgd.SGD"


def test_a_fix_that_changes_results_renames_what_it_changes(monkeypatch):
    tree = compose("dextr", profile="miniature")["model"]
    before = model_in_training(tree)
    monkeypatch.setattr(DEXTR, "behaviour", 2)
    assert model_in_training(tree) != before


def test_first_weights_are_known_by_content_and_asked_for_where_the_method_says(tmp_path):
    tree = compose("dextr", profile="miniature")["model"]
    for number, content in enumerate((b"one", b"one", b"two")):
        (tmp_path / f"{number}.pth").write_bytes(content)
    named_by = []
    for number in range(3):
        network(tree)["pretrained"] = str(tmp_path / f"{number}.pth")
        named_by.append(model_in_training(tree))
    assert named_by[0] == named_by[1] != named_by[2]
    assert list(start_files(tree).values()) == [tmp_path / "2.pth"]
    assert list(wanted_starts(tree)) == ["network.pretrained"]
    assert network(without_starts(tree))["pretrained"] is False
    assert network(tree)["pretrained"] == str(tmp_path / "2.pth")  # the tree itself stays


def test_the_same_runs_in_other_roles_are_another_run(store):
    node = evaluation_node(find_spec("dextr-8/5-points"), CONDITIONS, 0)
    start = node.model.start
    other = replace(node.model, parents={"start": start.start or node.model, "corrects": start})
    assert other.hash != node.model.hash
    stages = {"model": node.model, "first_stage": start}
    swapped = {"model": start, "first_stage": node.model}
    assert replace(node, parents=stages).hash != replace(node, parents=swapped).hash


def test_a_method_refuses_parents_that_it_does_not_take(store):
    node = evaluation_node(find_spec("dextr-8/4-points-all"), CONDITIONS, 0).model
    with pytest.raises(ValueError, match="DEXTR takes no run as 'extractor'; it takes: start"):
        assert replace(node, parents={"extractor": node.start}).hash


def test_what_a_protocol_does_not_read_names_no_evaluation(store):
    node = evaluation_node(find_spec("dextr-4/psp"), CONDITIONS, 0)

    def name(**changed):
        config = copy.deepcopy(node.config)
        config["evaluation"] |= changed
        return replace(node, config=config).hash

    clicks = {**node.config["evaluation"]["clicks"], "most": 7}
    assert name(clicks=clicks) == node.hash  # of another protocol
    assert name(batch_size=3) == node.hash
    assert name(paste="linear") != node.hash
    assert name(protocol="clicks") != name(protocol="clicks", clicks=clicks)


def test_the_section_evaluation_is_typed():
    config = compose("dextr", profile="miniature")
    for key, value in {"threshold": 2, "box": "loose", "paste": "quartic", "stretch": "maybe"}.items():
        wrong = copy.deepcopy(config)
        wrong["evaluation"][key] = value
        with pytest.raises(ValueError, match=key) as refused:
            protocol_of(wrong)
        assert "\n" not in str(refused.value)


def as_format_1(node):
    """The folder of a run as the suite wrote it before roles."""
    folder = node.folder.path.parent / digest(node.hash)
    folder.mkdir(parents=True, exist_ok=True)
    parents = [as_format_1(run).name for run in node.ancestors]
    content = {"kind": node.kind, "config": node.config, "parents": parents}
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "record.json").write_text("{}")
    return folder


def test_runs_of_an_older_version_are_read_by_role_and_said_to_be_older(here, capsys):
    node = evaluation_node(find_spec("dextr-8/5-points"), CONDITIONS, 0)
    folder = as_format_1(replace(node, config={**node.config, "rule": None}))
    found = read_run(folder.name)
    assert {role: run.kind for role, run in found.parents.items()} == {"model": "train"}
    assert [run.kind for run in found.lists] == [run.kind for run in node.lists]
    assert found.model.start.kind == "train"
    assert found.hash == folder.name
    assert "made by an older version of the suite (format 1, today's is 2)" in capsys.readouterr().err
    assert older_runs(here / "runs") == len(list((here / "runs").iterdir()))


@pytest.mark.slow
def test_a_table_says_that_older_runs_are_not_used(here, capsys):
    node = evaluation_node(find_spec("dextr-4/psp"), CONDITIONS, 0)
    as_format_1(node)
    reproduce.main(["dextr-4", *SHRUNK, "--rows=2"])
    assert "2 runs in" in (out := capsys.readouterr().out)
    assert "were made by an older version of the suite" in out


def test_a_run_keeps_its_name_in_whatever_folder_it_lies(store):
    node = Node("train", compose("dextr", profile="miniature", overrides=SHRUNK[1:]))
    node.folder.prepare(node.describe())
    moved = node.folder.path.parent / "dextr"
    node.folder.path.rename(moved)
    assert load_node(replace(node.folder, path=moved)).hash == node.hash


def test_a_newer_version_s_run_is_refused(store):
    node = Node("train", compose("dextr", profile="miniature", overrides=SHRUNK[1:]))
    node.folder.prepare({**node.describe(), "format": 3})
    with pytest.raises(ValueError, match="made by a newer version of the suite"):
        load_node(node.folder)


def test_a_report_of_older_runs_is_told_from_one_of_foreign_runs(here, tmp_path):
    node = evaluation_node(find_spec("dextr-4/psp"), CONDITIONS, 0)
    older = as_format_1(node).name
    tree = {"id": "dextr-4", "profile": "miniature", "seeds": [0], "choices": {}}
    for run, expected in ((older, (0, 1)), ("0" * 16, (1, 0))):
        cell = {"row": "+ PSP", "column": "value", "runs": [run], "before_runs": []}
        (tmp_path / "report.json").write_text(json.dumps({**tree, "cells": [cell]}))
        complaints, older_cells = foreign_runs(tmp_path / "report.json")
        assert (len(complaints), older_cells) == expected


@pytest.mark.parametrize("role", ["start", "model", "evaluation", "lists"])
def test_a_method_takes_no_run_in_a_role_of_the_store(role, monkeypatch):
    node = Node("train", compose("dextr", profile="miniature", overrides=SHRUNK[1:]))
    monkeypatch.setattr(DEXTR, "takes", {role: "network"}, raising=False)
    with pytest.raises(ValueError, match=f"{role}.*use another word"):
        check_roles(node)


class Wider(Crop):
    """A view of somebody else's, under the same field values."""


def test_a_class_of_data_or_views_is_part_of_a_run_s_name(monkeypatch):
    config = compose("dextr", profile="miniature", overrides=SHRUNK[1:])
    plain, asked = data_in_training(config["data"]), {"class_path": "tests.experiments.runs.test_node.Wider"}
    sample = {**config["data"]["init_args"]["sample"], "view": asked}
    other = {**config["data"], "init_args": {**config["data"]["init_args"], "sample": sample}}
    assert data_in_training(other)["arguments"]["sample"]["view"]["class"].endswith("test_node.Wider")
    monkeypatch.setattr(ObjectData, "behaviour", 7, raising=False)
    monkeypatch.setattr(Crop, "behaviour", 8, raising=False)
    raised = data_in_training(config["data"])
    assert (raised["behaviour"], raised["arguments"]["sample"]["view"]["behaviour"]) == (7, 8)
    assert plain["class"] == raised["class"] == "ObjectData"
    assert data_in_evaluation(config["data"])["class"] == "ObjectData"


def test_the_store_says_what_it_reads_of_every_recipe_and_data_class(store):
    node = Node("train", compose("dextr", profile="miniature", overrides=SHRUNK[1:]))
    kind_of("train").checked(node)
    plain = {key: value for key, value in node.config.items() if key != "threads"}
    data = {**plain["data"], "init_args": {"train": [], "root": None}}
    with pytest.raises(ValueError, match="ObjectData needs threads in its recipe"):
        kind_of("train").checked(replace(node, config=plain))
    with pytest.raises(ValueError, match=r"needs data\.batch_size, data\.seed in its recipe"):
        kind_of("train").checked(replace(node, config={**node.config, "data": data}))


@pytest.mark.parametrize(("part", "sentence"), [("extractor", "which it has not"), ("network", "nothing to train")])
def test_a_part_that_another_run_fills_is_there_and_leaves_something_to_train(part, sentence, finished, monkeypatch):
    start = read_run(finished(TINY)["parents"]["model"])
    training = Node("train", start.config, {"teacher": start})
    monkeypatch.setattr(DEXTR, "takes", {"teacher": part}, raising=False)
    with pytest.raises(ValueError, match=sentence):
        take_parents(training, load_model(start))


def test_rows_without_a_number_of_an_object_cannot_be_selected_from(finished):
    evaluation = read_run(finished(TINY)["run"])
    (evaluation.folder.path / "rows.csv").write_text("position,iou\n0,0.5\n")
    (evaluation.folder.path / "record.json").write_text("{}")  # which has no digest of them
    selecting = Node("select", evaluation.config, {"evaluation": evaluation}, rule={"metric": "iou", "below": 0.9})
    with pytest.raises(ValueError, match="are not of single objects; nothing to select"):
        kind_of("select").make(selecting, RunFolder(evaluation.folder.path), "select")


def test_a_data_class_without_single_objects_says_so():
    config = compose("dextr", profile="miniature", overrides=SHRUNK[1:])
    images = {"class_path": "somewhere.WholeImages", "init_args": {"train": []}}
    with pytest.raises(ValueError, match="WholeImages shows no single objects"):
        sample_recipe({**config, "data": images})


def test_a_run_that_makes_no_labels_is_not_asked_for_masks():
    training = SimpleNamespace(kind="train", hash="0123456789abcdef")
    with pytest.raises(ValueError, match=r"no `label` run .* 'train'.* experiments.label --run 0123456789"):
        _file_of(training)
