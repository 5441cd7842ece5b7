import numpy as np
import pytest

from experiments.evaluation.guesses import Ellipse, GrabCut
from lightning_modules.metrics.masks import object_iou
from tests.conftest import disc, square


def painted(mask, inside, outside):
    """An image of two colours with a little noise."""
    noise = np.random.default_rng(0).integers(-12, 13, (*mask.shape, 3))
    colours = np.where(mask[..., None] > 0, np.array(inside), np.array(outside))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def test_the_ellipse_of_a_square_box_is_its_disc_and_touches_all_four_sides():
    mask = Ellipse().mask(np.zeros((40, 50, 3), np.uint8), np.array([10, 5, 30, 25]))
    assert object_iou(mask, disc((40, 50), (20, 15), 10.5)) == 1
    ys, xs = mask.nonzero()
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (10, 5, 30, 25)


def test_the_ellipse_of_one_pixel_is_that_pixel():
    assert np.argwhere(Ellipse().mask(np.zeros((4, 4, 3), np.uint8), np.array([2, 1, 2, 1]))).tolist() == [[1, 2]]


def test_grabcut_finds_what_has_another_colour_than_its_surroundings():
    truth = disc((60, 80), (40, 30), 15)
    image = painted(truth, (200, 40, 40), (30, 90, 160))
    box = np.array([25, 15, 55, 45])
    assert object_iou(GrabCut().mask(image, box), truth) > 0.97
    assert object_iou(Ellipse().mask(image, box), truth) > 0.9


def test_grabcut_says_the_same_again():
    image = np.random.default_rng(1).integers(0, 256, (50, 50, 3), np.uint8)
    first, second = (GrabCut().mask(image, np.array([10, 10, 35, 35])) for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("box", [(0, 0, 39, 29), (38, 28, 39, 29)])
def test_grabcut_of_a_whole_image_or_of_its_corner_stays_in_the_image(box):
    image = painted(square((30, 40), (0, 0), 5), (250, 250, 250), (10, 10, 10))
    mask = GrabCut().mask(image, np.array(box))
    assert mask.shape == (30, 40)
    assert mask.any()
