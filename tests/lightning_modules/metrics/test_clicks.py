"""What a curve of IoU over clicks is worth, checked by hand and against RITM's own metric on 40 curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_modules.metrics.clicks import clicks_for_mean, failures, noc, sweep
from tests.conftest import GOLDEN

CURVES = arrays(np.float32, (5, 20), elements=st.floats(0, 1, width=32))


@pytest.fixture(scope="module")
def ritm():
    with np.load(GOLDEN / "clicks_ritm.npz") as stored:
        return dict(stored)


def test_two_clicks_reach_the_target():
    assert noc([0.5, 0.9], 0.85) == 2
    assert noc([[0.5, 0.9], [0.86, 0.1]], 0.85).tolist() == [2, 1]


def test_noc_is_ritm_s(ritm):
    for i, target in enumerate(ritm["noc_thrs"]):
        ours = noc(ritm["noc_curves"], target, 20)
        np.testing.assert_array_equal(ours, ritm["noc_per_object"][i])
        assert ours.mean() == ritm["noc"][i]
        assert np.count_nonzero(ours == 20) == ritm["noc_over_max"][i]
        assert failures(ritm["noc_curves"], target).mean() == ritm["noc_fraction_failed"][i]


def test_curves_that_an_evaluator_cut_off_at_the_target_have_the_same_noc(ritm):
    cut = ritm["noc_curves"].copy()
    for curve, length in zip(cut, ritm["noc_truncated_len"], strict=True):
        curve[length:] = np.nan
    for i, target in enumerate((0.80, 0.85, 0.90)):
        assert noc(cut, target, 20).mean() == ritm["noc_truncated"][i]


def test_clicks_for_the_mean_of_a_set_interpolate_their_mean_curve(ritm):
    curve = ritm["miou_vs_clicks"]
    for i, target in enumerate(ritm["noc_thrs"]):
        whole, between = clicks_for_mean(curve, target)
        if ritm["wholeset_integer"][i] < 0:
            assert (whole, between) == (None, None)
        else:
            assert whole == ritm["wholeset_integer"][i]
            assert between == pytest.approx(ritm["wholeset_interpolated"][i], abs=1e-9)


def test_an_iou_stored_as_the_target_has_reached_it():
    assert noc(np.full((1, 3), np.float32(0.85)), 0.85) == 1
    assert noc(np.full((1, 3), 0.85), 0.85) == 1
    assert noc(np.full((1, 3), np.nextafter(np.float32(0.85), np.float32(0))), 0.85) == 20


def test_the_last_click_counts_whether_it_succeeds_or_not_and_only_failures_are_counted_as_such():
    success, failure = np.zeros(20), np.zeros(20)
    success[-1] = 0.9
    assert noc([success, failure], 0.85).tolist() == [20, 20]
    assert failures([success, failure], 0.85).tolist() == [False, True]


def test_an_iou_that_falls_again_was_reached():
    assert noc([0.2, 0.9, 0.3, 0.3], 0.85) == 2


def test_clicks_beyond_the_cap_do_not_count():
    assert noc([0.2, 0.3, 0.9], 0.85, most=2) == 2
    assert failures([0.2, 0.3, 0.9], 0.85, most=2)


def test_between_two_whole_numbers_the_mean_is_a_line():
    assert clicks_for_mean([0.5, 0.7, 0.9], 0.8) == (3, pytest.approx(2.5))
    assert clicks_for_mean([0.5, 0.8, 0.9], 0.8) == (2, pytest.approx(2.0))
    assert clicks_for_mean([0.5, 0.8], 0.9) == (None, None)


def test_before_the_first_mask_there_is_nothing_to_interpolate_from():
    assert clicks_for_mean([0.9], 0.8) == (1, 1.0)
    assert clicks_for_mean([0, 0, 0, 0.9], 0.8, first=4) == (4, 4.0)  # DEXTR is "4.0" in ITIS' Table 1


def test_with_a_start_mask_no_click_may_be_needed():
    assert clicks_for_mean([0.9], 0.8, start=0.85) == (0, 0.0)
    assert clicks_for_mean([0.9, 0.95], 0.8, start=0.7) == (1, pytest.approx(0.5))


def test_an_object_of_a_sweep_stops_at_its_first_success():
    used, achieved = sweep([[0.5, 0.86, 0.3], [0.1, 0.2, 0.3]], 0.85, most=3)
    assert used.tolist() == [2, 3]
    np.testing.assert_allclose(achieved, [0.86, 0.3], rtol=1e-6)


def test_a_curve_without_a_click_is_refused():
    with pytest.raises(ValueError, match=r"after 1, 2, \.\.\. clicks"):
        noc(np.zeros((4, 0)), 0.85)


@given(CURVES, st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_higher_target_never_needs_fewer_clicks(curves, one, other):
    low, high = sorted((one, other))
    assert (noc(curves, low) <= noc(curves, high)).all()
    assert (failures(curves, low) <= failures(curves, high)).all()


@given(CURVES, st.floats(0.05, 1))
def test_who_did_not_fail_has_achieved_the_target(curves, target):
    _, achieved = sweep(curves, target)
    np.testing.assert_array_equal(achieved >= np.float32(target), ~failures(curves, target))


@given(CURVES, st.floats(0.05, 1))
def test_the_fraction_lies_in_the_last_step(curves, target):
    whole, between = clicks_for_mean(curves.mean(0), target)
    if whole is not None:
        assert whole - 1 <= between <= whole
