import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.region import RegionNet, paste_regions, region_edges

SMALL = {"backbone": "resnet10t", "channels": 16, "bn_affine": "frozen"}
OUTSIDE = -20.0


class Averages(nn.Module):
    """A backbone whose every stage is the mean of its cell of 16 x 16 pixels, and a last stage that changes nothing."""

    strides = (4, 8, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.last_stage = nn.Identity()

    def forward(self, x: Tensor, stages: int) -> list[Tensor]:
        return [F.avg_pool2d(x, 16)]


@pytest.fixture
def copying() -> RegionNet:
    """A region network that answers with what it reads: features of a region and back, nothing learned."""
    network = RegionNet(**SMALL)
    network.backbone = Averages()
    network.head = nn.Upsample(scale_factor=2, mode="bilinear")
    return network


def ramp(height: int, width: int) -> Tensor:
    """Each pixel holds the x of its centre."""
    return (torch.arange(width) + 0.5).expand(1, 1, height, width)


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_features_of_a_region_return_to_the_pixels_they_came_from(copying):
    logits = copying(ramp(256, 256), boxes((40, 64, 199, 159)))[0, 0]
    inner = slice(40 + 12, 200 - 12)  # a ramp is flat in the outer half cells of the 28 x 28 mask
    torch.testing.assert_close(logits[64:160, inner], ramp(96, 256)[0, 0, :, inner], rtol=0, atol=1e-3)


def test_a_moved_region_moves_the_mask(copying):
    image = torch.rand(1, 1, 256, 256)
    moved = torch.roll(image, (32, 48), dims=(2, 3))
    logits = copying(image, boxes((40, 64, 139, 159)))
    torch.testing.assert_close(
        torch.roll(logits, (32, 48), dims=(2, 3)), copying(moved, boxes((88, 96, 187, 191))), rtol=0, atol=1e-5
    )


def test_outside_of_the_region_the_answer_is_a_certain_no():
    logits = RegionNet(**SMALL)(torch.rand(2, 4, 64, 96), boxes((0, 0, 47, 63), (10, 20, 30, 40)))
    assert logits.shape == (2, 1, 64, 96)
    inside = logits != OUTSIDE
    assert inside[0, 0, :, :48].all()
    assert not inside[0, 0, :, 48:].any()
    assert inside[1, 0, 20:41, 10:31].all()
    assert inside[1].sum() == 21 * 21


def test_no_gradient_flows_from_outside_of_the_region():
    network = RegionNet(**SMALL)
    logits = network(torch.rand(1, 4, 64, 64), boxes((16, 16, 47, 47)))
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[16:48, 16:48] = True
    outside_only = torch.autograd.grad(logits[0, 0][~inside].sum(), network.head.parameters(), retain_graph=True)
    assert all((gradient == 0).all() for gradient in outside_only)
    logits[0, 0][inside].sum().backward()
    assert network.backbone.layer1[0].conv1.weight.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in network.head.parameters())


def test_no_region_is_the_whole_image():
    network = RegionNet(**SMALL).eval()
    image = torch.rand(1, 4, 64, 96)
    torch.testing.assert_close(network(image), network(image, boxes((0, 0, 95, 63))))


def test_a_mask_of_one_cell_per_pixel_is_pasted_as_it_is():
    mask = torch.rand(1, 1, 3, 5)
    pasted = paste_regions(mask, region_edges(boxes((2, 4, 6, 6))), (10, 9), OUTSIDE)
    expected = torch.full((1, 1, 10, 9), OUTSIDE)
    expected[..., 4:7, 2:7] = mask
    torch.testing.assert_close(pasted, expected)


def test_a_region_may_leave_the_image_and_may_be_one_pixel():
    network = RegionNet(**SMALL).eval()
    logits = network(torch.rand(2, 4, 64, 64), boxes((-20, -10, 15, 90), (7, 7, 7, 7)))
    assert logits.isfinite().all()
    assert (logits[0] != OUTSIDE).sum() == 64 * 16
    assert (logits[1] != OUTSIDE).sum() == 1


def test_the_last_stage_runs_on_fourteen_by_fourteen_cells_of_one_region():
    seen = []
    network = RegionNet(**SMALL)
    network.backbone.layer4.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    network(torch.rand(2, 4, 64, 64), boxes((0, 0, 31, 31), (0, 0, 63, 63)))
    assert [tuple(t.shape[-2:]) for t in seen[0]] == [(14, 14), (14, 14)]
    assert seen[0][0].shape[0] == 2
