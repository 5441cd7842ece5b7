"""SOLOv2: how large it is, what its parts see, that every weight learns, and that a small one finds drawn squares."""

import math
import resource
import time

import pytest
import torch
from torch import nn

from datamodules.instances import ImageBatch
from lightning_modules.networks.deformable import DeformableConv
from lightning_modules.networks.solov2 import MaskFeatures, SoloHead, SOLOv2, with_coordinates

SMALL = {
    "backbone": "resnet10t",
    "widths": [16, 32, 64, 128],
    "frozen_stages": 0,
    "num_classes": 3,
    "channels": 32,
    "tower": 32,
    "blocks": 2,
    "kernels": 32,
    "mask_channels": 32,
    "norm_groups": 8,
    "grids": (16, 12, 8, 6, 4),
    "scale_ranges": ((1, 32), (16, 64), (32, 96), (64, 160), (96, 512)),
}
DEFORMED = {"backbone": "resnet26", "deformable": True, "deformable_heads": True}


def squares(side: int, images: list[list[tuple[int, int, int, int]]]) -> ImageBatch:
    """Images of noise of this side; their objects are squares given as (x, y, length, label)."""
    masks, boxes, labels = [], [], []
    for objects in images:
        drawn = torch.zeros(len(objects), side, side, dtype=torch.uint8)
        for mask, (x, y, length, _) in zip(drawn, objects):
            mask[y : y + length, x : x + length] = 1
        masks.append(drawn)
        boxes.append(torch.tensor([[x, y, x + n, y + n] for x, y, n, _ in objects]).float().view(-1, 4))
        labels.append(torch.tensor([label for *_, label in objects]).long())
    size = torch.full((len(images), 2), side)
    return ImageBatch(
        image=torch.randint(0, 255, (len(images), 3, side, side), dtype=torch.uint8),
        size=size,
        original_size=size,
        position=torch.arange(len(images)),
        masks=masks,
        boxes=boxes,
        labels=labels,
    )


# ------------------------------------------------------------------------------------------------------------- size

# torchvision's published counts of whole classifiers, less the last layer of 2048 x 1000 and 1000.
BACKBONES = {"resnet50": 25_557_032, "resnet101": 44_549_160, "resnext101_64x4d": 83_455_272}
# Channels of the middle convolutions of C3 to C5, and how many bottlenecks these have.
BOTTLENECKS = {"resnet101": {128: 4, 256: 23, 512: 3}, "resnext101_64x4d": {512: 4, 1024: 23, 2048: 3}}
TOWERS = [258, 512, 512, 512, 256, 512, 512, 512]  # channels in; 512 out
MASKS = [256, 256, 256, 128, 258, 128, 128]  # P2, P3, P4 twice, P5 three times; 128 out


def counted(backbone: str, deformed: bool) -> int:
    """Weights of SOLOv2 at 80 classes from the shapes of its layers."""
    pyramid = sum(256 * channels + 256 for channels in (256, 512, 1024, 2048)) + 4 * (256 * 256 * 9 + 256)
    towers = sum(channels * 512 * 9 + 2 * 512 for channels in TOWERS)
    predictors = 512 * 9 * (80 + 256) + 80 + 256
    masks = sum(channels * 128 * 9 + 2 * 128 for channels in MASKS) + 128 * 256 + 2 * 256
    whole = BACKBONES[backbone] - 2049 * 1000 + pyramid + towers + predictors + masks
    if not deformed:
        return whole
    inner = [channels for channels, blocks in BOTTLENECKS[backbone].items() for _ in range(blocks)]
    return whole + sum(27 * (9 * channels + 1) for channels in inner + TOWERS + MASKS) + 3 * (128 + 1)


@pytest.mark.parametrize(
    ("backbone", "deformed", "weights"),
    [("resnet50", False, 46_592_912), ("resnet101", True, 68_729_118), ("resnext101_64x4d", True, 113_420_574)],
)
def test_published_networks_have_as_many_weights_as_their_shapes_say(backbone, deformed, weights):
    with torch.device("meta"):
        network = SOLOv2(backbone, deformable=deformed, deformable_heads=deformed)
    assert sum(weight.numel() for weight in network.parameters()) == counted(backbone, deformed) == weights
    stem_and_stage = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    assert stem_and_stage == {"resnet50": 225_344, "resnet101": 225_344, "resnext101_64x4d": 402_752}[backbone]


def test_heads_and_mask_features_are_deformable_but_for_the_two_predictors():
    network = SOLOv2(**SMALL | DEFORMED)
    parts = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    plain = [
        name
        for name, layer in parts.items()
        if name.startswith(("head", "masks")) and not isinstance(layer, DeformableConv) and "offsets" not in name
    ]
    assert plain == ["head.kernel", "head.label"]
    assert isinstance(parts["masks.final.0"], DeformableConv)
    assert parts["masks.final.0"].kernel_size == (1, 1)
    assert not any(isinstance(layer, DeformableConv) for layer in SOLOv2(**SMALL).modules())
    only_heads = SOLOv2(**SMALL, deformable_heads=True)
    assert not any(isinstance(layer, DeformableConv) for layer in only_heads.backbone.modules())


# ------------------------------------------------------------------------------------------------------------ parts


def test_coordinates_are_x_and_then_y_from_edge_to_edge():
    seen = with_coordinates(torch.zeros(2, 1, 3, 5))
    assert seen.shape == (2, 3, 3, 5)
    assert seen[1, 1].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 3
    assert seen[1, 2].tolist() == [[y] * 5 for y in (-1, 0, 1)]


def test_the_tower_of_kernels_knows_where_it_is_and_that_of_classes_does_not():
    """All cells of a flat map are alike to the classes, but for what lies beyond the border."""
    head = SoloHead(in_channels=4, tower=32, blocks=1, num_classes=2, kernels=3, grids=(12,) * 5)
    for block in (head.kernel_tower[0], head.class_tower[0]):
        block[1] = nn.Identity()  # a group norm would see the borders
    maps = [torch.ones(1, 4, size, size) for size in (64, 32, 16, 8, 4)]
    logits, kernels = (made[0][0, :, 2:-2, 2:-2].flatten(1) for made in head(maps))
    torch.testing.assert_close(logits, logits[:, :1].expand_as(logits))
    assert (kernels.std(1) > 1e-6).all()


def test_coordinates_are_appended_before_a_map_gets_the_size_of_its_grid():
    """After it, they would reach from -1 to 1; before it, only as far as the sampled places."""
    head = SoloHead(in_channels=4, tower=32, blocks=1, num_classes=2, kernels=3, grids=(4,) * 5)
    seen = []
    head.kernel_tower.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0][0, -2:]))
    head([torch.zeros(1, 4, size, size) for size in (64, 32, 16, 8, 4)])
    for (x, y), size in zip(seen, (32, 32, 16, 8, 8), strict=True):
        places = (torch.arange(4) + 0.5) * size / 4 - 0.5
        expected = (2 * places / (size - 1) - 1).expand(4, 4)
        torch.testing.assert_close(x, expected)
        torch.testing.assert_close(y, expected.T)


def test_mask_features_are_at_a_quarter_and_never_negative_and_only_p5_brings_coordinates():
    masks = MaskFeatures(8, 32, 64)
    maps = [torch.randn(1, 8, 32 // 2**i, 48 // 2**i) for i in range(4)]
    made = masks(maps)
    assert made.shape == (1, 64, 32, 48)
    assert (made >= 0).all()
    assert (made == 0).any()
    first = {name: getattr(masks, name)[0] for name in ("p2", "p3", "p4", "p5")}
    channels = {
        name: next(each for each in block.modules() if isinstance(each, nn.Conv2d)).in_channels
        for name, block in first.items()
    }
    assert channels == {"p2": 8, "p3": 8, "p4": 8, "p5": 10}


def test_a_new_network_gives_every_class_one_percent():
    network = SOLOv2(**SMALL).eval()
    assert network.head.label.bias.unique().tolist() == pytest.approx([-math.log(99)])
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 64, 64))
    assert maps.logits[0].sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    for conv in (network.head.kernel, network.head.class_tower[0][0], network.masks.final[0]):
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("options", [{}, DEFORMED, {"backbone": "tf_efficientnet_lite0", "widths": None}])
def test_each_grid_has_logits_and_kernels_and_images_need_not_be_square(options):
    network = SOLOv2(**SMALL | options).eval()
    with torch.no_grad():
        maps = network(torch.randn(2, 3, 64, 96))
    assert [each.shape for each in maps.logits] == [(2, 3, side, side) for side in SMALL["grids"]]
    assert [each.shape for each in maps.kernels] == [(2, 32, side, side) for side in SMALL["grids"]]
    assert maps.features.shape == (2, 32, 16, 24)


# --------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("options", [{}, DEFORMED, {"frozen_stages": 1, "bn_statistics": "frozen"}])
@pytest.mark.parametrize("objects", [[(8, 8, 40, 0), (50, 50, 20, 2)], []])
def test_every_weight_that_is_not_frozen_has_a_gradient_with_and_without_objects(options, objects):
    """So that several processes agree on what they average."""
    network = SOLOv2(**SMALL | options)
    batch = squares(96, [objects, []])
    losses = network.losses(torch.randn(2, 3, 96, 96), batch)
    assert set(losses) == {"mask", "class"}
    assert (losses["mask"].item() > 0) == bool(objects)
    sum(losses.values()).backward()
    missing = {name for name, weight in network.named_parameters() if (weight.grad is None) == weight.requires_grad}
    assert not missing


def test_the_mask_s_weight_is_a_value():
    image, batch = torch.randn(1, 3, 96, 96), squares(96, [[(8, 8, 40, 0)]])
    network = SOLOv2(**SMALL).eval()
    losses = network.losses(image, batch)
    network.mask_weight = 1.0
    torch.testing.assert_close(3 * network.losses(image, batch)["mask"], losses["mask"])


def test_losses_are_finite_in_float32_under_autocast():
    network = SOLOv2(**SMALL | DEFORMED)
    image, batch = torch.randn(1, 3, 96, 96), squares(96, [[(8, 8, 40, 0)]])
    with torch.autocast("cpu", torch.bfloat16):
        losses = network.losses(image, batch)
        found = network.eval().detect(image, batch.size, batch.original_size)
    assert {each.dtype for each in losses.values()} == {torch.float32}
    assert all(each.isfinite() for each in losses.values())
    sum(losses.values()).backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    assert found[0].masks.shape[1:] == (96, 96)


def test_an_answer_does_not_depend_on_the_other_images_of_the_batch():
    network = SOLOv2(**SMALL, score_threshold=0.0, kept_threshold=0.0).eval()
    nn.init.normal_(network.head.kernel.weight)
    image = torch.randn(2, 3, 64, 64)
    size, file = torch.tensor([[64, 64], [50, 40]]), torch.tensor([[64, 64], [100, 80]])
    together = network.detect(image, size, file)
    assert [each.masks.shape[1:] for each in together] == [(64, 64), (100, 80)]
    for i, found in enumerate(together):
        (alone,) = network.detect(image[i : i + 1], size[i : i + 1], file[i : i + 1])
        assert len(found.scores) == len(alone.scores) > 0
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert (found.scores.diff() <= 0).all()
        assert not any(each.requires_grad for each in found)


@pytest.mark.slow
def test_a_small_network_finds_the_squares_that_it_has_learnt():
    """Bright squares on noise, whose colour is their class: 60 steps of four images, then eight new images."""
    network = SOLOv2(**SMALL | {"num_classes": 2})
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)

    def drawn(count: int) -> tuple[torch.Tensor, ImageBatch]:
        places, lengths = torch.randint(0, 60, (count, 2)).tolist(), torch.randint(12, 36, (count,)).tolist()
        labels = torch.randint(0, 2, (count,)).tolist()
        batch = squares(96, [[(x, y, n, label)] for (x, y), n, label in zip(places, lengths, labels)])
        image = 0.3 * torch.randn(count, 3, 96, 96)
        for picture, masks, label in zip(image, batch.masks, labels):
            picture[2 * label] += 3 * masks[0]
        return image, batch

    for step in range(60):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 30)
        loss = sum(network.losses(*drawn(4)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, batch = drawn(8)
    right = []
    for found, masks, labels in zip(network.eval().detect(image, batch.size, batch.size), batch.masks, batch.labels):
        both, either = (found.masks[:1] & masks.bool()).sum(), (found.masks[:1] | masks.bool()).sum()
        right.append(found.labels[:1].tolist() == labels.tolist() and bool(both / either > 0.6))
    assert sum(right) >= 7


@pytest.mark.slow
def test_the_published_network_takes_a_step_at_the_published_size():
    """ResNet-50, one image of 800 x 1344 with eight objects: 55 s of a busy core here, and 2.8 GiB at most."""
    network = SOLOv2("resnet50", bn_statistics="frozen")
    learnt = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.01 / 16, momentum=0.9, weight_decay=1e-4)
    objects = [(40 * i, 20 * i, 16 * 2**i % 480 + 16, 10 * i) for i in range(8)]
    batch = squares(800, [objects])
    batch.masks[0] = nn.functional.pad(batch.masks[0], (0, 544))
    before = [network.masks.p2[0].weight.detach().clone(), network.backbone.conv1.weight.detach().clone()]
    began = time.process_time()
    losses = network.losses(torch.randn(1, 3, 800, 1344), batch)
    sum(losses.values()).backward()
    norm = nn.utils.clip_grad_norm_(learnt, 35)
    optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.process_time() - began:.1f} s of processor, {peak:.2f} GiB at most")
    assert all(each.isfinite() for each in (*losses.values(), norm))
    assert losses["mask"].item() == pytest.approx(3, abs=0.75)
    assert not torch.equal(network.masks.p2[0].weight, before[0])
    assert torch.equal(network.backbone.conv1.weight, before[1])


# -------------------------------------------------------------------------------------------------------- bad input


def test_sides_that_are_not_divisible_by_32_are_refused():
    with pytest.raises(ValueError, match="sides are divisible by 32, got 64 x 100; fill them up with zeros"):
        SOLOv2(**SMALL)(torch.zeros(1, 3, 64, 100))


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_beyond_the_network_s_classes_is_refused(label):
    batch = squares(96, [[(8, 8, 40, label)]])
    with pytest.raises(ValueError, match=f"has 3 classes, labels are from 0 to 2, got {label}; set num_classes"):
        SOLOv2(**SMALL).losses(torch.zeros(1, 3, 96, 96), batch)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grids": (16, 12, 8)}, "SOLOv2 has 5 grids, from P2 to P6; grids says 3"),
        ({"strides": (8, 8)}, "strides says 2"),
        ({"scale_ranges": ((1, 32),)}, "scale_ranges says 1"),
        ({"num_classes": 0}, "SOLOv2 needs a class at least, got num_classes 0"),
        ({"mask_channels": 20}, "norm_groups, here 8, divides tower, kernels and mask_channels, got 32, 32 and 20"),
        ({"deformable": True}, "deformable convolutions replace the 3x3 of a ResNet's bottlenecks"),
    ],
)
def test_values_that_fit_no_network_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        SOLOv2(**SMALL | options)
