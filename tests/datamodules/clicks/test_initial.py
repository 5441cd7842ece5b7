import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datamodules.clicks.initial import (
    InitialClicks,
    background_ring,
    boundary_negatives,
    positive_area,
    spaced_clicks,
    suppress,
)
from datamodules.clicks.points import PointKind, Target
from tests.conftest import GOLDEN, disc, square

LABELS = range(4)
sizes = st.shared(st.tuples(st.integers(1, 40), st.integers(1, 40)), key="size")
masks = arrays(np.uint8, sizes, elements=st.integers(0, 1), fill=st.just(0))
label_maps = arrays(np.uint8, sizes, elements=st.integers(0, 3), fill=st.just(0))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "itis.npz") as arrays:
        return dict(arrays)


def key(number=0):
    return np.random.default_rng(number)


def split(clicked):
    """Positive and negative clicks as integer pixels."""
    xy, kinds = clicked
    assert xy.dtype == np.float32
    assert xy.shape == (len(kinds), 2)
    assert set(kinds) <= {PointKind.POSITIVE, PointKind.NEGATIVE}
    return xy[kinds == PointKind.POSITIVE].astype(int), xy[kinds == PointKind.NEGATIVE].astype(int)


def boxed(earlier, later, step):
    """Whether a later click lies in the box of an earlier one: 2 * step wide, its far sides excluded."""
    return all(-step <= b - a < step for a, b in zip(earlier, later))


@pytest.mark.parametrize("number", LABELS)
def test_the_background_ring_is_that_of_the_authors_code(golden, number):
    label = golden[f"init_gt_{number}"]
    np.testing.assert_array_equal(background_ring(label == 1, label == 255), golden[f"init_gc_{number}"])


@pytest.mark.parametrize("number", LABELS)
def test_positive_clicks_keep_the_margin_of_the_authors_code(golden, number):
    np.testing.assert_array_equal(positive_area(golden[f"init_gt_{number}"] == 1), golden[f"init_pos_area_{number}"])


@pytest.mark.parametrize("number", LABELS)
def test_boundary_negatives_follow_the_authors_code_from_the_first_on(golden, number):
    expected = golden[f"init_s3_points_{number}"][:, ::-1]
    clicks = boundary_negatives(golden[f"init_gc_{number}"], tuple(expected[0].tolist()))
    np.testing.assert_array_equal(clicks, expected)


@pytest.mark.parametrize("number", range(3))
def test_a_click_takes_the_box_of_the_authors_code_from_its_area(golden, number):
    row, column = golden[f"suppress_pt_{number}"]
    area = np.ones((60, 90), np.uint8)
    suppress(area, (column, row), 20)
    np.testing.assert_array_equal(area, golden[f"suppress_eligible_{number}"])


def test_the_margin_is_a_diamond_and_the_images_edge_has_none():
    mask = square((30, 40), top_left=(0, 5), side=(21, 21))
    np.testing.assert_array_equal(positive_area(mask, 5), square((30, 40), top_left=(0, 10), side=(11, 16)))
    dot = square(31, top_left=(15, 15), side=1)
    y, x = np.mgrid[:31, :31]
    ring = background_ring(dot, ring=3, margin=5)
    assert ring[15, 21]
    assert ring[15, 23]
    assert not ring[15, 20]  # in the margin
    assert not ring[15, 24]  # too far
    assert not ring[np.abs(x - 15) + np.abs(y - 15) <= 5].any()


def test_an_object_thinner_than_the_margin_may_be_clicked_everywhere():
    mask = square(30, top_left=(5, 5), side=(3, 20))
    np.testing.assert_array_equal(positive_area(mask), mask)


def test_an_object_of_one_pixel_is_clicked():
    mask = square(30, top_left=(7, 9), side=1)
    for seed in range(20):
        positives, _ = split(InitialClicks()(Target(mask), key(seed)))
        assert positives.tolist() == [[7, 9]]


def test_an_area_of_one_pixel_gets_no_negative_click():
    """As in the authors' code; the area of two pixels beside it gets one."""
    mask = square(30, top_left=(3, 3), side=4)
    others = square(30, top_left=(20, 20), side=1) + 2 * square(30, top_left=(20, 5), side=(1, 2))
    drawn = [
        split(InitialClicks(strategies=[2])(Target(mask, others=lambda: others), key(seed)))[1] for seed in range(40)
    ]
    assert {len(negatives) for negatives in drawn} == {0, 1}  # 0 clicks are drawn as well
    assert {tuple(negatives[0]) for negatives in drawn if len(negatives)} == {(20, 5), (21, 5)}


def test_there_are_one_to_five_positive_clicks():
    mask = square(200, top_left=(5, 5), side=190)
    counts = [len(split(InitialClicks(strategies=[2])(Target(mask), key(seed)))[0]) for seed in range(400)]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert all(50 < counts.count(n) < 110 for n in range(1, 6))


def test_the_three_strategies_are_drawn_alike():
    mask, asked = square(120, top_left=(40, 40), side=40), []
    sampling = InitialClicks(negatives_around=0)  # strategy 1 is seen by its silence, 2 by its question
    boundary = 0
    for seed in range(600):
        before = len(asked)
        _, negatives = split(sampling(Target(mask, others=lambda: asked.append(1) or np.zeros_like(mask)), key(seed)))
        boundary += len(negatives) > 0
        assert not (len(negatives) and len(asked) > before)
    assert boundary / 600 == pytest.approx(1 / 3, abs=0.06)
    assert len(asked) / 600 == pytest.approx(1 / 3 * 5 / 6, abs=0.06)  # nobody asks for 0 clicks of 0..5


def test_clicks_around_lie_in_the_ring_and_not_in_void():
    mask, void = disc((200, 200), (100, 100), 30), square(200, top_left=(100, 0), side=(200, 100))
    ring = background_ring(mask, void)
    assert not (ring & (void > 0)).any()
    for strategy in (1, 3):
        clicks = [split(InitialClicks(strategies=[strategy])(Target(mask, void=void), key(seed))) for seed in range(40)]
        assert sum(len(negatives) for _, negatives in clicks) > 40
        for positives, negatives in clicks:
            assert ring[negatives[:, 1], negatives[:, 0]].all()
            assert not void[positives[:, 1], positives[:, 0]].any()


def test_other_objects_are_clicked_without_what_is_void_or_the_object():
    mask = square(100, top_left=(0, 0), side=50)
    other = square(100, top_left=(30, 30), side=60)  # overlaps the object
    void = square(100, top_left=(60, 0), side=(100, 40))
    for seed in range(60):
        _, negatives = split(InitialClicks(strategies=[2])(Target(mask, void, lambda: other), key(seed)))
        x, y = negatives.T
        assert (other[y, x] & ~(mask[y, x] | void[y, x])).all()


def test_without_other_objects_the_second_strategy_makes_no_negative_click():
    mask = disc((60, 60), (30, 30), 20)
    for others in (None, lambda: np.zeros_like(mask)):
        assert all(
            len(split(InitialClicks(strategies=[2])(Target(mask, others=others), key(n)))[1]) == 0 for n in range(20)
        )


@pytest.mark.parametrize("strategy", [1, 3])
def test_other_objects_are_read_for_the_second_strategy_only(strategy):
    def others():
        raise AssertionError("read")

    for seed in range(20):
        InitialClicks(strategies=[strategy])(Target(disc((60, 60), (30, 30), 20), others=others), key(seed))


def test_an_object_that_fills_the_image_has_no_background_to_click():
    mask = np.ones((50, 60), np.uint8)
    for strategy in (1, 2, 3):
        positives, negatives = split(InitialClicks(strategies=[strategy])(Target(mask), key()))
        assert len(positives)
        assert not len(negatives)


def test_the_fourth_strategy_is_one_click_at_the_centre():
    mask = disc((60, 60), (33, 27), 20)
    positives, negatives = split(InitialClicks(centre_probability=1)(Target(mask), key()))
    assert positives.tolist() == [[33, 27]]
    assert not len(negatives)
    centred = [len(InitialClicks(centre_probability=0.3)(Target(mask), key(n))[0]) == 1 for n in range(300)]
    assert 0.3 <= np.mean(centred) < 0.5  # others have a single click by chance


def test_an_object_in_the_outermost_pixels_still_gets_a_click():
    """The centre rule makes none there; the sampling then takes its place."""
    mask = square(20, top_left=(0, 0), side=(1, 9))
    positives, _ = split(InitialClicks(centre_probability=1)(Target(mask), key()))
    assert len(positives)
    assert mask[positives[:, 1], positives[:, 0]].all()


def test_an_object_that_is_all_void_is_clicked_none_the_less():
    mask = disc((40, 40), (20, 20), 9)
    positives, _ = split(InitialClicks()(Target(mask, void=mask), key()))
    assert len(positives)
    assert mask[positives[:, 1], positives[:, 0]].all()


def test_an_empty_object_and_senseless_numbers_are_refused():
    with pytest.raises(ValueError, match=r"non-empty mask, got an empty one of size \(4, 5\)"):
        InitialClicks()(Target(np.zeros((4, 5), np.uint8)), key())
    for wrong in ({"strategies": []}, {"strategies": [4]}, {"centre_probability": 1.5}, {"positives": 0}, {"step": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* got"):
            InitialClicks(**wrong)
    with pytest.raises(ValueError, match="margin and the numbers"):
        InitialClicks(margin=-1)


def test_a_spread_draws_every_pixel_alike():
    area = square(9, top_left=(2, 3), side=2)
    draw = key()
    drawn = [spaced_clicks(area, 1, 20, draw)[0] for _ in range(800)]
    assert all(150 < drawn.count(pixel) < 250 for pixel in [(2, 3), (3, 3), (2, 4), (3, 4)])


@given(masks, st.integers(0, 6), st.integers(1, 9), st.integers(0, 99))
def test_a_spread_stays_in_its_area_and_out_of_its_boxes(area, count, step, seed):
    clicks = spaced_clicks(area, count, step, key(seed))
    assert len(clicks) <= count
    assert all(area[y, x] for x, y in clicks)
    assert not any(boxed(clicks[i], clicks[j], step) for j in range(len(clicks)) for i in range(j))


@given(masks.filter(np.any), masks, label_maps, st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
def test_initial_clicks_are_right_for_every_object(mask, void, labels, seed, centre):
    sampling = InitialClicks(centre_probability=centre, ring=6, margin=2, step=4)
    clicked = sampling(Target(mask, void, lambda: labels), key(seed))
    positives, negatives = split(clicked)
    assert 1 <= len(positives) <= 5
    assert mask[positives[:, 1], positives[:, 0]].all()
    if (mask & ~void & 1).any():
        assert not void[positives[:, 1], positives[:, 0]].any()
    assert not mask[negatives[:, 1], negatives[:, 0]].any()
    assert not void[negatives[:, 1], negatives[:, 0]].any()
    again = sampling(Target(mask, void, lambda: labels), key(seed))
    assert all(np.array_equal(a, b) for a, b in zip(clicked, again))


@given(masks.filter(np.any), st.integers(0, 9))
def test_boundary_negatives_stay_in_the_ring_and_out_of_their_boxes(mask, seed):
    ring = background_ring(mask, ring=6, margin=1)
    first = spaced_clicks(ring, 1, 1, key(seed))
    if first:
        clicks = boundary_negatives(ring, first[0], 10, 4)
        assert all(ring[y, x] for x, y in clicks)
        assert len(set(clicks)) == len(clicks) <= 10
        later = clicks[1:]  # the first has no box, as in the authors' code
        assert not any(boxed(later[i], later[j], 4) for j in range(len(later)) for i in range(j))
