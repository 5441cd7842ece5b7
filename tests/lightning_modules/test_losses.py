import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
from torch import Tensor

from datamodules.objects import class_counts
from lightning_modules.losses import (
    BalancedBCE,
    BootstrappedCrossEntropy,
    balanced_bce,
    bootstrapped_cross_entropy,
    pixel_bce,
)

SETS = range(4)
REDUCTIONS = {"mean": 0, "batch": 1, "sum": 2}  # (T, T), (F, T) and (F, F) of the authors' (size, batch)_average


def golden_set(golden, number) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.from_numpy(golden[f"loss_{name}_{number}"]) for name in ("logits", "label", "void"))


@pytest.mark.parametrize("number", SETS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("with_void", [False, True])
def test_the_loss_is_the_authors(golden, number, reduction, with_void):
    logits, mask, void = golden_set(golden, number)
    value = balanced_bce(logits, mask, void if with_void else None, reduction=reduction)
    expected = golden[f"loss_values_{number}"][REDUCTIONS[reduction], int(with_void)]
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("number", SETS)
def test_the_gradient_is_the_authors(golden, number):
    logits, mask, void = golden_set(golden, number)
    logits.requires_grad_()
    BalancedBCE()(logits, mask, void).backward()
    # sigmoid(z) - 1 of a pixel that is surely right has no more digits than that
    np.testing.assert_allclose(logits.grad, golden[f"loss_grad_{number}"], rtol=1e-4, atol=2e-8)


@pytest.mark.parametrize("label", [0, 1])
def test_a_batch_of_one_class_has_no_loss_and_no_gradient(golden, label):
    name = "allpos" if label else "allneg"
    logits = torch.from_numpy(golden[f"loss_{name}_logits"]).requires_grad_()
    mask = torch.full_like(logits, label)
    loss = balanced_bce(logits, mask)
    loss.backward()
    assert loss.item() == golden[f"loss_{name}_value"] == 0
    assert not logits.grad.any()


def test_both_classes_weigh_the_same_however_small_the_object_is():
    """At logit 0 every pixel costs log 2: N- N+ / N for either class."""
    for pixels in (1, 8, 32, 63):
        mask = (torch.arange(64) < pixels).float().view(1, 1, 8, 8)
        logits = torch.zeros_like(mask, requires_grad=True)
        loss = balanced_bce(logits, mask, reduction="sum")
        loss.backward()
        assert loss.item() == pytest.approx(2 * pixels * (64 - pixels) / 64 * np.log(2), rel=1e-6)
        assert logits.grad.sum().item() == pytest.approx(0, abs=1e-5)


def batch(seed: int, objects: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, and masks and void of very different sizes per object."""
    generator = torch.Generator().manual_seed(seed)
    shape = (objects, 1, 9, 11)
    share = torch.linspace(0.05, 0.8, objects).view(-1, 1, 1, 1)
    mask = (torch.rand(shape, generator=generator) < share).to(torch.uint8)
    void = (torch.rand(shape, generator=generator) < 0.15).to(torch.uint8)
    return 3 * torch.randn(shape, generator=generator), mask, void


@pytest.mark.parametrize("balanced", [True, False])
def test_void_pixels_carry_no_gradient_and_labelled_ones_do(balanced):
    logits, mask, void = batch(0)
    logits.requires_grad_()
    BalancedBCE(balanced=balanced)(logits, mask, void).backward()
    assert not logits.grad[void > 0].any()
    assert logits.grad[void == 0].all()


def test_the_prediction_at_void_pixels_does_not_matter():
    logits, mask, void = batch(0)
    elsewhere = torch.where(void > 0, 50 * torch.ones_like(logits), logits)
    assert torch.equal(BalancedBCE()(logits, mask, void), BalancedBCE()(elsewhere, mask, void))


def test_void_can_be_ignored_as_the_authors_training_does():
    logits, mask, void = batch(0)
    ignoring = BalancedBCE(use_void=False)(logits, mask, void)
    assert torch.equal(ignoring, balanced_bce(logits, mask))
    assert not torch.equal(ignoring, BalancedBCE()(logits, mask, void))


@pytest.mark.parametrize("with_void", [False, True])
def test_unbalanced_is_half_of_plain_cross_entropy(with_void):
    logits, mask, void = batch(1)
    labelled = (void == 0).float() if with_void else torch.ones_like(logits)
    plain = F.binary_cross_entropy_with_logits(logits, mask.float(), weight=labelled, reduction="sum")
    value = balanced_bce(logits, mask, void if with_void else None, balanced=False, reduction="sum")
    assert value.item() == pytest.approx(0.5 * plain.item(), rel=1e-6)


def test_at_balance_balanced_and_unbalanced_are_one_loss():
    logits = batch(2)[0]
    mask = (torch.arange(logits.numel()) % 2 == 0).view_as(logits)
    assert balanced_bce(logits, mask).item() == pytest.approx(
        balanced_bce(logits, mask, balanced=False).item(), rel=1e-6
    )


def test_soft_masks_count_from_one_half_on():
    logits = batch(3)[0]
    soft = torch.rand(logits.shape, generator=torch.Generator().manual_seed(4))
    soft.view(-1)[0] = 0.5
    assert torch.equal(balanced_bce(logits, soft), balanced_bce(logits, soft >= 0.5))


def test_half_precision_logits_are_summed_in_single_precision():
    logits, mask, void = batch(4)
    half = logits.bfloat16()
    assert BalancedBCE()(half, mask, void).dtype == torch.float32
    assert torch.equal(BalancedBCE()(half, mask, void), BalancedBCE()(half.float(), mask, void))


def test_counts_are_pixels_of_object_background_and_void():
    mask, void = torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 5)
    mask[0, 0, :2] = 1
    void[0, 0, 0, :3] = 1  # on the object
    void[1, 0, 0, :4] = 1
    assert class_counts(mask, void).tolist() == [10, 30, 7]


class PixelModel(torch.nn.Module):
    """Logits that depend on shared weights, so that gradients of different objects add up."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.7, -0.3]))

    def forward(self, features: Tensor) -> Tensor:
        return self.weight[0] * features + self.weight[1]


def gradient(loss: BalancedBCE, *, passes: int, part: slice = slice(None), counts: Tensor | None = None) -> Tensor:
    """Of the weights after a step of so many accumulated passes, each divided by their number as Lightning does."""
    model = PixelModel()
    features, mask, void = (tensor[part] for tensor in batch(5))
    for x, m, v in zip(features.chunk(passes), mask.chunk(passes), void.chunk(passes)):
        (loss(model(x), m, v, counts) / passes).backward()
    return model.weight.grad


LOSSES = [BalancedBCE(), BalancedBCE(reduction="mean"), BalancedBCE(use_void=False), BalancedBCE(balanced=False)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("passes", [2, 4])
def test_accumulated_passes_with_the_counts_of_the_step_are_the_joined_batch(loss, passes):
    _, mask, void = batch(5)
    counts = class_counts(mask, void)
    joined = gradient(loss, passes=1)
    torch.testing.assert_close(gradient(loss, passes=passes, counts=counts), joined, rtol=1e-5, atol=1e-6)
    assert torch.equal(counts, class_counts(mask, void))


def test_accumulated_passes_that_weigh_for_themselves_are_another_loss():
    own, joined = gradient(BalancedBCE(), passes=4), gradient(BalancedBCE(), passes=1)
    assert (own - joined).abs().max() > 0.01 * joined.abs().max()


def _one_process(rank: int, meeting: str, answers: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    results = []
    for loss in LOSSES:
        for passes in (1, 2):
            part = slice(2 * rank, 2 * rank + 2)
            mask, void = (tensor[part] for tensor in batch(5)[1:])
            counts = class_counts(mask, void)
            given = counts.clone() if passes > 1 else None
            mean = gradient(loss, passes=passes, part=part, counts=given)
            assert given is None or torch.equal(given, counts)  # both passes of a step are handed the same tensor
            dist.all_reduce(mean)
            results.append(mean / 2)  # what DistributedDataParallel does
    if rank == 0:
        torch.save(results, answers)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_the_joined_batch(tmp_path):
    """The second half of the objects is much larger than the first: weights of their own would not do."""
    answers = tmp_path / "answers.pt"
    multiprocessing.start_processes(
        _one_process, (str(tmp_path / "meeting"), str(answers)), nprocs=2, start_method="fork"
    )
    results = iter(torch.load(answers, weights_only=True))
    for loss in LOSSES:
        joined = gradient(loss, passes=1)
        for _ in (1, 2):
            torch.testing.assert_close(next(results), joined, rtol=1e-5, atol=1e-6)


def hard_pixels(costs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 2, H, W) of background pixels that cost so much: log(1 + exp(z)) with z the logit of the object."""
    object_ = torch.log(torch.expm1(costs))
    return torch.stack([torch.zeros_like(object_), object_], dim=1), torch.zeros_like(costs)[:, None]


def test_the_worst_quarter_of_sixteen_pixels_is_four():
    costs = torch.arange(1.0, 17.0)[torch.randperm(16)].view(1, 4, 4)
    logits, mask = hard_pixels(costs)
    assert bootstrapped_cross_entropy(logits, mask).item() == pytest.approx((16 + 15 + 14 + 13) / 4)


def test_only_the_worst_quarter_has_a_gradient():
    costs = torch.arange(1.0, 17.0).view(1, 4, 4)
    logits, mask = hard_pixels(costs)
    logits.requires_grad_()
    bootstrapped_cross_entropy(logits, mask).backward()
    assert torch.equal(logits.grad.any(dim=1), costs > 12)
    # d cost / d logit of the object is its probability, divided by the four pixels
    torch.testing.assert_close(logits.grad[0, 1, 3], logits.detach().softmax(dim=1)[0, 1, 3] / 4)


@pytest.mark.parametrize(
    ("labelled", "worst"),
    [(16, 4), (15, 4), (14, 4), (13, 3), (10, 2), (9, 2), (6, 2), (3, 1), (2, 1), (1, 1)],
)
def test_the_quarter_is_of_the_labelled_pixels_rounded_half_to_even(labelled, worst):
    """14 / 4 = 3.5 goes to 4, 10 / 4 = 2.5 to 2, 6 / 4 = 1.5 to 2, 2 / 4 = 0.5 to 0, and one pixel there always is."""
    costs = torch.arange(1.0, 17.0).flip(0).view(1, 4, 4)
    logits, mask = hard_pixels(costs)
    void = costs[:, None] <= 16 - labelled  # the cheapest ones
    expected = sum(range(16, 16 - worst, -1)) / worst
    assert bootstrapped_cross_entropy(logits, mask, void).item() == pytest.approx(expected)


def test_void_pixels_are_not_among_the_worst_and_have_no_gradient():
    costs = torch.arange(1.0, 17.0).view(1, 4, 4)
    logits, mask = hard_pixels(costs)
    void = (costs > 12)[:, None]  # twelve are left: the worst three are 12, 11 and 10
    logits.requires_grad_()
    loss = BootstrappedCrossEntropy()(logits, mask, void)
    loss.backward()
    assert loss.item() == pytest.approx(11)
    assert torch.equal(logits.grad.any(dim=1), (costs > 9) & (costs < 13))
    assert BootstrappedCrossEntropy(use_void=False)(logits, mask, void).item() == pytest.approx(14.5)


def test_each_image_has_its_own_worst_pixels_and_the_batch_is_their_mean():
    costs = torch.stack([torch.arange(1.0, 17.0), torch.arange(1.0, 17.0), torch.full((16,), 0.5)]).view(3, 4, 4)
    logits, mask = hard_pixels(costs)
    void = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    void[1] = costs[1] > 8  # eight are left: 8 and 7
    expected = (14.5 + 7.5 + 0.5) / 3
    assert bootstrapped_cross_entropy(logits, mask, void).item() == pytest.approx(expected)


def test_an_image_without_labels_has_no_loss_and_no_gradient():
    logits, mask = hard_pixels(torch.arange(1.0, 33.0).view(2, 4, 4))
    void = torch.zeros(2, 1, 4, 4)
    void[0] = 1
    logits.requires_grad_()
    loss = bootstrapped_cross_entropy(logits, mask, void)
    loss.backward()
    assert loss.item() == pytest.approx(30.5 / 2)
    assert not logits.grad[0].any()
    assert logits.grad[1].any()
    assert logits.grad.isfinite().all()
    assert bootstrapped_cross_entropy(logits[:1], mask[:1], void[:1]).item() == 0


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_with_all_of_its_pixels_it_is_plain_cross_entropy_of_two_classes(kind):
    _, mask, void = batch(6)
    logits = 3 * torch.randn(4, 2, 9, 11)
    label = mask[:, 0].long().masked_fill(void[:, 0] > 0, 255)
    images = [F.cross_entropy(z[None], y[None], ignore_index=255) for z, y in zip(logits, label)]
    value = bootstrapped_cross_entropy(logits, mask.to(kind), void.to(kind), fraction=1)
    assert value.item() == pytest.approx(torch.stack(images).mean().item(), rel=1e-6)
    value = bootstrapped_cross_entropy(logits, mask.to(kind), fraction=1)
    assert value.item() == pytest.approx(F.cross_entropy(logits, mask[:, 0].long()).item(), rel=1e-6)


def test_equal_losses_share_nothing_but_their_mean():
    """All pixels cost log 2; any quarter of them is the worst, and only so many have a gradient."""
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = bootstrapped_cross_entropy(logits, torch.ones(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert int(logits.grad[:, 1].count_nonzero()) == 4


def test_bootstrapped_losses_of_confident_errors_stay_finite_and_in_single_precision():
    logits = torch.tensor([500.0, -500.0], dtype=torch.bfloat16).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = bootstrapped_cross_entropy(logits, torch.ones(1, 1, 4, 4))
    assert loss.dtype == torch.float32
    assert loss.item() == 1000


def test_bootstrapped_parts_of_a_batch_average_to_the_whole():
    _, mask, void = batch(7)
    logits = torch.randn(4, 2, 9, 11)
    loss = BootstrappedCrossEntropy()
    halves = [loss(logits[part], mask[part], void[part], torch.ones(3)) for part in (slice(0, 2), slice(2, 4))]
    assert (sum(halves) / 2).item() == pytest.approx(loss(logits, mask, void).item(), rel=1e-6)


def test_bootstrapping_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match=r"logits \(B, 2, H, W\).*got \(1, 1, 4, 4\).*network of two classes"):
        bootstrapped_cross_entropy(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 25"):
        bootstrapped_cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4), fraction=25)


@pytest.mark.parametrize("loss", [balanced_bce, pixel_bce, bootstrapped_cross_entropy])
def test_the_gradient_of_sure_pixels_keeps_its_digits(loss):
    """exp(-18) is 1.5e-8: sigmoid(18) - 1 is 0 or 6e-8 in single precision."""
    logits = torch.full((1, 1, 2, 2), 18.0)
    mask = torch.ones(1, 1, 2, 2)
    mask[..., 0] = 0
    logits[..., 0] = -18.0
    if loss is bootstrapped_cross_entropy:
        logits = torch.cat([-logits / 2, logits / 2], dim=1)
    logits.requires_grad_()
    loss(logits, mask).backward()
    sure = logits.grad.abs() / (logits.grad.abs().max() if loss is bootstrapped_cross_entropy else 1)
    expected = {balanced_bce: np.exp(-18) / 2, pixel_bce: np.exp(-18)}.get(loss, 1)
    found = sure[sure > 0]
    assert found.tolist() == pytest.approx([expected] * len(found), rel=1e-4)
    assert logits.grad.abs().max() < 1.6e-8
