"""What kills and power cuts leave of a training: logs, checkpoints and records that are not whole."""

import csv
import json

import pytest
import torch

from experiments import fit
from experiments.console import say_once
from experiments.runs.folder import RunFolder
from experiments.training.callbacks import AtomicCheckpointIO, whole_checkpoint
from experiments.training.logs import join_logs
from experiments.training.train import Training
from tests.experiments.tiny import TINY


@pytest.mark.parametrize("cut", ["12,0.", "", "\0\0\0\0\n", "1", "12,0.3", "rubbish,0.3\n", "12\n"])
def test_a_row_that_was_cut_off_is_passed_over(tmp_path, cut):
    for start, text in enumerate(("step,train/loss\n1,0.5\n2,0.4\n" + cut, "step,train/loss\n2,0.3\n3,0.2\n")):
        (tmp_path / f"log-{start}").mkdir()
        (tmp_path / f"log-{start}" / "metrics.csv").write_text(text)
    join_logs(tmp_path)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["train/loss"]) for row in rows] == [("1", "0.5"), ("2", "0.3"), ("3", "0.2")]


def test_an_empty_log_is_none(tmp_path):
    (tmp_path / "log-0").mkdir()
    (tmp_path / "log-0" / "metrics.csv").touch()
    join_logs(tmp_path)
    assert not (tmp_path / "metrics.csv").exists()


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("damage", ["empty", "garbled", "cut", "foreign", "evil"])
def test_a_checkpoint_that_cannot_be_read_is_put_aside(tmp_path, monkeypatch, capsys, damage):
    monkeypatch.chdir(tmp_path)
    last = tmp_path / "last.ckpt"
    whole = {"state_dict": {"w": torch.ones(99)}, "optimizer_states": [], "loops": {}}
    AtomicCheckpointIO().save_checkpoint(whole, last)
    assert whole_checkpoint(last) == last
    content = last.read_bytes()
    last.write_bytes({"empty": b"", "garbled": bytes(99), "cut": content[:-200]}.get(damage, content))
    if damage in ("foreign", "evil"):
        torch.save({"state_dict": {}} if damage == "foreign" else whole | {"x": Evil()}, last)
    assert whole_checkpoint(last) is None
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt.damaged"]
    assert f"{last} cannot be read" in capsys.readouterr().err
    assert whole_checkpoint(last) is None


@pytest.mark.parametrize("host", ["node7", "node7.cluster.org"])
def test_the_same_weights_are_the_same_bytes(tmp_path, monkeypatch, host):
    monkeypatch.setattr("platform.node", lambda: host)
    content = []
    for _ in range(2):
        AtomicCheckpointIO().save_checkpoint({"w": torch.ones(9)}, tmp_path / "weights.pt")
        content.append((tmp_path / "weights.pt").read_bytes())
    assert content[0] == content[1]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "{", "[1]", "null"])
def test_a_damaged_record_is_said_and_the_run_is_made_again(here, finished, capsys, damage):
    say_once.cache_clear()
    whole = finished(TINY)
    folder = RunFolder(here / "runs" / whole["run"])
    (folder.path / "record.json").write_text(damage)
    (folder.path / "rows.7.csv").touch()  # of a process of an interrupted attempt
    (folder.path / ".rows.csv.partial-node7-12-0a").touch()
    (record,) = fit.run(TINY)
    assert f"{folder.path.relative_to(here) / 'record.json'} is damaged" in capsys.readouterr().err.replace(
        f"{here}/", ""
    )
    assert record["metrics"]["mean_iou"] == whole["metrics"]["mean_iou"]
    assert json.loads((folder.path / "record.json").read_text()) == record
    left = {path.name for path in folder.path.iterdir()}
    assert left == {"config.yaml", "record.json", "rows.csv", "pictures", ".lock"}


@pytest.mark.slow
def test_the_last_step_is_in_no_checkpoint_so_that_its_metrics_reach_the_record(here, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    monkeypatch.setattr(Training, "tidy", lambda *_: None)
    (record,) = fit.run([*TINY, "--no-test"])
    checkpoint = torch.load(here / "runs" / record["run"] / "last.ckpt")
    assert 0 < checkpoint["global_step"] < record["steps"]
    assert record["metrics"]
