"""FAIRS' simulated user: fewer than four extreme points, training clicks near the boundary, the largest blob."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt, label

from datamodules.clicks.extreme import ExtremePoints, extreme_points, without_crowded
from datamodules.clicks.points import EXTREME_KINDS, Click, PointKind, SimulatedPoints, Target
from datamodules.clicks.refinement import RefinedPoints, largest_blob, near_boundary
from datamodules.clicks.rules import RULES, sampled_blob
from datamodules.keys import rng
from tests.conftest import disc, square

sizes = st.shared(st.tuples(st.integers(1, 12), st.integers(1, 12)), key="size")
masks = arrays(np.uint8, sizes, elements=st.integers(0, 1))
LEFT, TOP, RIGHT, BOTTOM = EXTREME_KINDS
# the top lies near the left side: 4 px apart
WEDGE = square(40, top_left=(2, 2), side=(8, 30)) | square(40, top_left=(30, 2), side=(30, 4))


# --- how many extreme points


def test_four_points_are_drawn_as_before():
    for rule, pixels in (("exact", 0), ("band", 3), ("jitter", 4)):
        for key in range(5):
            xy, kinds = ExtremePoints(rule, pixels, counts=[4])(Target(WEDGE), rng(key))
            expected, _ = ExtremePoints(rule, pixels)(Target(WEDGE), rng(key))
            assert xy.tolist() == expected.tolist()
            assert kinds.tolist() == list(EXTREME_KINDS)


def test_three_points_lack_one_of_the_closest_pair_either_one():
    points = extreme_points(WEDGE)
    distances = {(i, j): np.hypot(*(points[i] - points[j])) for i in range(4) for j in range(i)}
    closest = {EXTREME_KINDS[i] for i in min(distances, key=distances.get)}
    rule, lost = ExtremePoints(counts=[3]), Counter()
    for key in range(200):
        xy, kinds = rule(Target(WEDGE), rng(key))
        assert xy.tolist() == [points[kind].tolist() for kind in kinds]  # each keeps its place and its kind
        assert sorted(kinds) == kinds.tolist()
        lost.update(set(EXTREME_KINDS) - set(kinds.tolist()))
    assert set(lost) == closest
    assert min(lost.values()) > 70


def test_of_equally_close_pairs_any_is_thinned():
    rule = ExtremePoints(counts=[3])
    lost = Counter(6 - rule(Target(disc((41, 41), (20, 20), 15)), rng(key))[1].sum() for key in range(400))
    assert sorted(lost) == [LEFT, TOP, RIGHT, BOTTOM]
    assert min(lost.values()) > 60


def test_two_points_are_what_is_left_of_three_in_the_same_way():
    points = np.array([(0, 10), (1, 0), (100, 10), (40, 30)])  # left and top are closest, then they and the bottom
    kept = {tuple(without_crowded(points, 2, rng(key)).tolist()) for key in range(100)}
    assert kept == {(0, 2), (1, 2), (2, 3)}  # the bottom is nearer to the left than to the right


@given(masks.filter(np.any), st.integers(0, 99))
def test_every_count_is_drawn_and_gives_so_many_points(mask, key):
    for count in (1, 2, 3, 4):
        xy, kinds = ExtremePoints(counts=[count])(Target(mask), rng(key))
        assert xy.shape == (count, 2)
        assert xy.dtype == np.float32
        assert len(set(kinds.tolist())) == count


def test_the_counts_of_a_recipe_are_drawn_alike():
    rule = ExtremePoints(counts=[3, 4])
    counts = Counter(len(rule(Target(WEDGE), rng(key))[0]) for key in range(300))
    assert set(counts) == {3, 4}
    assert min(counts.values()) > 110
    assert rule(Target(WEDGE), rng(3))[0].tolist() == rule(Target(WEDGE), rng(3))[0].tolist()


@pytest.mark.parametrize("counts", [[], [0], [3, 5]])
def test_other_counts_are_refused(counts):
    with pytest.raises(ValueError, match="counts of extreme points are some of 1, 2, 3 and 4, got"):
        ExtremePoints(counts=counts)


# --- clicks near the boundary


def test_near_the_boundary_of_a_disc_are_two_rings():
    mask = disc((101, 101), (50, 50), 30)
    inside, outside = near_boundary(mask, 5, 12)
    y, x = np.mgrid[:101, :101]
    radius = np.hypot(x - 50, y - 50)
    assert not inside[radius > 26].any()
    assert not inside[radius < 18].any()
    assert inside[(radius > 19.5) & (radius < 25)].all()
    assert outside[(radius > 36) & (radius < 41)].all()
    assert not outside[(radius < 34) | (radius > 43)].any()


def test_distances_are_counted_from_pixel_to_pixel_ends_included():
    mask = square((40, 40), top_left=(0, 0), side=(40, 20))  # the left half; beyond the crop is nothing
    inside, outside = near_boundary(mask, 3.5, 6)
    assert np.flatnonzero(inside[7]).tolist() == [14, 15, 16]  # 20 is the first pixel without the object
    assert np.flatnonzero(outside[7]).tolist() == [23, 24, 25]
    assert inside[0].any()


quarters = st.integers(0, 24).map(lambda n: n / 4)  # whose squares are exact, in single precision too


@given(masks, masks, quarters, quarters)
def test_areas_near_the_boundary_are_those_of_exact_distances(mask, void, near, more):
    areas = near_boundary(mask, near, near + more, void)
    for area, side in zip(areas, (mask > 0, mask == 0)):
        if side.all():
            assert not area.any()
            continue
        squared = np.rint(distance_transform_edt(side) ** 2)
        expected = side & (squared >= near**2) & (squared <= (near + more) ** 2) & (void == 0)
        np.testing.assert_array_equal(area, expected)


def refined(mask, key, void=None, **options):
    options = {"most": 2, "near": 5, "far": 12, **options}
    return RefinedPoints(ExtremePoints(), **options)(Target(mask, void), rng(key))


def test_training_clicks_say_on_which_side_of_the_boundary_they_are():
    mask = disc((101, 101), (50, 50), 30)
    inside, outside = near_boundary(mask, 5, 12)
    counts, kinds_seen = Counter(), Counter()
    for key in range(300):
        xy, kinds = refined(mask, key)
        assert xy[:4].tolist() == extreme_points(mask).tolist()
        assert kinds[:4].tolist() == list(EXTREME_KINDS)
        counts[len(xy) - 4] += 1
        for (x, y), kind in zip(xy[4:].astype(int), kinds[4:]):
            kinds_seen[kind] += 1
            assert (inside if kind == PointKind.POSITIVE else outside)[y, x]
    assert set(counts) == {0, 1, 2}
    assert min(counts.values()) > 70
    assert set(kinds_seen) == {PointKind.POSITIVE, PointKind.NEGATIVE}
    assert min(kinds_seen.values()) > 110


def test_a_thin_object_gets_no_click_inside_and_a_full_crop_none_outside():
    thin, full = square(80, top_left=(10, 36), side=(7, 60)), np.ones((60, 60), np.uint8)
    kinds = np.concatenate([refined(thin, key)[1][4:] for key in range(60)])
    assert set(kinds.tolist()) == {PointKind.NEGATIVE}
    assert all(len(refined(full, key)[0]) == 4 for key in range(20))  # no boundary at all


def test_no_training_click_falls_on_void():
    mask = disc((101, 101), (50, 50), 30)
    void = np.zeros_like(mask)
    void[:, :70] = 1
    x = np.concatenate([refined(mask, key, void)[0][4:, 0] for key in range(100)])
    assert len(x) > 50
    assert x.min() >= 70


def test_refinement_leaves_the_first_points_and_their_draws_alone():
    mask, jittered = disc((101, 101), (50, 50), 30), ExtremePoints("jitter", 4, counts=[3, 4])
    for key in range(20):
        first, _ = jittered(Target(mask), rng(key))
        both, kinds = RefinedPoints(jittered, near=5, far=12)(Target(mask), rng(key))
        assert both[: len(first)].tolist() == first.tolist()
        assert both.dtype == np.float32
        assert (kinds[len(first) :] >= PointKind.POSITIVE).all()
        assert both.tolist() == RefinedPoints(jittered, near=5, far=12)(Target(mask), rng(key))[0].tolist()


def test_the_box_is_that_of_the_first_points():
    class Drawn(SimulatedPoints):
        def __call__(self, target, draw):
            return extreme_points(target.mask), np.array(EXTREME_KINDS)

        def box(self, native_id):
            return np.array([1, 2, 3, 4])

    assert RefinedPoints(Drawn()).box("7").tolist() == [1, 2, 3, 4]
    assert RefinedPoints(ExtremePoints()).box("7") is None


@pytest.mark.parametrize("options", [{"most": -1}, {"near": 20, "far": 10}, {"near": -1}])
def test_distances_the_wrong_way_round_are_refused(options):
    with pytest.raises(ValueError, match="refined points need most >= 0 and 0 <= near <= far, got"):
        RefinedPoints(ExtremePoints(), **options)


# --- the click at test time


def test_the_largest_blob_is_of_one_kind():
    mask = square((20, 40), top_left=(2, 2), side=(6, 6))
    prediction = square((20, 40), top_left=(8, 8), side=(5, 5))  # 36 px missed and 25 invented touch at a corner
    prediction[4:13, 25:31] = 1  # 54 px invented
    pixels = largest_blob(mask, prediction)
    assert {tuple(p) for p in pixels.tolist()} == {(x, y) for x in range(25, 31) for y in range(4, 13)}
    click = sampled_blob(mask, prediction, draw=rng(0))
    assert not click.positive
    assert sampled_blob(mask, np.zeros_like(mask), draw=rng(0)).positive


def test_of_equal_blobs_of_both_kinds_the_first_in_raster_order_is_clicked():
    upper, lower = square(20, top_left=(10, 2), side=3), square(20, top_left=(2, 10), side=3)
    beside = square(20, top_left=(2, 2), side=3)
    for first, second in ((upper, lower), (beside, upper)):
        assert sampled_blob(first, second, draw=rng(0)).positive
        assert not sampled_blob(second, first, draw=rng(0)).positive


def test_every_pixel_of_the_blob_is_clicked_alike_and_earlier_clicks_do_not_matter():
    mask = square(12, top_left=(3, 3), side=2)
    draw = rng(1)
    drawn = Counter(sampled_blob(mask, 0 * mask, None, [(3, 3), (4, 3)], draw) for _ in range(800))
    assert sorted(drawn) == [Click(x, y, True) for x in (3, 4) for y in (3, 4)]
    assert min(drawn.values()) > 150


def test_void_parts_a_blob():
    mask = square((9, 30), top_left=(2, 2), side=(5, 24))
    void = square((9, 30), top_left=(10, 0), side=(9, 2))
    x = largest_blob(mask, 0 * mask, void)[:, 0]
    assert (x.min(), x.max(), len(x)) == (12, 25, 70)


@given(masks, masks, masks)
def test_no_component_of_either_kind_is_larger(mask, prediction, void):
    components = []
    for kind in ((mask > prediction) & (void == 0), (mask < prediction) & (void == 0)):
        labels, count = label(kind, np.ones((3, 3)))
        components += [{(int(x), int(y)) for y, x in np.argwhere(labels == k + 1)} for k in range(count)]
    found = {(int(x), int(y)) for x, y in largest_blob(mask, prediction, void)}
    click = RULES["fairs"](mask, prediction, void, None, rng(0))
    if not components:
        assert not found
        assert click is None
    else:
        assert found in components
        assert len(found) == max(map(len, components))
        first = min((c for c in components if len(c) == len(found)), key=lambda c: min((y, x) for x, y in c))
        assert found == first
        assert click[:2] in found
        assert click.positive == mask[click.y, click.x]


def test_the_rule_is_one_of_chance():
    with pytest.raises(ValueError, match="sampled_blob clicks by chance and needs a `draw`"):
        RULES["fairs"](np.ones((4, 5)), np.zeros((4, 5)))
