import copy
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import nn

from lightning_modules.networks.deeplab_v3plus import ASPPWithImagePooling, Decoder, DeepLabV3Plus, legacy_upsample
from lightning_modules.networks.official import deeplab_names
from lightning_modules.networks.statistics import batch_norms, statistics_loaded

TINY = {
    "backbone": "resnet10t",
    "widths": [8, 16, 32, 64],
    "aspp_channels": 16,
    "decoder_channels": 16,
    "low_level_channels": 8,
}


# The plain network of IOG's Figure 6 right: beside these values a recipe names the ResNet and the input channels.
PLAIN = {
    "classes": 1,
    "separable": False,
    "dropout": 0.5,
    "decoder_dropout": (0.5, 0.1),
    "stride_on": "conv2",
    "dilations": [1, 1, 1, [2, 4, 8]],
    "bn_statistics": "live",
    "final_grid": "aligned",
}


def tiny(**options) -> DeepLabV3Plus:
    return DeepLabV3Plus(**{**TINY, **options})


def separable(inside: int, outside: int) -> int:
    """Weights of a depthwise 3x3, a pointwise convolution, and a batch norm behind each."""
    return 9 * inside + 2 * inside + inside * outside + 2 * outside


def test_the_published_network_has_its_parameters():
    with torch.device("meta"):
        network = DeepLabV3Plus()
    entry, exit_ = [(64, 128), (128, 256), (256, 728)], [(728, 728), (728, 1024), (1024, 1024)]
    backbone = (5 * 32 * 9 + 2 * 32) + (32 * 64 * 9 + 2 * 64)
    backbone += sum(separable(a, b) + 2 * separable(b, b) + (a * b + 2 * b) for a, b in entry)
    backbone += 16 * 3 * separable(728, 728)
    backbone += sum(separable(*pair) for pair in exit_) + (728 * 1024 + 2 * 1024)
    backbone += separable(1024, 1536) + separable(1536, 1536) + separable(1536, 2048)
    head = 2 * (2048 * 256 + 512) + 3 * separable(2048, 256) + (5 * 256 * 256 + 512)
    head += (256 * 48 + 96) + separable(256 + 48, 256) + separable(256, 256) + (256 + 1) * 2
    assert sum(p.numel() for p in network.backbone.parameters()) == backbone == 37_867_888
    assert sum(p.numel() for p in network.parameters()) == backbone + head == 41_051_106


def test_for_pascal_it_has_the_parameters_of_the_released_one():
    """41,258,213, stored statistics included, is what the Keras port of the authors' Xception-65 model counts."""
    with torch.device("meta"):
        network = DeepLabV3Plus(in_channels=3, classes=21)
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert sum(value.numel() for value in state.values()) == 41_258_213


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "in_channels", "expected"),
    [
        ("resnet34", 5, 21_284_672 + 2 * 64 * 49),
        ("resnet50", 4, 23_508_032 + 64 * 49),
        ("resnet50", 5, 23_508_032 + 2 * 64 * 49),
        ("resnet101", 5, 42_500_160 + 2 * 64 * 49),
    ],
)
def test_the_plain_network_of_iog_has_its_parameters(backbone, in_channels, expected):
    """ResNets as torchvision counts them without their classifier, and 64 more filters of 7x7 for each guidance map."""
    with torch.device("meta"):
        network = DeepLabV3Plus(backbone, in_channels, **PLAIN)
        logits = network(torch.rand(2, in_channels, 512, 512))
    deep, early = (512, 64) if backbone == "resnet34" else (2048, 256)
    pyramid = 2 * (deep * 256 + 512) + 3 * (deep * 256 * 9 + 512) + (5 * 256 * 256 + 512)
    decoder = (early * 48 + 96) + (304 * 256 * 9 + 512) + (256 * 256 * 9 + 512)
    assert sum(p.numel() for p in network.backbone.parameters()) == expected
    assert sum(p.numel() for p in network.parameters()) == expected + pyramid + decoder + 256 + 1
    if (backbone, in_channels) == ("resnet50", 5):
        assert sum(p.numel() for p in network.parameters()) == 40_353_313
    assert logits.shape == (2, 1, 512, 512)
    assert [tuple(f.shape[-2:]) for f in network.backbone(torch.rand(2, in_channels, 512, 512, device="meta"))] == [
        (128, 128),
        (64, 64),
        (32, 32),
        (32, 32),
    ]


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_the_plain_network_of_iog_has_its_reach(backbone):
    with torch.device("meta"):
        network = DeepLabV3Plus(backbone, 5, **PLAIN)

    def rates(module: nn.Module) -> list[int]:
        return [layer.dilation[0] for layer in module.modules() if getattr(layer, "kernel_size", 1) == (3, 3)]

    in_a_block = 2 if backbone == "resnet34" else 1
    assert rates(network.backbone.layer4) == [rate for rate in (2, 4, 8) for _ in range(in_a_block)]
    assert set(rates(network.backbone.layer3)) == {1}
    assert rates(network.head.aspp) == [6, 12, 18]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5, 0.1]


def test_the_plain_network_of_iog_learns():
    network = tiny(**{**PLAIN, "dilations": [1, 1, 1, [2]]})
    network(torch.rand(2, 5, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("separable_head", "expected"),
    [
        (True, [0.083169, 0.071325, -0.003847, 0.002000]),
        (False, [0.021716, 0.102140, -0.016580, 0.083863]),
    ],
)
def test_the_decoder_s_dropout_left_itis_as_it_was(separable_head, expected):
    """Corner logits in training, and names, from before the decoder could drop anything; the pyramid's 0.1 is drawn."""
    torch.manual_seed(0)
    network = tiny(separable=separable_head, bn_statistics="frozen").train()
    logits = network(torch.linspace(-1, 1, 2 * 5 * 32 * 32).view(2, 5, 32, 32))
    assert logits[0, 0, ::31, ::31].flatten().tolist() == pytest.approx(expected, abs=2e-5)
    names = {name.removeprefix("head.decoder.") for name in network.state_dict() if "decoder" in name}
    kind = [f"{part}.{{}}" for part in ("depthwise", "pointwise")] if separable_head else ["{}"]
    layers = ["projection.{}", *(f"refine.{number}.{part}" for number in (0, 1) for part in kind)]
    values = [
        "0.weight",
        *(f"1.{value}" for value in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    assert names == {layer.format(value) for layer in layers for value in values}


def test_the_decoder_drops_after_each_of_its_convolutions_in_training_only():
    def zeros(first: float, second: float) -> tuple[float, float]:
        """Shares of zeros behind either convolution, where every cell is 1 or 1 / (1 - dropout) if kept."""
        decoder = Decoder(4, 8, 4, 64, separable=False, dropout=(first, second)).train()
        for norm in batch_norms(decoder):
            nn.init.zeros_(norm.weight)
            nn.init.ones_(norm.bias)
        between = []
        decoder.refine[1].register_forward_pre_hook(lambda layer, given: between.append(given[0].detach().clone()))
        after = decoder(torch.rand(2, 8, 4, 4), torch.rand(2, 4, 16, 16))
        assert after[after > 0].unique().tolist() == pytest.approx([1 / (1 - second)])
        decoder.eval()(torch.rand(2, 8, 4, 4), torch.rand(2, 4, 16, 16))
        assert (between[1] == 1).all()
        return (between[0] == 0).float().mean().item(), (after == 0).float().mean().item()

    assert zeros(0.5, 0.1) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.1, abs=0.02))
    assert zeros(0.0, 0.5) == (0, pytest.approx(0.5, abs=0.02))
    assert zeros(0.0, 0.0) == (0, 0)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (35, 47), (48, 86)])
def test_logits_have_the_size_of_the_input_whatever_it_is(output_stride, size):
    network = tiny(output_stride=output_stride, in_channels=6, classes=3).eval()
    assert network(torch.rand(1, 6, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(350, 350), (480, 854)])
def test_the_published_network_takes_the_published_sizes(size):
    with torch.device("meta"):
        assert DeepLabV3Plus()(torch.rand(2, 5, *size)).shape == (2, 2, *size)


def test_rates_double_where_a_cell_is_half():
    def rates(network: DeepLabV3Plus) -> list[tuple[int, ...]]:
        return [layer.dilation for layer in network.head.aspp.modules() if getattr(layer, "kernel_size", 1) == (3, 3)]

    assert rates(tiny()) == [(6, 6), (12, 12), (18, 18)]
    assert rates(tiny(output_stride=8)) == [(12, 12), (24, 24), (36, 36)]
    assert rates(tiny(output_stride=8, rates=[3, 6])) == [(6, 6), (12, 12)]


def test_the_image_average_reaches_every_cell():
    """Rates beyond the map leave each 3x3 with its centre, so that only the average connects distant cells."""
    aspp = ASPPWithImagePooling(3, 4, rates=(64, 64, 64), dropout=0.0, separable=False).eval()
    x = torch.rand(1, 3, 9, 11, requires_grad=True)
    aspp(x)[..., 0, 0].sum().backward()
    assert x.grad[..., 1:, 1:].any(dim=1).all()
    far = x.grad[..., 1:, 1:].flatten(2)
    torch.testing.assert_close(far, far[..., :1].expand_as(far))


def test_dropout_follows_the_projection_of_the_pyramid_in_training_only():
    network = tiny(dropout=0.5)
    x = torch.rand(2, 5, 32, 32)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    dropped = ASPPWithImagePooling(8, 4000, rates=(), dropout=0.1, separable=True).train()
    batch_norm = [layer for layer in dropped.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in batch_norm:
        layer.eval()
        nn.init.ones_(layer.bias)
        nn.init.zeros_(layer.weight)
    kept = dropped(torch.rand(1, 8, 2, 2))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert (kept == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_one_object_trains_with_frozen_statistics_which_stay():
    network = tiny(bn_statistics="frozen").train()
    stored = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.rand(1, 5, 32, 32)).square().sum().backward()
    assert all(torch.equal(value, stored[name]) for name, value in network.named_buffers())
    assert all(norm.weight.grad is not None and norm.weight.grad.any() for norm in batch_norms(network.head))


def test_one_object_cannot_train_with_live_statistics_and_two_can():
    network = tiny(bn_statistics="live").train()
    with pytest.raises(ValueError, match=r"two objects or more at a time, got one: .*bn_statistics: frozen"):
        network(torch.rand(1, 5, 32, 32))
    before = network.head.aspp.image_pooling[1].running_mean.clone()
    network(torch.rand(2, 5, 32, 32))
    assert not torch.equal(network.head.aspp.image_pooling[1].running_mean, before)
    network.eval()(torch.rand(1, 5, 32, 32))


def live(part: nn.Module) -> set[bool]:
    return {norm.training for norm in batch_norms(part)}


def test_only_what_came_with_statistics_keeps_them(imagenet_weights, tmp_path):
    """14 layers of a random pyramid and decoder would keep mean 0 and variance 1 for ever."""
    backbone_alone = tiny(backbone="resnet10t", widths=None, pretrained=str(imagenet_weights["resnet10t"])).train()
    assert (live(backbone_alone.backbone), live(backbone_alone.head)) == ({False}, {True})
    assert len(batch_norms(backbone_alone.head)) == 14
    torch.save(backbone_alone.state_dict(), tmp_path / "whole.pth")
    whole = tiny(backbone="resnet10t", widths=None, pretrained=str(tmp_path / "whole.pth")).train()
    assert (live(whole.backbone), live(whole.head)) == ({False}, {False})
    assert (live(tiny().train()), live(tiny(bn_statistics="frozen").train())) == ({True}, {False})
    statistics_loaded(backbone_alone)
    assert live(backbone_alone.train()) == {False}
    said = (backbone_alone.head.weights_source, whole.head.weights_source, whole.backbone.weights_source)
    assert said == ("random pyramid and decoder", "pyramid and decoder of whole.pth", "whole.pth")


def test_live_statistics_of_a_random_head_are_learned_beside_a_frozen_backbone(imagenet_weights):
    network = tiny(backbone="resnet10t", widths=None, pretrained=str(imagenet_weights["resnet10t"])).train()
    stored = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.rand(2, 5, 64, 64))
    moved = {name.partition(".")[0] for name, value in network.named_buffers() if not torch.equal(value, stored[name])}
    assert moved == {"head"}


# Layers of DeepLab's released Xception-65 as TensorFlow names them -> ours, written down one by one.
RELEASED = {
    "xception_65/entry_flow/conv1_1/weights": "backbone.stem.0.conv.weight",
    "xception_65/entry_flow/conv1_2/BatchNorm/beta": "backbone.stem.1.bn.bias",
    "xception_65/entry_flow/block2/unit_1/xception_module/separable_conv3_depthwise/depthwise_weights": (
        "backbone.blocks.1.stack.conv3.conv_dw.weight"
    ),
    "xception_65/entry_flow/block3/unit_1/xception_module/shortcut/BatchNorm/moving_variance": (
        "backbone.blocks.2.shortcut.bn.running_var"
    ),
    "xception_65/middle_flow/block1/unit_1/xception_module/separable_conv1_depthwise/BatchNorm/gamma": (
        "backbone.blocks.3.stack.conv1.bn_dw.weight"
    ),
    "xception_65/middle_flow/block1/unit_16/xception_module/separable_conv2_pointwise/weights": (
        "backbone.blocks.18.stack.conv2.conv_pw.weight"
    ),
    "xception_65/exit_flow/block1/unit_1/xception_module/shortcut/weights": "backbone.blocks.19.shortcut.conv.weight",
    "xception_65/exit_flow/block2/unit_1/xception_module/separable_conv3_pointwise/BatchNorm/moving_mean": (
        "backbone.blocks.20.stack.conv3.bn_pw.running_mean"
    ),
    "image_pooling/weights": "head.aspp.image_pooling.0.weight",
    "aspp0/BatchNorm/gamma": "head.aspp.branches.0.1.weight",
    "aspp3_depthwise/depthwise_weights": "head.aspp.branches.3.depthwise.0.weight",
    "aspp1_pointwise/BatchNorm/moving_mean": "head.aspp.branches.1.pointwise.1.running_mean",
    "concat_projection/weights": "head.aspp.projection.0.weight",
    "decoder/feature_projection0/weights": "head.decoder.projection.0.weight",
    "decoder/decoder_conv0_depthwise/BatchNorm/beta": "head.decoder.refine.0.depthwise.1.bias",
    "decoder/decoder_conv1_pointwise/weights": "head.decoder.refine.1.pointwise.0.weight",
}


def as_released(network: nn.Module) -> dict[str, torch.Tensor]:
    """A state as TensorFlow's checkpoints have it: kernels with rows and columns first, and what training leaves."""
    theirs = {}
    state = network.state_dict()
    names = {ours if ours.startswith("head.") else f"backbone.{ours}": name for name, ours in deeplab_names().items()}
    for ours, value in state.items():
        if ours in names:
            order = (2, 3, 0, 1) if names[ours].endswith("depthwise_weights") else (2, 3, 1, 0)
            theirs[names[ours]] = value.permute(order).contiguous() if value.ndim == 4 else value
    theirs["concat_projection/weights/Momentum"] = torch.zeros(1, 1, 1280, 256)
    return theirs | {
        "logits/semantic/weights": torch.rand(1, 1, 256, 21),
        "logits/semantic/biases": torch.rand(21),
        "global_step": torch.tensor(30000),
    }


@pytest.mark.slow
def test_the_authors_start_is_loaded_whole_but_for_its_output_layer(tmp_path):
    given = DeepLabV3Plus("xception65", 3)
    with torch.no_grad():
        for value in given.state_dict().values():
            value.copy_(torch.rand(value.shape))
    torch.save(as_released(given), tmp_path / "deeplab.pth")
    network = DeepLabV3Plus("xception65", 5, pretrained=str(tmp_path / "deeplab.pth")).train()
    ours, theirs = network.state_dict(), given.state_dict()
    rgb = {name: value[:, :3] if "stem.0.conv" in name else value for name, value in ours.items()}
    same = {name for name, value in rgb.items() if torch.equal(value, theirs[name])}
    assert {name for name in ours.keys() - same if "tracked" not in name} == {"head.logits.weight", "head.logits.bias"}
    assert live(network) == {False}
    assert set(RELEASED.items()) <= {
        (name, ours if ours.startswith("head.") else f"backbone.{ours}") for name, ours in deeplab_names().items()
    }
    assert len(deeplab_names()) == len(set(deeplab_names().values())) == 5 * len(batch_norms(network))


def test_a_whole_checkpoint_of_another_head_is_refused_by_names_and_shapes(imagenet_weights, tmp_path):
    torch.save(tiny(backbone="resnet10t", widths=None, decoder_channels=8).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"(?s)other\.pth holds other weights than this DeepLabV3PlusHead.*decoder"):
        tiny(backbone="resnet10t", widths=None, pretrained=str(tmp_path / "other.pth"))


@pytest.mark.parametrize("affine", ["trainable", "frozen"])
def test_scales_and_shifts_learn_unless_they_are_frozen(affine):
    network = tiny(bn_affine=affine)
    assert {p.requires_grad for norm in batch_norms(network) for p in norm.parameters()} == {affine == "trainable"}


def test_batch_norms_have_the_published_epsilons():
    with torch.device("meta"):
        network = DeepLabV3Plus()
    assert {norm.eps for norm in batch_norms(network.backbone)} == {1e-3}
    assert {norm.eps for norm in batch_norms(network.head)} == {1e-5}
    assert {norm.eps for norm in batch_norms(tiny().backbone)} == {1e-5}
    assert {norm.eps for norm in batch_norms(tiny(backbone_eps=1e-3).backbone)} == {1e-3}


@pytest.mark.parametrize("init", ["timm", "official"])
def test_the_first_predictions_are_undecided(init):
    network = tiny(init=init, decoder_channels=2048)
    assert network.head.logits.weight.abs().max() <= 0.02
    assert network.head.logits.weight.std().item() == pytest.approx(0.0088, rel=0.05)
    assert not network.head.logits.bias.any()


def test_the_authors_random_start_of_the_head():
    head = tiny(init="official", aspp_channels=256).head
    depthwise, pointwise = (getattr(head.aspp.branches[1], part)[0].weight for part in ("depthwise", "pointwise"))
    assert 0.5 < depthwise.abs().max() <= 0.66
    assert 0.11 < pointwise.abs().max() <= 0.12


@pytest.fixture(scope="module")
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name in ("resnet10t", "xception41"):
        torch.save(timm.create_model(name).state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in ("resnet10t", "xception41")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first"), [("resnet10t", "conv1.0.weight"), ("xception41", "stem.0.conv.weight")])
@pytest.mark.parametrize("new_channels", ["random", "zero", "copy_last"])
def test_pretrained_rgb_is_kept_and_click_channels_start_as_asked(imagenet_weights, name, first, new_channels):
    path = imagenet_weights[name]
    known = torch.load(path, weights_only=True)[first]
    network = DeepLabV3Plus(name, 6, pretrained=str(path), new_channels=new_channels)
    filters = network.backbone.get_parameter(first)
    assert torch.equal(filters[:, :3], known)
    extra = filters[:, 3:]
    if new_channels == "random":
        assert extra.abs().max() <= 0.18
        assert extra.std().item() == pytest.approx(0.88 * 0.09, rel=0.1)
        assert not torch.equal(extra[:, 0], extra[:, 1])
    elif new_channels == "zero":
        assert not extra.any()
    else:
        assert torch.equal(extra, known[:, 2:].expand_as(extra))
    assert filters.requires_grad
    assert filters.is_leaf
    assert network.backbone.weights_source == path.name


def test_backbone_and_head_are_all_there_is_to_learn():
    network = tiny()
    parts = [*network.backbone.parameters(), *network.head.parameters()]
    assert {id(p) for p in parts} == {id(p) for p in network.parameters()}
    assert len(parts) == len({id(p) for p in parts})


@pytest.mark.parametrize(
    ("n_in", "n_out", "expected"),
    [
        (2, 4, [0, 5, 10, 10]),  # reads 0, 1/2, 1 and 3/2, and there is nothing behind 1
        (3, 4, [0, 7.5, 15, 20]),  # reads 0, 3/4, 3/2 and 9/4
        (4, 2, [0, 20]),
        (1, 3, [0, 0, 0]),
        (3, 3, [0, 10, 20]),
    ],
)
def test_the_legacy_grid_reads_position_i_times_in_over_out(n_in, n_out, expected):
    row = 10 * torch.arange(float(n_in)).view(1, 1, 1, -1)
    assert legacy_upsample(row, (1, n_out)).flatten().tolist() == pytest.approx(expected)
    assert legacy_upsample(row.mT, (n_out, 1)).flatten().tolist() == pytest.approx(expected)


def test_the_legacy_grid_by_hand_in_two_directions():
    x = torch.tensor([[0.0, 4.0], [8.0, 20.0]]).view(1, 1, 2, 2)
    expected = [[0, 2, 4, 4], [4, 8, 12, 12], [8, 14, 20, 20], [8, 14, 20, 20]]
    assert legacy_upsample(x, (4, 4)).view(4, 4).tolist() == expected


@pytest.mark.parametrize("n_in", [1, 8, 22, 88])
@pytest.mark.parametrize("n_out", [32, 350, 351, 854])
def test_the_legacy_grid_keeps_constants_and_is_half_a_pixel_off_today_s(n_in, n_out):
    constant = torch.full((1, 1, n_in, 1), 3.7)
    torch.testing.assert_close(legacy_upsample(constant, (n_out, 1)), torch.full((1, 1, n_out, 1), 3.7))
    ramp = torch.arange(n_in, dtype=torch.float64).view(1, 1, n_in, 1)
    today = F.interpolate(ramp, (n_out, 1), mode="bilinear", align_corners=False).flatten()
    shift = (n_in / n_out - 1) / 2  # (i + 0.5) s - 0.5 against i s
    inside = (today > 0) & (today < n_in - 1)
    ours = legacy_upsample(ramp, (n_out, 1)).flatten()
    torch.testing.assert_close((ours + shift)[inside & (ours < n_in - 1)], today[inside & (ours < n_in - 1)])


def test_the_legacy_grid_passes_gradients_and_ignores_autocast():
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda logits: legacy_upsample(logits, (11, 9)), x)
    single = torch.randn(1, 2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        halved = legacy_upsample(single, (11, 9))
    assert torch.equal(halved, legacy_upsample(single, (11, 9)))


def test_the_last_grid_is_a_choice_and_both_share_their_first_pixel():
    legacy, aligned = tiny().eval(), tiny(final_grid="aligned").eval()
    aligned.load_state_dict(legacy.state_dict())
    x = torch.rand(1, 5, 45, 33)
    a, b = legacy(x), aligned(x)
    torch.testing.assert_close(a[..., 0, 0], b[..., 0, 0])
    torch.testing.assert_close(a[..., -1, -1], b[..., -1, -1])  # the legacy grid repeats what the other one reaches
    assert not torch.allclose(a, b)


def test_logits_are_single_precision_under_autocast():
    network = tiny().eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(1, 5, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("separable_head", [True, False])
def test_a_step_against_the_gradient_lowers_the_loss(separable_head):
    network = tiny(separable=separable_head, dropout=0.0)
    x, mask = torch.randn(2, 5, 40, 40), torch.zeros(2, 40, 40, dtype=torch.long)
    mask[:, 8:24, 8:24] = 1
    before = F.cross_entropy(network(x), mask)
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    steeper = copy.deepcopy(network)
    with torch.no_grad():
        length = torch.stack([p.grad.square().sum() for p in network.parameters()]).sum()
        for ours, theirs in zip(steeper.parameters(), network.parameters()):
            ours -= 1e-3 * theirs.grad / length
        assert F.cross_entropy(steeper(x), mask) < before


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match="output stride of 8, 16 or 32, got 4"):
        tiny(output_stride=4)
    with pytest.raises(ValueError, match="none of these options of ResNets: widths"):
        DeepLabV3Plus("xception41", widths=[8, 16, 32, 64])
    with pytest.raises(ValueError, match=r"two convolutions, each with its dropout; got \[0.5\]"):
        tiny(decoder_dropout=[0.5])
    with pytest.raises(ValueError, match=r"xception41, xception65 and xception71 of timm; got xception1"):
        DeepLabV3Plus("xception1")


@pytest.mark.parametrize("options", [{"backbone": "xception41"}, TINY, {**TINY, "decoder_dropout": [0.5, 0.1]}])
def test_a_recipe_can_name_either_kind_of_backbone(options):
    """A command line hands over every option with its default, those of ResNets to an Xception, too."""
    parser = ArgumentParser()
    parser.add_argument("--network", type=nn.Module)
    name = f"{DeepLabV3Plus.__module__}.DeepLabV3Plus"
    recipe = parser.parse_object({"network": {"class_path": name, "init_args": options}})
    network = parser.instantiate(recipe).network
    assert network.backbone.channels[-1] == (64 if "widths" in options else 2048)


@pytest.mark.slow
def test_the_published_network_makes_a_training_step_at_the_published_size():
    network = DeepLabV3Plus("xception65")
    x, mask = torch.randn(2, 5, 350, 350), torch.zeros(2, 350, 350, dtype=torch.long)
    mask[:, 100:200, 150:300] = 1
    F.cross_entropy(network(x), mask).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())
