"""Same weights, same input, same output: the suite's DeepLab against a second implementation of the official rules."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.deeplab import DeepLab
from lightning_modules.networks.official import DEXTR_NAMES, load_official, rename
from tests.lightning_modules.networks.reference import (
    DEXTR,
    OFFICIAL_SHAPES,
    Rules,
    dextr,
    official_weights,
)

CAFFE_LIKE = {"backbone": "resnet101", "in_channels": 4, "bn_affine": "frozen"}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return official_weights()


@pytest.fixture(scope="module")
def weights_file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "dextr.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def network(weights_file: Path) -> DeepLab:
    network = DeepLab(**CAFFE_LIKE)
    load_official(network, weights_file)
    return network


@pytest.fixture(scope="module")
def image() -> Tensor:
    """RGB and points, 0..255; after conv1 its sides are even, which ceil_mode rounds the other way."""
    return 255 * torch.rand(2, 4, 64, 80, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def logits(network: DeepLab, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network.eval()(image)


@torch.no_grad()
def deviation(logits: Tensor, weights: dict[str, Tensor], image: Tensor, rules: Rules) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    expected = dextr(weights, image, rules)
    return float((logits - expected).abs().max() / expected.abs().max())


def test_official_weights_give_official_logits(logits, weights, image):
    torch.testing.assert_close(logits, dextr(weights, image), rtol=1e-4, atol=1e-4)


def test_official_training_normalises_with_the_batch(network, weights, image):
    stored = network.state_dict()["backbone.bn1.running_mean"].clone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        logits = network.train()(image)
    moved = network.state_dict()["backbone.bn1.running_mean"]
    batch_mean = torch.nn.functional.conv2d(image, weights["conv1.weight"], stride=2, padding=3).mean((0, 2, 3))
    torch.testing.assert_close(moved, 0.9 * stored + 0.1 * batch_mean, rtol=1e-3, atol=1e-3)
    network.load_state_dict(before)
    network.eval()
    assert (
        deviation(logits, weights, image, replace(DEXTR, batch_statistics=True)) < 1e-3
    )  # 104 normalisations by few values: rounding adds up


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [
        replace(DEXTR, stride_on_first_1x1=False),
        replace(DEXTR, dilations=((1,) * 3, (1,) * 4, (1, *(2,) * 22), (2, 4, 4))),  # what timm's own networks do
        replace(DEXTR, dilations=((1,) * 3, (1,) * 4, (2,) * 23, (2, 4, 8))),  # IOG's multi-grid
        replace(DEXTR, ceil_mode=True),
        replace(DEXTR, align_corners=False),
        replace(DEXTR, concatenation=("features", "p1", "p2", "p3", "p6")),
        replace(DEXTR, concatenation=("p6", "p3", "p2", "p1", "features")),
        replace(DEXTR, channel_order=(2, 1, 0, 3)),  # BGR
        replace(DEXTR, channel_order=(3, 0, 1, 2)),  # points first
        replace(DEXTR, batch_statistics=True),
    ],
    ids=lambda rules: ",".join(f"{k}" for k, v in vars(rules).items() if v != getattr(DEXTR, k)),
)
def test_every_rule_that_names_and_shapes_cannot_show_is_kept(logits, weights, image, broken):
    assert deviation(logits, weights, image, broken) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "rules"),
    [
        ({"stride_on": "conv2"}, replace(DEXTR, stride_on_first_1x1=False)),
        ({"ceil_mode": True}, replace(DEXTR, ceil_mode=True)),
        ({"dilations": [1, 1, 2, [2, 4, 8]]}, replace(DEXTR, dilations=(*DEXTR.dilations[:3], (2, 4, 8)))),
        (
            {"output_stride": 16, "dilations": [1, 1, 1, [2, 4, 8]], "stride_on": "conv2"},  # IOG's backbone
            replace(
                DEXTR,
                strides=(1, 2, 2, 1),
                dilations=((1,) * 3, (1,) * 4, (1,) * 23, (2, 4, 8)),
                stride_on_first_1x1=False,
            ),
        ),
    ],
    ids=["stride_on", "ceil_mode", "multi_grid", "iog"],
)
def test_every_option_follows_its_rule_and_leaves_dextr(weights, weights_file, image, option, rules):
    network = DeepLab(**CAFFE_LIKE, **option).eval()
    load_official(network, weights_file)
    with torch.no_grad():
        logits = network(image)
    assert deviation(logits, weights, image, rules) < 1e-4
    assert deviation(logits, weights, image, DEXTR) > 1e-2


def test_frozen_statistics_normalise_with_the_stored_values_in_training(weights, weights_file, image):
    network = DeepLab(**CAFFE_LIKE, bn_statistics="frozen").train()
    load_official(network, weights_file)
    with torch.no_grad():
        stored, live = network.backbone(image)[-1], network.train().backbone(image)[-1]
        torch.testing.assert_close(stored, network.eval().backbone(image)[-1])
    torch.testing.assert_close(live, stored)
    torch.testing.assert_close(network.state_dict()["backbone.bn1.running_mean"], weights["bn1.running_mean"])


def test_the_network_of_the_paper_has_the_official_names_shapes_and_counts():
    with torch.device("meta"):
        network = DeepLab(**CAFFE_LIKE, pretrained=True)
    own = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert {rename(name, DEXTR_NAMES): shape for name, shape in OFFICIAL_SHAPES.items()} == own
    assert len(own) == 656
    parameters = list(network.parameters())
    assert sum(p.numel() for p in parameters) == 48_800_385
    assert sum(p.numel() for p in parameters if p.requires_grad) == 48_695_041
    assert sum(not p.requires_grad for p in parameters) == 208
    assert sum(p.numel() for p in network.backbone.parameters() if p.requires_grad) == 42_397_952
    assert sum(p.numel() for p in network.head.parameters()) == 6_297_089
