from functools import partial

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from lightning_modules.networks.deeplab import ASPP, PSP, DeepLab, outputs

NARROW = [8, 16, 32, 64]
SMALL = {"backbone": "resnet10t", "widths": NARROW}

RECIPE = """
network:
  class_path: lightning_modules.networks.deeplab.DeepLab
  init_args:
    backbone: resnet10t
    in_channels: 4
    head:
      class_path: lightning_modules.networks.deeplab.PSP
      init_args: {channels: 32}
    output_stride: 8
    dilations: [1, 1, 2, [4]]
    widths: [8, 16, 32, 64]
    bn_affine: frozen
    pretrained: null
"""


def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    return parser


def test_a_recipe_makes_the_network():
    network = parser().instantiate(parser().parse_object(yaml.safe_load(RECIPE))).network
    assert isinstance(network.head, PSP)
    assert network(torch.rand(2, 4, 40, 56)).shape == (2, 1, 40, 56)
    assert not network.backbone.bn1.weight.requires_grad


def test_a_typo_in_the_recipe_is_refused():
    recipe = yaml.safe_load(RECIPE.replace("output_stride", "output_strid"))
    with pytest.raises(Exception, match="output_strid"):
        parser().parse_object(recipe)


@pytest.mark.parametrize("head", [partial(PSP, channels=16), partial(PSP, channels=16, skip=True), ASPP])
def test_everything_in_a_head_learns(head):
    network = DeepLab(**SMALL, head=head)
    logits = network(torch.rand(2, 4, 64, 64))
    assert logits.shape == (2, 1, 64, 64)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_aspp_sums_four_reaches():
    head = ASPP((1, 1, 1, 1))
    with torch.no_grad():
        for stage in head.stages:
            stage.weight.fill_(1)
            stage.bias.fill_(0.25)
    dot = torch.zeros(1, 1, 61, 61)
    dot[..., 30, 30] = 1
    expected = torch.ones(61, 61)  # four biases
    expected[30, 30] += 4
    for rate in (6, 12, 18, 24):
        for dy in (-rate, 0, rate):
            for dx in (-rate, 0, rate):
                expected[30 + dy, 30 + dx] += (dy, dx) != (0, 0)
    torch.testing.assert_close(head([dot])[0, 0], expected)


def test_the_skip_decides_at_stride_four():
    features = DeepLab(**SMALL).backbone(torch.rand(2, 4, 64, 64))
    assert PSP((8, 16, 32, 64), channels=16)(features).shape[-2:] == (8, 8)
    assert PSP((8, 16, 32, 64), channels=16, skip=True)(features).shape[-2:] == (16, 16)


def test_a_single_object_cannot_train_a_pyramid():
    network = DeepLab(**SMALL, head=partial(PSP, channels=16))
    with pytest.raises(ValueError, match="two objects or more"):
        network(torch.rand(1, 4, 32, 32))
    assert network.eval()(torch.rand(1, 4, 32, 32)).shape == (1, 1, 32, 32)


def test_logits_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert DeepLab(**SMALL)(torch.rand(2, 4, 32, 32)).dtype == torch.float32


class TwoOutputs(nn.Module):
    """A coarse prediction, and one that is coarser still."""

    def __init__(self, in_channels):
        super().__init__()
        self.decide = nn.Conv2d(in_channels[-1], 1, 1)

    def forward(self, features):
        logits = self.decide(features[-1])
        return logits, nn.functional.avg_pool2d(logits, 2)


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_a_head_with_several_outputs_makes_a_list_at_the_size_of_the_input(kind):
    network = DeepLab(**SMALL, head=TwoOutputs).eval()
    x = torch.rand(2, 4, 64, 48)
    first, second = network.head(network.backbone(x))
    if kind == "list":
        network.head.register_forward_hook(lambda head, features, made: list(made))
    logits = network(x)
    assert isinstance(logits, list)
    for each, coarse in zip(logits, (first, second), strict=True):
        assert each.shape == (2, 1, 64, 48)
        torch.testing.assert_close(each[..., ::63, ::47], coarse[..., [0, -1], :][..., [0, -1]])  # aligned corners


def test_a_head_with_one_output_makes_a_tensor():
    network = DeepLab(**SMALL, head=ASPP).eval()
    x = torch.rand(1, 4, 64, 48)
    logits = network(x)
    assert isinstance(logits, torch.Tensor)
    assert [each is logits for each in outputs(logits)] == [True]


def test_the_official_start_covers_the_head():
    head = DeepLab(**SMALL, init="official").head
    assert head.bottleneck[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
