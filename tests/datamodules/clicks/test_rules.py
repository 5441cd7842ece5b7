from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from datamodules.clicks.points import Click
from datamodules.clicks.rules import (
    RULES,
    boundary_error,
    cluster_sizes,
    largest_cluster,
    largest_cluster_candidates,
    largest_distance,
    largest_distance_candidates,
    likely_error,
    next_clicks,
    sampled_cluster,
    sampled_error,
    sampled_error_candidates,
    thickest_error,
    thickest_error_as_released,
    thickest_error_candidates,
)
from tests.conftest import GOLDEN, disc, square

CASES = range(18)
sizes = st.shared(st.tuples(st.integers(1, 14), st.integers(1, 14)), key="size")
masks = arrays(np.uint8, sizes, elements=st.integers(0, 1))
clicked = st.lists(st.tuples(st.integers(-2, 15), st.integers(-2, 15)), max_size=6).map(
    lambda clicks: np.array(clicks, np.float32).reshape(-1, 2)
)
SAMPLING = ["cluster", "random", "ritm_training"]
IOG_CASES = [
    "all_missed",
    "both_fn_larger",
    "both_fp_larger",
    "error_touching_border",
    "false_positive",
    "missing_part",
    "offdiag_missing",
    "perfect",
    "wide_thin_vs_small_round",
]


@pytest.fixture(scope="module")
def itis():
    with np.load(GOLDEN / "itis.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def ritm():
    with np.load(GOLDEN / "clicks_ritm.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def iog():
    with np.load(GOLDEN / "iog.npz") as arrays:
        return dict(arrays)


def case(golden, number):
    """Mask, prediction, void and earlier clicks (x, y) of a golden case."""
    label = golden[f"gt_{number:02d}"]
    clicks = np.concatenate([golden[f"neg_{number:02d}"], golden[f"pos_{number:02d}"]])[:, ::-1]
    return (label == 1).astype(np.uint8), golden[f"pred_{number:02d}"], (label == 255).astype(np.uint8), clicks


def rows(pixels):
    return {(int(x), int(y)) for x, y in pixels}


def key(number=0):
    return np.random.default_rng(number)


def painted(prediction, click, radius):
    """The stand-in network of the golden sequences: a disc of the click's sign."""
    where = disc(prediction.shape, (click.x, click.y), radius).astype(bool)
    return np.where(where, np.uint8(click.positive), prediction)


@pytest.mark.parametrize("number", CASES)
def test_the_largest_cluster_is_clicked_where_itis_authors_click(itis, number):
    first, behind = itis["candidate_offsets"][number : number + 2]
    candidates = largest_cluster_candidates(*case(itis, number))
    np.testing.assert_array_equal(candidates, itis["candidates"][first:behind, ::-1])
    click = largest_cluster(*case(itis, number))
    if click is None:
        assert itis["click_is_positive"][number] == -1
    else:
        assert (click.y, click.x) == tuple(itis["click_first_candidate"][number])
        assert click.positive == itis["click_is_positive"][number]


@pytest.mark.parametrize("number", CASES)
def test_clusters_weigh_as_much_as_in_the_authors_code(itis, number):
    expected = itis[f"cluster_sizes_{number:02d}"].tolist()
    assert sorted(cluster_sizes(*case(itis, number)).tolist(), reverse=True) == expected


@pytest.mark.parametrize("number", CASES)
def test_the_random_strategy_may_draw_what_the_authors_code_may_draw(itis, number):
    eligible = np.argwhere(itis[f"random_eligible_{number:02d}"])[:, ::-1]
    np.testing.assert_array_equal(sampled_error_candidates(*case(itis, number)), eligible)


@pytest.mark.parametrize("number", CASES)
def test_the_largest_distance_is_clicked_where_ritms_authors_click(ritm, number):
    positive, row, column = ritm["click"][number]
    assert largest_distance(*case(ritm, number)) == Click(column, row, bool(positive))


@pytest.mark.parametrize("rule", ["itis", "ritm"])
@pytest.mark.parametrize("sequence", range(6))
def test_twenty_rounds_of_clicks_follow_the_authors_code(itis, ritm, rule, sequence):
    golden = {"itis": itis, "ritm": ritm}[rule]
    mask, _, void, _ = case(golden, golden["seq_case"][sequence])
    prediction, clicks = np.zeros_like(mask), np.zeros((0, 2), int)
    for expected in golden["seq_clicks"][sequence]:
        click = RULES[rule](mask, prediction, void, clicks)
        assert (click.y, click.x, click.positive) == tuple(expected)
        clicks = np.concatenate([clicks, [[click.x, click.y]]])
        prediction = painted(prediction, click, int(golden["seq_disc_radius"]))


def test_the_first_click_falls_into_the_middle_of_the_object():
    mask = square(32, top_left=(4, 8), side=(11, 7))
    expected = {(7, y) for y in range(11, 16)}
    assert rows(largest_cluster_candidates(mask, np.zeros_like(mask))) == expected
    candidates, positive = largest_distance_candidates(mask, np.zeros_like(mask))
    assert rows(candidates) == expected
    assert positive


@pytest.mark.parametrize("rule", ["itis", "ritm"])
def test_a_click_falls_into_the_largest_error(rule):
    mask = square(32, top_left=(4, 4), side=16)
    prediction = mask.copy()
    prediction[4:20, 12:20] = 0  # loses the right half
    prediction[28:30, 28:30] = 1  # invents 4 px elsewhere
    click = RULES[rule](mask, prediction)
    assert click.positive
    assert 12 <= click.x < 20
    assert 4 <= click.y < 20


def test_itis_prefers_the_larger_error_and_ritm_the_thicker_one():
    mask = square((40, 60), top_left=(2, 20), side=(3, 50))  # 150 px missed, 3 thick
    prediction = square((40, 60), top_left=(30, 30), side=7)  # 49 px invented
    assert largest_cluster(mask, prediction).positive
    assert largest_distance(mask, prediction) == Click(33, 33, False)


def test_missed_and_invented_pixels_that_touch_are_one_error_for_itis_only():
    mask = square((20, 40), top_left=(2, 2), side=(9, 9))
    prediction = square((20, 40), top_left=(11, 11), side=(5, 5))  # touches at a corner: 81 + 25 px
    prediction[4:14, 25:35] = 1  # 100 px
    assert sorted(cluster_sizes(mask, prediction)) == [100, 106]
    assert largest_cluster(mask, prediction) == Click(6, 6, True)
    assert not largest_distance(mask, prediction).positive  # 9 wide against 10 wide: a tie, and ties are negative


def test_a_tie_of_missed_and_invented_pixels_is_negative_for_ritm():
    mask = square((12, 30), top_left=(2, 2), side=7)
    prediction = square((12, 30), top_left=(20, 2), side=7)
    assert largest_distance(mask, prediction) == Click(23, 5, False)


def test_of_equal_clusters_the_first_in_raster_order_is_clicked():
    """OpenCV numbers components by blocks of 2 x 2 pixels: there, the left one would come first."""
    mask = np.zeros((12, 16), np.uint8)
    mask[3:6, 2:5] = mask[2:5, 9:12] = 1
    assert largest_cluster(mask, np.zeros_like(mask)) == Click(10, 3, True)


def test_an_earlier_click_is_a_boundary_for_itis_and_only_forbidden_for_ritm():
    mask = square(21, top_left=(3, 3), side=15)
    nothing = np.zeros_like(mask)
    assert largest_cluster(mask, nothing) == largest_distance(mask, nothing) == Click(10, 10, True)
    assert largest_cluster(mask, nothing, clicks=[(10, 10)]) == Click(7, 7, True)  # 5 px to the side, 4.2 to the click
    near = {(9, 9), (10, 9), (11, 9), (9, 10), (11, 10), (9, 11), (10, 11), (11, 11)}
    assert rows(largest_distance_candidates(mask, nothing, clicks=[(10, 10)])[0]) == near


def test_earlier_clicks_are_taken_from_a_cluster_after_it_was_found():
    mask = square(12, top_left=(2, 5), side=(1, 7))
    assert cluster_sizes(mask, np.zeros_like(mask), clicks=[(5, 5), (5, 5)]).tolist() == [6]


@pytest.mark.parametrize("rule", ["itis", "random"])
def test_an_error_in_the_outermost_pixels_gets_no_click_from_itis(rule):
    mask = np.ones((9, 9), np.uint8)
    mask[1:-1, 1:-1] = 0
    assert RULES[rule](mask, np.zeros_like(mask), draw=key()) is None
    assert largest_distance(mask, np.zeros_like(mask)) == Click(0, 0, True)


def test_a_larger_error_in_the_outermost_pixels_keeps_itis_from_clicking_elsewhere():
    mask = np.zeros((9, 12), np.uint8)
    mask[0] = mask[4, 4:7] = 1
    assert largest_cluster(mask, np.zeros_like(mask)) is None
    assert sampled_error(mask, np.zeros_like(mask), draw=key()).y == 4


@pytest.mark.parametrize("rule", sorted(RULES))
def test_without_an_error_only_ritms_and_iogs_code_still_click(rule):
    mask = disc((20, 30), (12, 9), 6)
    assert RULES[rule](mask, mask, draw=key()) == (Click(0, 0, False) if rule in ("ritm", "iog_code") else None)


@pytest.mark.parametrize("rule", sorted({*RULES} - {"iog_code"}))
def test_an_error_in_void_is_none(rule):
    mask, prediction = disc((20, 30), (12, 9), 6), disc((20, 30), (14, 10), 6)
    void = (mask != prediction).astype(np.uint8)
    assert RULES[rule](mask, prediction, void, draw=key()) in (None, Click(0, 0, False))


def test_void_between_errors_parts_them():
    mask = square((9, 30), top_left=(2, 2), side=(5, 24))
    void = square((9, 30), top_left=(10, 0), side=(9, 2))
    assert sorted(cluster_sizes(mask, np.zeros_like(mask), void)) == [40, 70]


@pytest.mark.parametrize("rule", ["itis", "ritm", "ritm_training", "cluster", "iog"])
def test_a_single_wrong_pixel_is_clicked(rule):
    mask = square(9, top_left=(4, 3), side=1)
    assert RULES[rule](mask, np.zeros_like(mask), draw=key()) == Click(4, 3, True)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)])
def test_the_smallest_images_do_not_fail(rule, size):
    click = RULES[rule](np.ones(size, np.uint8), np.zeros(size, np.uint8), draw=key())
    inner = rule not in ("itis", "cluster", "random")
    assert (click is not None) == inner


def test_when_every_wrong_pixel_was_clicked_itis_stops():
    mask = square(9, top_left=(4, 3), side=(1, 2))
    clicks = [(4, 3), (5, 3)]
    assert largest_cluster(mask, np.zeros_like(mask), clicks=clicks) is None
    assert sampled_cluster(mask, np.zeros_like(mask), clicks=clicks, draw=key()) is None
    assert sampled_error(mask, np.zeros_like(mask), clicks=clicks, draw=key()) is None
    assert largest_distance(mask, np.zeros_like(mask), clicks=clicks) == Click(0, 0, False)


def test_clusters_are_drawn_in_proportion_to_their_size():
    mask = square((12, 40), top_left=(2, 2), side=(6, 5)) | square((12, 40), top_left=(20, 2), side=(3, 10))
    mask |= square((12, 40), top_left=(34, 2), side=(6, 5))
    draw = key(3)
    x = np.array([sampled_cluster(mask, np.zeros_like(mask), draw=draw).x for _ in range(900)])
    shares = [(x < 10).mean(), ((x > 10) & (x < 33)).mean(), (x > 33).mean()]
    assert np.allclose(shares, 1 / 3, atol=0.06)  # 30 px each: equal clusters do not collapse to the first


def test_the_random_strategy_draws_every_error_pixel_alike():
    mask = square(12, top_left=(3, 3), side=2)
    draw = key(1)
    drawn = [sampled_error(mask, np.zeros_like(mask), draw=draw)[:2] for _ in range(800)]
    assert all(150 < drawn.count(pixel) < 250 for pixel in [(3, 3), (4, 3), (3, 4), (4, 4)])


def test_ritm_trains_with_any_click_deeper_than_half_of_the_deepest():
    mask = square(30, top_left=(5, 5), side=15)  # deepest: 8
    draw = key()
    drawn = {likely_error(mask, np.zeros_like(mask), draw=draw) for _ in range(3000)}
    assert drawn == {Click(x, y, True) for x in range(9, 16) for y in range(9, 16)}  # deeper than 4


def test_a_generator_draws_among_equals_and_nothing_else():
    mask = square(20, top_left=(4, 4), side=(10, 10))
    draw = key()
    drawn = {largest_cluster(mask, np.zeros_like(mask), draw=draw)[:2] for _ in range(100)}
    assert drawn == rows(largest_cluster_candidates(mask, np.zeros_like(mask))) == {(8, 8), (9, 8), (8, 9), (9, 9)}


@pytest.mark.parametrize("rule", ["itis", "ritm", "boundary", "iog", "iog_code"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.int64])
def test_the_type_of_a_mask_does_not_matter(itis, rule, dtype):
    mask, prediction, void, clicks = case(itis, 10)
    expected = RULES[rule](mask, prediction, void, clicks)
    assert (
        RULES[rule](mask.astype(dtype), prediction.astype(dtype), void.astype(dtype), clicks.astype(float)) == expected
    )
    assert RULES[rule](*(np.asfortranarray(array) for array in (mask, prediction, void)), clicks.tolist()) == expected


@pytest.mark.parametrize("rule", sorted(RULES))
def test_masks_of_different_sizes_are_refused(rule):
    with pytest.raises(ValueError, match=r"of one size .* got \(4, 5\) and \(5, 4\)"):
        RULES[rule](np.zeros((4, 5)), np.zeros((5, 4)), draw=key())
    with pytest.raises(ValueError, match="of one size"):
        RULES[rule](np.zeros((4, 5)), np.zeros((4, 5)), np.zeros((4, 4)), draw=key())


@pytest.mark.parametrize("rule", SAMPLING)
def test_a_rule_of_chance_needs_a_generator(rule):
    with pytest.raises(ValueError, match="needs a `draw`"):
        RULES[rule](np.ones((4, 5)), np.zeros((4, 5)))


def test_a_jittered_boundary_click_needs_a_generator():
    with pytest.raises(ValueError, match="needs a `draw`"):
        boundary_error(np.ones((4, 5)), np.zeros((4, 5)), jitter=10)


# --- the fifth point


def test_the_fifth_point_lies_on_the_lost_end_of_an_object():
    mask = square((20, 50), top_left=(5, 5), side=(9, 40))
    prediction = square((20, 50), top_left=(5, 5), side=(9, 25))  # loses the right end
    click = boundary_error(mask, prediction)
    assert click == Click(44, 5, True)  # all of the right side is equally far from what was found
    draw = key()
    drawn = {boundary_error(mask, prediction, draw=draw)[:2] for _ in range(200)}
    assert drawn == {(44, y) for y in range(5, 14)}


def test_the_fifth_point_lies_where_the_prediction_spills_over_most():
    mask = square((30, 40), top_left=(5, 10), side=(10, 20))
    prediction = mask | square((30, 40), top_left=(25, 11), side=(7, 10))  # spills out of the right side, y 11..17
    assert boundary_error(mask, prediction) == Click(24, 14, True)


def test_an_error_away_from_the_boundary_is_clicked_at_the_nearest_boundary_pixel():
    mask = square((30, 40), top_left=(5, 5), side=20)
    hole = mask & ~square((30, 40), top_left=(18, 12), side=3)  # nearest side: right, x = 24
    assert boundary_error(mask, hole).x == 24
    island = mask | square((30, 40), top_left=(30, 15), side=3)
    assert boundary_error(mask, island) in {Click(24, y, True) for y in (15, 16, 17)}


def test_an_object_that_was_missed_altogether_is_clicked_anywhere_on_its_boundary():
    mask = square(20, top_left=(5, 5), side=6)
    draw = key()
    drawn = {boundary_error(mask, np.zeros_like(mask), draw=draw)[:2] for _ in range(500)}
    assert drawn == {(x, y) for x in range(5, 11) for y in range(5, 11) if {x, y} & {5, 10}}


def test_an_object_without_pixels_has_no_fifth_point():
    prediction = square(20, top_left=(5, 5), side=6)
    assert boundary_error(np.zeros_like(prediction), prediction) is None


@given(masks, masks, st.integers(0, 9), st.floats(0, 6))
def test_the_fifth_point_lies_on_the_objects_boundary(mask, prediction, seed, jitter):
    click = boundary_error(mask, prediction, draw=key(seed), jitter=jitter)
    if not mask.any() or (mask == prediction).all():
        assert click is None
    else:
        framed = np.pad(mask, 1)
        x, y = click.x + 1, click.y + 1
        assert mask[click.y, click.x]
        assert min(framed[y - 1, x], framed[y + 1, x], framed[y, x - 1], framed[y, x + 1]) == 0


def test_a_jittered_fifth_point_stays_near():
    mask, prediction = disc((60, 60), (30, 30), 20), disc((60, 60), (24, 30), 20)
    still = boundary_error(mask, prediction)
    draw = key()
    moved = [boundary_error(mask, prediction, draw=draw, jitter=4) for _ in range(100)]
    assert len(set(moved)) > 3
    assert max(np.hypot(click.x - still.x, click.y - still.y) for click in moved) < 2 * np.hypot(4, 4) + 2


# --- IOG's further clicks


@pytest.mark.parametrize("name", IOG_CASES)
def test_the_thickest_error_is_clicked_where_iogs_authors_click(iog, name):
    mask, prediction = iog[f"click/{name}/gt"], iog[f"click/{name}/pred"]
    row, column = iog[f"click/{name}/row_col"].tolist()
    intended, official = (iog[f"click/{name}/{whose}_channel"] == 0 for whose in ("intended", "official"))
    assert thickest_error(mask, prediction) == (None if name == "perfect" else Click(column, row, bool(intended)))
    assert thickest_error_as_released(mask, prediction) == Click(column, row, bool(official))
    error = mask != prediction
    assert ((mask & prediction).sum() / (mask | prediction).sum()) == pytest.approx(float(iog[f"click/{name}/iou"]))
    deepest = distance_transform_edt(error)[row, column]
    assert deepest == pytest.approx(float(iog[f"click/{name}/edt_max"]))


@given(masks, masks, masks)
def test_the_candidates_of_iog_are_those_of_its_definition(mask, prediction, void):
    error = (mask != prediction) & (void == 0)
    assume(not error.all())
    distance = distance_transform_edt(error)  # the image's edge is no boundary
    expected = np.argwhere(error & (distance == distance.max()))[:, ::-1]
    np.testing.assert_array_equal(thickest_error_candidates(mask, prediction, void), expected)
    if len(expected):
        assert thickest_error(mask, prediction, void)[:2] == tuple(expected[0])
        assert rows([thickest_error(mask, prediction, void, draw=key())[:2]]) <= rows(expected)


def test_iog_clicks_the_thicker_error_and_at_the_images_edge():
    mask = square((40, 60), top_left=(2, 20), side=(3, 50))  # 150 px missed, 3 thick
    prediction = square((40, 60), top_left=(57, 30), side=(7, 3))  # 21 px invented, cut off
    assert thickest_error(mask, prediction) == Click(59, 32, False)


def test_missed_and_invented_pixels_that_touch_are_one_error_for_iog():
    mask = square((21, 40), top_left=(5, 6), side=(9, 5))
    prediction = square((21, 40), top_left=(10, 6), side=(9, 4))  # beside it: 9 x 9 px together
    prediction[5:12, 25:32] = 1
    assert thickest_error(mask, prediction) == Click(9, 10, True)


def test_where_everything_is_wrong_iog_clicks_the_middle():
    everything = np.ones((9, 15), np.uint8)
    assert thickest_error(everything, 0 * everything) == Click(4, 4, True)
    assert thickest_error(0 * everything, everything) == Click(4, 4, False)


def test_iogs_code_clicks_in_void_and_reads_the_sign_at_the_transposed_pixel():
    mask = square(30, top_left=(18, 4), side=7)
    nothing, void = np.zeros_like(mask), square(30, top_left=(18, 4), side=7)
    assert thickest_error(mask, nothing, void) is None
    assert thickest_error_as_released(mask, nothing, void) == Click(21, 7, False)
    mask[18:25, 4:11] = 1
    assert thickest_error_as_released(mask, nothing) == Click(21, 7, True)


def test_where_no_transposed_pixel_exists_the_clicked_one_gives_the_sign():
    mask = square((12, 40), top_left=(25, 2), side=7)
    assert thickest_error_as_released(mask, np.zeros_like(mask)) == Click(28, 5, True)


# --- what always holds


@given(masks, masks, masks, clicked, st.sampled_from(["itis", "ritm", "random", "cluster", "ritm_training", "iog"]))
def test_a_click_lies_on_a_labelled_error_and_says_what_is_there(mask, prediction, void, clicks, rule):
    error = (mask != prediction) & (void == 0)
    click = RULES[rule](mask, prediction, void, clicks, key())
    free = error.copy()
    if rule not in ("ritm_training", "iog"):
        inside = [(int(y), int(x)) for x, y in clicks if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]]
        for at in inside:
            free[at] = False
    if rule == "ritm" and not free.any():
        assert click == Click(0, 0, False)
    elif click is not None:
        assert free[click.y, click.x]
        assert click.positive == mask[click.y, click.x]
    if rule == "random":
        assert (click is None) == (not free[1:-1, 1:-1].any())
    elif rule in ("ritm", "ritm_training", "iog"):
        assert (click is None) == (rule != "ritm" and not error.any())


@given(masks, masks, masks, clicked)
def test_the_candidates_of_itis_are_those_of_its_definition(mask, prediction, void, clicks):
    """Sec. 3.2 word by word, with SciPy's exact distances over the whole image."""
    error = ((mask != prediction) & (void == 0)).astype(np.uint8)
    count, labels = cv2.connectedComponents(error, connectivity=8)
    height, width = mask.shape
    for x, y in clicks.astype(int):
        if 0 <= x < width and 0 <= y < height:
            labels[y, x] = 0
    sizes = np.bincount(labels.ravel(), minlength=count)[1:]
    assert sorted(cluster_sizes(mask, prediction, void, clicks)) == sorted(sizes)
    assume(len(sizes) and (sizes == sizes.max()).sum() == 1)
    cluster = labels == sizes.argmax() + 1
    cluster[[0, -1]] = cluster[:, [0, -1]] = False
    distance = distance_transform_edt(cluster) if not cluster.all() else np.zeros(mask.shape)
    expected = np.argwhere(cluster & (distance == distance.max()))[:, ::-1]
    np.testing.assert_array_equal(largest_cluster_candidates(mask, prediction, void, clicks), expected)


@given(masks, masks, clicked, st.sampled_from(["transposed", "flipped"]))
def test_the_next_click_turns_with_the_image(mask, prediction, clicks, how):
    last = mask.shape[1] - 1
    if how == "transposed":
        image, points = (lambda array: array.T), (lambda xy: xy[:, ::-1])
    else:
        image, points = (lambda array: array[:, ::-1]), (lambda xy: np.array([last, 0]) + xy * [-1, 1])
    turned = image(mask), image(prediction), None, points(clicks)
    candidates, positive = largest_distance_candidates(mask, prediction, None, clicks)
    turned_candidates, turned_positive = largest_distance_candidates(*turned)
    assert positive == turned_positive
    if (mask != prediction).any() and not (len(candidates) == 1 and not candidates.any()):
        assert rows(points(candidates)) == rows(turned_candidates)
    counts = cluster_sizes(mask, prediction, None, clicks)
    if len(counts) and (counts == counts.max()).sum() == 1:
        before = largest_cluster_candidates(mask, prediction, None, clicks)
        assert rows(points(before)) == rows(largest_cluster_candidates(*turned))


def test_distances_are_exact_at_the_size_of_davis():
    """A difference in the last bit would make one of several equally deep pixels the only one."""
    error = np.ones((480, 854), np.uint8)
    generator = key(5)
    error[generator.integers(480, size=30), generator.integers(854, size=30)] = 0
    distance = distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    squared = np.rint(distance**2)
    candidates, _ = largest_distance_candidates(error, np.zeros_like(error))
    np.testing.assert_array_equal(candidates, np.argwhere(squared == squared.max())[:, ::-1])
    wide = np.ones((480, 854), np.uint8)  # the farthest from the image's edge: 240 px, a line of ties
    assert len(largest_distance_candidates(wide, np.zeros_like(wide))[0]) == 2 * (854 - 2 * 239)


# --- many objects


@pytest.mark.parametrize("rule", [*sorted(RULES), "jittered"])
def test_four_threads_click_like_one(itis, rule):
    function = partial(boundary_error, jitter=5) if rule == "jittered" else RULES[rule]
    objects = [case(itis, number) for number in CASES] * 2
    masks, predictions, voids, clicks = (list(column) for column in zip(*objects))
    here = next_clicks(
        function,
        masks,
        predictions,
        voids=voids,
        clicks=clicks,
        draws=[key(number) for number in range(len(masks))],
        pool=None,
    )
    with ThreadPoolExecutor(4) as pool:
        there = next_clicks(
            function,
            masks,
            predictions,
            voids=voids,
            clicks=clicks,
            draws=[key(number) for number in range(len(masks))],
            pool=pool,
        )
    assert here == there
    assert here[:3] == [function(*objects[number], key(number)) for number in range(3)]


def test_voids_clicks_and_draws_may_be_left_out():
    mask = disc((20, 30), (12, 9), 6)
    assert next_clicks(largest_cluster, [mask], [0 * mask], voids=None, clicks=None, draws=None) == [Click(12, 9, True)]
    assert next_clicks(largest_cluster, [], [], voids=[], clicks=[], draws=[]) == []


def test_lists_of_different_lengths_and_a_shared_generator_are_refused():
    mask = disc((20, 30), (12, 9), 6)
    with pytest.raises(ValueError, match="got 2, 1, 2, 2, 2"):
        next_clicks(largest_cluster, [mask, mask], [mask], voids=None, clicks=None, draws=None)
    draw = key()
    with pytest.raises(ValueError, match="a Generator per object"):
        next_clicks(sampled_error, [mask, mask], [0 * mask, 0 * mask], voids=None, clicks=None, draws=[draw, draw])
