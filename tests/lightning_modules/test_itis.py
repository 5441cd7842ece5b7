"""ITIS: what its network sees, the same logits click by click as at once, and where its losses and clicks come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from datamodules.clicks.guidance import SignedDistances, SignedGaussians
from datamodules.clicks.mask_distance import MaskDistance
from datamodules.clicks.points import Points
from lightning_modules.iterative import EpochMemory, WithinBatch
from lightning_modules.itis import ITIS, VALIDATION_CLICKS, margin
from lightning_modules.losses import BootstrappedCrossEntropy
from tests.conftest import ellipse, square
from tests.lightning_modules.test_iterative import BLOB, NEGATIVE, NOTHING, POSITIVE, SIZE, WHOLE, batch_of, window

H, W = SIZE
PEAK = 25 / (10 * np.sqrt(2 * np.pi))  # of a Gaussian of the released code


class Small(nn.Module):
    """Two layers that keep the size; `seen` is the last input."""

    def __init__(self, channels=5, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2), nn.Tanh(), nn.Conv2d(6, 2, 3, padding=1))
        self.seen: Tensor | None = None

    def forward(self, x):
        self.seen = x.detach().clone()
        return self.layers(x)


def itis(*, masks=False, guidance=None, network=None, **more) -> ITIS:
    network = network or Small(6 if masks else 5)
    channel = MaskDistance() if masks else None
    loss = BootstrappedCrossEntropy()
    return ITIS(network, guidance or SignedGaussians(), loss, torch.optim.Adam, mask_channel=channel, **more)


def points_of(*objects) -> Points:
    """The clicks [(x, y, kind), ...] of each object, padded."""
    longest = max(map(len, objects))
    rows = torch.tensor([[*o, *[(0, 0, -1)] * (longest - len(o))] for o in objects]).reshape(len(objects), longest, 3)
    return Points(rows[..., :2].float(), rows[..., 2].long(), torch.ones(len(objects), 2))


def first(points: Points, k: int) -> Points:
    return Points(points.xy[:, :k], points.kinds[:, :k], points.scale)


def images(count, seed=0, dtype=torch.uint8):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, H, W))).to(dtype)


TWO = points_of(
    [(20, 20, POSITIVE), (50, 40, NEGATIVE), (52, 41, POSITIVE), (0, 0, NEGATIVE)],
    [(79, 59, NEGATIVE), (30, 30, POSITIVE), (31, 33, POSITIVE)],
)


# -- what the network sees --------------------------------------------------------------------------------------------


def test_the_network_sees_rgb_and_then_negative_and_positive_clicks_between_minus_one_and_one():
    module = itis()
    image = torch.zeros(1, 3, H, W, dtype=torch.uint8)
    image[:, 0], image[:, 1] = 255, 51
    module(image, points_of([(20, 20, POSITIVE), (60, 40, NEGATIVE)]))
    seen = module.network.seen
    assert seen.shape == (1, 5, H, W)
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen[0, :3, 5, 5], [1, -0.6, -1], atol=1e-6)
    plateau = 2 * PEAK * np.exp(-2) - 1
    assert seen[0, 3, 40, 60].item() == pytest.approx(2 * PEAK - 1)
    assert seen[0, 3, 20, 20].item() == pytest.approx(plateau)
    assert seen[0, 4, 20, 20].item() == pytest.approx(2 * PEAK - 1)
    assert seen[0, 4, 40, 60].item() == pytest.approx(plateau)
    assert seen.min() >= -1
    assert seen.max() <= 1


def test_the_mask_channel_comes_between_rgb_and_clicks():
    module = itis(masks=True)
    mask = torch.from_numpy(square(SIZE, (10, 10), 8))[None, None]
    module(images(1), points_of([]), mask)
    seen = module.network.seen
    assert seen.shape == (1, 6, H, W)
    assert (seen[0, 3, 10:18, 10:18] == -1).all()
    assert seen[0, 3, 10, 18 + 31].item() == pytest.approx(2 * 32 / 128 - 1)
    assert (seen[0, 4:] < -0.7).all()
    module(images(1), points_of([]))
    assert (module.network.seen[0, 3] == 1).all()  # no mask yet: everything is far away
    module(images(1), points_of([]), torch.zeros(1, 1, H, W))
    assert (module.network.seen[0, 3] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_an_image_of_floats_is_the_same_image(dtype):
    module = itis()
    torch.testing.assert_close(module(images(2, dtype=dtype), TWO), module(images(2), TWO))


def test_an_object_wins_a_pixel_only_with_the_larger_logit():
    logits = torch.tensor([[0.0, 1, 2, -1], [0.0, 0, 3, -1]]).reshape(1, 2, 1, 4)
    assert (margin(logits) > 0).flatten().tolist() == [False, False, True, False]
    assert margin(logits.bfloat16()).dtype == torch.float32
    assert margin(logits).shape == (1, 1, 1, 4)


# -- click by click ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [SignedGaussians(), SignedGaussians(tail="zero"), SignedDistances()])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("objects", [slice(0, 2), slice(1, 2)])
def test_clicks_one_by_one_give_the_logits_of_all_clicks_at_once(guidance, masks, objects):
    module = itis(masks=masks, guidance=guidance).eval()
    points = Points(TWO.xy[objects], TWO.kinds[objects], TWO.scale[objects])
    image, previous = images(len(points.xy)), None
    state = module.start(image, first(points, 0))
    with torch.no_grad():
        for k in range(points.xy.shape[1] + 1):  # no click at first
            logits, state = module.predict(state, first(points, k), previous)
            expected = module(image, first(points, k), previous if masks else None)
            assert logits.shape == (len(image), 1, H, W)
            torch.testing.assert_close(logits, margin(expected), rtol=1e-5, atol=1e-5)
            previous = (logits > 0).float()


def test_several_clicks_at_once_or_none_are_drawn_as_they_come():
    module = itis().eval()
    state = module.start(images(2), TWO)  # a first set of clicks comes with the first prediction
    with torch.no_grad():
        for k in (3, 3, 4):
            logits, state = module.predict(state, first(TWO, k))
            torch.testing.assert_close(logits, margin(module(images(2), first(TWO, k))), rtol=1e-5, atol=1e-5)


def test_two_objects_at_once_are_two_objects():
    module = itis(masks=True).eval()
    image, masks = images(2), torch.from_numpy(np.stack([BLOB, NOTHING]))[:, None]
    with torch.no_grad():
        both = module(image, TWO, masks)
        for i in (0, 1):
            alone = Points(TWO.xy[i : i + 1], TWO.kinds[i : i + 1], TWO.scale[:1])
            torch.testing.assert_close(module(image[i : i + 1], alone, masks[i : i + 1])[0], both[i])


def test_predicting_changes_neither_image_nor_clicks():
    module, image = itis(masks=True).eval(), images(1, dtype=torch.float32)
    before, clicks = image.clone(), TWO.xy.clone()
    state = module.start(image, TWO)
    module.predict(state, Points(TWO.xy[:1], TWO.kinds[:1], TWO.scale[:1]))
    assert torch.equal(image, before)
    assert torch.equal(TWO.xy, clicks)


# -- training ---------------------------------------------------------------------------------------------------------


def a_trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


def trained(module: ITIS, batch, epoch=0, batch_idx=0) -> Tensor:
    """The loss of one training step in an epoch."""
    module.trainer = trainer = a_trainer()
    trainer.fit_loop.epoch_progress.current.completed = epoch
    module.log_dict = lambda values, **_: module.__dict__.update(logged=values)
    return module.training_step(batch, batch_idx)


def constant(object_logit, background_logit=0.0) -> nn.Module:
    """A network that says the same everywhere, whatever it sees."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([background_logit, object_logit]))
            self.seen = []

        def forward(self, x):
            self.seen.append(x.detach().clone())
            return self.bias[None, :, None, None].expand(len(x), 2, *x.shape[2:])

    return Constant()


def test_the_loss_is_that_of_the_wrong_pixels_and_void_has_none():
    module = itis(network=constant(-10.0))
    loss = trained(module, batch_of([BLOB]))
    worst = round(0.25 * BLOB.size)
    assert loss.item() == pytest.approx(10 * min(worst, BLOB.sum()) / worst, rel=1e-3)
    assert trained(module, batch_of([BLOB], void=BLOB)).item() < 1e-3


def test_the_click_of_the_next_epoch_is_shown_to_the_network():
    network = constant(-1.0)
    module = itis(network=network, iteration=EpochMemory(reset_probability=0.0))
    for epoch in range(3):
        trained(module, batch_of([BLOB], clicks=[(3, 3, NEGATIVE)]), epoch)
        assert module.logged["train/clicks"].item() == 1 + epoch
    peaks = [(seen[0, 4] == seen[0, 4].max()).sum().item() for seen in network.seen]
    assert peaks == [H * W, 1, 2]  # positive clicks
    y, x = np.argwhere(network.seen[1][0, 4].numpy() == network.seen[1][0, 4].max().item())[0]
    assert BLOB[y, x]


def test_the_mask_of_the_last_epoch_is_shown_to_the_network():
    network = constant(1.0)
    module = itis(masks=True, network=network, iteration=EpochMemory(reset_probability=0.0, masks=True))
    trained(module, batch_of([BLOB]), 0)
    trained(module, batch_of([BLOB], window(x=20)), 1)
    assert (network.seen[0][0, 3] == 1).all()
    assert (network.seen[1][0, 3, :, :60] == -1).all()  # all of the image was said to be object
    assert network.seen[1][0, 3, 30, 79].item() == pytest.approx(2 * 20 / 128 - 1)


def test_a_step_of_rounds_has_the_loss_of_the_pass_after_the_last():
    network = Small()
    module = itis(network=network, iteration=WithinBatch(rule="itis"))
    batch = batch_of([BLOB, ellipse(SIZE, (30, 30), (12, 20))])
    for n in range(5):
        loss = trained(module, batch, batch_idx=n)
        start = WithinBatch(rule="itis").before(batch, 0, n, module.segment)
        expected = module.loss(module(batch.image, start.points), batch.mask, batch.void)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert loss.requires_grad


def test_not_finite_logits_are_remembered_by_nobody():
    module = itis(network=constant(float("nan")), iteration=EpochMemory(reset_probability=0.0))
    trained(module, batch_of([BLOB]))
    module.iteration.settle()
    assert len(module.iteration.memory) == 0


def test_a_checkpoint_holds_the_memory():
    module, other = (itis(iteration=EpochMemory(reset_probability=0.0)) for _ in range(2))
    trained(module, batch_of([BLOB, BLOB]))
    checkpoint: dict = {}
    module.on_save_checkpoint(checkpoint)  # right after a step, whose click is still looked for
    other.on_load_checkpoint(checkpoint)
    for one, same in zip(*(m.iteration.memory.recall([1, 2]) for m in (module, other))):
        np.testing.assert_array_equal(one.xy, same.xy)
        assert len(one.kinds) == 2


def test_validation_clicks_the_error_and_reports_the_first_and_the_last():
    """A network that shows the object as soon as it was clicked."""

    class Obedient(nn.Module):
        def forward(self, x):
            positive = (x[:, 4:].amax((2, 3), keepdim=True) > 0).float()
            shown = torch.from_numpy(BLOB).float() * positive - 0.5
            return torch.cat([-shown, shown], dim=1)

    module, logged = itis(network=Obedient()), {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    module.validation_step(batch_of([BLOB, BLOB], clicks=[]), 0)
    assert logged == {"val/iou_crop_1": 1.0, f"val/iou_crop_{VALIDATION_CLICKS}": 1.0}
    lost = itis(network=constant(-1.0))
    lost.log = module.log
    lost.validation_step(batch_of([BLOB], WHOLE, clicks=[]), 0)
    assert logged["val/iou_crop_1"] == 0
    assert lost.network.seen[-1][0, 4].eq(lost.network.seen[-1][0, 4].max()).sum() == VALIDATION_CLICKS


def test_all_trainable_parameters_share_one_rate_and_frozen_ones_are_left_alone():
    network = Small()
    network.layers[0].bias.requires_grad_(False)
    module = itis(network=network)
    module.trainer = trainer = a_trainer(max_steps=10)
    trainer.fit_loop.max_epochs = -1
    (group,) = module.configure_optimizers()["optimizer"].param_groups
    assert len(group["params"]) == 3
