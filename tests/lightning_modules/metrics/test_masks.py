import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_modules.metrics.masks import crop_iou, error_rate, object_iou, threshold_sweep
from tests.conftest import square

SHAPE = (6, 7)
masks = arrays(np.uint8, SHAPE, elements=st.integers(0, 1))
levels = np.array([0.3, 0.5, 0.8, 0.9])
# Values on, just beside and between the thresholds, and the little beyond 0 and 1 that cubic resizing makes.
values = st.sampled_from([-0.02, 0.0, 0.3, 0.31, 0.5, 0.79999, 0.8, 204 / 255, 0.80001, 0.9, 1.0, 1.02])


@pytest.fixture
def pairs(golden) -> dict[str, np.ndarray]:
    """Eight pairs of the authors' metric: 5 is empty and empty, 6 is predicted only in void, 7 has nothing but void."""
    shape = tuple(golden["jac_shape"])
    bits = {name: np.unpackbits(golden[f"jac_{name}"])[: np.prod(shape)] for name in ("gt", "pred", "void")}
    return {name: array.reshape(shape) for name, array in bits.items()}


@pytest.mark.parametrize("with_void", [False, True])
def test_object_iou_is_the_authors_jaccard(golden, pairs, with_void):
    ours = [
        object_iou(prediction, mask, void if with_void else None)
        for prediction, mask, void in zip(pairs["pred"], pairs["gt"], pairs["void"])
    ]
    np.testing.assert_allclose(ours, golden["jac_withvoid" if with_void else "jac_novoid"], atol=1e-6)


def test_crop_iou_is_object_iou_for_a_batch(golden, pairs):
    prediction, mask, void = (torch.from_numpy(pairs[name])[:, None] for name in ("pred", "gt", "void"))
    iou = crop_iou(prediction > 0, mask, void)
    assert iou.shape == (8,)
    np.testing.assert_allclose(iou, golden["jac_withvoid"], atol=1e-6)
    np.testing.assert_allclose(crop_iou(prediction, mask, torch.zeros_like(void)), golden["jac_novoid"], atol=1e-6)


def test_two_overlapping_squares():
    mask, prediction = square(20, (2, 3), 10), square(20, (7, 3), 10)  # 100 px each, 50 in common
    assert object_iou(prediction, mask) == pytest.approx(50 / 150)
    void = square(20, (12, 3), 10)  # the part that was invented is not labelled
    assert object_iou(prediction, mask, void) == pytest.approx(50 / 100)
    assert object_iou(255 * prediction, mask > 0, void > 0) == pytest.approx(0.5)


@given(masks, masks, masks)
def test_iou_is_symmetric_and_one_only_for_equal_masks(one, other, void):
    iou = object_iou(one, other, void)
    assert 0 <= iou <= 1
    assert iou == object_iou(other, one, void)
    assert (iou == 1) == np.array_equal(one[void == 0], other[void == 0])


@given(arrays(np.float32, SHAPE, elements=values.map(np.float32)), masks, st.none() | masks)
def test_a_sweep_is_the_object_iou_at_each_threshold(probability, mask, void):
    expected = [object_iou(probability > float(threshold), mask, void) for threshold in levels]
    np.testing.assert_allclose(threshold_sweep(probability, mask, void, levels), expected, atol=1e-12)
    single = threshold_sweep(probability, mask, void, levels.astype(np.float32))
    np.testing.assert_allclose(single, expected, atol=1e-12)


@given(arrays(np.float32, SHAPE, elements=values.map(np.float32)), masks, masks)
def test_a_sweep_over_a_window_counts_the_object_outside_of_it_as_missed(probability, mask, void):
    window = np.s_[1:5, 2:6]
    full = np.zeros(SHAPE, np.float32)
    full[window] = probability[window]
    missed = int((mask & ~void & 1).sum() - (mask & ~void & 1)[window].sum())
    inside = threshold_sweep(probability[window], mask[window], void[window], levels, outside=missed)
    np.testing.assert_allclose(inside, threshold_sweep(full, mask, void, levels), atol=1e-12)


def test_level_204_of_a_map_saved_in_8_bits_is_not_above_0_8():
    """204 / 255 is 0.8: the authors' comparison in single precision does not count it, nor may the sweep."""
    probability = np.array([[203, 204, 205]], np.uint8).astype(np.float32) / 255
    mask = np.array([[0, 0, 1]])
    assert (probability > 0.8).tolist() == [[False, False, True]]
    assert threshold_sweep(probability, mask, None, np.array([0.8])).tolist() == [1.0]


def test_errors_are_counted_in_the_box_and_not_where_nobody_labelled():
    mask, box = square(20, (5, 5), 8), np.array([4, 4, 13, 13])  # 100 px in the box, 64 of them object
    prediction = mask.copy()
    prediction[5:13, 11:13] = 0  # misses 16 px
    prediction[4, 4:8] = 1  # invents 4 px in the box
    prediction[15:, 15:] = 1  # and 25 outside
    assert error_rate(prediction, mask, None, box) == pytest.approx(20 / 100)
    void = np.zeros_like(mask)
    void[4] = 1  # ten pixels of the box, among them the four invented ones
    void[5, 12] = 1  # one that was missed
    assert error_rate(prediction, mask, void, box) == pytest.approx(15 / 89)
    assert error_rate(mask, mask, None, box) == 0
    assert error_rate(1 - mask, mask, void, box) == 1


def test_a_box_without_labelled_pixels_has_no_errors():
    mask = square(8, (2, 2), 3)
    assert error_rate(1 - mask, mask, np.ones_like(mask), np.array([2, 2, 4, 4])) == 0


def test_soft_masks_count_from_one_half_on_in_crops():
    mask = torch.tensor([0.49, 0.5, 1.0, 0.0]).view(1, 1, 2, 2)
    prediction = torch.tensor([False, True, True, False]).view(1, 1, 2, 2)
    assert crop_iou(prediction, mask, torch.zeros_like(mask)).tolist() == [1.0]


def test_a_probability_that_is_no_number_is_refused_and_not_counted_as_object():
    probability = np.full(SHAPE, 0.2, np.float32)
    probability[0, 0] = np.nan
    with pytest.raises(ValueError, match="a probability is NaN, of 1 of 42 pixels"):
        threshold_sweep(probability, np.ones(SHAPE, np.uint8), None, levels)
