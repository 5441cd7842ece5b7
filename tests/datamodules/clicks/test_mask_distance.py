"""The mask channel of ITIS, against the authors' arrays and by a ruler."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clicks.mask_distance import MaskDistance, mask_channel, mask_distance
from tests.conftest import GOLDEN, square


@pytest.mark.parametrize("number", [0, 1, 2])
def test_distances_outside_of_the_mask_are_those_of_the_authors(number):
    with np.load(GOLDEN / "itis.npz") as itis:
        mask, expected = itis[f"mask_in_{number}"], itis[f"mask_udt_{number}"]
    for given_as in (np.uint8, bool, np.float32):
        np.testing.assert_allclose(mask_distance(mask.astype(given_as)), expected, atol=1e-6)


def test_the_channel_is_zero_on_the_mask_and_grows_to_one_at_128_pixels():
    channel = mask_distance(square((40, 300), top_left=(50, 10), side=(20, 30)))
    assert channel.dtype == np.float32
    assert (channel[10:30, 50:80] == 0).all()
    assert channel[20, 79 + 64] == 0.5
    assert channel[20, 79 + 127] == 127 / 128
    assert (channel[:, 79 + 128 :] == 1).all()
    assert channel[10 - 3, 50 - 4] == 5 / 128


def test_an_empty_mask_is_far_away_and_a_full_one_is_everywhere():
    assert (mask_distance(np.zeros((5, 7), bool)) == 1).all()
    assert (mask_distance(np.zeros((5, 7), bool), empty=0.25) == 0.25).all()
    assert (mask_distance(np.ones((5, 7), bool)) == 0).all()
    assert mask_distance(np.ones((1, 1), np.uint8)).tolist() == [[0]]


@given(st.lists(st.tuples(st.integers(0, 299), st.integers(0, 11)), min_size=1, max_size=5), st.booleans())
def test_every_pixel_holds_the_distance_to_the_nearest_pixel_of_the_mask(pixels, transposed):
    mask = np.zeros((12, 300), np.uint8)
    x, y = np.array(pixels).T
    mask[y, x] = 1
    rows, columns = np.mgrid[:12, :300]
    nearest = np.sqrt((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).min(-1)
    expected = np.minimum(nearest / 128, 1)
    ours = mask_distance(mask.T).T if transposed else mask_distance(mask)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_mask_has_the_same_channel_wherever_it_lies_in_memory():
    mask, memory = square((40, 60), (8, 2), 10), np.zeros(2400 + 64, np.uint8)
    for offset in range(64):
        shifted = memory[offset : offset + 2400].reshape(40, 60)
        shifted[:] = mask
        assert mask_distance(shifted).tobytes() == mask_distance(mask).tobytes()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_a_batch_is_the_channels_of_its_masks(dtype):
    masks = torch.stack([torch.from_numpy(square((40, 60), (4 * i, i), 10)) for i in range(5)])[:, None].to(dtype)
    channels = mask_channel(masks, 5, (40, 60))
    assert channels.shape == (5, 1, 40, 60)
    for mask, channel in zip(masks, channels, strict=True):
        np.testing.assert_array_equal(channel[0], mask_distance(mask[0].numpy()))
    assert torch.equal(mask_channel(masks[:1], 1, (40, 60)), channels[:1])


def test_no_mask_yet_is_an_empty_one_in_the_paper_and_the_opposite_in_the_code():
    masks = torch.zeros(3, 1, 8, 9, dtype=torch.int8)
    masks[1] = -1  # has none; the first is an empty prediction
    masks[2, 0, 3, 4] = 1
    paper, code = MaskDistance(), MaskDistance(unseen=0.0)
    assert (paper(masks, 3, (8, 9))[:2] == 1).all()
    assert code(masks, 3, (8, 9))[:2].amin((1, 2, 3)).tolist() == [1, 0]
    assert torch.equal(code(masks, 3, (8, 9))[2], paper(masks, 3, (8, 9))[2])
    assert torch.equal(code([masks[0], None, masks[2]], 3, (8, 9)), code(masks, 3, (8, 9)))
    assert torch.equal(code(None, 2, (8, 9)), torch.zeros(2, 1, 8, 9))
    assert torch.equal(paper(None, 2, (8, 9)), torch.ones(2, 1, 8, 9))


def test_masks_of_another_size_or_number_are_refused():
    with pytest.raises(ValueError, match=r"expected masks of shape \(1, 8, 9\), got one of \(1, 9, 8\)"):
        mask_channel(torch.zeros(2, 1, 9, 8), 2, (8, 9))
    with pytest.raises(ValueError, match="expected the masks of 3 objects, got 2"):
        mask_channel(torch.zeros(2, 1, 8, 9), 3, (8, 9))
    with pytest.raises(ValueError, match=r"expected one mask \(H, W\), got an array of shape \(1, 8, 9\)"):
        mask_distance(np.zeros((1, 8, 9)))
