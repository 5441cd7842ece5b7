"""What stands in for an object without a mask: the pixels of its box, or of the quadrilateral of its extreme points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clicks.points import EXTREME_KINDS
from experiments.labelling.standing import filled_box, filled_quadrilateral, is_thin
from tests.conftest import square

SIZE = (12, 16)


def test_a_box_is_thin_that_touches_two_pixels_at_most():
    assert is_thin(np.array([3, 4, 4, 9]))  # two columns
    assert is_thin(np.array([3, 4, 9, 4]))  # one row
    assert not is_thin(np.array([3, 4, 5, 6]))


def test_a_box_is_filled_as_far_as_it_lies_in_the_image():
    assert np.array_equal(filled_box(np.array([2, 3, 5, 6]), SIZE), square(SIZE, (2, 3), 4))
    assert np.array_equal(filled_box(np.array([12, 9, 20, 30]), SIZE), square(SIZE, (12, 9), (3, 4)))


def test_a_quadrilateral_is_filled_up_to_its_corners_in_whatever_order_they_come():
    points = np.array([[1.2, 5], [5, 0.9], [9, 4.8], [5, 9]])  # of a diamond around (5, 5)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    diamond = (abs(x - 5) + abs(y - 5) <= 4).astype(np.uint8)
    assert np.array_equal(filled_quadrilateral(points, EXTREME_KINDS, SIZE), diamond)
    order = [2, 0, 3, 1]
    kinds = [EXTREME_KINDS[k] for k in order]
    assert np.array_equal(filled_quadrilateral(points[order], kinds, SIZE), diamond)


def test_four_points_on_one_pixel_are_that_pixel():
    mask = filled_quadrilateral(np.full((4, 2), 7.0), EXTREME_KINDS, SIZE)
    assert np.argwhere(mask).tolist() == [[7, 7]]


def test_fewer_than_four_extreme_points_are_refused():
    with pytest.raises(ValueError, match="of the four extreme points, got 3 of them; fill the box instead"):
        filled_quadrilateral(np.zeros((3, 2)), EXTREME_KINDS[:3], SIZE)


sides = st.tuples(st.integers(-5, 20), st.integers(-5, 20), st.integers(0, 20), st.integers(0, 20))


@given(sides, st.tuples(*[st.floats(0, 1)] * 4))
def test_what_stands_in_is_never_empty_and_stays_in_the_box(box, shares):
    x, y, width, height = box
    filled = filled_box(np.array([x, y, x + width, y + height]), SIZE)
    assert filled.any()
    across, down = (
        [x + round(share * width) for share in shares[:2]],
        [y + round(share * height) for share in shares[2:]],
    )
    points = np.array([[x, down[0]], [across[0], y], [x + width, down[1]], [across[1], y + height]], float)
    quadrilateral = filled_quadrilateral(points, EXTREME_KINDS, SIZE)
    assert quadrilateral.any()
    assert not (quadrilateral & ~filled & 1).any()
