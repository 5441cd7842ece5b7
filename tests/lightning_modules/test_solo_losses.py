"""SOLOv2's two terms: the published values, what one batch without objects learns, and whom dice is averaged over."""

import numpy as np
import pytest
import torch

from lightning_modules.solo_losses import dynamic_logits, solo_class_loss, solo_mask_loss
from lightning_modules.solo_targets import SoloTargets, solo_targets
from lightning_modules.weak_losses import dice
from tests.conftest import GOLDEN
from tests.lightning_modules.test_solo_targets import GRIDS, RANGES


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """What the published code answered."""
    kinds = ("tgt_", "dice_", "focal_", "loss_")
    with np.load(GOLDEN / "stage2.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files if name.startswith(kinds)}


def some_targets(cells: list[int], objects: list[int], masks: torch.Tensor, total: int = 9) -> SoloTargets:
    classes = torch.full((total,), 2)
    classes[cells] = 0
    return SoloTargets(classes, torch.tensor(cells).long(), torch.tensor(objects).long(), masks)


def test_dice_is_the_published_one(golden):
    torch.testing.assert_close(dice(golden["dice_in"], golden["dice_target"]), golden["dice_out"], rtol=1e-4, atol=1e-5)


def test_the_focal_loss_is_the_published_one(golden):
    logits, labels = golden["focal_logits"], golden["focal_labels"]
    loss = solo_class_loss(logits, labels)
    torch.testing.assert_close(loss.double(), golden["focal_sum_over_npos_plus1"], rtol=1e-4, atol=1e-5)
    one = solo_class_loss(logits[:1], labels[:1])
    summed = golden["focal_elem"][0].sum()
    torch.testing.assert_close(one, summed / (1 + (labels[0] < 4)), rtol=1e-4, atol=1e-5)


def test_both_terms_of_a_whole_image_are_the_published_ones(golden):
    targets = solo_targets(golden["tgt_masks"], golden["tgt_boxes"], golden["tgt_labels"], 3, GRIDS, RANGES)
    logits, kernels = (
        torch.cat([golden[f"loss_{part}_pred_l{level}"].flatten(2) for level in range(5)], 2).mT
        for part in ("cate", "kernel")
    )
    mask = 3 * solo_mask_loss(kernels, golden["loss_mask_feat"].float(), [targets])
    torch.testing.assert_close(mask.double(), golden["loss_ins"], rtol=1e-4, atol=1e-5)
    label = solo_class_loss(logits, targets.classes[None])
    torch.testing.assert_close(label.double(), golden["loss_cate"], rtol=1e-4, atol=1e-5)


def test_a_mask_is_a_convolution_of_one_pixel_by_the_cell_s_numbers():
    kernels, features = torch.randn(5, 8), torch.randn(8, 6, 4)
    expected = torch.nn.functional.conv2d(features[None], kernels[:, :, None, None])[0]
    torch.testing.assert_close(dynamic_logits(kernels, features), expected)


def test_the_mean_is_over_all_positives_and_not_over_images_first():
    kernels, features = torch.randn(2, 9, 4), torch.randn(2, 4, 6, 6)
    masks = torch.rand(2, 6, 6) < 0.5
    one, three = some_targets([4], [1], masks), some_targets([0, 1, 4], [0, 0, 1], masks)
    alone = [solo_mask_loss(kernels[i : i + 1], features[i : i + 1], [t]) for i, t in enumerate((one, three))]
    together = solo_mask_loss(kernels, features, [one, three])
    torch.testing.assert_close(together, (alone[0] + 3 * alone[1]) / 4)


def test_two_objects_of_one_cell_are_both_in_the_mask_loss_and_once_in_the_divisor_of_the_class_loss():
    kernels, features = torch.randn(1, 9, 4), torch.randn(1, 4, 6, 6)
    masks = torch.rand(2, 6, 6) < 0.5
    both = some_targets([4, 4], [0, 1], masks)
    p = dynamic_logits(kernels[0, [4, 4]], features[0]).sigmoid()
    torch.testing.assert_close(solo_mask_loss(kernels, features, [both]), dice(p, masks).mean())
    logits = torch.zeros(1, 9, 2)  # p = 0.5: (1 positive 0.25, 17 negatives 0.75) * 0.25 * log 2, over 1 cell + 1
    expected = (0.25 + 17 * 0.75) * 0.25 * np.log(2) / 2
    assert solo_class_loss(logits, both.classes[None]).item() == pytest.approx(expected, rel=1e-5)


def test_without_an_object_the_mask_loss_is_zero_and_kernels_and_features_have_a_gradient_of_zero():
    kernels, features = torch.randn(2, 9, 4, requires_grad=True), torch.randn(2, 4, 6, 6, requires_grad=True)
    nothing = some_targets([], [], torch.zeros(0, 6, 6, dtype=torch.bool))
    loss = solo_mask_loss(kernels, features, [nothing, nothing])
    loss.backward()
    assert loss.item() == 0
    for each in (kernels, features):
        assert each.grad is not None
        assert not each.grad.any()


def test_cells_of_an_image_without_objects_still_learn_that_they_are_background():
    logits = torch.zeros(1, 9, 2, requires_grad=True)
    solo_class_loss(logits, torch.full((1, 9), 2)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_logits_in_half_precision_are_summed_in_float32():
    logits, classes = torch.randn(2, 4000, 80).bfloat16(), torch.randint(0, 81, (2, 4000))
    loss = solo_class_loss(logits, classes)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, solo_class_loss(logits.double(), classes).float(), rtol=1e-4, atol=0)
