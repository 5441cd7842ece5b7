"""The user's own commands on the drawn data, and what they say to bad input."""

import copy
import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from datamodules.clicks.points import EXTREME_KINDS
from experiments import evaluate, fit, predict, reproduce, sweep_local, table_files
from experiments.composition.compose import CONFIGS
from experiments.console import one_sentence
from experiments.interactive.first_clicks import extreme_order
from experiments.launching import fitting
from experiments.reproduction.plan import Conditions, evaluation_node, find_spec
from experiments.reproduction.planned import changed_values
from experiments.runs.files import sha256_of
from experiments.runs.folder import find_run
from experiments.runs.reading import load_node
from experiments.training.callbacks import AtomicCheckpointIO
from tests.experiments.processes import forked
from tests.experiments.tiny import SHRUNK, TINY

ROOT = Path(__file__).parents[2]


def test_a_sweep_passes_its_values_as_an_agent_does():
    sweep = yaml.safe_load((ROOT / "sweeps" / "dextr-components.yaml").read_text())
    (first, *_) = sweep_local.assignments(sweep, 1)
    assert sweep_local.command_line(sweep, first) == ["--config", "dextr", "--row=dextr-3/deeplab-v2"]


def test_the_predictor_returns_the_run_s_own_masks(here, finished, capsys):
    record = finished(TINY)
    training = record["parents"]["model"]
    image = np.full((60, 80, 3), 90, np.uint8)
    cv2.ellipse(image, (40, 30), (20, 15), 0, 0, 360, (200, 40, 40), -1)
    cv2.imwrite("ball.png", image[..., ::-1])
    predict.main(["ball.png", "--run", training, "--points", "20,30", "40,15", "60,30", "40,45"])
    mask = cv2.imread("ball.mask.png", cv2.IMREAD_GRAYSCALE)
    assert mask.shape == (60, 80)
    assert set(np.unique(mask)) <= {0, 255}
    assert not mask[:14].any()  # nothing outside the box of the points
    assert not mask[:, 61:].any()
    assert cv2.imread("ball.overlay.png").shape[0] >= 60
    predictor = predict.Predictor.from_run(training)
    shuffled = predictor(image, [(40, 45), (60, 30), (20, 30), (40, 15)])
    np.testing.assert_array_equal(shuffled, mask > 0)


def test_evaluate_scores_a_run_on_another_data_set(here, finished, capsys):
    record = finished(TINY)
    evaluate.main(["--run", record["parents"]["model"], "--data", "{name: berkeley, limit: 5}", "--threshold", "0.6"])
    assert re.search(r"n 5\.0000", capsys.readouterr().out)


def test_a_record_comes_with_a_row_per_object_and_pictures(here, finished):
    record = finished(TINY)
    run = find_run(record["run"])
    assert {"rows.csv", "config.yaml", "record.json", "pictures"} <= {path.name for path in run.path.iterdir()}
    rows = (run.path / "rows.csv").read_text().splitlines()
    assert len(rows) == 1 + record["metrics"]["n"]


MAL = ["--config=exits", "--profile=miniature", "--model.points=null"]


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        (reproduce, ["4x"], "no table"),
        (reproduce, ["dextr-2"], "published values only"),
        (reproduce, ["dextr-4", "--profile", "minature"], "no profile 'minature'; there are: miniature"),
        (reproduce, ["dextr-4", "--profile=miniature", "--weights=none.pth"], "no file at none.pth"),
        (reproduce, ["dextr-4", "--profile=miniature", "profile=paper"], "use --profile"),
        (reproduce, ["dextr-4", "--profile=miniature", "--seed=3"], "use --seeds"),
        (fit, ["--profile=miniature", "--data.train=[pascal/train"], "is no value"),
        (evaluate, ["--run", "/nowhere/at/all", "--data", "pascal/val"], "no run begins"),
        (fit, ["--config", "dexter"], "no recipe 'dexter'; there are: dextr"),
        (fit, ["--config", "dextr", "--model.netwrk=3"], "did you mean 'model.network'"),
        (fit, ["--config", "dextr", "--row", "dextr-4/pspp"], "did you mean 'dextr-4/psp'"),
        (fit, ["--config", "dextr", "--data.train=[pascl/train]"], "no data set named"),
        (fit, ["--config", "dextr", "--data.train=[{name: davis345, min_aera: 3}]"], "did you mean 'min_area'"),
        (fit, ["--config", "dextr", "--data.train=[davis345]"], "davis345 is not there.*fetch"),
        (fit, ["--profile=miniature", "--data.batch_size=many"], "batch_size"),
        (fit, ["--profile=miniature", "--model.guidance.std=3"], r"^error: a Gaussian map needs .*std=3\.0$"),
        (fit, [*MAL, "--model.mean_field.window=4"], r"^error: a mean field has .*MAL's are 100, 3 and 0\.1$"),
        (evaluate, ["--run", "0000", "--data", "pascal/val"], "no run begins"),
        (predict, ["none.jpg", "--run", "0", "--points", "1,2", "3,4", "5,6", "7,8"], "none.jpg is missing"),
        (predict, ["none.jpg", "--run", "0", "--points", "1,2", "3,4", "5,6", "7;8"], "written x,y"),
        (sweep_local, ["nothing"], "no sweep"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_1(here, monkeypatch, capsys, module, arguments, sentence):
    monkeypatch.setenv("DATA_ROOT", str(here))
    with pytest.raises(SystemExit) as ended:
        one_sentence(lambda: module.main(arguments))
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(sentence, line), line


def test_an_evaluation_says_what_it_found_made_and_what_was_left_out(here, finished, monkeypatch, capsys):
    """And it reads the data where the user says they lie, not where the training's lay."""
    run = finished(TINY)["parents"]["model"]
    drawn = find_run(run).config["config"]["data"]["init_args"]["root"]
    monkeypatch.setenv("DATA_ROOT", str(here / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate.main(["--run", run, "--data", "coco2017/val", "--limit", "2"])
    monkeypatch.setenv("DATA_ROOT", str(drawn))
    command = ["--run", run, "--data", "coco2017/val", "--limit", "2"]
    evaluate.main(command)
    assert re.search(r"rows: .*rows.csv; left out: \d+ crowd annotations", capsys.readouterr().out.splitlines()[-1])
    (made,) = [path for path in (here / "runs").glob("*/record.json") if "coco2017/val" in path.read_text()]
    made.write_text(made.read_text().replace('"finished": "20', '"finished": "19'))
    evaluate.main(command)
    assert "was made before, on 19" in capsys.readouterr().out


@pytest.mark.parametrize("variable", ["RUNS_ROOT", "CACHE_ROOT"])
def test_nowhere_to_write_names_the_variable(here, finished, monkeypatch, variable):
    run = find_run(finished(TINY)["parents"]["model"]).path
    (here / "file").write_text("")
    monkeypatch.setenv("DATA_ROOT", os.environ["CACHE_ROOT"] + "/miniature/0")
    monkeypatch.setenv(variable, str(here / "file"))
    with pytest.raises(OSError, match=f"set {variable} to a folder that can be written"):
        evaluate.main(["--run", str(run), "--data", "grabcut", "--limit", "2"])


@pytest.mark.slow
def test_a_command_ends_without_a_traceback(tmp_path):
    assert forked(lambda: table_files.main(["--help"]), tmp_path / "log").wait() == 0
    failed = subprocess.run(
        [sys.executable, "-m", "experiments.reproduce", "dextr-44"], cwd=ROOT, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert failed.stderr.strip().splitlines()[-1].startswith("error: no table 'dextr-44'; did you mean 'dextr-4'")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("evaluation.threshold=2", "evaluation.threshold is of a probability"),
        ("evaluation.thresholds=[0.5, 3]", "evaluation.thresholds are shares, 0 to 1, got 3"),
        ("evaluation.clicks.targets=[85]", "evaluation.clicks.targets are shares, 0 to 1, got 85"),
        ("evaluation.paste=quartic", "paste"),
        ("evaluation.test=[pascl/val]", "pascal/val"),
        ("evaluation.test=pascal/val", "evaluation.test is a list of data sets, got 'pascal/val'"),
        ("data.train=pascal/train", "data.train is a list of data sets, got 'pascal/train'"),
        ("evaluation.protocol=objct_iou", "did you mean 'object_iou'?"),
        ("evaluation.protocol=null", "evaluation.protocol is None; there are: "),
        ("evaluation.batch_size=many", "evaluation.batch_size is a number of objects, 1 or more, got 'many'"),
        ("evaluation.batch_size=0", "evaluation.batch_size is a number of objects, 1 or more, got 0"),
    ],
)
def test_what_no_evaluation_could_be_is_refused_before_anything_is_trained(here, monkeypatch, typed, sentence):
    monkeypatch.setattr(fitting, "execute", lambda *_: pytest.fail("something was made"))
    protocol = ["evaluation.protocol=clicks"] if "clicks" in typed else []
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        fit.run([*TINY, *protocol, typed])
    assert "\n" not in str(refused.value)


def test_a_wrong_key_of_a_recipe_s_evaluation_is_refused(here):
    recipe = (CONFIGS / "dextr.yaml").read_text().replace("  paste: cubic", "  pastee: cubic")
    (here / "own.yaml").write_text(recipe)
    with pytest.raises(ValueError, match=r"no value evaluation.pastee; did you mean 'paste'\?"):
        fit.run(["--config=own.yaml", *TINY[1:]])


def test_a_role_is_given_once(here, finished):
    run = finished(TINY)["parents"]["model"]
    with pytest.raises(ValueError, match="is given twice; a training takes one run as"):
        fit.run([*TINY, "--parent", f"start={run}", "--parent", f"start={run}"])


def test_a_value_that_cannot_be_ends_a_table_and_missing_data_does_not(here, capsys, monkeypatch):
    with pytest.raises(ValueError, match="threshold is of a probability"):
        reproduce.main(["dextr-4", *SHRUNK, "--rows=2", "evaluation.threshold=2"])
    monkeypatch.setenv("DATA_ROOT", str(here / "nowhere"))
    reproduce.main(["dextr-4", *SHRUNK, "--rows=2", "--data.root=null"])
    assert "not run" in capsys.readouterr().out


def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_no_partial_one(tmp_path, monkeypatch):
    checkpoints = AtomicCheckpointIO()
    checkpoints.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_every_click_of_a_user_is_drawn_even_when_one_is_extreme_twice():
    corner = np.array([[10, 10], [50, 12], [90, 50], [60, 90]], float)  # (10, 10) is left-most and top-most
    ordered, kinds = extreme_order(corner[::-1], (100, 100))
    np.testing.assert_array_equal(ordered, corner)
    assert kinds == EXTREME_KINDS


def test_a_typed_value_makes_a_table_a_changed_one_and_a_machine_does_not():
    assert changed_values(["--trainer.devices=2", "data.workers=3", "threads=1", "data.root=null"]) == []
    assert changed_values(["evaluation.batch_size=2"]) == []
    typed = ["--trainer.max_epochs=3", "evaluation.threshold=0.45", "model.optimizer.lr=1e-3"]
    assert changed_values(typed) == [
        "trainer.max_epochs=3",
        "evaluation.threshold=0.45",
        "model.optimizer.lr=0.001",
    ]
    assert changed_values(["evaluation.test=[berkeley]"]) == ["evaluation.test=['berkeley']"]


def test_weights_are_named_after_all_that_shapes_their_answer(here):
    (here / "file.pth").write_bytes(b"weights")

    def name(*overrides):
        spec = find_spec("dextr-4/sbd-data-ours")
        conditions = Conditions("miniature", ("threads=1", *overrides), "file.pth")
        return evaluation_node(spec, conditions, seed=0).hash

    base = name()
    assert name("model.guidance_scale=1.0") != base
    assert name("trainer.precision=bf16-mixed") != base
    assert name("model.optimizer.lr=3") == base  # nothing is trained
    spec = find_spec("dextr-4/sbd-data-ours")
    assert evaluation_node(spec, Conditions("miniature", ("threads=1",), "file.pth"), seed=1).hash != base


def test_what_only_a_test_sees_does_not_name_a_training(here):
    def names(*overrides):
        node = evaluation_node(find_spec("dextr-4/psp"), Conditions("miniature", overrides), seed=0)
        return node.parents["model"].hash, node.hash

    training, evaluation = names()
    exact = names("data.sample.test_points={rule: exact}")
    assert exact[0] == training
    assert exact[1] != evaluation
    assert names("evaluation.batch_size=3") == (training, evaluation)


def test_a_node_with_another_tree_has_another_name(here):
    node = evaluation_node(find_spec("dextr-4/psp"), Conditions("miniature"), seed=0)
    for run in node.with_ancestors():
        run.folder.prepare(run.describe())
    found = load_node(node.folder)
    assert found.hash == node.hash
    stricter = copy.deepcopy(found.config)
    stricter["evaluation"]["threshold"] = 0.9
    assert replace(found, config=stricter).hash != found.hash
    assert replace(found, config=copy.deepcopy(found.config)).hash == found.hash
    assert replace(found, kind="label").hash != found.hash
    assert replace(found, parents={**found.parents, "first_stage": found.model}).hash != found.hash


def test_a_run_is_used_where_it_is_found_and_without_its_training_data(here, finished, capsys):
    record = finished(TINY)
    moved = here / "elsewhere" / record["parents"]["model"]
    moved.parent.mkdir()
    (here / "runs" / record["parents"]["model"]).rename(moved)
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(config.replace("name: pascal/train", "name: folder:/gone"))
    told = json.loads((moved / "record.json").read_text())  # as of a run that was made from data that only others have
    told["files"]["config.yaml"] = sha256_of(moved / "config.yaml")
    (moved / "record.json").write_text(json.dumps(told))
    evaluate.main(["--run", str(moved), "--data", "{name: berkeley, limit: 3}"])
    assert "mean_iou" in capsys.readouterr().out


def test_a_command_starts_without_transformers_which_one_network_alone_needs():
    script = "import sys, experiments.fit; sys.exit('transformers' in sys.modules or 'torchmetrics' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2]).returncode == 0
