"""DEXTR's training story: what the network is shown, what learns how fast, what interactive use returns."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datamodules.batch import Batch
from datamodules.clicks.guidance import GaussianMap
from datamodules.clicks.points import EXTREME_KINDS, PointKind, Points
from lightning_modules.dextr import DEXTR, FifthPoint, regions
from lightning_modules.losses import BalancedBCE
from lightning_modules.networks.region import RegionNet
from lightning_modules.schedules import Poly


class Shown(nn.Module):
    """A network that keeps what it was shown; its logit is the last channel's value minus a half of its range."""

    def __init__(self, channels):
        super().__init__()
        self.backbone = nn.Conv2d(channels, 2, 1)
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, x, regions=None):
        self.seen, self.regions = x, regions
        return x[:, -1:] - 127.5 + 0 * self.head(self.backbone(x))


def points_of(xy, scale=1.0):
    kinds = torch.tensor([EXTREME_KINDS[: len(xy[0])]] * len(xy))
    return Points(torch.tensor(xy, dtype=torch.float32).reshape(len(xy), -1, 2), kinds, torch.full((len(xy), 2), scale))


def dextr(guidance, **options):
    network = Shown(3 if guidance is None else 4)
    return DEXTR(network, BalancedBCE(), guidance, lambda groups: torch.optim.SGD(groups, lr=0.5), **options)


DIAMOND = [[[4, 10], [10, 4], [16, 10], [10, 16]]]


def test_the_network_sees_rgb_and_the_points_on_one_scale():
    module = dextr(GaussianMap(fwhm=4))
    image = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8)
    module(image, points_of(DIAMOND))
    assert torch.equal(module.network.seen[:, :3], image.float())
    assert module.network.seen[0, 3, 10, 4] == 255
    assert module.network.seen[0, 3, 0, 23] < 1e-3


def test_without_guidance_it_sees_the_crop_alone():
    module = dextr(None)
    module(torch.zeros(1, 3, 24, 24), points_of(DIAMOND))
    assert module.network.seen.shape == (1, 3, 24, 24)


def test_the_region_is_the_box_of_the_points_with_a_margin_in_image_pixels():
    # 3 image pixels are 6 crop pixels at scale 2; the box of the points is 4..16 both ways
    assert regions(points_of(DIAMOND, scale=2.0), 3, (24, 24)).tolist() == [[0, 0, 22, 22]]
    assert regions(points_of(DIAMOND, scale=0.5), 4, (24, 24)).tolist() == [[2, 2, 18, 18]]


def test_an_object_without_points_has_the_whole_crop_as_region():
    padded = points_of([*DIAMOND, *DIAMOND])
    padded.kinds[1] = PointKind.PADDING
    assert regions(padded, 0, (24, 30)).tolist() == [[4, 4, 16, 16], [0, 0, 29, 23]]
    none = Points(torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long), torch.ones(1, 2))
    assert regions(none, 5, (24, 30)).tolist() == [[0, 0, 29, 23]]


def test_a_corrective_click_widens_no_region():
    more = points_of(DIAMOND).with_more(torch.tensor([[[22, 1]]]), torch.tensor([[PointKind.POSITIVE]]))
    assert torch.equal(regions(more, 2, (24, 24)), regions(points_of(DIAMOND), 2, (24, 24)))


def test_interactive_use_gives_the_logits_of_training():
    module = dextr(GaussianMap(fwhm=4)).eval()
    image, points = torch.rand(1, 3, 24, 24) * 255, points_of(DIAMOND)
    state = module.start(image, points)
    logits, state = module.predict(state, points)
    assert torch.equal(logits, module(image, points))
    moved = points_of([[[4, 12], [10, 4], [16, 10], [10, 16]]])
    assert not torch.equal(module.predict(state, moved)[0], logits)


def test_the_head_learns_ten_times_faster_and_the_schedule_ends_at_zero(monkeypatch):
    module = dextr(GaussianMap(fwhm=4), head_lr_factor=10.0, schedule=Poly())
    monkeypatch.setattr(DEXTR, "trainer", SimpleNamespace(estimated_stepping_batches=10))
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sizes == [4 * 2 + 2, 2 + 1]
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]


def test_frozen_parameters_are_in_no_group(monkeypatch):
    module = dextr(None)
    module.network.backbone.bias.requires_grad_(False)
    monkeypatch.setattr(DEXTR, "trainer", SimpleNamespace(estimated_stepping_batches=1))
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert all(parameter.requires_grad for group in groups for parameter in group["params"])
    assert sum(p.numel() for p in groups[0]["params"]) == 3 * 2


@pytest.mark.parametrize("use_void", [True, False])
def test_void_pixels_count_as_background_only_where_the_reading_says_so(monkeypatch, use_void):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    void = torch.zeros_like(mask)
    void[..., 4:] = 1  # nobody labelled the right half
    points = points_of([[[0, 3], [2, 0], [3, 4], [1, 7]]])
    eye, box = torch.eye(2, 3)[None], torch.zeros(1, 4, dtype=torch.long)
    batch = Batch(
        image=torch.zeros(1, 3, 8, 8),
        mask=mask,
        void=void,
        points=points.xy,
        point_kinds=points.kinds,
        to_crop=eye,
        crop_box=box,
        box=box,
        image_size=box[:, :2],
        object_id=box[:, 0],
    )
    module = DEXTR(Shown(3), BalancedBCE(use_void=use_void), None, lambda groups: torch.optim.SGD(groups, lr=1.0))
    monkeypatch.setattr(module, "log", lambda *arguments, **options: None)
    module.network.forward = lambda x, regions: logits
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    module.training_step(batch, 0).backward()
    assert bool((logits.grad[..., 4:] == 0).all()) is use_void
    assert (logits.grad[..., :4] < 0).all()


class Painter(Shown):
    """A network that always paints the same mask; it remembers in which mode it was asked."""

    def __init__(self, painted):
        super().__init__(4)
        self.painted, self.modes, self.shown = painted, [], []

    def forward(self, x, regions=None):
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.shown.append(x[:, 3])
        return 2 * self.painted - 1 + self.head(self.backbone(x)) * 0


def batch_of(mask):
    """Masks (B, 1, H, W) with four clicks each, at the sides of a square from 8 to 23."""
    count, _, height, width = mask.shape
    points = points_of([[[8, 8], [8, 8], [23, 8], [8, 23]]] * count)
    box = torch.tensor([[0, 0, width - 1, height - 1]] * count)
    image, eye = torch.zeros(count, 3, height, width), torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1)
    size = torch.tensor([[height, width]] * count)
    return Batch(
        image=image,
        mask=mask,
        void=torch.zeros_like(mask),
        points=points.xy,
        point_kinds=points.kinds,
        to_crop=eye,
        crop_box=box,
        box=box,
        image_size=size,
        object_id=torch.arange(count),
    )


def correcting(painted, monkeypatch, **options):
    """A module about to make its seventh step."""
    module = DEXTR(Painter(painted), BalancedBCE(), GaussianMap(fwhm=2), lambda groups: None, **options)
    monkeypatch.setattr(DEXTR, "trainer", SimpleNamespace(global_step=7))
    monkeypatch.setattr(module, "log", lambda *arguments, **options: None)
    return module.train()


@pytest.fixture
def half_missed():
    """Three squares of which the prediction misses the right half, paints all, and paints all but a corner."""
    mask = torch.zeros(3, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    painted = mask.clone()
    painted[0, ..., 16:] = 0
    painted[2, :, 8:11, 8:11] = 0
    return mask, painted


def test_the_fifth_point_is_on_the_boundary_where_the_prediction_fails(half_missed, monkeypatch):
    mask, painted = half_missed
    clicks = correcting(painted, monkeypatch, corrections=1, jitter=0).corrected(batch_of(mask), batch_of(mask).clicks)
    assert clicks.kinds[:, 4].tolist() == [PointKind.POSITIVE, PointKind.PADDING, PointKind.POSITIVE]
    # the missed half is 8 wide and 16 high: of the square's boundary, its right side is farthest from the left half
    x, y = clicks.xy[0, 4].tolist()
    assert x == 23
    assert 8 <= y <= 23
    assert clicks.xy[2, 4].tolist() == [8, 8]
    assert torch.equal(clicks.xy[:, :4], batch_of(mask).points)


def test_the_fifth_point_is_drawn_anew_in_every_step_and_stays_on_the_boundary(half_missed, monkeypatch):
    mask, painted = half_missed
    module = correcting(painted, monkeypatch, corrections=1, jitter=6)

    def point(step):
        module.trainer.global_step = step
        return tuple(module.corrected(batch_of(mask), batch_of(mask).clicks).xy[0, 4].tolist())

    points = {step: point(step) for step in range(8)}
    assert len(set(points.values())) > 1
    assert point(3) == points[3]
    assert all({x, y} & {8, 23} and 8 <= min(x, y) <= max(x, y) <= 23 for x, y in points.values())


def test_the_first_look_learns_nothing_and_the_second_sees_five_points(half_missed, monkeypatch):
    mask, painted = half_missed
    module = correcting(painted, monkeypatch, corrections=1, jitter=0)
    loss = module.training_step(batch_of(mask), 0)
    assert loss.requires_grad
    assert module.network.modes == [(False, False), (True, True)]
    assert module.network.training
    before, after = module.network.shown
    x, y = map(int, module.corrected(batch_of(mask), batch_of(mask).clicks).xy[0, 4])
    assert before[0, y, x] < 1
    assert after[0, y, x] == 255  # in the one channel, by maximum
    assert torch.equal(before[1], after[1])  # without an error there is no fifth point


def test_with_four_points_there_is_one_pass(half_missed, monkeypatch):
    mask, painted = half_missed
    module = correcting(painted, monkeypatch)
    module.training_step(batch_of(mask), 0)
    assert module.network.modes == [(True, True)]


def after(painted, earlier, monkeypatch):
    """A module whose own network paints the one and whose earlier model paints the other."""
    module = FifthPoint(
        Painter(painted), BalancedBCE(), GaussianMap(fwhm=2), lambda groups: None, corrections=1, jitter=0
    )
    module.earlier = Painter(earlier)
    monkeypatch.setattr(FifthPoint, "trainer", SimpleNamespace(global_step=7))
    monkeypatch.setattr(module, "log", lambda *arguments, **options: None)
    return module


def test_a_fifth_point_lies_in_the_error_of_the_earlier_model(half_missed, monkeypatch):
    mask, painted = half_missed
    module = after(mask, painted, monkeypatch)  # the network that learns is right everywhere
    clicks = module.corrected(batch_of(mask), batch_of(mask).clicks)
    assert clicks.kinds[:, 4].tolist() == [PointKind.POSITIVE, PointKind.PADDING, PointKind.POSITIVE]
    module.train().training_step(batch_of(mask), 0)
    assert module.earlier.modes == [(False, False)] * 2  # in eval mode, without gradients
    assert module.network.modes == [(True, True)]


def test_the_earlier_model_answers_four_points_and_the_own_network_five(half_missed, monkeypatch):
    mask, painted = half_missed
    module, batch = after(mask, painted, monkeypatch).eval(), batch_of(mask)
    state = module.start(batch.image, batch.clicks)
    first, _ = module.predict(state, batch.clicks)
    assert torch.equal(first > 0, painted > 0)
    corrected = module.corrected(batch, batch.clicks)
    second, _ = module.predict(state, corrected)
    assert torch.equal(second > 0, mask > 0)
    assert not [name for name, weight in module.named_parameters() if name.startswith("earlier") and weight.grad]


def test_one_fifth_point_corrects_an_earlier_model():
    with pytest.raises(ValueError, match=r"a fifth point is one click: model\.corrections is 1, got 2"):
        FifthPoint(Painter(torch.zeros(1, 1, 8, 8)), BalancedBCE(), None, lambda groups: None, corrections=2)


def test_a_region_based_network_weighs_its_classes_where_it_learns():
    """A square of 16 in a region of 20 x 20, on an image of 32: 256 object pixels and 144 others, not 768."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    network = RegionNet(backbone="resnet10t", channels=8)
    module = DEXTR(network, BalancedBCE(), GaussianMap(fwhm=2), lambda groups: None, relax=2)
    batch = batch_of(mask)
    assert module.class_counts(batch, batch.clicks).tolist() == [256, 144, 0]
    assert DEXTR(Shown(4), BalancedBCE(), None, lambda groups: None).class_counts(batch, batch.clicks) is None
    batch.window_counts = torch.tensor([256, 768, 0])
    with pytest.raises(ValueError, match=r"accumulate_grad_batches to 1"):
        module.class_counts(batch, batch.clicks)
