"""Backbones beyond ResNets: the same pyramid from networks of many families, or a sentence why not."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.coarse_to_fine import CoarseToFine
from lightning_modules.networks.deeplab import PSP, DeepLab
from lightning_modules.networks.deeplab_v3plus import DeepLabV3Plus
from lightning_modules.networks.families import FamilyStages, PlainTransformer
from lightning_modules.networks.region import RegionNet

LITE = "tf_efficientnet_lite0"
# A small member of each family -> the strides it can keep.
FAMILIES = {
    LITE: (8, 16, 32),
    "mobilenetv2_050": (8, 16, 32),
    "mobilenetv3_small_050": (32,),
    "convnext_atto": (8, 16, 32),
    "hrnet_w18_small": (32,),
    "vit_tiny_patch16_224": (4, 8, 16, 32),
    "swin_tiny_patch4_window7_224": (32,),
}
KEPT = [(name, stride) for name, strides in FAMILIES.items() for stride in strides]
LOST = [(name, stride) for name, strides in FAMILIES.items() for stride in (8, 16) if stride not in strides]


def first_conv(backbone: nn.Module) -> torch.Tensor:
    return next(layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)).weight.detach()


@pytest.fixture
def lite_weights(tmp_path):
    """Weights of a whole classifier, as timm's users save them."""
    torch.manual_seed(0)
    path = tmp_path / "lite0.pth"
    torch.save(timm.create_model(LITE).state_dict(), path)
    return path


@pytest.mark.parametrize(("name", "output_stride"), KEPT)
def test_every_stage_has_the_stride_and_channels_it_says_and_every_weight_a_gradient(name, output_stride):
    """On sides that no stride divides, too: sizes are rounded up, as a ResNet's are."""
    torch.manual_seed(0)
    backbone = adapted_backbone(name, 4, output_stride=output_stride)
    assert backbone.strides == tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
    maps = backbone(torch.randn(2, 4, 75, 50))
    for features, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert features.shape == (2, channels, -(-75 // stride), -(-50 // stride))
    sum(features.square().mean() for features in maps).backward()
    assert [name for name, weight in backbone.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(("name", "output_stride"), LOST)
def test_a_network_that_timm_cannot_dilate_is_refused_with_those_that_it_can(name, output_stride):
    with pytest.raises(
        ValueError, match=rf"timm cannot dilate {name} to output stride {output_stride}; .*EfficientNets"
    ):
        adapted_backbone(name, 4, output_stride=output_stride)


def test_fewer_stages_are_the_first_of_all_and_cost_less():
    for name in (LITE, "vit_tiny_patch16_224"):
        backbone = adapted_backbone(name, 3, output_stride=16).eval()
        image = torch.randn(1, 3, 64, 96)
        for one, other in zip(backbone(image, stages=2), backbone(image)[:2], strict=True):
            torch.testing.assert_close(one, other)


def test_what_the_zeros_beyond_the_border_fill_up_changes_nothing_that_fits():
    """96 x 64 is whole; of its upper left 80 x 64, filled up again, the first rows see nothing of the rest."""
    backbone = adapted_backbone("convnext_atto", 3, output_stride=32).eval()
    image = torch.zeros(1, 3, 96, 64)
    image[..., :80, :] = torch.randn(3, 80, 64)
    for whole, filled in zip(backbone(image), backbone(image[..., :80, :]), strict=True):
        torch.testing.assert_close(filled, whole[..., : filled.shape[-2], :])


def test_dilation_sees_at_every_second_pixel_what_the_strided_network_sees():
    """Of ConvNeXt, whose blocks are depthwise convolutions: the last stage at rate 2 after a lost stride."""
    torch.manual_seed(0)
    dilated = adapted_backbone(LITE, 3, output_stride=16).eval()
    undilated = adapted_backbone(LITE, 3, output_stride=16, dilations=[1, 1, 1, 1]).eval()
    undilated.load_state_dict(dilated.state_dict())
    rates = {layer.dilation for layer in dilated.modules() if isinstance(layer, nn.Conv2d)}
    assert rates == {(1, 1), (2, 2)}
    assert {layer.dilation for layer in undilated.modules() if isinstance(layer, nn.Conv2d)} == {(1, 1)}
    image = torch.randn(1, 3, 96, 96)
    assert undilated(image)[-1].shape == dilated(image)[-1].shape
    assert not torch.allclose(undilated(image)[-1], dilated(image)[-1])
    assert (dilated.adapted, undilated.adapted) == ("", "")  # random weights were trained with nothing else


def test_the_last_stage_alone_is_that_of_the_whole_backbone():
    backbone = adapted_backbone(LITE, 3, output_stride=16, dilations=[1, 1, 1, 1]).eval()
    maps = backbone(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(backbone.last_stage(maps[2]), maps[3])
    with pytest.raises(ValueError, match="PlainTransformer has no last stage that could run alone"):
        adapted_backbone("vit_tiny_patch16_224", 3, output_stride=16).last_stage(maps[2])


def test_a_plain_transformer_has_one_map_and_a_pyramid_of_it():
    backbone = adapted_backbone("vit_tiny_patch16_224", 3, output_stride=16).eval()
    assert isinstance(backbone, PlainTransformer)
    one, last = backbone(torch.randn(1, 3, 64, 64))[2:]
    assert torch.equal(one, last)
    pooled = adapted_backbone("vit_tiny_patch16_224", 3, output_stride=32).eval()
    pooled.load_state_dict(backbone.state_dict(), strict=False)
    torch.testing.assert_close(pooled(torch.ones(1, 3, 64, 64))[2], backbone(torch.ones(1, 3, 64, 64))[2])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet1o1", "no backbone resnet1o1 in timm"),
        ("vit_small_patch14_dinov2", "patches of 14 pixels; the pyramid is made from patches of 16"),
        (
            "beit_base_patch16_224",
            r"cannot be used as a backbone here: Input height \(64\) doesn't match model \(224\)",
        ),
        ("levit_128", "has 3 maps, four are needed"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_in_a_sentence(name, said):
    with pytest.raises(ValueError, match=said):
        adapted_backbone(name, 3, output_stride=32)


def test_what_only_resnets_have_is_refused_elsewhere():
    with pytest.raises(ValueError, match=f"widths are for ResNets alone; {LITE}"):
        adapted_backbone(LITE, 3, widths=[8, 16, 32, 64])
    with pytest.raises(ValueError, match="dilated as timm does"):
        adapted_backbone(LITE, 3, dilations=[1, 1, 1, [2, 4]])


@pytest.mark.parametrize("new_channels", ["zero", "copy_last", "random"])
def test_extra_channels_of_weights_for_rgb_are_a_value(lite_weights, new_channels):
    known = torch.load(lite_weights, weights_only=True)
    backbone = adapted_backbone(
        LITE, 5, output_stride=32, pretrained=str(lite_weights), new_channels=new_channels, init="official"
    )
    filters = first_conv(backbone)
    if new_channels == "random":
        assert filters.std() == pytest.approx(0.01, rel=0.2)
    else:
        assert torch.equal(filters[:, :3], known["conv_stem.weight"])
        blue = known["conv_stem.weight"][:, 2:]
        assert torch.equal(filters[:, 3:], (blue if new_channels == "copy_last" else 0 * blue).expand(-1, 2, -1, -1))
    assert torch.equal(backbone.body.blocks[3][0].conv_dw.weight, known["blocks.3.0.conv_dw.weight"])
    assert backbone.weights_source == "lite0.pth"


def test_weights_of_another_network_of_the_family_are_refused(lite_weights):
    with pytest.raises(ValueError, match=r"lite0\.pth holds other weights"):
        adapted_backbone("efficientnet_b0", 3, output_stride=32, pretrained=str(lite_weights))


@pytest.mark.parametrize("affine", ["trainable", "frozen"])
@pytest.mark.parametrize("statistics", ["live", "frozen"])
def test_batch_norm_learns_only_what_is_not_frozen(affine, statistics):
    backbone = adapted_backbone(LITE, 3, output_stride=32, bn_affine=affine, bn_statistics=statistics).eval().train()
    norm = backbone.body.blocks[1][0].bn2
    before = norm.running_mean.clone()
    backbone(torch.rand(2, 3, 64, 64))[-1].square().mean().backward()
    assert (norm.weight.grad is not None) == (affine == "trainable")
    assert torch.equal(before, norm.running_mean) == (statistics == "frozen")


NETWORKS = {
    "DeepLab": lambda name: DeepLab(name, 4, partial(PSP, channels=16, skip=True), output_stride=32),
    "CoarseToFine": lambda name: CoarseToFine(name, 4, channels=16, context_channels=16, output_stride=32),
    "DeepLabV3Plus": lambda name: DeepLabV3Plus(name, 4, aspp_channels=16, decoder_channels=16, output_stride=32),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", [LITE, "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_every_network_of_the_suite_can_stand_on_them(network, name):
    """One step on drawn noise: logits of the input's size, and every weight learns."""
    torch.manual_seed(0)
    built = NETWORKS[network](name)
    made = built(torch.randn(2, 4, 65, 64))
    logits = [made] if isinstance(made, torch.Tensor) else made
    assert all(each.shape[-2:] == (65, 64) for each in logits)
    sum(each.square().mean() for each in logits).backward()
    assert [name for name, weight in built.named_parameters() if weight.grad is None] == []


def test_the_region_based_network_runs_its_last_stage_on_the_features_of_a_region():
    built = RegionNet(LITE, 4, channels=16)
    logits = built(torch.randn(2, 4, 64, 64), torch.tensor([[0, 0, 31, 31], [16, 16, 63, 63]]))
    assert logits.shape == (2, 1, 64, 64)
    logits.square().mean().backward()
    assert all(weight.grad is not None for weight in built.parameters())


def test_nothing_is_computed_on_the_meta_device():
    with torch.device("meta"):
        backbone = adapted_backbone(LITE, 4, output_stride=16, pretrained="imagenet")
    assert isinstance(backbone, FamilyStages)
    # EfficientNet-Lite0 has 4,652,008; without classifier, last convolution and its norm; and 32 new 3x3 filters
    whole = 4_652_008 - (1280 + 1) * 1000 - 320 * 1280 - 2 * 1280
    assert sum(weight.numel() for weight in backbone.parameters()) == whole + 32 * 9
