import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_modules.schedules import Constant, Cosine, Poly, Steps, stepped
from tests.conftest import GOLDEN

warm_ups = st.floats(1e-5, 0.9)


@given(st.floats(0, 1))
def test_the_released_code_keeps_its_rate(done):
    assert Constant()(done) == 1


def test_poly_is_deeplabs_policy():
    assert Poly()(0) == 1
    assert Poly()(0.5) == pytest.approx(0.5**0.9)
    assert Poly(power=2)(0.75) == pytest.approx(1 / 16)
    assert Poly()(1) == 0


def test_cosine_falls_from_one_through_one_half_to_zero():
    assert [Cosine()(done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert Cosine()(0.25) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))


@pytest.mark.parametrize("schedule", [Poly(warmup=0.1), Cosine(warmup=0.1)])
def test_a_warm_up_rises_in_a_line_and_what_follows_starts_at_one(schedule):
    assert [schedule(done) for done in (0.025, 0.05, 0.075)] == pytest.approx([0.25, 0.5, 0.75])
    assert 0 < schedule(0) < 0.02  # the first step learns, too
    assert schedule(0.1) == pytest.approx(1)
    assert schedule(0.55) == pytest.approx(0.5**0.9 if isinstance(schedule, Poly) else 0.5)
    assert schedule(1) == 0


@given(warm_ups, st.sampled_from([Poly, Cosine]))
def test_a_factor_stays_within_one_and_only_falls_after_the_warm_up(warmup, kind):
    schedule = kind(warmup=warmup)
    done = np.linspace(0, 1, 101)
    factors = np.array([schedule(float(at)) for at in done])
    assert factors.min() >= 0
    assert factors.max() <= 1
    assert (np.diff(factors[done < warmup]) >= 0).all()
    assert (np.diff(factors[done >= warmup]) <= 1e-12).all()


ITIS = Steps(at=[0.45, 0.7], factors=[1.0, 0.1, 0.03])  # of 20 epochs


def test_steps_change_where_the_place_is_reached_and_stay():
    assert [ITIS(done) for done in (0, 0.449, 0.45, 0.699, 0.7, 1)] == [1, 1, 0.1, 0.1, 0.03, 0.03]
    assert Steps(at=[], factors=[0.5])(0.9) == 0.5
    assert Steps(at=[0.0], factors=[1.0, 2.0])(0) == 2
    assert Steps(at=[0.5, 0.5], factors=[1.0, 2.0, 3.0])(0.5) == 3


@given(st.lists(st.floats(0, 1), max_size=5), st.floats(0, 1))
def test_a_factor_of_steps_is_that_behind_all_places_passed(at, done):
    at = sorted(at)
    assert Steps(at, [float(i) for i in range(len(at) + 1)])(done) == sum(place <= done for place in at)


@pytest.mark.parametrize(
    ("at", "factors"), [([0.5], [1.0]), ([0.5], [1.0, 2.0, 3.0]), ([0.7, 0.45], [1.0, 0.1, 0.03]), ([], [])]
)
def test_steps_that_do_not_fit_are_refused(at, factors):
    with pytest.raises(ValueError, match="one factor more than places"):
        Steps(at, factors)


@pytest.mark.parametrize("per_epoch", [1, 7, 2116, 5013])
def test_the_released_codes_epochs_have_their_rates(per_epoch):
    """1e-5 for epochs 1 to 9, 1e-6 for 10 to 14, 3e-7 from the 15th on."""
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=1e-5)
    trainer = SimpleNamespace(estimated_stepping_batches=20 * per_epoch)
    schedule = stepped(optimizer, ITIS, trainer)["lr_scheduler"]["scheduler"].lr_lambdas[0]
    for epoch in range(1, 21):
        expected = 1.0 if epoch <= 9 else 0.1 if epoch <= 14 else 0.03
        first, last = (epoch - 1) * per_epoch, epoch * per_epoch - 1
        assert schedule(first) == schedule(last) == expected, epoch


@pytest.mark.parametrize("schedule", [Constant(), Poly(power=1.0), Steps([0.5], [1.0, 0.1])])
def test_a_schedule_follows_the_optimisers_steps(schedule):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    configured = stepped(optimizer, schedule, SimpleNamespace(estimated_stepping_batches=4))
    assert configured["optimizer"] is optimizer
    assert configured["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        configured["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([2 * schedule(done) for done in (0, 0.25, 0.5, 0.75)])


@pytest.mark.parametrize("schedule", [Constant(), Poly(warmup=0.1), Cosine(warmup=0.1), ITIS])
def test_training_a_step_too_long_is_no_error(schedule):
    assert schedule(1.01) == schedule(1)


@pytest.mark.parametrize("data", ["coco", "alt"])
def test_mals_rate_per_object_times_the_batch_agrees_with_its_code_wherever_it_has_begun(data):
    golden = np.load(GOLDEN / "exits.npz")
    devices, batch, epochs, warm_up, steps = golden[f"lr/{data}/cfg_gpus_batch_epochs_warmup_iters"].tolist()
    schedule = Cosine(warmup=warm_up / epochs, floor=0.2)
    for (epoch, step), rate in zip(golden[f"lr/{data}/epoch_step"], golden[f"lr/{data}/expected"]):
        done = (epoch + step / steps) / epochs
        if done > 1e-3:  # before that the code's rate is 0, with which nothing is learned
            assert 1.5e-6 * devices * batch * schedule(float(done)) == pytest.approx(float(rate), abs=1e-10)


def test_a_training_that_is_all_warm_up_ends_at_its_peak():
    assert [Cosine(warmup=1.0, floor=0.2)(done) for done in (0.25, 0.5, 1)] == pytest.approx([0.25, 0.5, 1])
