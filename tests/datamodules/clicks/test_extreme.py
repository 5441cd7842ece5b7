import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datamodules.clicks.extreme import band_points, extreme_points, jittered_points, side_candidates, tight_box
from datamodules.keys import rng, seed_of
from tests.conftest import disc, square

MASKS = range(14)
LTRB = [0, 2, 1, 3]  # the golden arrays list left, right, top, bottom; we keep the order of a box

drawn_masks = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)).filter(
    np.any
)


def rows(points) -> set[tuple[int, int]]:
    return {(int(x), int(y)) for x, y in points}


@pytest.mark.parametrize("number", MASKS)
@pytest.mark.parametrize("band", [0, 5])
def test_each_side_offers_as_many_pixels_as_in_the_authors_code(golden, number, band):
    sides = side_candidates(golden[f"mask_{number:02d}"], band)
    assert [len(side) for side in sides] == golden[f"cand_count_{number:02d}_pert{band}"][LTRB].tolist()
    assert all(len(rows(side)) == len(side) for side in sides)


@pytest.mark.parametrize("number", MASKS)
def test_outermost_pixels_span_the_range_of_the_authors_code(golden, number):
    sides = side_candidates(golden[f"mask_{number:02d}"])
    expected = golden[f"cand_range_{number:02d}_pert0"][LTRB]  # x_min, x_max, y_min, y_max of each side
    assert [[x.min(), x.max(), y.min(), y.max()] for x, y in (side.T for side in sides)] == expected.tolist()


@pytest.mark.parametrize("number", MASKS)
@pytest.mark.parametrize("band", [0, 5])
def test_draws_of_the_authors_code_could_have_been_ours_and_ours_theirs(golden, number, band):
    mask = golden[f"mask_{number:02d}"]
    candidates = [rows(side) for side in side_candidates(mask, band)]
    drawn = golden[f"ep_draws_{number:02d}_pert{band}"]
    theirs = np.concatenate([drawn, golden[f"ep_first_{number:02d}"][None]])[:, LTRB]
    for points in theirs:
        assert all(rows([point]) <= side for point, side in zip(points, candidates))
    y, x = np.nonzero(mask > 0.5)  # the rule as the method sheet words it, written out a second time
    rule = [x <= x.min() + band, y <= y.min() + band, x >= x.max() - band, y >= y.max() - band]
    for draw in range(10):
        points = band_points(mask, band, rng(draw))
        for point, allowed in zip(points, rule):
            assert rows([point]) <= rows(np.stack([x[allowed], y[allowed]], axis=1))


def test_every_pixel_of_a_band_is_drawn_about_equally_often():
    mask = square(12, top_left=(2, 3), side=(4, 8))
    draws = np.stack([band_points(mask, 1, rng(draw)) for draw in range(2000)])
    x, y = draws[:, 0].T.astype(int)
    counts = np.zeros((12, 12))
    np.add.at(counts, (y, x), 1)
    assert counts[3:7, 2:4].sum() == 2000  # left: two columns of four pixels
    assert counts[3:7, 2:4].min() > 200
    assert counts[3:7, 2:4].max() < 300


def test_extreme_points_of_a_square_are_the_middles_of_its_sides():
    points = extreme_points(square(32, top_left=(4, 10), side=(5, 9)))
    assert points.tolist() == [[4, 12], [8, 10], [12, 12], [8, 14]]  # left, top, right, bottom


def test_extreme_points_of_a_disc_are_its_four_poles():
    assert extreme_points(disc((40, 60), (30, 20), 10)).tolist() == [[20, 20], [30, 10], [40, 20], [30, 30]]


def test_extreme_points_of_an_l_lie_on_the_l_and_not_on_its_box():
    mask = square(20, top_left=(2, 2), side=(12, 3)) | square(20, top_left=(2, 12), side=(2, 15))
    assert tight_box(mask).tolist() == [2, 2, 16, 13]
    assert extreme_points(mask).tolist() == [[2, 7], [3, 2], [16, 12], [9, 13]]


def test_the_pixels_of_a_band_are_listed_along_their_side_and_then_inward():
    """The order is part of the draws: a key picks by place."""
    left, top, right, bottom = (side.tolist() for side in side_candidates(square(9, top_left=(2, 4), side=(3, 4)), 1))
    assert left == [[2, 4], [3, 4], [2, 5], [3, 5], [2, 6], [3, 6]]
    assert top == [[2, 4], [2, 5], [3, 4], [3, 5], [4, 4], [4, 5], [5, 4], [5, 5]]
    assert right == [[5, 4], [4, 4], [5, 5], [4, 5], [5, 6], [4, 6]]
    assert bottom == [[2, 6], [2, 5], [3, 6], [3, 5], [4, 6], [4, 5], [5, 6], [5, 5]]


def test_a_single_pixel_is_its_own_four_extreme_points():
    mask = square((5, 7), top_left=(6, 2), side=1)
    assert extreme_points(mask).tolist() == [[6, 2]] * 4
    assert band_points(mask, 5, rng(0)).tolist() == [[6, 2]] * 4


@given(drawn_masks, st.integers(0, 4), st.integers(0, 2**31))
def test_points_lie_on_the_object_within_their_band(mask, band, key):
    x_min, y_min, x_max, y_max = tight_box(mask)
    exact, drawn = extreme_points(mask), band_points(mask, band, rng(key))
    for points, reach in ((exact, 0), (drawn, band)):
        assert all(mask[int(y), int(x)] for x, y in points)
        assert points[0, 0] <= x_min + reach
        assert points[1, 1] <= y_min + reach
        assert points[2, 0] >= x_max - reach
        assert points[3, 1] >= y_max - reach


@given(drawn_masks)
def test_the_box_of_the_exact_points_is_the_box_of_the_mask(mask):
    points = extreme_points(mask)
    assert [*points.min(0), *points.max(0)] == tight_box(mask).tolist()


@given(drawn_masks)
def test_swapping_the_axes_swaps_left_with_top_and_right_with_bottom(mask):
    sides, swapped = side_candidates(mask, 2), side_candidates(np.ascontiguousarray(mask.T), 2)
    assert [rows(sides[i]) for i in (0, 1, 2, 3)] == [rows(swapped[i][:, ::-1]) for i in (1, 0, 3, 2)]


@given(drawn_masks, st.floats(0, 20), st.integers(0, 2**31))
def test_jitter_moves_each_coordinate_by_at_most_its_pixels_and_stays_in_the_frame(mask, jitter, key):
    moved = jittered_points(mask, jitter, rng(key))
    assert np.abs(moved - extreme_points(mask)).max() <= jitter + 1e-4
    assert moved.min() >= 0
    assert (moved.max(0) <= [mask.shape[1] - 1, mask.shape[0] - 1]).all()


def test_jitter_fills_its_range_on_both_sides():
    mask = disc((101, 101), (50, 50), 20)
    offsets = np.stack([jittered_points(mask, 10, rng(draw)) for draw in range(300)]) - extreme_points(mask)
    assert (offsets.min((0, 1)) < -9.5).all()
    assert (offsets.max((0, 1)) > 9.5).all()
    assert np.abs(offsets.mean((0, 1))).max() < 1


def test_equal_keys_draw_equal_points_and_other_keys_others():
    mask = square(64, top_left=(8, 8), side=40)

    def draw(*key: int) -> list:
        return band_points(mask, 5, rng(*key)).tolist()

    seed, epoch, object_id, step = 0, 3, 2**62 + 5, 0
    assert draw(seed, epoch, object_id, step) == draw(seed, epoch, object_id, step)
    others = [draw(1, epoch, object_id, step), draw(seed, 4, object_id, step), draw(seed, epoch, object_id + 1, step)]
    others += [draw(seed, epoch, object_id, 1), draw(epoch, seed, object_id, step)]
    assert draw(seed, epoch, object_id, step) not in others
    assert seed_of(seed, epoch) == seed_of(seed, epoch) != seed_of(epoch, seed)


@pytest.mark.parametrize("points", [tight_box, side_candidates, extreme_points])
def test_an_empty_mask_is_refused_in_one_sentence(points):
    with pytest.raises(ValueError, match=r"need a non-empty mask, got an empty one of size \(375, 500\); filter"):
        points(np.zeros((375, 500), np.uint8))


def test_bool_masks_and_read_only_masks_are_masks_too():
    mask = square(9, top_left=(2, 3), side=4)
    mask.flags.writeable = False
    assert extreme_points(mask.astype(bool)).tolist() == extreme_points(mask).tolist()
    assert tight_box(255 * mask).tolist() == [2, 3, 5, 6]
