"""What SOLOv2 keeps of its maps: published detections, the order of its steps, and the sizes of masks."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from lightning_modules import solo_detections as module
from lightning_modules.matrix_nms import matrix_nms
from lightning_modules.networks.detections import Detections
from lightning_modules.solo_detections import full_size, mask_statistics, solo_detections
from tests.conftest import GOLDEN

STRIDES = (8, 8, 16, 32, 32)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """What the published code answered."""
    with np.load(GOLDEN / "stage2.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("inf_")}


def published(golden: dict[str, np.ndarray], decay: str) -> Detections:
    logits, kernels = (
        [torch.from_numpy(golden[f"inf_{part}_l{level}"][0]) for level in range(5)] for part in ("cate_logit", "kernel")
    )
    return solo_detections(
        logits,
        kernels,
        torch.from_numpy(golden["inf_feat"][0]),
        tuple(golden["inf_img_shape"].tolist()),
        tuple(golden["inf_ori_shape"].tolist()),
        partial(matrix_nms, decay=decay),
        strides=STRIDES,
    )


@pytest.mark.parametrize("decay", ["gaussian", "linear"])
@pytest.mark.parametrize("chunk", [1 << 24, 1])
def test_detections_are_those_of_the_published_code_however_few_masks_are_made_at_a_time(
    golden, decay, chunk, monkeypatch
):
    monkeypatch.setattr(module, "CHUNK", chunk)
    found = published(golden, decay)
    torch.testing.assert_close(found.scores, torch.from_numpy(golden[f"inf_scores_{decay}"]), rtol=1e-4, atol=1e-5)
    assert found.labels.tolist() == golden[f"inf_labels_{decay}"].tolist()
    width = int(golden["inf_ori_shape"][1])
    masks = np.unpackbits(golden[f"inf_masks_{decay}"], axis=-1, count=width).astype(bool)
    assert (found.masks.numpy() != masks).sum((1, 2)).max() <= 3


# One grid of 2 x 2 cells on 8 x 8 mask features: cell k's kernel picks the k-th feature, whose logits are a mask.
SQUARES = ((0, 0), (4, 0), (0, 4), (4, 4))


def found_in(
    scores: dict[tuple[int, int], float],
    sides: tuple[int, ...] = (4, 4, 4, 4),
    certain: float = 8.0,
    stride: float = 2,
    nms: Callable | None = None,
    size: tuple[int, int] = (32, 32),
    file: tuple[int, int] = (32, 32),
    **options: float,
) -> Detections:
    """Detections of scores by (cell, class); cells' masks are squares of these sides in the four quarters."""
    logits = torch.full((2, 4), -20.0)
    for (cell, label), score in scores.items():
        logits[label, cell] = np.log(score / (1 - score))
    features = torch.full((4, 8, 8), -certain)
    for feature, (x, y), side in zip(features, SQUARES, sides):
        feature[y : y + side, x : x + side] = certain
    return solo_detections(
        [logits.view(2, 2, 2)],
        [torch.eye(4).view(4, 2, 2)],
        features,
        size,
        file,
        nms or matrix_nms,
        strides=[stride],
        **options,
    )


def test_scores_of_cells_are_above_the_threshold_and_local_maxima():
    found = found_in({(0, 0): 0.9, (1, 0): 0.8, (3, 1): 0.2, (2, 1): 0.09})
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.2]), rtol=1e-3, atol=0)


def test_a_cell_may_be_of_two_classes_with_one_mask():
    found = found_in({(0, 0): 0.9, (0, 1): 0.5})
    assert found.labels.tolist() == [0, 1]
    assert torch.equal(*found.masks)
    assert found.masks[0].nonzero().amax(0).tolist() == [15, 15]


def test_a_mask_of_no_more_pixels_than_the_stride_is_none():
    scores = {(0, 0): 0.9, (3, 1): 0.8}
    assert found_in(scores, sides=(2, 4, 4, 4), stride=4).labels.tolist() == [1]
    assert found_in(scores, sides=(2, 4, 4, 4), stride=3.9).labels.tolist() == [0, 1]


def test_scores_are_multiplied_by_the_mean_probability_within_the_mask():
    (score,) = found_in({(0, 0): 0.9}, certain=0.5).scores.tolist()
    assert score == pytest.approx(0.9 / (1 + np.exp(-0.5)), rel=1e-5)


def test_maskness_comes_before_the_decay_and_ranks_masks_for_it():
    """nms sees scores that are multiplied already, best first, and no more than `candidates`."""
    seen = []

    def nms(masks: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append((masks.shape, labels.tolist(), scores.tolist()))
        return scores * torch.tensor([0.1, 0.9])

    found = found_in({(0, 0): 0.9, (3, 1): 0.8, (2, 1): 0.7}, certain=0.5, nms=nms, candidates=2)
    (shape, labels, scores) = seen[0]
    maskness = 1 / (1 + np.exp(-0.5))
    assert shape == (2, 8, 8)
    assert labels == [0, 1]
    assert scores == pytest.approx([0.9 * maskness, 0.8 * maskness], rel=1e-5)
    assert found.scores.tolist() == pytest.approx([0.8 * maskness * 0.9, 0.9 * maskness * 0.1], rel=1e-5)
    assert found.masks[0, 31, 31]  # the mask went along


def test_final_scores_of_the_threshold_are_kept_and_those_below_are_not():
    def half(masks: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.05, 0.0499])

    assert len(found_in({(0, 0): 0.9, (3, 1): 0.8}, nms=half).scores) == 1


def test_the_best_are_kept_when_there_are_too_many():
    assert found_in({(3, 0): 0.8, (3, 1): 0.9}, most=1).labels.tolist() == [1]


@pytest.mark.parametrize("scores", [{}, {(0, 0): 0.05}])
def test_nothing_found_is_an_empty_answer_of_the_file_s_size(scores):
    found = found_in(scores, file=(50, 70))
    assert (found.scores.shape, found.labels.shape, found.masks.shape) == ((0,), (0,), (0, 50, 70))
    assert (found.scores.dtype, found.labels.dtype, found.masks.dtype) == (torch.float32, torch.int64, torch.bool)


def test_padding_is_cut_away_before_the_mask_gets_the_size_of_the_file():
    """Of 32 x 32 pixels 32 x 24 are the image; the second quarter's 16..31 are then two thirds to the end."""
    (mask,) = found_in({(1, 0): 0.9}, size=(32, 24), file=(64, 48)).masks
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    assert (columns.min(), columns.max()) == (32, 47)
    assert (rows.min(), rows.max()) == (0, 31)


def test_probabilities_are_resized_and_not_masks():
    """Between 0.9 and 0.2 the border of one half lies at four sevenths of the way, not in the middle."""
    soft = torch.tensor([[[0.9, 0.2]]])
    profile = full_size(soft, (4, 8), (4, 64))[0, 0]
    border = (profile > 0.5).sum().item() / 8 - 0.5  # in pixels of the padded image
    assert border == pytest.approx(1.5 + 4 * 4 / 7, abs=0.15)


def test_statistics_of_masks_are_area_and_mean_within():
    kernels, features = torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[[1.0, 1.0, -2.0]]])
    area, certainty = mask_statistics(kernels, features, 0.5)
    assert area.tolist() == [2, 1, 0]
    sigmoid = 1 / (1 + np.exp([-1.0, -2.0]))
    assert certainty.tolist() == pytest.approx([*sigmoid, 0])
