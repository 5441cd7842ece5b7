from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from lightning_modules.networks.xception import XceptionStages, aligned_xception

MIDDLE = range(3, 19)  # of Xception-65


def layout(backbone: XceptionStages) -> list[tuple[int, int, int]]:
    """Per block: the stride of what leaves it, and how far taps of its first and last 3x3 are apart in the input."""
    rows, stride = [], 2
    for block in backbone.blocks:
        convs = [block.stack.conv1.conv_dw, block.stack.conv2.conv_dw, block.stack.conv3.conv_dw]
        assert all(conv.padding == conv.dilation for conv in convs)
        assert [conv.stride for conv in convs[:2]] == [(1, 1), (1, 1)]
        reach = [conv.dilation[0] * stride for conv in convs]
        stride *= convs[2].stride[0]
        if block.shortcut is not None:
            assert block.shortcut.conv.stride == convs[2].stride
        rows.append((stride, reach[0], reach[2]))
    return rows


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_every_block_has_the_stride_and_dilation_of_the_authors_code(output_stride):
    """A block reaches as far in the input as in the classifier, at any output stride: that is what dilation is for."""
    backbone = aligned_xception("xception65", output_stride=output_stride)
    strides = [min(stride, output_stride) for stride in (4, 8, 16, *(16 for _ in MIDDLE), 32, 32)]
    reach = [2, 4, 8, *(16 for _ in MIDDLE), 16, 32]
    assert layout(backbone) == [(stride, taps, taps) for stride, taps in zip(strides, reach, strict=True)]
    dilations = [block.stack.conv1.conv_dw.dilation[0] for block in backbone.blocks]
    expected = {32: [1] * 21, 16: [1] * 20 + [2], 8: [1] * 3 + [2] * 17 + [4]}
    assert dilations == expected[output_stride]


@pytest.fixture(scope="module")
def dense() -> XceptionStages:
    """All convolutions positive and without batch norm, so that a pixel is felt wherever it can be felt."""
    backbone = aligned_xception("xception41", output_stride=16).eval()
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    return backbone


def felt(features: torch.Tensor) -> tuple[int, int]:
    """First and last column of a map that are not zero."""
    columns = (features != 0).any(dim=1).any(dim=1)[0].nonzero()
    return int(columns.min()), int(columns.max())


def test_the_receptive_fields_are_those_of_the_strides_and_dilations(dense):
    """Low level: taps reach 1 + 2, then 3 x 2 in the first block, then 2 x 4 before the tap: 17 pixels to a side."""
    image = torch.zeros(1, 3, 33, 513)
    image[:, :, 16, 256] = 1
    with torch.no_grad():
        low = dense(image)[0]
    assert felt(low) == (64 - 17 // 4, 64 + 17 // 4)
    # 3, 6, 12 of entry blocks 1 and 2, 24 of block 3, eight middle blocks and the exit's first 48 each, the last 96.
    side = 3 + 6 + 12 + 24 + 8 * 48 + 48 + 96
    assert side == 573
    image = torch.zeros(1, 3, 33, 1281)
    image[:, :, 16, 640] = 1
    with torch.no_grad():
        deep = dense(image)[1]
    assert felt(deep) == (40 - side // 16, 40 + side // 16)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_an_image_moved_by_one_cell_moves_the_features_by_one_cell(output_stride):
    """Away from the borders, which are 573 pixels deep in the last block: so the middle flow is left out here."""
    backbone = aligned_xception("xception41", output_stride=output_stride).double().eval()
    backbone.blocks = nn.Sequential(*backbone.blocks[:3], backbone.blocks[-2], backbone.blocks[-1])
    image = torch.rand(1, 3, 41, 641, dtype=torch.float64)
    with torch.no_grad():
        low, deep = backbone(image[..., :-16])
        moved_low, moved_deep = backbone(image[..., 16:])
    assert deep.std() > 0
    cells, border = 16 // output_stride, 200 // output_stride
    torch.testing.assert_close(moved_low[..., 8:-12], low[..., 12:-8])
    middle = slice(border, deep.shape[-1] - border)
    torch.testing.assert_close(moved_deep[..., middle], deep[..., border + cells : deep.shape[-1] - border + cells])


def test_dilation_sees_at_every_second_cell_what_the_strided_network_sees():
    """The identity behind dilated networks (a trous)."""
    strided = aligned_xception("xception41", output_stride=32).eval()
    dilated = aligned_xception("xception41", output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.rand(1, 3, 97, 65)
    with torch.no_grad():
        torch.testing.assert_close(dilated(image)[1][..., ::4, ::4], strided(image)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (350, 47)])
def test_sizes_are_rounded_up_as_strided_convolutions_do(size):
    low, deep = aligned_xception("xception41", in_channels=5).eval()(torch.rand(1, 5, *size))
    assert low.shape == (1, 256, *(-(-length // 4) for length in size))
    assert deep.shape == (1, 2048, *(-(-length // 16) for length in size))


def test_the_low_level_map_is_not_rectified_and_what_follows_does_not_change_it():
    backbone = aligned_xception("xception41").eval()
    image = torch.rand(1, 3, 64, 64)
    low = backbone(image)[0]
    assert (low < 0).any()
    backbone.blocks = backbone.blocks[:2]  # nothing behind the block that it is taken from
    assert torch.equal(backbone(image)[0], low)


def test_the_last_map_is_timm_s():
    """Same weights, no lost stride: then our way through the blocks is the classifier's."""
    classifier = timm.create_model("xception41", num_classes=0).eval()
    backbone = aligned_xception("xception41", output_stride=32).eval()
    backbone.load_state_dict(classifier.state_dict())
    image = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(backbone(image)[1], classifier.forward_features(image))


@pytest.fixture(scope="module", params=["with its classifier", "without"])
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Weights for RGB as a classifier would be saved, its last layer included, or features alone."""
    path = tmp_path_factory.mktemp("weights") / "xception41.pth"
    classes = 0 if request.param == "without" else 1000
    torch.save(timm.create_model("xception41", num_classes=classes).state_dict(), path)
    return path


def test_imagenet_weights_fill_the_backbone_and_extra_channels_copy_blue(imagenet_weights):
    known = torch.load(imagenet_weights, weights_only=True)
    backbone = aligned_xception("xception41", 5, pretrained=str(imagenet_weights))
    filters = backbone.stem[0].conv.weight
    assert torch.equal(filters[:, :3], known["stem.0.conv.weight"])
    assert torch.equal(filters[:, 4], known["stem.0.conv.weight"][:, 2])
    assert torch.equal(backbone.blocks[-1].stack.conv3.bn_pw.weight, known["blocks.12.stack.conv3.bn_pw.weight"])
    assert backbone.weights_source == "xception41.pth"


def test_weights_of_a_deeper_xception_are_refused(imagenet_weights):
    with pytest.raises(ValueError, match=r"xception41\.pth holds other weights"):
        aligned_xception("xception65", pretrained=str(imagenet_weights))


@pytest.mark.parametrize("name", ["xception65p", "xception", "legacy_xception", "resnet18"])
def test_other_networks_are_refused(name):
    with pytest.raises(ValueError, match=f"xception41, xception65 and xception71 of timm; got {name}"):
        aligned_xception(name)
    with pytest.raises(ValueError, match="stride of 8, 16 or 32, got 4"):
        aligned_xception("xception41", output_stride=4)


def test_frozen_statistics_stay_and_frozen_scales_do_not_learn():
    backbone = aligned_xception("xception41", bn_statistics="frozen", bn_affine="frozen").train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 32, 32))[1].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    learning = [name for name, parameter in backbone.named_parameters() if parameter.grad is not None]
    assert learning
    assert not any(".bn" in name for name in learning)


@pytest.mark.slow
def test_the_authors_random_start_is_a_truncated_normal():
    weight = aligned_xception("xception41", init="official").blocks[5].stack.conv1.conv_pw.weight
    assert weight.abs().max() <= 0.18
    assert weight.std().item() == pytest.approx(0.88 * 0.09, rel=0.01)
