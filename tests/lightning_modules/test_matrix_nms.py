"""Matrix and point NMS of SOLOv2: published values, what may never happen, and orders that must not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.matrix_nms import mask_ious, matrix_nms, point_nms
from tests.conftest import GOLDEN, square


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """What the published code answered."""
    with np.load(GOLDEN / "stage2.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith(("nms_", "pnms_"))}


def drawn(*corners: tuple[int, int]) -> torch.Tensor:
    """Squares of 10 pixels: IoU of two that are shifted by d to one side is (10 - d) / (10 + d)."""
    return torch.from_numpy(np.stack([square(40, corner, 10) for corner in corners])).bool()


@pytest.mark.parametrize(
    ("name", "options"),
    [("gaussian", {}), ("gaussian_sigma05", {"sigma": 0.5}), ("linear", {"decay": "linear"})],
)
def test_decayed_scores_are_the_published_ones(golden, name, options):
    masks, labels, scores = golden["nms_masks"].bool(), golden["nms_labels"], golden["nms_scores"]
    decayed = matrix_nms(masks, labels, scores, **options)
    torch.testing.assert_close(decayed, golden[f"nms_out_{name}"], rtol=1e-4, atol=1e-5)


def test_point_nms_is_the_published_one(golden):
    assert torch.equal(point_nms(golden["pnms_in"]), golden["pnms_out"])


def test_a_cell_is_compared_with_those_above_and_to_its_left_alone():
    scores = torch.tensor([[[[0.2, 0.3, 0.1], [0.1, 0.1, 0.1], [0.9, 0.8, 0.1]]]])
    assert torch.equal(
        point_nms(scores), torch.tensor([[[[0.2, 0.3, 0.0], [0.0, 0.0, 0.0], [0.9, 0.0, 0.0]]]])
    )  # 0.2 stays beside 0.3, which is to its right


def test_a_mask_alone_keeps_its_score_and_none_is_none():
    assert matrix_nms(drawn((3, 3)), torch.tensor([0]), torch.tensor([0.7])).tolist() == pytest.approx([0.7])
    assert len(matrix_nms(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0).long(), torch.zeros(0))) == 0


def test_masks_of_other_classes_and_masks_apart_leave_each_other_alone():
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert torch.equal(matrix_nms(drawn((0, 0), (0, 0), (20, 20)), torch.tensor([0, 1, 0]), scores), scores)


def test_who_is_suppressed_itself_suppresses_less():
    """Three in a row, shifted by 5: overlaps of neighbours are 1/3, the ends do not touch.

    The second falls by exp(-2/9), linearly by 2/3; the third's only rival is the second, whose own overlap is as large.
    """
    masks, labels, scores = drawn((0, 0), (5, 0), (10, 0)), torch.zeros(3), torch.tensor([0.9, 0.9, 0.9])
    factors = {"gaussian": math.exp(-2 / 9), "linear": 2 / 3}
    for decay, factor in factors.items():
        assert matrix_nms(masks, labels, scores, decay).tolist() == pytest.approx([0.9, 0.9 * factor, 0.9])


@pytest.mark.parametrize("decay", ["gaussian", "linear"])
def test_masks_that_are_equal_leave_numbers_behind(decay):
    """Linearly 0 / 0 in the naive form. The fourth overlaps the first by 1/3, and no twin makes that more or less."""
    masks, labels = drawn((0, 0), (0, 0), (0, 0), (5, 0)), torch.zeros(4)
    found = matrix_nms(masks, labels, torch.tensor([0.9, 0.8, 0.7, 0.6]), decay)
    alone = matrix_nms(masks[[0, 3]], labels[:2], torch.tensor([0.9, 0.6]), decay)
    assert found[0] == pytest.approx(0.9)
    assert (found[1:3] <= 0.8 * math.exp(-2) + 1e-6).all()
    assert found[3].item() == pytest.approx(alone[1].item())


def test_overlaps_are_those_counted_by_hand_and_two_empty_masks_have_none():
    masks = torch.cat([drawn((0, 0), (5, 0), (0, 8)), torch.zeros(2, 40, 40, dtype=torch.bool)])
    expected = torch.eye(5)
    expected[3, 3] = expected[4, 4] = 0
    expected[0, 1] = expected[1, 0] = 50 / 150
    expected[0, 2] = expected[2, 0] = 20 / 180
    expected[1, 2] = expected[2, 1] = 10 / 190
    torch.testing.assert_close(mask_ious(masks), expected)


def test_overlaps_are_counted_exactly_under_autocast_and_over_many_pixels():
    masks = torch.zeros(2, 120, 120, dtype=torch.bool)
    masks[0], masks[1].view(-1)[:14399] = True, True
    with torch.autocast("cpu", torch.bfloat16):
        overlap = mask_ious(masks)
    assert overlap.dtype == torch.float32
    assert overlap[0, 1].item() == pytest.approx(14399 / 14400, rel=1e-6)


scenes = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def scene(draw: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Up to eight squares of two classes, with scores that all differ."""
    count = int(draw.integers(1, 9))
    masks = drawn(*[(int(x), int(y)) for x, y in draw.integers(0, 12, (count, 2))])
    scores = torch.from_numpy(draw.permutation(np.arange(1, count + 1) / (count + 1)).astype(np.float32))
    return masks, torch.from_numpy(draw.integers(0, 2, count)), scores


@given(scenes, st.sampled_from(["gaussian", "linear"]))
def test_no_score_rises_none_falls_below_zero_and_the_best_of_a_class_stays(draw, decay):
    masks, labels, scores = scene(draw)
    decayed = matrix_nms(masks, labels, scores, decay)
    assert (decayed <= scores * (1 + 1e-6)).all()
    assert (decayed >= 0).all()
    for label in labels.unique():
        best = torch.where(labels == label, scores, -1).argmax()
        assert decayed[best] == scores[best]


@given(scenes, st.sampled_from(["gaussian", "linear"]))
def test_the_order_in_which_masks_come_does_not_matter(draw, decay):
    """Unsorted scores, which give wrong numbers silently where they are taken for sorted ones."""
    masks, labels, scores = scene(draw)
    order = torch.from_numpy(draw.permutation(len(scores)))
    shuffled = matrix_nms(masks[order], labels[order], scores[order], decay)
    torch.testing.assert_close(shuffled, matrix_nms(masks, labels, scores, decay)[order])


@given(scenes)
def test_each_class_is_decayed_as_if_it_were_alone(draw):
    masks, labels, scores = scene(draw)
    together = matrix_nms(masks, labels, scores)
    for label in labels.unique():
        own = labels == label
        torch.testing.assert_close(together[own], matrix_nms(masks[own], labels[own], scores[own]))


@given(scenes)
def test_names_of_classes_and_the_size_of_pixels_do_not_matter(draw):
    masks, labels, scores = scene(draw)
    coarse = masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(matrix_nms(coarse, 7 - labels, scores), matrix_nms(masks, labels, scores))
