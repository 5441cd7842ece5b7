"""One run made: what a machine cannot do is said in a sentence, and a run costs what all its starts took."""

import json

import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from experiments.launching.local import Failed, InProcess
from experiments.launching.making import execute
from experiments.launching.spent import FILE, spent
from experiments.reproduction.requests import FitRequest
from experiments.training.train import Training
from tests.experiments.tiny import TINY


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), r"lower data.batch_size \(now 4\)"),
        (MisconfigurationException("No supported gpu backend found!"), "Asked for is trainer.accelerator=cpu"),
    ],
)
def test_what_a_machine_cannot_do_fails_one_run_with_its_sentence(store, monkeypatch, error, sentence):
    def cannot(*_):
        raise error

    monkeypatch.setattr(Training, "make", cannot)
    node = FitRequest.read(TINY).training
    with pytest.raises(Failed, match=sentence):
        InProcess().launch(node, "train")
    assert node.folder.record is None


def test_a_run_costs_what_all_its_starts_took(store, monkeypatch):
    node, made = FitRequest.read(TINY).training, Training.make
    monkeypatch.setattr(Training, "make", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        execute(node)
    assert float((node.folder.path / FILE).read_text()) >= 0
    (node.folder.path / FILE).write_text("785.0")  # so long it took until now
    monkeypatch.setattr(Training, "make", made)
    assert 785 < execute(node)["seconds"] < 885
    assert not (node.folder.path / FILE).exists()


@pytest.mark.parametrize("damaged", ["", "12:30", "\0"])
def test_seconds_of_a_killed_start_are_kept_and_damaged_ones_begin_anew(tmp_path, damaged):
    (tmp_path / FILE).write_text(damaged)
    with spent(tmp_path, every=0.01) as now:
        while not (tmp_path / FILE).read_text().replace(".", "").isdigit():
            pass
        assert 0 < now() < 60
    assert 0 <= json.loads((tmp_path / FILE).read_text()) < 60
