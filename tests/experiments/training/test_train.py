"""Promises 1 and 2 on drawn data: resuming, processes, workers and accumulation do not change what comes out."""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytorch_lightning import Callback

from experiments import execute, fit
from experiments.composition.compose import compose
from experiments.console import one_sentence
from experiments.runs.folder import RunFolder
from experiments.runs.node import Node
from experiments.training import train as training
from experiments.training.callbacks import FiniteLoss
from lightning_modules.dextr import DEXTR
from tests.experiments.processes import done_by, forked
from tests.experiments.tiny import TINY

pytestmark = pytest.mark.slow  # each trains more than once


def weights_of(record):
    return torch.load(Path(os.environ["RUNS_ROOT"]) / record["run"] / "weights.pt", weights_only=True)


def rows_of(record):
    """Every column but the time, as text: rows must be equal to the last digit."""
    lines = (Path(os.environ["RUNS_ROOT"]) / record["run"] / "rows.csv").read_text().splitlines()
    at = lines[0].split(",").index("seconds")
    return [[value for i, value in enumerate(line.split(",")) if i != at] for line in lines]


def assert_same_weights(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(
            weight.float(), second[name].float(), **(tolerance or {"rtol": 0, "atol": 0}), msg=name
        )


def test_the_same_command_does_nothing_twice(store, finished):
    first = finished(TINY)
    (second,) = fit.run(TINY)
    assert second["finished"] == first["finished"]
    assert first["metrics"]["n"] == 11


def test_workers_change_nothing(store, finished, monkeypatch):
    alone = finished(TINY)
    weights, rows = weights_of({"run": alone["parents"]["model"]}), rows_of(alone)
    monkeypatch.setenv("RUNS_ROOT", str(store.with_name("with-workers")))
    (helped,) = fit.run([*TINY, "--data.workers=4"])
    assert helped["run"] == alone["run"]
    assert_same_weights(weights_of({"run": helped["parents"]["model"]}), weights)
    assert rows_of(helped) == rows


class StopAfter(Callback):
    """Interrupts a training after a step, as Ctrl-C does, with the checkpoint of that step written."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 5, 6, 7, 11])
def test_training_goes_on_from_any_step_to_the_same_weights(store, finished, monkeypatch, step):
    whole = finished(TINY)
    weights = weights_of({"run": whole["parents"]["model"]})
    monkeypatch.setenv("RUNS_ROOT", str(store.with_name("interrupted")))
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    with monkeypatch.context() as patched:
        patched.setattr(training, "Progress", lambda *_: StopAfter(step))
        with pytest.raises(KeyboardInterrupt):
            fit.run(TINY)
    (last,) = store.with_name("interrupted").glob("*/last.ckpt")
    assert torch.load(last, weights_only=False)["global_step"] == step
    (resumed,) = fit.run(TINY)
    assert_same_weights(weights_of({"run": resumed["parents"]["model"]}), weights)


def test_a_checkpoint_never_cuts_an_accumulated_step(store, monkeypatch):
    accumulated = [*TINY, "--trainer.accumulate_grad_batches=2"]
    (whole,) = fit.run(accumulated)
    weights = weights_of({"run": whole["parents"]["model"]})
    monkeypatch.setenv("RUNS_ROOT", str(store.with_name("interrupted")))
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    saved = []
    monkeypatch.setattr(
        training.AtomicCheckpointIO,
        "save_checkpoint",
        lambda self, content, path, storage_options=None: (
            saved.append(content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"])
            if "loops" in content
            else None,
            torch.save(content, path),
        ),
    )
    with monkeypatch.context() as patched:
        patched.setattr(training, "Progress", lambda *_: StopAfter(7))
        with pytest.raises(KeyboardInterrupt):
            fit.run(accumulated)
    assert saved
    assert all(passes % 2 == 0 for passes in saved)
    (resumed,) = fit.run(accumulated)
    assert_same_weights(weights_of({"run": resumed["parents"]["model"]}), weights)


def test_a_killed_training_ends_in_the_same_weights_and_rows(store, monkeypatch, tmp_path):
    longer = ["--trainer.max_epochs=6"]
    (whole,) = fit.run([*TINY, *longer])
    killed_root = store.with_name("killed")
    monkeypatch.setenv("RUNS_ROOT", str(killed_root))
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    run = killed_root / whole["parents"]["model"]
    process = forked(lambda: fit.run([*TINY, *longer]), tmp_path / "log")
    while not (run / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert (run / "last.ckpt").exists()
    assert not (run / "record.json").exists()
    reached = torch.load(run / "last.ckpt", weights_only=False)["global_step"]
    assert 0 < reached < 36
    (resumed,) = fit.run([*TINY, *longer])
    assert resumed["run"] == whole["run"]
    killed = weights_of({"run": resumed["parents"]["model"]})
    rows = rows_of(resumed)
    monkeypatch.setenv("RUNS_ROOT", str(store))
    assert_same_weights(killed, weights_of({"run": whole["parents"]["model"]}))
    assert rows == rows_of(whole)


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_evaluates_to_the_same_rows(store, finished, tmp_path, processes):
    alone = finished(TINY)
    rows = rows_of(alone)
    folder = RunFolder(store / alone["run"])
    for name in ("record.json", "rows.csv"):
        (folder.path / name).unlink()
    content = folder.config
    content["config"]["trainer"].update(devices=processes, strategy="ddp")
    (folder.path / "config.yaml").write_text(json.dumps(content))
    done_by(processes, lambda: execute.main([str(folder.path)]), tmp_path / "log")
    assert rows_of(alone) == rows
    assert folder.record["devices"]["processes"] == processes


ON_TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
FROZEN = ["--model.network.bn_statistics=frozen", "--model.network.head=ASPP", "--model.optimizer.lr=0.001"]


def test_two_processes_train_as_one_when_batch_statistics_are_frozen(store, finished, monkeypatch, tmp_path):
    alone = finished([*TINY, *FROZEN])
    weights = weights_of({"run": alone["parents"]["model"]})
    two = store.with_name("two")
    monkeypatch.setenv("RUNS_ROOT", str(two))
    done_by(2, lambda: fit.run([*TINY, *FROZEN, "--no-test", *ON_TWO]), tmp_path / "log")
    record = RunFolder(two / alone["parents"]["model"]).record
    assert record["devices"]["processes"] == 2
    assert record["batch_statistics"] == "frozen"
    assert_same_weights(weights_of(record), weights, rtol=1e-4, atol=1e-6)


def test_accumulated_passes_train_as_one_batch_when_statistics_are_frozen(store, finished):
    whole = finished([*TINY, *FROZEN])
    (parts,) = fit.run([*TINY, *FROZEN, "--trainer.accumulate_grad_batches=2"])
    assert parts["run"] != whole["run"]
    assert_same_weights(
        weights_of({"run": parts["parents"]["model"]}),
        weights_of({"run": whole["parents"]["model"]}),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_record_says_how_live_statistics_saw_the_batch(store):
    (record,) = fit.run([*TINY, "--trainer.accumulate_grad_batches=2", "--no-test"])
    assert record["batch_statistics"].startswith("live over 2 of 4 objects")


def test_a_batch_that_does_not_split_is_refused_in_one_sentence(store):
    with pytest.raises(ValueError, match="does not split over 1 processes x 3"):
        fit.run([*TINY, "--trainer.accumulate_grad_batches=3"])


def test_a_loss_that_is_no_number_ends_training_without_a_record(store, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    wild = [*TINY, "--model.optimizer.lr=1e9", "--no-test"]
    with pytest.raises(ValueError, match=r"^the loss is \S+ at step \d+ of 12: .* lower model.optimizer.lr \(it is 9"):
        fit.run(wild)
    (folder,) = store.iterdir()
    assert not (folder / "record.json").exists()
    assert not (folder / "weights.pt").exists()
    for last in folder.glob("last.ckpt"):
        state = torch.load(last, weights_only=False)["state_dict"]
        assert all(torch.isfinite(weight).all() for weight in state.values())


@pytest.mark.parametrize("bad", [3, 12])
def test_on_a_gpu_too_no_bad_step_is_saved_or_finished(store, monkeypatch, bad):
    """There the loss is looked at every few steps: before each checkpoint, and at the end."""
    monkeypatch.setattr(FiniteLoss, "due", lambda self, loss: False)
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0" if bad == 3 else "9")
    right = DEXTR.training_step

    def step(self, batch, batch_idx):
        return right(self, batch, batch_idx) * (float("inf") if self.global_step + 1 == bad else 1.0)

    monkeypatch.setattr(DEXTR, "training_step", step)
    with pytest.raises(ValueError, match=f"^the loss is inf at step {bad} of 12"):
        fit.run([*TINY, "--no-test"])
    assert not list(store.glob("*/weights.pt"))
    reached = [torch.load(last, weights_only=False)["global_step"] for last in store.glob("*/last.ckpt")]
    assert reached == ([2] if bad == 3 else [])


def test_identity_follows_the_data(store):
    before = Node("train", compose("dextr", profile="miniature")).hash
    fewer = Node("train", compose("dextr", profile="miniature", overrides=["data.train=[sbd/train]"])).hash
    assert before != fewer


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_ends_training_with_its_name(store, tmp_path, capsys, workers):
    for folder, suffix in (("img", ".jpg"), ("gt", ".png")):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for name in ("a", "b", "c", "d"):
            pixels = np.zeros((40, 50, 3), np.uint8)
            pixels[10:30, 10:30] = 255
            cv2.imwrite(str(tmp_path / "mine" / folder / (name + suffix)), pixels)
    whole = (tmp_path / "mine" / "img" / "c.jpg").read_bytes()
    (tmp_path / "mine" / "img" / "c.jpg").write_bytes(whole[:-40])
    line = [*TINY, f"--data.train=['folder:{tmp_path / 'mine'}']", f"--data.workers={workers}", "--no-test"]
    with pytest.raises(SystemExit) as ended:
        one_sentence(lambda: fit.main(line))
    assert ended.value.code == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said.startswith("error: image ")
    assert "c.jpg is truncated" in said


# -- ITIS: what is remembered from epoch to epoch is a part of what a training is -----------------------------------

ITIS = [
    "--config=itis",
    "--profile=miniature",
    "--threads=1",
    "--data.sample.size=32",
    "--data.batch_size=4",
    "--data.train=[{name: pascal/train, limit: 12}]",
    "--trainer.max_epochs=3",
    "--trainer.max_steps=-1",
    "--model.network.widths=[8, 8, 16, 16]",
    "--no-test",
    "--model.iteration.masks=true",
    "--model.mask_channel={class_path: datamodules.clicks.mask_distance.MaskDistance}",
]


class KeepMemory(Callback):
    """Writes down what each process remembers when training ends."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, module):
        torch.save(module.iteration.state_dict(), Path(self.folder) / f"memory-{trainer.global_rank}.pt")


def memory_of(folder, rank=0):
    return torch.load(Path(folder) / f"memory-{rank}.pt", weights_only=True)


@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_training_of_clicks_goes_on_from_any_step_to_the_same_weights_and_memory(store, monkeypatch, tmp_path, step):
    monkeypatch.setattr(training, "Progress", lambda *_: KeepMemory(tmp_path))
    (whole,) = fit.run(ITIS)
    weights, memory = weights_of(whole), memory_of(tmp_path)
    assert len(memory["ids"]) == 12
    (tmp_path / "memory-0.pt").unlink()
    monkeypatch.setenv("RUNS_ROOT", str(store.with_name("interrupted")))
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    with monkeypatch.context() as patched:
        patched.setattr(training, "Progress", lambda *_: StopAfter(step))
        with pytest.raises(KeyboardInterrupt):
            fit.run(ITIS)
    (last,) = store.with_name("interrupted").glob("*/last.ckpt")
    assert torch.load(last, weights_only=False)["global_step"] == step
    (resumed,) = fit.run(ITIS)
    assert_same_weights(weights_of(resumed), weights)
    assert_same_weights(memory_of(tmp_path), memory)


STILL = [
    "--model.network.bn_statistics=frozen",
    "--model.network.dropout=0.0",
    "--model.optimizer.lr=0.0",
    "--model.iteration.reset_probability=0.0",
]


def test_two_processes_remember_what_one_does(store, monkeypatch, tmp_path):
    """A network that learns nothing: every object gains a click per epoch, whichever process sees it next."""
    monkeypatch.setattr(training, "Progress", lambda *_: KeepMemory(tmp_path))
    fit.run([*ITIS, *STILL])
    alone = memory_of(tmp_path)
    monkeypatch.setenv("RUNS_ROOT", str(store.with_name("two")))
    done_by(2, lambda: fit.run([*ITIS, *STILL, *ON_TWO]), tmp_path / "log")
    assert set(alone["epochs"].tolist()) == {2}
    for rank in (0, 1):
        assert_same_weights(memory_of(tmp_path, rank), alone, rtol=1e-5, atol=1e-3)
