"""IOG's training story: what its network is shown, when, and how refinement learns from its own errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.batch import Batch
from datamodules.clicks.inside_outside import InsideOutsideMaps
from datamodules.clicks.points import PointKind, Points
from lightning_modules.iog import IOG, IterativeIOG
from lightning_modules.losses import PixelBCE, pixel_bce
from tests.conftest import GOLDEN, square

INSIDE, OUTSIDE, POSITIVE, NEGATIVE = PointKind.INSIDE, PointKind.OUTSIDE, PointKind.POSITIVE, PointKind.NEGATIVE
KINDS = [INSIDE, *[OUTSIDE] * 4]
FIVE = [[15, 15], [4, 4], [4, 27], [27, 4], [27, 27]]


class Early(nn.Module):
    """Shown five channels, it answers four logit maps: the prediction, painted by hand, and three side outputs."""

    def __init__(self, painted=None):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(5, 2, 1), nn.Conv2d(2, 4, 1)
        self.painted, self.shown = painted, []

    def forward(self, x):
        self.shown.append(x)
        logits = list(self.head(self.backbone(x / 255)).split(1, dim=1))
        if self.painted is not None:
            logits[0] = 0 * logits[0] + 4 * (2 * self.painted - 1)
        return logits


class Late(Early):
    """With a click branch: the features, which carry what the encoder saw, and maps that come to the decoder."""

    click_channels = 2

    def __init__(self, painted=None):
        super().__init__(painted)
        self.encoded, self.maps = [], []

    def encode(self, x):
        self.encoded.append(x)
        return [self.backbone(x / 255)]

    def decode(self, features, size, maps, sides=True):
        self.maps.append(maps)
        logits = list(self.head(features[0]).split(1, dim=1))
        if self.painted is not None:
            logits[0] = 0 * logits[0] + 4 * (2 * self.painted - 1)
        return logits if sides else logits[:1]


def made(network, kind=IOG, monkeypatch=None, **options):
    module = kind(
        network, InsideOutsideMaps(fwhm=3), PixelBCE("mean"), lambda groups: torch.optim.SGD(groups, lr=0.1), **options
    )
    if monkeypatch is not None:
        monkeypatch.setattr(module, "log", lambda *arguments, **options: None)
    return module


def clicks(*more, objects=1):
    xy = [[*FIVE, *[[x, y] for x, y, _ in more]]] * objects
    kinds = [[*KINDS, *[kind for *_, kind in more]]] * objects
    return Points(torch.tensor(xy, dtype=torch.float32), torch.tensor(kinds), torch.ones(objects, 2))


def batch_of(mask):
    mask = torch.as_tensor(np.stack(mask))[:, None]
    points = clicks(objects=len(mask))
    box = torch.tensor([[0, 0, 31, 31]] * len(mask))
    image, eye = torch.full((len(mask), 3, 32, 32), 100.0), torch.eye(2, 3, dtype=torch.float64).repeat(len(mask), 1, 1)
    size = torch.tensor([[32, 32]] * len(mask))
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
        object_id=torch.arange(len(mask)),
    )


SQUARE = square(32, top_left=(8, 8), side=16)


def painted(mask):
    return torch.from_numpy(mask)[None, None].float()


def test_the_network_sees_rgb_and_both_maps_on_one_scale():
    module = made(Early())
    module(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), clicks())
    (seen,) = module.network.shown
    assert seen.shape == (1, 5, 32, 32)
    assert seen[0, :, 15, 15].tolist() == [255, 255, 255, 255, pytest.approx(0, abs=1e-3)]
    assert seen[0, 4, 4, 27] == 255
    assert seen[0, 3, 4, 27] < 1e-3


def test_early_clicks_go_through_the_whole_network_late_ones_only_through_its_end():
    image, later = torch.zeros(1, 3, 32, 32), [(20, 20, POSITIVE), (2, 30, NEGATIVE)]
    for network in (Early(), Late()):
        module = made(network)
        state = module.start(image, clicks())
        for count in range(3):
            _, state = module.predict(state, clicks(*later[:count]))
        if isinstance(network, Late):
            assert len(network.encoded) == 1
            assert network.encoded[0][0, 3, 20, 20] < 1
            seen = [maps[0, :, 20, 20].max() for maps in network.maps]
        else:
            seen = [x[0, 3, 20, 20] for x in network.shown]
        assert seen[0] < 1
        assert seen[1] == seen[2] == 255


def test_the_encoder_never_sees_corrective_clicks_even_when_they_come_with_the_first():
    module = made(Late())
    module(torch.zeros(1, 3, 32, 32), clicks((20, 20, POSITIVE)))
    assert module.network.encoded[0][0, 3, 20, 20] < 1
    assert module.network.maps[0][0, 0, 20, 20] == 255


def test_interactive_use_gives_the_logits_of_training():
    for network in (Early(), Late()):
        module, image = made(network), torch.rand(2, 3, 32, 32) * 255
        points = clicks((9, 9, NEGATIVE), objects=2)
        logits, _ = module.predict(module.start(image, points), points)
        assert torch.equal(logits, module(image, points)[0])


def test_a_click_branch_needs_maps():
    with pytest.raises(ValueError, match="click branch needs a guidance"):
        IOG(Late(), None, PixelBCE(), lambda groups: None)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, [1, 1, 1, 1]),
        ({"side_weight": 0.0}, [1, 0, 0, 0]),
        ({"last_side_factor": 2.0}, [1, 1, 1, 2]),
    ],
)
def test_the_loss_is_the_weighted_sum_of_all_outputs(options, weights, monkeypatch):
    module, batch = made(Early(), monkeypatch=monkeypatch, **options), batch_of([SQUARE, SQUARE])
    each = [pixel_bce(logits, batch.mask, reduction="mean") for logits in module(batch.image, batch.clicks)]
    expected = sum(weight * loss for weight, loss in zip(weights, each))
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_an_ordinary_network_has_no_side_losses(monkeypatch):
    module, batch = made(nn.Module(), monkeypatch=monkeypatch), batch_of([SQUARE])
    module.network.forward = lambda x: x[:, 3:4] - 127.5
    assert module.training_step(batch, 0).item() == pytest.approx(
        pixel_bce(module(batch.image, batch.clicks)[0], batch.mask, reduction="mean").item()
    )


def test_what_is_not_backbone_learns_ten_times_faster(monkeypatch):
    module = made(Early())
    monkeypatch.setattr(IOG, "trainer", SimpleNamespace(estimated_stepping_batches=10))
    backbone, head = module.configure_optimizers()["optimizer"].param_groups
    assert (backbone["lr"], head["lr"]) == (0.1, 1.0)
    assert {id(p) for p in backbone["params"]} == {id(p) for p in module.network.backbone.parameters()}


@pytest.mark.parametrize("network", [Early, Late])
def test_refinement_clicks_where_the_first_prediction_is_wrong(network, monkeypatch):
    lost = SQUARE.copy()
    lost[:, 16:] = 0  # the right half, 8 x 16 pixels, is missed: its thickest place is clicked as object
    module, batch = made(network(painted(lost)), IterativeIOG, monkeypatch), batch_of([SQUARE])
    module.training_step(batch, 0)
    first, second = module.network.maps if network is Late else [x[:, 3:] for x in module.network.shown]
    drawn = ((second == 255) & (first < 255)).nonzero().tolist()
    assert [place[:2] for place in drawn] == [[0, 0]]  # one click, in the channel of the object
    (_, _, y, x) = drawn[0]
    assert 18 <= x <= 21
    assert 11 <= y <= 20
    if network is Late:
        assert len(module.network.encoded) == 1  # both predictions share the encoder


def test_a_right_prediction_is_not_clicked_and_both_passes_count(monkeypatch):
    module, batch = made(Late(painted(SQUARE)), IterativeIOG, monkeypatch, side_weight=0.0), batch_of([SQUARE])
    loss = module.training_step(batch, 0)
    first, second = module.network.maps
    assert torch.equal(first, second)
    assert loss.item() == pytest.approx(np.log1p(np.exp(-4)), rel=1e-5)


@pytest.mark.parametrize(("good_enough", "passes"), [(0.95, 1), (None, 2)])
def test_the_released_code_clicks_no_more_once_the_batch_is_good(good_enough, passes, monkeypatch):
    network = Late(painted(SQUARE))
    made(network, IterativeIOG, monkeypatch, good_enough=good_enough).training_step(batch_of([SQUARE]), 0)
    assert len(network.maps) == passes


def test_the_loss_of_refinement_is_the_mean_over_its_predictions(monkeypatch):
    batch = batch_of([SQUARE, SQUARE])
    module = made(Early(), IterativeIOG, monkeypatch, rounds=2)
    module.training_step(batch, 0).backward()
    assert len(module.network.shown) == 3
    assert all(parameter.grad is not None for parameter in module.parameters())
    losses = []
    for shown in list(module.network.shown):
        module.network.eval()
        logits = module.network.head(module.network.backbone(shown / 255)).split(1, dim=1)
        losses.append(sum(pixel_bce(scores, batch.mask, reduction="mean") for scores in logits))
    module.network.shown.clear()
    assert module.training_step(batch, 0).item() == pytest.approx(sum(losses).item() / 3, rel=1e-5)


def test_objects_that_pause_make_the_clicks_of_a_batch_unequal(monkeypatch):
    lost = SQUARE.copy()
    lost[:, 16:] = 0
    network = Late(painted(lost))
    module = made(network, IterativeIOG, monkeypatch, rounds=2, pause=0.5)
    monkeypatch.setattr(IterativeIOG, "trainer", SimpleNamespace(global_step=7))
    module.training_step(batch_of([SQUARE] * 32), 0)
    counts = [(maps[:, 0] == 255).flatten(1).sum(1) for maps in network.maps]
    assert set(counts[0].tolist()) == {1}  # the inside point
    assert set(counts[1].tolist()) == {1, 2}
    assert 8 <= (counts[1] == 2).sum() <= 24
    again = [(maps[:, 0] == 255).flatten(1).sum(1) for maps in network.maps]
    network.maps.clear()
    module.training_step(batch_of([SQUARE] * 32), 0)
    assert torch.equal((network.maps[1][:, 0] == 255).flatten(1).sum(1), again[1])  # keyed by step and object
    with pytest.raises(ValueError, match="probability of no click"):
        made(network, IterativeIOG, pause=1.0)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="no click rule 'middle'"):
        made(Early(), IterativeIOG, rule="middle")


@pytest.fixture(scope="module")
def iog_golden():
    return np.load(GOLDEN / "iog.npz")


@pytest.mark.parametrize("case", ["a", "b"])
def test_the_loss_and_its_gradient_are_the_authors(iog_golden, case):
    logits, mask, void = (torch.from_numpy(iog_golden[f"loss/{case}/{name}"]) for name in ("logits", "label", "void"))
    logits.requires_grad_()
    loss = PixelBCE()(logits, mask, void)
    loss.backward()
    assert loss.item() == pytest.approx(iog_golden[f"loss/{case}/void_batchavg"].item(), rel=1e-5)
    np.testing.assert_allclose(logits.grad, iog_golden[f"loss/{case}/void_batchavg_grad"], rtol=1e-4, atol=1e-7)
    for name, options in {
        "novoid_batchavg": ("batch", None),
        "void_sizeavg": ("mean", void),
        "void_sum": ("sum", void),
    }.items():
        value = pixel_bce(logits, mask, options[1], reduction=options[0])
        assert value.item() == pytest.approx(iog_golden[f"loss/{case}/{name}"].item(), rel=1e-5)


def test_a_sum_at_1e_8_and_a_mean_at_262144_times_that_learn_alike():
    """Sheet, Sec. 7: with the mean over 512 x 512 pixels the rate grows by as much, and the weight decay shrinks."""
    pixels, trained = 16 * 16, []
    mask = torch.from_numpy(square(16, top_left=(4, 4), side=8)).expand(2, 1, 16, 16)
    for reduction, factor in (("batch", 1), ("mean", pixels)):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 1, 3, padding=1)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4 * factor, momentum=0.9, weight_decay=5e-2 / factor)
        image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        for _ in range(20):
            optimizer.zero_grad()
            PixelBCE(reduction)(network(image), mask, torch.zeros_like(mask)).backward()
            optimizer.step()
        trained.append(network.weight.detach().clone())
    torch.testing.assert_close(trained[0], trained[1], rtol=1e-4, atol=1e-6)
