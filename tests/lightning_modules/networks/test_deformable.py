"""Modulated deformable convolutions: what they begin as, what their offsets mean, and where a backbone gets them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.deformable import DeformableConv, deform_stages

NARROW = [16, 32, 64, 128]


@pytest.mark.parametrize(
    "layout",
    [
        {"size": 3, "padding": 1},
        {"size": 3, "padding": 1, "stride": 2},
        {"size": 3, "padding": 1, "groups": 4},
        {"size": 3, "padding": 2, "dilation": 2},
        {"size": 1},
    ],
)
def test_it_begins_as_half_of_a_plain_convolution(layout):
    conv = DeformableConv(8, 12, bias=False, **layout)
    x = torch.randn(2, 8, 11, 9)
    plain = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    torch.testing.assert_close(conv(x), 0.5 * plain, rtol=1e-4, atol=1e-5)


def test_a_bias_is_not_halved():
    conv = DeformableConv(2, 3, 1)
    nn.init.zeros_(conv.weight)
    assert torch.equal(conv(torch.randn(1, 2, 4, 4)), conv.bias.detach()[None, :, None, None].expand(1, 3, 4, 4))


def test_offsets_are_y_and_x_of_each_tap_and_then_come_the_weights():
    """All taps but the last look 2 rows down and 1 column right; the last weighs nothing, the others everything."""
    conv = DeformableConv(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1)
        conv.offsets.bias[:18] = torch.tensor([2.0, 1.0]).repeat(9)
        conv.offsets.bias[18:] = 50
        conv.offsets.bias[26] = -50
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 5, 5] = 1
    seen = conv(image)[0, 0]
    expected = torch.zeros(9, 9)
    expected[2:5, 3:6] = 1  # around (4, 3), which looks at (5, 5)
    expected[2, 3] = 0  # whose last tap, down to the right, would see it
    torch.testing.assert_close(seen, expected)


def test_offsets_learn_from_the_first_step_on():
    conv = DeformableConv(4, 4, 3, padding=1)
    conv(torch.randn(1, 4, 8, 8)).square().sum().backward()
    assert conv.offsets.weight.grad.abs().sum() > 0
    assert conv.weight.grad.abs().sum() > 0


def test_under_autocast_it_computes_in_float32_and_answers_in_what_came():
    """There is no kernel for bfloat16 on processors."""
    conv = DeformableConv(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        whole, half = conv(x), conv(x.bfloat16())
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(whole, conv(x))
    torch.testing.assert_close(half.float(), conv(x.bfloat16().float()), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["resnet26", "resnext50_32x4d"])
def test_the_middle_convolutions_of_c3_to_c5_are_replaced_and_keep_weights_strides_and_groups(name):
    plain = adapted_backbone(name, 3, output_stride=32, stride_on="conv2").eval()
    deformed = copy.deepcopy(plain)
    deform_stages(deformed)
    found = [key for key, layer in deformed.named_modules() if isinstance(layer, DeformableConv)]
    expected = [
        f"{stage}.{number}.conv2"
        for stage in ("layer2", "layer3", "layer4")
        for number in range(len(getattr(plain, stage)))
    ]
    assert found == expected
    weights = plain.state_dict()
    assert {key for key in deformed.state_dict() if ".offsets." not in key} == set(weights)
    for key in expected:
        old, new = plain.get_submodule(key), deformed.get_submodule(key)
        assert torch.equal(new.weight, old.weight)
        layout = ("stride", "padding", "dilation", "groups", "kernel_size", "bias")
        assert [getattr(new, each) for each in layout] == [getattr(old, each) for each in layout]
        assert new.offsets.groups == 1
    image = torch.randn(1, 3, 64, 64)
    assert [each.shape for each in deformed(image)] == [each.shape for each in plain(image)]
    torch.testing.assert_close(deformed(image)[0], plain(image)[0])


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0"])
def test_a_backbone_without_bottlenecks_is_refused(name):
    with pytest.raises(ValueError, match=r"replace the 3x3 of a ResNet's bottlenecks.*or deformable: false"):
        deform_stages(adapted_backbone(name, 3, output_stride=32))


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(2, 2, (3, 1)), nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding_mode="reflect")]
)
def test_what_no_deformable_convolution_can_stand_for_is_refused(conv):
    with pytest.raises(ValueError, match="a deformable convolution is square and padded with zeros in pixels"):
        DeformableConv.of(conv)
