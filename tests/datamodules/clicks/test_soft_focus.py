import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from datamodules.clicks.guidance import gaussian_map
from datamodules.clicks.points import PointKind, Points
from datamodules.clicks.soft_focus import SoftFocus, box_without_margin, focus, potential, soft_focus

LEFT, TOP, RIGHT, BOTTOM = PointKind.LEFT, PointKind.TOP, PointKind.RIGHT, PointKind.BOTTOM
POSITIVE, NEGATIVE, PADDING = PointKind.POSITIVE, PointKind.NEGATIVE, PointKind.PADDING
CROSS = [(0, 50, LEFT), (50, 0, TOP), (100, 50, RIGHT), (50, 100, BOTTOM)]  # the method sheet's example
SIZE = (40, 48)

coordinates = st.one_of(st.floats(0, 39, width=32), st.integers(0, 39).map(float))
xy = st.tuples(coordinates, coordinates)
extremes = st.lists(xy, min_size=1, max_size=4).map(lambda p: [(*at, kind) for at, kind in zip(p, list(PointKind)[1:])])
corrections = st.lists(st.tuples(coordinates, coordinates, st.sampled_from([POSITIVE, NEGATIVE])), max_size=3)
clicked = st.tuples(extremes, corrections).map(lambda both: both[0] + both[1])


def batch(*objects, scale=1.0) -> Points:
    """Objects' clicks (x, y, kind) as padded points."""
    longest = max(map(len, objects), default=0)
    points, kinds = torch.zeros(len(objects), longest, 2), torch.full((len(objects), longest), int(PADDING))
    for i, clicks in enumerate(objects):
        for k, (x, y, kind) in enumerate(clicks):
            points[i, k], kinds[i, k] = torch.tensor([x, y]), int(kind)
    return Points(points, kinds, torch.full((len(objects), 2), float(scale)))


def drawn(clicks, size=SIZE, **options):
    return SoftFocus(**{"fwhm": 10, **options})(batch(clicks), size)[0, 0].double().numpy()


def as_printed(clicks, size, beta=5.0, order=2.0, fwhm=10.0, polarity="paper", normalise="crop", power="last"):
    """Sec. 3.1 formula by formula, pixel by pixel, in double precision."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    of = {kind: [(a, b) for a, b, k in clicks if k == kind] for kind in (POSITIVE, NEGATIVE)}
    u = np.array([(a, b) for a, b, k in clicks if k not in (POSITIVE, NEGATIVE)])

    def g(points):
        bumps = [np.exp(-4 * np.log(2) * ((x - a) ** 2 + (y - b) ** 2) / fwhm**2) for a, b in points]
        return np.max([np.zeros(size), *bumps], axis=0)

    pi = sum((np.abs(x - a) ** order + np.abs(y - b) ** order) ** (1 / order) for a, b in u)
    before, after = (1, beta) if power == "last" else (beta, 1)  # eq. 1: the power comes after N
    inverse = (pi.min() / pi) ** before
    (x0, y0), (x1, y1) = u.min(0), u.max(0)
    box = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    seen = inverse[box] if normalise == "box" else inverse
    hat = ((inverse - seen.min()) / (seen.max() - seen.min())).clip(0) ** after * box
    false_negatives, false_positives = of[POSITIVE], of[NEGATIVE]
    if polarity == "swapped":
        false_negatives, false_positives = false_positives, false_negatives
    lower = 1 - g(false_negatives)
    tilde = np.where(hat < lower, hat, lower)  # eq. 2
    return np.maximum(np.maximum(tilde, g(false_positives)), g(u))  # eq. 3, then step 4


# --- the potential


def test_one_point_makes_circles_and_two_make_ellipses():
    circle = potential(*pair((20, 15)), SIZE)[0, 0]
    assert circle[15, 33] == circle[28, 20] == circle[20, 8] == 13  # 13 = |(5, 12)|
    ellipse = potential(*pair((10, 20), (18, 20)), SIZE)[0, 0]
    assert ellipse[20, 9] == ellipse[20, 19] == ellipse[23, 14] == ellipse[17, 14] == 10  # half axes 5 and 3
    assert (ellipse[20, 10:19] == 8).all()  # between the foci


def pair(*points):
    return torch.tensor([points], dtype=torch.float32), torch.ones(1, len(points), dtype=torch.bool)


def test_the_potential_of_the_sheets_cross():
    pi = potential(*pair(*[at[:2] for at in CROSS]), (101, 101))[0, 0]
    assert pi[50, 50] == pi.min() == 200
    assert pi[25, 50].item() == pytest.approx(211.803, abs=1e-3)


def test_the_focus_falls_off_as_in_the_sheet():
    size = (101, 101)
    field = drawn(CROSS, size, fwhm=1.0)  # Gaussians that do not reach the middle
    corner = 200 / potential(*pair(*[at[:2] for at in CROSS]), size).max().item()
    assert field[50, 50] == pytest.approx(1)
    assert field[25, 50] == pytest.approx(((200 / 211.803 - corner) / (1 - corner)) ** 5, abs=1e-4)
    power_first = drawn(CROSS, size, fwhm=1.0, power="first")
    assert power_first[25, 50] * (1 - corner**5) + corner**5 == pytest.approx(0.7507, abs=1e-4)


def test_normalising_before_the_power_is_the_narrower_focus():
    """The sheet's figures inside of a typical box, with a margin of 50 at 512: 0.31 as printed, 0.49 the other way."""
    clicks = [(50, 150, LEFT), (300, 50, TOP), (461, 330, RIGHT), (200, 461, BOTTOM)]
    last, first = (drawn(clicks, (512, 512), fwhm=0.1, power=power)[50:462, 50:462] for power in ("last", "first"))
    assert (last <= first + 1e-6).all()
    assert [last.mean(), first.mean()] == pytest.approx([0.313, 0.489], abs=0.03)


@given(st.lists(xy, min_size=1, max_size=4), st.tuples(xy, xy), st.sampled_from([1.0, 1.5, 2.0, 3.0, np.inf]))
def test_the_potential_is_convex_along_every_line(points, ends, order):
    (ax, ay), (bx, by) = np.round(ends).astype(int)
    assume((ax + bx) % 2 == 0 and (ay + by) % 2 == 0)
    pi = potential(*pair(*points), SIZE, order)[0, 0]
    assert pi[(ay + by) // 2, (ax + bx) // 2] <= (pi[ay, ax] + pi[by, bx]) / 2 + 1e-3


@pytest.mark.parametrize(("order", "length"), [(1, 7), (2, 5), (3, 91 ** (1 / 3)), (np.inf, 4)])
def test_the_norm_order_is_that_of_the_distances(order, length):
    assert potential(*pair((10, 10)), SIZE, order)[0, 0, 14, 13].item() == pytest.approx(length, abs=1e-5)


# --- the focus


def test_the_focus_of_a_convex_quadrilateral_is_where_its_diagonals_cross():
    assert focus([[(0, 50), (50, 0), (100, 50), (50, 100)]]).tolist() == [[50, 50]]
    np.testing.assert_allclose(focus([[(0, 2), (4, 0), (8, 2), (4, 10)]]), [[4, 2]])
    np.testing.assert_allclose(focus([[(0, 2), (4, 0), (4, 10), (8, 2)]]), [[4, 2]])  # in any order


def test_a_point_between_the_others_is_their_focus():
    assert focus([[(0, 0), (10, 0), (4, 3), (4, 10)]]).tolist() == [[4, 3]]
    assert focus([[(3, 3), (3, 3), (20, 4), (1, 15)]]).tolist() == [[3, 3]]  # two points at one place
    assert focus([[(3, 3)] * 4]).tolist() == [[3, 3]]
    assert focus([[(0, 0), (2, 2), (6, 6), (9, 9)]]).tolist() == [[4, 4]]  # on a line: the middle of all foci


@given(st.lists(xy, min_size=4, max_size=4))
def test_nowhere_near_the_focus_is_the_potential_lower(points):
    points = np.array(points, np.float64)
    (found,) = focus(points[None])
    angles = np.linspace(0, 2 * np.pi, 64)
    around = [found + radius * np.stack([np.cos(angles), np.sin(angles)], 1) for radius in (1e-3, 0.1, 3)]
    others = np.concatenate([*around, points, points.mean(0)[None]])

    def pi(at):
        return np.linalg.norm(at[:, None] - points, axis=-1).sum(1)

    assert pi(found[None]) <= pi(others).min() + 1e-9


def test_a_focus_takes_four_points():
    with pytest.raises(ValueError, match=r"four extreme points, \(N, 4, 2\), got \(2, 3, 2\)"):
        focus(np.zeros((2, 3, 2)))


# --- the map


@given(
    clicked,
    st.sampled_from([1.0, 2.5, 5.0, 12.0]),
    st.sampled_from([1.0, 2.0, 4.0]),
    st.sampled_from(["paper", "swapped"]),
    st.sampled_from(["last", "first"]),
)
def test_the_map_is_that_of_the_printed_formulas(clicks, beta, order, polarity, power):
    u = np.array([click[:2] for click in clicks if click[2] <= BOTTOM])
    ends = np.array([u.min(0), u.max(0)])
    assume((np.floor(ends[1]) >= np.ceil(ends[0])).all())  # a box that holds no pixel's middle is grown, see below
    pi = potential(*pair(*u.tolist()), SIZE, order)
    assume(pi.min() > 1e-2)
    ours = drawn(clicks, beta=beta, norm_order=order, polarity=polarity, power=power)
    np.testing.assert_allclose(ours, as_printed(clicks, SIZE, beta, order, polarity=polarity, power=power), atol=2e-5)
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_the_map_may_be_stretched_inside_the_box_alone():
    clicks = [(8, 20, LEFT), (22, 6, TOP), (38, 18, RIGHT), (20, 31, BOTTOM)]
    in_box, over_crop = drawn(clicks, normalise="box", fwhm=0.5), drawn(clicks, fwhm=0.5)
    np.testing.assert_allclose(in_box, as_printed(clicks, SIZE, fwhm=0.5, normalise="box"), atol=1e-5)
    assert in_box[6:32, 8:39].min() == 0
    assert over_crop[6:32, 8:39].min() > 1e-3


@given(clicked, st.randoms(use_true_random=False))
def test_neither_the_order_of_clicks_nor_padding_matters(clicks, random):
    mixed = [*clicks, (3, 4, PADDING), (30, 2, PADDING)]
    random.shuffle(mixed)
    np.testing.assert_allclose(drawn(mixed), drawn(clicks), atol=1e-5)


@given(st.lists(clicked | st.just([]), min_size=1, max_size=3))
def test_a_batch_is_the_maps_of_its_objects(objects):
    for guidance in (SoftFocus(fwhm=10), SoftFocus(std=4, normalise="box", polarity="swapped", norm_order=1)):
        together = guidance(batch(*objects), SIZE)
        assert together.shape == (len(objects), 1, *SIZE)
        for i, clicks in enumerate(objects):
            assert torch.equal(together[i], guidance(batch(clicks), SIZE)[0])


def test_the_map_moves_with_its_clicks_and_scales_with_the_crop():
    clicks = [(10, 20, LEFT), (22, 12, TOP), (30, 18, RIGHT), (20, 27, BOTTOM), (17, 20, POSITIVE)]
    here = drawn(clicks, (64, 64), normalise="box")
    there = drawn([(x + 9, y + 5, kind) for x, y, kind in clicks], (64, 64), normalise="box")
    np.testing.assert_allclose(there[5:, 9:], here[:-5, :-9], atol=1e-6)
    large = drawn([(2 * x, 2 * y, kind) for x, y, kind in clicks], (127, 127), fwhm=20)
    np.testing.assert_allclose(large[::2, ::2], drawn(clicks, (64, 64)), atol=1e-6)


def test_a_higher_beta_is_a_narrower_focus():
    wide, narrow = (drawn(CROSS, (101, 101), beta=beta, fwhm=1) for beta in (1, 10))
    assert (narrow <= wide + 1e-6).all()
    assert narrow[25, 50] < 0.6 < wide[25, 50]


# --- the box


def test_outside_of_the_points_box_there_are_only_the_bumps():
    clicks = [(10, 20, LEFT), (22, 12, TOP), (30, 18, RIGHT), (20, 27, BOTTOM)]
    field, bumps = drawn(clicks, fwhm=4), gaussian_map(batch(clicks).xy, batch(clicks).valid, SIZE, 4)[0, 0].numpy()
    inside = np.zeros(SIZE, bool)
    inside[12:28, 10:31] = True  # both ends inclusive
    np.testing.assert_allclose(field[~inside], bumps[~inside], atol=1e-6)
    assert (field[inside] > 0.01).all()


def test_a_box_without_width_has_one_column():
    clicks = [(20, 5, TOP), (20, 30, BOTTOM)]
    field = drawn(clicks, fwhm=0.5)
    assert field[5:31, 20] == pytest.approx(1)  # the line between two foci
    assert field[:, [19, 21]] == pytest.approx(0, abs=1e-4)
    between_pixels = drawn([(20.4, 5, TOP), (20.4, 30, BOTTOM)], fwhm=0.5)
    assert between_pixels[17, 20] == pytest.approx(1)
    assert between_pixels[17, 19] == between_pixels[17, 21] == 0


def test_the_box_may_be_that_of_the_crop_which_a_lost_point_does_not_shrink():
    clicks = [(10, 20, LEFT), (22, 11, TOP), (30, 18, RIGHT)]  # the bottom is lost
    guidance = SoftFocus(fwhm=0.5, box="crop", relax=3)
    field = guidance(batch(clicks, scale=2.0), SIZE)[0, 0]  # 3 pixels of the image are 6 of the crop
    rows, columns = (field > 1e-6).any(1).nonzero()[:, 0], (field > 1e-6).any(0).nonzero()[:, 0]
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [6, 33, 6, 41]
    assert drawn(clicks, fwhm=0.5)[21:].max() < 1e-3  # of the points: nothing below the lowest


def test_the_crops_box_is_the_objects_pixels():
    """10 x 20 pixels with a margin of 5 on a crop of 60 x 60: 3 x 2 crop pixels each."""
    box = box_without_margin(torch.tensor([[3.0, 2.0]]), (60, 60), 5)[0]
    assert box.ceil()[:2].tolist() == [15, 10]
    assert box.floor()[2:].tolist() == [44, 49]


# --- clicks, in the order of the paper


OBJECT = [(10, 20, LEFT), (22, 8, TOP), (36, 18, RIGHT), (24, 32, BOTTOM)]


def test_false_negatives_dig_holes_and_false_positives_raise_bumps_as_printed():
    before = drawn(OBJECT, fwhm=4)
    hole = drawn([*OBJECT, (22, 20, POSITIVE)], fwhm=4)
    assert before[20, 22] > 0.5
    assert hole[20, 22] < 1e-9
    bump = drawn([*OBJECT, (44, 36, NEGATIVE)], fwhm=4)  # outside of the box, where a hole would not show
    assert bump[36, 44] == 1
    assert before[36, 44] < 1e-6
    assert np.array_equal(drawn([*OBJECT, (44, 36, POSITIVE)], fwhm=4), before)


def test_a_lowering_click_beside_an_extreme_point_does_not_erase_it():
    field = drawn([*OBJECT, (11, 20, POSITIVE)], fwhm=4)
    assert field[20, 10] == 1


def test_a_raising_click_stays_where_another_lowers():
    field = drawn([*OBJECT, (22, 20, POSITIVE), (23, 20, NEGATIVE)], fwhm=4)
    assert field[20, 23] == 1
    assert field[20, 22] == pytest.approx(2 ** -(4 / 16), abs=1e-6)  # what the bump, one pixel away, leaves of the hole


@given(clicked)
def test_swapped_polarity_is_the_same_with_the_other_kinds(clicks):
    other = {POSITIVE: NEGATIVE, NEGATIVE: POSITIVE}
    mirrored = [(x, y, other.get(kind, kind)) for x, y, kind in clicks]
    assert np.array_equal(drawn(clicks, polarity="swapped"), drawn(mirrored))


def test_without_extreme_points_only_raised_bumps_are_left():
    assert drawn([]).max() == 0
    none = Points(torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.long), torch.ones(2, 2))
    assert SoftFocus(fwhm=10)(none, SIZE).shape == (2, 1, *SIZE)
    clicks = [(20, 10, NEGATIVE), (30, 30, POSITIVE), (5, 5, PointKind.INSIDE)]
    bump = gaussian_map(torch.tensor([[[20.0, 10.0]]]), torch.tensor([[True]]), SIZE)[0, 0].numpy()
    np.testing.assert_allclose(drawn(clicks), bump, atol=1e-7)
    assert drawn([(20, 10, NEGATIVE)], box="crop", relax=2).sum() == pytest.approx(bump.sum())


# --- numbers


@pytest.mark.parametrize("beta", [1, 5, 50])
@pytest.mark.parametrize("normalise", ["crop", "box"])
@pytest.mark.parametrize(
    "points",
    [
        [(7, 9)] * 4,
        [(-4000, 10), (4000, 20), (3, -9000), (5, 8000)],
        [(900, 900)],
        [(0, 0), (511, 511)],
        [(-50, -60), (-40, -60), (-40, -50)],
        [(1e-7, 0), (511, 3e-7)],
    ],
)
def test_far_and_coincident_points_give_numbers_at_full_size(points, beta, normalise):
    field = drawn([(x, y, LEFT) for x, y in points], (512, 512), beta=beta, normalise=normalise)
    assert np.isfinite(field).all()
    assert 0 <= field.min() <= field.max() <= 1


def test_an_object_of_one_pixel_is_its_bump():
    field = drawn([(7, 9, LEFT), (7, 9, TOP), (7, 9, RIGHT), (7, 9, BOTTOM)])
    np.testing.assert_allclose(field, gaussian_map(*pair((7, 9)), SIZE)[0, 0], atol=1e-6)
    assert drawn([(0, 0, LEFT)], (1, 1)).tolist() == [[1]]


def test_the_map_is_drawn_in_single_precision_whatever_surrounds_it():
    points, guidance = batch(OBJECT), SoftFocus(fwhm=10)
    expected = guidance(points, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = guidance(points, SIZE)
    assert expected.dtype == inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    double = soft_focus(points.xy.double(), points.valid, SIZE)
    assert double.dtype == torch.float32
    assert torch.equal(double, expected)


def test_a_soft_focus_has_one_channel_and_cannot_be_added_to():
    guidance = SoftFocus(fwhm=10)
    assert guidance.channels == 1
    assert torch.equal(guidance.blank(2, SIZE), torch.zeros(2, 1, *SIZE))
    with pytest.raises(ValueError, match=r"depends on all of its clicks at once .* call the guidance with all clicks"):
        guidance.add(guidance.blank(1, SIZE), batch(OBJECT))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fwhm": None}, "needs either fwhm or std"),
        ({"std": 4}, "needs either fwhm or std"),
        ({"beta": 0}, "beta of a guidance map must be positive, got 0"),
        ({"norm_order": 0.5}, "order 1 or more, up to .inf, got 0.5"),
        ({"polarity": "raised"}, "polarity of a soft focus is one of paper, swapped, got 'raised'"),
        ({"power": "printed"}, "power of a soft focus is one of last, first, got 'printed'"),
        ({"normalise": "image"}, "one of crop, box, got 'image'"),
        ({"box": "mask"}, "one of points, crop, got 'mask'"),
        ({"box": "crop"}, "needs the crop's margin as `relax`"),
    ],
)
def test_what_a_soft_focus_cannot_be_is_said_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SoftFocus(**{"fwhm": 10, **options})
