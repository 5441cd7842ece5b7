"""FAIRS' training story: one map for all clicks, one loss term for each output of the network."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datamodules.batch import Batch
from datamodules.clicks.guidance import GaussianMap
from datamodules.clicks.points import EXTREME_KINDS, PointKind, Points
from datamodules.clicks.soft_focus import SoftFocus
from datamodules.objects import class_counts
from lightning_modules.fairs import FAIRS
from lightning_modules.losses import BalancedBCE, balanced_bce

DIAMOND = [[4, 10], [10, 4], [16, 10], [10, 16]]


class Shown(nn.Module):
    """It keeps what it was shown and answers with one logit map, or with three."""

    def __init__(self, terms):
        super().__init__()
        self.terms, self.backbone, self.head = terms, nn.Conv2d(4, 2, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        self.seen = x
        logits = self.head(self.backbone(x / 255)).split(1, dim=1)
        return logits[0] if self.terms == 1 else list(logits)


def fairs(guidance, terms=3, **options):
    return FAIRS(Shown(terms), guidance, BalancedBCE(), lambda groups: torch.optim.SGD(groups, lr=0.5), **options)


def clicks(kept=4, more=()):
    xy = [*DIAMOND[:kept], *[[x, y] for x, y, _ in more]]
    kinds = [*EXTREME_KINDS[:kept], *[kind for *_, kind in more]]
    return Points(torch.tensor([xy], dtype=torch.float32), torch.tensor([kinds]), torch.ones(1, 2))


@pytest.mark.parametrize("kept", [4, 3, 2, 1])
def test_any_number_of_clicks_is_one_map_on_the_scale_of_the_image(kept):
    module = fairs(SoftFocus(fwhm=3))
    for more in ([], [(10, 10, PointKind.NEGATIVE)], [(10, 10, PointKind.POSITIVE), (20, 20, PointKind.NEGATIVE)]):
        module(torch.full((1, 3, 24, 24), 255, dtype=torch.uint8), clicks(kept, more))
        seen = module.network.seen
        assert seen.shape == (1, 4, 24, 24)
        assert seen.max() == 255
        assert (seen[0, 3, [y for _, y in DIAMOND[:kept]], [x for x, _ in DIAMOND[:kept]]] == 255).all()


def test_the_soft_focus_tells_more_of_the_object_than_gaussians_do():
    for guidance, at_centre in ((SoftFocus(fwhm=3), 255), (GaussianMap(fwhm=3), 0)):
        module = fairs(guidance)
        module(torch.zeros(1, 3, 24, 24), clicks())
        assert module.network.seen[0, 3, 10, 10].item() == pytest.approx(at_centre, abs=0.1)
        assert module.network.seen[0, 3, 22, 22] < 1e-3  # outside of the points' box


@pytest.mark.parametrize("terms", [1, 3])
def test_the_loss_is_the_plain_sum_of_one_balanced_term_per_output(terms, monkeypatch):
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 6:15, 6:15] = 1
    points, box = clicks(), torch.zeros(1, 4, dtype=torch.long)
    counts = class_counts(mask, torch.zeros_like(mask)) * torch.tensor([1, 3, 1])  # of a step of more objects
    void, to_crop = torch.zeros_like(mask), torch.eye(2, 3)[None]
    batch = Batch(
        image=torch.rand(1, 3, 24, 24),
        mask=mask,
        void=void,
        points=points.xy,
        point_kinds=points.kinds,
        to_crop=to_crop,
        crop_box=box,
        box=box,
        image_size=box[:, :2],
        object_id=box[:, 0],
        window_counts=counts,
    )
    module = fairs(SoftFocus(fwhm=3), terms)
    monkeypatch.setattr(module, "log", lambda *arguments, **options: None)
    loss = module.training_step(batch, 0)
    outputs = module(batch.image, batch.clicks)
    assert len(outputs) == terms
    expected = sum(balanced_bce(logits, mask, batch.void, counts=counts) for logits in outputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_interactive_use_gives_the_first_output():
    module, image = fairs(SoftFocus(fwhm=3)), torch.rand(1, 3, 24, 24) * 255
    points = clicks(3, [(10, 10, PointKind.POSITIVE)])
    logits, state = module.predict(module.start(image, points), points)
    assert torch.equal(logits, module(image, points)[0])
    assert torch.equal(module.predict(state, points)[0], logits)


def test_the_head_learns_at_the_rate_of_the_backbone_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(FAIRS, "trainer", SimpleNamespace(estimated_stepping_batches=10))
    for options, rate in (({}, 0.5), ({"head_lr_factor": 10.0}, 5.0)):
        backbone, head = fairs(SoftFocus(fwhm=3), **options).configure_optimizers()["optimizer"].param_groups
        assert (backbone["lr"], head["lr"]) == (0.5, rate)
