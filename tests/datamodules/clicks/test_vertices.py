"""ExtremeNet's extreme points: on the vertices of an annotation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.errors import pixels_of, row_ends
from datamodules.clicks.extreme import tight_box
from datamodules.clicks.points import EXTREME_KINDS, Target
from datamodules.clicks.vertices import VertexPoints, onto_crop, vertex_extremes
from datamodules.keys import rng
from tests.conftest import GOLDEN, disc, square

TLBR = [1, 0, 3, 2]  # the golden arrays list top, left, bottom, right; we keep the order of a box

outlines = arrays(
    np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=st.integers(0, 40).map(lambda v: v / 2)
)


masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@pytest.fixture(scope="module")
def exits() -> dict[str, NDArray]:
    with np.load(GOLDEN / "exits.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("extreme/")}


@pytest.mark.parametrize("number", range(12))
def test_points_are_those_of_the_published_code(exits, number):
    outline = exits["extreme/points_padded"][number][: exits["extreme/lengths"][number]]
    assert vertex_extremes(outline)[TLBR].tolist() == exits["extreme/expected_tlbr_xy"][number].tolist()


@pytest.mark.parametrize("number", range(3))
def test_a_masks_pixels_by_rows_stand_for_an_outline_that_nobody_knows(exits, number):
    points, kinds = VertexPoints()(Target(exits["extreme/masks"][number]), rng(0))
    assert points[TLBR].tolist() == exits["extreme/expected_tlbr_xy"][9 + number].tolist()
    assert tuple(kinds) == EXTREME_KINDS


def test_a_walk_passes_the_lists_end_by_one_vertex_alone():
    """The bottom of this rectangle begins at the list's end; only the copy of one vertex stands behind it."""
    assert vertex_extremes(np.array([[10, 6], [74, 6], [74, 62], [10, 62]])).tolist() == [
        [10, 34],
        [42, 6],
        [74, 34],
        [10, 62],
    ]


def test_a_vertex_just_behind_a_side_counts_as_on_it():
    outline = np.array([[20, 0], [50, 2], [80, 1], [100, 50], [50, 99], [0, 50]])
    assert vertex_extremes(outline)[1].tolist() == [50, 0]  # within 2 % of 100 pixels: midway of 20 and 80
    assert vertex_extremes(outline, tolerance=0.0)[1].tolist() == [20, 0]
    assert vertex_extremes(outline, tolerance=0.01)[1].tolist() == [20, 0]  # the walk ends at the first that is farther


def test_places_may_be_of_any_type_of_number():
    outline = np.array([[20, 0], [50, 2], [80, 1], [100, 50], [50, 99], [0, 50]])
    for kind in (np.uint8, np.int16, np.float32):
        np.testing.assert_array_equal(vertex_extremes(outline.astype(kind)), vertex_extremes(outline))


def test_an_object_of_one_vertex_is_four_times_that_one():
    assert vertex_extremes(np.array([[7.6, 3.2]])).tolist() == [[7, 3]] * 4


@pytest.mark.parametrize("outline", [np.zeros((0, 2)), np.zeros(4), np.zeros((3, 3))])
def test_an_outline_without_a_vertex_is_refused(outline):
    with pytest.raises(ValueError, match=r"at least one vertex, \(n, 2\) as \(x, y\), got \("):
        vertex_extremes(outline)


def test_a_tolerance_is_a_share():
    with pytest.raises(ValueError, match="VertexPoints: tolerance must be between 0 and 1, got 2"):
        VertexPoints(tolerance=2)


@given(outlines)
def test_points_span_the_outlines_box_and_lie_in_it(outline):
    points = vertex_extremes(outline)
    low, high = np.trunc(outline.min(0)), np.trunc(outline.max(0))
    np.testing.assert_array_equal(points.min(0), low)
    np.testing.assert_array_equal(points.max(0), high)
    assert [points[0, 0], points[1, 1], points[2, 0], points[3, 1]] == [*low, *high]


@given(outlines)
def test_the_steps_are_those_of_the_rule_written_out(outline):
    around = [*outline[-1:], *outline, *outline[:1]]
    reach = 0.02 * (np.ptp(outline, axis=0) + 1)
    for point, (axis, sign) in zip(vertex_extremes(outline), ((0, 1), (1, 1), (0, -1), (1, -1))):
        side = min(sign * vertex[axis] for vertex in outline)
        first = next(n for n, vertex in enumerate(around) if sign * vertex[axis] == side)
        walked = []
        for way in (range(first, len(around)), range(first, -1, -1)):
            for n in way:
                if sign * around[n][axis] - side > reach[axis]:
                    break
                walked.append(around[n][1 - axis])
        assert point[1 - axis] == (max(walked) + min(walked)) // 2


def test_the_ends_of_rows_are_the_first_and_last_pixel_of_each_that_has_any():
    mask = square((9, 12), top_left=(3, 2), side=(2, 4)) | square((9, 12), top_left=(8, 3), side=(3, 1))
    assert row_ends(mask).tolist() == [[3, 2], [6, 2], [3, 3], [8, 3], [8, 4], [8, 4], [8, 5], [8, 5]]
    assert row_ends(np.zeros((4, 5), np.uint8)).shape == (0, 2)


@pytest.mark.parametrize("number", range(3))
def test_the_ends_of_rows_give_the_published_points_of_all_pixels(exits, number):
    points = vertex_extremes(row_ends(exits["extreme/masks"][number]))
    assert points[TLBR].tolist() == exits["extreme/expected_tlbr_xy"][9 + number].tolist()


@given(masks.filter(np.any), st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.5, 1.0]))
def test_the_ends_of_rows_are_all_pixels_to_extreme_points(mask, tolerance):
    """Ties, gaps in a row, rows without pixels and walks over the list's end included."""
    expected = vertex_extremes(pixels_of(mask), tolerance)
    np.testing.assert_array_equal(vertex_extremes(row_ends(mask), tolerance), expected)


def test_a_large_mask_takes_milliseconds():
    pixels = pixels_of(square((480, 640), top_left=(50, 20), side=(400, 520)) > 0)
    assert len(pixels) > 200_000
    vertex_extremes(pixels)
    spent = []
    for _ in range(3):
        start = time.process_time()
        vertex_extremes(pixels)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.05


# -- on a crop --------------------------------------------------------------------------------------------------------


def test_vertices_are_mapped_onto_the_crop():
    outline = np.array([[10, 20], [30, 12], [50, 22], [28, 40]])
    grid = geometry.box_to_grid(np.array([0, 0, 59, 49]), (100, 120))
    target = Target(disc((100, 120), (5, 5), 2), to_crop=grid, outline=lambda: outline)
    points, kinds = VertexPoints()(target, rng(0))
    np.testing.assert_allclose(points, geometry.apply(grid, outline), rtol=1e-6)
    assert tuple(kinds) == EXTREME_KINDS


@pytest.mark.parametrize("flips", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_left_is_left_most_in_a_crop_that_shows_the_image_flipped(flips):
    width, height = 60, 50
    outline = np.array([[10, 20], [30, 12], [50, 22], [28, 40]])
    flip = np.array([[flips[0], 0, 0 if flips[0] > 0 else width - 1], [0, flips[1], 0 if flips[1] > 0 else height - 1]])
    points = onto_crop(vertex_extremes(outline), flip.astype(float))
    left, top, right, bottom = points
    assert left[0] == points[:, 0].min()
    assert right[0] == points[:, 0].max()
    assert top[1] == points[:, 1].min()
    assert bottom[1] == points[:, 1].max()


def test_on_a_mask_of_the_crop_nothing_is_mapped():
    mask = square(40, top_left=(8, 9), side=(11, 12))
    points, _ = VertexPoints()(Target(mask, to_crop=np.array([[2.0, 0, 5], [0, 2.0, 7]])), rng(0))
    assert [points[0, 0], points[1, 1], points[2, 0], points[3, 1]] == tight_box(mask).tolist()


def test_points_on_vertices_say_themselves_in_words():
    assert VertexPoints.in_words({}) == "on vertices, tolerance 0.02"
