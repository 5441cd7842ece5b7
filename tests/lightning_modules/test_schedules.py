import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.schedules import Constant, Cosine, Poly

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


@pytest.mark.parametrize("schedule", [Constant(), Poly(warmup=0.1), Cosine(warmup=0.1)])
def test_training_a_step_too_long_is_no_error(schedule):
    assert schedule(1.01) == schedule(1)
