"""Whose a run is and what it names: two people's runs of one name, changed files, classes of strangers."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml

from experiments import compare, evaluate, label, predict, report_check, select
from experiments.composition.classes import TYPED, refuse_foreign
from experiments.reproduction.requests import FitRequest
from experiments.runs.files import sha256_of
from experiments.runs.folder import RunFolder, find_run
from experiments.runs.models import finished_training, read_run
from experiments.runs.node import Node
from experiments.runs.reading import load_node
from lightning_modules.dextr import DEXTR
from tests.experiments.tiny import TINY

BERKELEY = "{name: berkeley, limit: 2}"


@pytest.fixture
def two(here, finished):
    """Two people's trainings of one recipe, both in a folder called dextr and outside of the store."""
    training = find_run(finished(TINY)["parents"]["model"])
    folders = [here / who / "dextr" for who in "ab"]
    for folder in folders:
        shutil.copytree(training.path, folder)
    answers_otherwise(folders[1])
    return folders


def answers_otherwise(folder):
    """Other weights, as another machine would have trained them: their own record says so."""
    weights = torch.load(folder / "weights.pt")
    whole = ("running_var", "num_batches_tracked")
    torch.save({name: w if name.endswith(whole) else -w for name, w in weights.items()}, folder / "weights.pt")
    record = json.loads((folder / "record.json").read_text())
    record["files"]["weights.pt"] = sha256_of(folder / "weights.pt")
    (folder / "record.json").write_text(json.dumps(record))


def tiny():
    return FitRequest.read(TINY).config


def runs_of(here, kind):
    found = [RunFolder(path) for path in (here / "runs").iterdir() if (path / "config.yaml").exists()]
    return {run.name: run for run in found if run.config["kind"] == kind}


@pytest.mark.slow
def test_two_runs_of_one_name_are_two_to_every_command(two, here, monkeypatch, capsys):
    printed, masks = [], []
    for folder in two:
        evaluate.main(["--run", str(folder), "--data", BERKELEY])
        printed.append(capsys.readouterr().out)
    assert printed[0].partition("rows:")[0] != printed[1].partition("rows:")[0]
    rows = [text.partition("rows: ")[2].strip() for text in printed]
    monkeypatch.chdir(two[1])
    monkeypatch.setenv("RUNS_ROOT", str(here / "runs"))
    evaluate.main(["--run", ".", "--data", BERKELEY])
    assert capsys.readouterr().out.partition("rows: ")[2].strip().endswith(rows[1])
    monkeypatch.chdir(here)
    for folder in two:
        label.main(["--run", str(folder), "--data", BERKELEY, "--out", str(folder / "labels.json")])
        masks.append(json.loads((folder / "labels.json").read_text()))
    assert masks[0]["info"]["run"] != masks[1]["info"]["run"]
    for row in rows:
        select.main(["--run", str((here / row).parent), "--below", "1.1"])
    assert len(runs_of(here, "select")) == 2
    compare.main(["--runs", *map(str, two), "--data", BERKELEY, "--names", "a", "b", "--clicks", "4", "--objects", "1"])
    told = json.loads((here / "reports/compare/compare.json").read_text())
    assert len({next(iter(run["evaluations"].values())) for run in told["runs"]}) == 2
    report_check.main([str(here / "reports/compare/compare.json")])
    image, clicks = np.full((60, 80, 3), 90, np.uint8), [(20, 30), (40, 15), (60, 30), (40, 45)]
    one, other = (predict.Predictor.from_run(folder).probability(image, clicks) for folder in two)
    assert not np.array_equal(one, other)


def test_a_copy_is_the_same_run_wherever_it_lies_and_the_store_s_own_keeps_its_name(two, here, store):
    again = here / "c" / "other name"
    shutil.copytree(two[0], again)
    assert finished_training(str(again)).hash == finished_training(str(two[0])).hash
    at_home = finished_training(RunFolder(two[0]).record["run"])
    assert at_home.hash == RunFolder(two[0]).record["run"]
    assert finished_training(str(at_home.folder.path)).hash == at_home.hash


def test_released_weights_are_known_by_the_file(here, store, tmp_path):
    names = []
    for who, content in (("a", b"one"), ("b", b"two")):
        (tmp_path / f"{who}.pth").write_bytes(content)
        folder = RunFolder(here / who / "dextr")
        folder.path.mkdir(parents=True)
        config = Node("train", tiny()).config
        told = {"format": 2, "run": "0" * 16, "kind": "weights", "config": config, "parents": {}}
        folder.prepare({**told, "weights": str(tmp_path / f"{who}.pth")})
        folder.finish([str(tmp_path / f"{who}.pth")], kind="weights", metrics={})
        names.append(finished_training(str(folder.path)).hash)
    assert names[0] != names[1]
    (tmp_path / "a.pth").write_bytes(b"three")
    with pytest.raises(ValueError, match=r"a\.pth is not the file that the run made"):
        finished_training(str(here / "a" / "dextr")).load_into(torch.nn.Identity())


@pytest.mark.parametrize("name", ["weights.pt", "config.yaml"])
def test_a_training_that_was_changed_is_not_used(two, name):
    changed = two[0] / name
    content = changed.read_bytes()
    changed.write_bytes(content.replace(b"threshold: 0.5", b"threshold: 0.4") if name == "config.yaml" else bytes(9))
    for use in (predict.Predictor.from_run, lambda run: evaluate.main(["--run", run, "--data", BERKELEY])):
        with pytest.raises(ValueError, match=f"{name} is not the file that the run made"):
            use(str(two[0]))


def test_rows_and_lists_that_were_changed_are_not_used(here, finished):
    run = find_run(finished(TINY)["run"])
    select.main(["--run", run.name, "--below", "1.1"])
    (chosen,) = runs_of(here, "select").values()
    objects, rows = chosen.path / "objects.txt", run.path / "rows.csv"
    objects.write_text("".join(objects.read_text().splitlines(keepends=True)[::2]))
    training = run.config["parents"]["model"]
    with pytest.raises(ValueError, match=r"objects\.txt is not the file"):
        evaluate.main(["--run", training, "--data", f"{{name: pascal/val, listed: {objects}}}"])
    with pytest.raises(ValueError, match=r"objects\.txt is not the file"):  # a record that is returned
        select.main(["--run", run.name, "--below", "1.1"])
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(ValueError, match=r"rows\.csv is not the file"):
        select.main(["--run", run.name, "--below", "0.9"])


def test_an_evaluation_of_weights_that_were_trained_again_is_not_theirs(here, finished):
    record = finished(TINY)
    answers_otherwise(here / "runs" / record["parents"]["model"])
    with pytest.raises(ValueError, match=f"was made from another result of run {record['parents']['model']}"):
        evaluate.main(["--run", record["parents"]["model"], "--data", "{name: pascal/val, limit: 11}"])


def test_a_run_of_an_older_behaviour_is_said_to_be_older(two, monkeypatch, capsys):
    monkeypatch.setattr(DEXTR, "behaviour", 7)
    read_run(str(two[0]))
    assert "an older version of DEXTR (behaviour 1, today's is 7)" in capsys.readouterr().err


EVIL = "open('executed', 'w').close()\nclass DEXTR: pass\n"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"class_path": "runs.x.evil.DEXTR"}, "names 'runs.x.evil.DEXTR', which is neither of the suite nor of"),
        ({"class_path": "os.system", "init_args": {"command": "touch executed"}}, "names 'os.system'"),
        ({"class_path": "eval"}, "names 'eval'"),
        ("runs.x.evil.DEXTR", "model has no class_path"),
        ({"class_path": "lightning_modules.dextr.DEXTR", "init_args": {"network": "runs.x.evil.DEXTR"}}, "network"),
        ({"class_path": "datamodules.cache.os"}, "is no class"),
    ],
)
def test_a_stranger_s_run_executes_nothing(here, model, said):
    folder = RunFolder(here / "runs" / "x")
    folder.prepare({"format": 2, "run": "x", "kind": "train", "config": {**tiny(), "model": model}, "parents": {}})
    folder.finish(["weights.pt"], kind="train", metrics={})
    (folder.path / "evil.py").write_text(EVIL)
    (folder.path / "weights.pt").write_bytes(b"")
    cv2.imwrite("x.png", np.zeros((9, 9, 3), np.uint8))
    clicked = ["x.png", "--points", "1,1", "2,2", "3,3", "4,4"]
    for command, arguments in ((evaluate, ["--data", BERKELEY]), (predict, clicked)):
        with pytest.raises(ValueError, match=said) as refused:
            command.main(["--run", str(folder.path), *arguments])
        assert "\n" not in str(refused.value)
    assert not (here / "executed").exists()


def test_tags_of_yaml_are_refused_in_one_sentence(here):
    (here / "x").mkdir()
    (here / "x" / "config.yaml").write_text("config: !!python/object/apply:os.system ['touch executed']\n")
    with pytest.raises(ValueError, match=r"x/config.yaml cannot be read as plain values: could not determine"):
        find_run(str(here / "x")).config  # noqa: B018
    assert not (here / "executed").exists()


def test_what_was_typed_here_may_come_back_in_a_run_s_folder(here, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(here / "cache"))
    tree = {"model": {"class_path": "somebody.s.Method"}}
    with pytest.raises(ValueError, match=r"somebody\.s\.Method") as refused:
        refuse_foreign(tree, "config.yaml")
    (here / "cache").mkdir()
    (here / "cache" / "own_modules.txt").write_text("somebody.s\n")  # as the sentence says
    assert str(here / "cache" / "own_modules.txt") in str(refused.value)
    refuse_foreign(tree, "config.yaml")
    TYPED.discard("somebody.s")


def test_what_names_no_run_is_written_anew_until_there_is_a_record(store):
    node = Node("train", tiny())
    node.folder.prepare(node.describe())
    other = Node("train", {**node.config, "trainer": {**node.config["trainer"], "devices": 2}})
    other.folder.prepare(other.describe())
    assert yaml.safe_load((node.folder.path / "config.yaml").read_text())["config"]["trainer"]["devices"] == 2
    node.folder.finish(kind="train", metrics={})
    node.folder.prepare(node.describe())
    assert node.folder.config["config"]["trainer"]["devices"] == 2


def test_a_run_that_builds_on_itself_is_refused(store):
    folder = RunFolder(store / "loop")
    folder.path.mkdir(parents=True)
    content = Node("train", tiny()).describe()
    (folder.path / "config.yaml").write_text(yaml.safe_dump({**content, "parents": {"start": "loop"}}))
    with pytest.raises(ValueError, match="builds on itself"):
        load_node(folder)
