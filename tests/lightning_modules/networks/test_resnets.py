from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.resnets import ResNetStages

NARROW = [8, 16, 32, 64]


@pytest.fixture
def imagenet_weights(tmp_path: Path) -> Path:
    """Weights as a classifier for RGB would be saved, its last layer included."""
    path = tmp_path / "resnet10t.pth"
    torch.save(timm.create_model("resnet10t", zero_init_last=False).state_dict(), path)
    return path


def first_conv(backbone: ResNetStages) -> torch.Tensor:
    return next(layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)).weight.detach()


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet10t", "resnet14t", "resnet50"])
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
def test_each_stage_has_the_stride_and_width_it_says(name, output_stride):
    backbone = adapted_backbone(name, output_stride=output_stride, widths=NARROW).eval()
    for features, stride, channels in zip(backbone(torch.rand(1, 4, 65, 50)), backbone.strides, backbone.channels):
        assert features.shape == (1, channels, -(-65 // stride), -(-50 // stride))
    assert backbone.strides[-1] == output_stride


def test_dilation_sees_at_every_fourth_pixel_what_the_strided_network_sees():
    """The identity behind dilated networks (a trous): exact for the stride on the first 1x1 and all blocks dilated."""
    strided = adapted_backbone("resnet26", output_stride=32, widths=NARROW).eval()
    dilated = adapted_backbone("resnet26", output_stride=8, widths=NARROW).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.rand(1, 4, 129, 97)
    torch.testing.assert_close(dilated(image)[-1][..., ::4, ::4], strided(image)[-1])


def test_basic_blocks_dilate_both_of_their_convolutions_from_the_first_block_on():
    stage = adapted_backbone("resnet18", output_stride=8).layer4
    for block in stage:
        for conv in (block.conv1, block.conv2):
            assert conv.dilation == conv.padding == (4, 4)
            assert conv.stride == (1, 1)


def test_fewer_dilations_than_blocks_are_refused():
    with pytest.raises(ValueError, match="each of the 2 blocks of a stage, got \\[2, 4, 8\\]"):
        adapted_backbone("resnet18", dilations=[1, 1, 1, [2, 4, 8]])
    with pytest.raises(ValueError, match="four stages"):
        adapted_backbone("resnet18", dilations=[1, 1, 2])
    with pytest.raises(ValueError, match="no backbone resnet1o1 in timm"):
        adapted_backbone("resnet1o1")


@pytest.mark.parametrize("in_channels", [3, 4, 6])
def test_pretrained_rgb_is_kept_and_extra_channels_copy_its_last_one(imagenet_weights, in_channels):
    known = torch.load(imagenet_weights, weights_only=True)
    backbone = adapted_backbone("resnet10t", in_channels, pretrained=str(imagenet_weights))
    filters = first_conv(backbone)
    assert torch.equal(filters[:, :3], known["conv1.0.weight"])
    assert all(torch.equal(filters[:, extra], known["conv1.0.weight"][:, 2]) for extra in range(3, in_channels))
    assert torch.equal(backbone.layer4[0].conv2.weight, known["layer4.0.conv2.weight"])
    assert backbone.weights_source == "resnet10t.pth"


def test_the_first_convolution_can_stay_random_as_in_the_official_code(imagenet_weights):
    options = {"pretrained": str(imagenet_weights), "new_channels": "random", "init": "official"}
    filters = first_conv(adapted_backbone("resnet10t", 4, **options))
    assert filters.std() == pytest.approx(0.01, rel=0.1)
    rgb = first_conv(adapted_backbone("resnet10t", 3, **options))
    assert torch.equal(rgb, torch.load(imagenet_weights, weights_only=True)["conv1.0.weight"])


def test_extra_channels_can_start_at_zero_as_in_iog(imagenet_weights):
    filters = first_conv(adapted_backbone("resnet10t", 5, pretrained=str(imagenet_weights), new_channels="zero"))
    assert filters[:, :3].abs().sum() > 0
    assert filters[:, 3:].abs().sum() == 0


def test_safetensors_files_are_read(tmp_path):
    weights = timm.create_model("resnet10t", num_classes=0).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    backbone = adapted_backbone("resnet10t", pretrained=str(tmp_path / "weights.safetensors"))
    assert torch.equal(backbone.bn1.weight, weights["bn1.weight"])


def test_weights_of_another_network_are_refused(imagenet_weights):
    with pytest.raises(ValueError, match=r"resnet10t\.pth holds other weights"):
        adapted_backbone("resnet18", pretrained=str(imagenet_weights))
    with pytest.raises(FileNotFoundError, match="no weights at"):
        adapted_backbone("resnet18", pretrained="nowhere.pth")


@pytest.mark.parametrize("affine", ["trainable", "frozen"])
@pytest.mark.parametrize("statistics", ["live", "frozen"])
def test_batch_norm_learns_only_what_is_not_frozen(affine, statistics):
    backbone = adapted_backbone("resnet18", bn_affine=affine, bn_statistics=statistics, widths=NARROW)
    backbone.eval().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.rand(2, 4, 33, 33))[-1].square().mean().backward()
    assert (backbone.layer4[0].bn1.weight.grad is not None) == (affine == "trainable")
    assert backbone.layer4[0].conv1.weight.grad is not None
    moved = not torch.equal(before["layer4.0.bn1.running_mean"], backbone.layer4[0].bn1.running_mean)
    assert moved == (statistics == "live")


def test_frozen_statistics_stay_frozen_where_lightning_synchronises_batch_norm():
    """`sync_batchnorm: true` swaps the layers behind the network's back, and `SyncBatchNorm` is no `BatchNorm2d`."""
    networks = [adapted_backbone("resnet18", bn_statistics=kind, widths=NARROW) for kind in ("frozen", "live")]
    backbone, live = (nn.SyncBatchNorm.convert_sync_batchnorm(network).train() for network in networks)
    norms = [layer for layer in backbone.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert norms
    before = [norm.running_mean.clone() for norm in norms]
    backbone(torch.rand(2, 4, 33, 33))
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert all(layer.training for layer in live.modules())


@pytest.mark.parametrize("affine", ["trainable", "frozen"])
def test_residual_branches_learn_from_the_first_step(affine):
    """timm starts their last scale at 0; frozen there, no block would ever learn."""
    backbone = adapted_backbone("resnet18", bn_affine=affine, widths=NARROW)
    backbone(torch.rand(2, 4, 33, 33))[-1].square().mean().backward()
    assert all(block.conv1.weight.grad.abs().sum() > 0 for block in [*backbone.layer1, *backbone.layer4])


def test_official_start_draws_every_convolution_with_deviation_001():
    backbone = adapted_backbone("resnet18", init="official")
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
