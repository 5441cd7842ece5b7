import copy

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules.averages import Averaging, follow


class Taught(LightningModule):
    """A student of one weight whose gradient is always 1, so that a rate of 1 takes 1 from it in each step."""

    def __init__(self, momentum=0.5):
        super().__init__()
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.network.weight, 8.0)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        nn.init.constant_(self.teacher.weight, -100.0)
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))
        self.momentum, self.seen = momentum, []

    def configure_callbacks(self):
        return [Averaging(self.momentum)]

    def training_step(self, batch, batch_idx):
        self.seen.append(float(self.teacher.weight))
        return self.network.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=1.0)


def fit(model, folder, steps, **how):
    checkpoint = how.pop("ckpt_path", None)
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **how,
    )
    trainer.fit(model, DataLoader(torch.zeros(64, 1), 1), ckpt_path=checkpoint)
    return trainer


def test_a_teacher_begins_as_a_copy_of_its_student_and_follows_it(tmp_path):
    model = Taught()
    fit(model, tmp_path, 3)
    assert model.seen == [8.0, 7.5, 6.75]  # 8, then half way to 7, then half way to 6
    assert float(model.teacher.weight) == 5.875
    assert int(model.averaged) == 3


def test_the_passes_of_an_accumulated_step_are_one_step_of_the_average(tmp_path):
    model = Taught()
    fit(model, tmp_path, 2, accumulate_grad_batches=2)
    assert model.seen == [8.0, 8.0, 7.5, 7.5]
    assert int(model.averaged) == 2


def test_a_teacher_is_saved_and_goes_on_where_it_was(tmp_path):
    whole, begun, resumed = Taught(), Taught(), Taught()
    fit(whole, tmp_path, 4)
    fit(begun, tmp_path, 2).save_checkpoint(tmp_path / "last.ckpt")
    fit(resumed, tmp_path, 4, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.seen == whole.seen[2:]
    assert torch.equal(resumed.teacher.weight, whole.teacher.weight)
    assert int(resumed.averaged) == 4


def test_batch_statistics_are_the_students_own():
    student, teacher = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.running_mean.fill_(3.0)
    nn.init.constant_(student.weight, 2.0)
    follow(teacher, student, 0.75)
    assert teacher.running_mean.tolist() == [3.0, 3.0]
    assert teacher.weight.tolist() == [1.25, 1.25]


def test_a_momentum_that_never_learns_is_refused():
    with pytest.raises(ValueError, match="at least 0 and below 1, got 1"):
        Averaging(1.0)
