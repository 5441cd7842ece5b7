"""What a training is refused for before anything is made, what half precision costs, and who promises what."""

import re

import pytest

from experiments import fit
from experiments.composition.compose import CONFIGS, compose
from experiments.training import train
from experiments.training.callbacks import FAR, PACED, Progress
from experiments.training.precision import cost_in_words, slowdown
from tests.experiments.tiny import TINY


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("data.batch_size=0", "data.batch_size must be at least 1, got 0"),
        ("data.workers=two", "data.workers must be a whole number at least 0, got 'two'"),
        ("threads=-1", "threads must be at least 1, got -1"),
        ("seed=abc", "seed must be a whole number between 0 and 4294967295, got 'abc'"),
        ("trainer.max_steps=0", "must say how long is trained"),
        ("trainer.max_epochs=-1", "must say how long is trained"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be at least 1, got 0"),
        ("channels_last=maybe", "channels_last is true or false, got 'maybe'"),
        ("data.train=5", "data.train is a list of data sets, got 5"),
        ("data.train=null", "data.train is a list of data sets, got None"),
        ("data.train=[]", "data.train is a list of data sets, got []"),
    ],
)
def test_a_value_that_no_training_can_have_is_refused_by_its_key(here, typed, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fit.run([*TINY, typed])
    assert not (here / "runs").exists()


def test_cpu_profiles_train_in_single_precision():
    for recipe in ("dextr", "iog", "fairs", "itis", "exits"):
        for profile in ("small", "miniature"):
            assert compose(recipe, profile=profile)["trainer"]["precision"] == "32-true"


def test_half_precision_says_its_cost_where_it_costs_something():
    assert cost_in_words("bf16-mixed", 1.0) == ""
    assert "bf16-mixed is about 9.2 times slower than 32-true" in cost_in_words("bf16-mixed", 9.2)
    assert slowdown() > 0


def test_the_cost_is_said_before_the_first_step(here, monkeypatch, capsys):
    monkeypatch.setattr(train, "slowdown", lambda: 9.2)
    fit.run([*TINY, "--no-test", "trainer.max_steps=1", "trainer.precision=bf16-mixed"])
    said = capsys.readouterr().err
    assert said.index("9.2 times slower") < said.index("step 1/1")


class Paced:
    """A trainer that is at some step of a thousand."""

    is_global_zero, estimated_stepping_batches, current_epoch, max_epochs, callback_metrics = True, 1000, 0, -1, {}
    global_step = 0


@pytest.mark.parametrize(("seconds_a_step", "told"), [(60, True), (0.5, False)])
def test_a_training_far_from_its_profile_s_promise_says_so_after_a_few_steps(monkeypatch, capsys, seconds_a_step, told):
    clock = iter(seconds_a_step * step for step in range(100))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    trainer, progress = Paced(), Progress("train x", {"minutes": 60, "on": "two CPU cores"})
    progress.on_train_start(trainer, None)
    for trainer.global_step in range(1, PACED + 1):
        assert "promises" not in capsys.readouterr().err
        progress.on_train_batch_end(trainer, None, None, None, 0)
    note = "train x will take about 16.7 h at this pace; its profile promises about 60 min on two CPU cores"
    assert (note in capsys.readouterr().err) == told
    assert FAR * 60 > 1000 * 0.5 / 60


def test_every_profile_but_the_published_one_promises_a_time():
    promised = {file.stem: compose("dextr", profile=file.stem)["promise"] for file in CONFIGS.glob("profiles/*.yaml")}
    assert promised.pop("paper") is None
    assert all(promise["minutes"] > 0 and promise["on"] for promise in promised.values())
