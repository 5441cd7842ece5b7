from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.deeplab import DeepLab
from lightning_modules.networks.official import DEXTR_NAMES, load_official, read_weights, rename


@pytest.fixture
def network() -> DeepLab:
    return DeepLab("resnet26", widths=[8, 16, 32, 64])


@pytest.fixture
def official(network: DeepLab) -> dict[str, Tensor]:
    """Other weights for this network under the official names."""
    twin = DeepLab("resnet26", widths=[8, 16, 32, 64])
    return {
        name.replace("backbone.", "").replace("head.", "layer5."): value for name, value in twin.state_dict().items()
    }


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_files_are_read_in_the_forms_they_were_saved_in(network, official, tmp_path, nest, prefix):
    old = OrderedDict((prefix + k, v) for k, v in official.items() if not k.endswith("num_batches_tracked"))
    torch.save({nest: old, "epoch": 99} if nest else old, tmp_path / "dextr.pth")
    load_official(network, tmp_path / "dextr.pth")
    assert torch.equal(network.backbone.conv1.weight, official["conv1.weight"])
    assert torch.equal(network.head.stages[3][1].weight, official["layer5.stages.3.1.weight"])
    assert torch.equal(network.head.final.bias, official["layer5.final.bias"])
    assert network.backbone.weights_source == "official dextr.pth"


def test_weights_of_another_network_are_refused_with_a_list_and_change_nothing(network, official, tmp_path):
    before = weights_of(network)
    other = dict(official)
    other["conv1.weight"] = other["conv1.weight"][:, :3]
    other["fc.weight"] = torch.zeros(2, 2)
    for name in [name for name in other if name.startswith("layer4.") and name.endswith("weight")]:
        del other[name]
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds other weights than this DeepLab") as refusal:
        load_official(network, tmp_path / "other.pth")
    said = str(refusal.value)
    assert "14 missing: backbone.layer4.0.conv1.weight" in said
    assert said.count("backbone.layer4") == 8
    assert ", and 6 more" in said
    assert "1 unexpected: fc.weight" in said
    assert "1 of another shape: backbone.conv1.weight (64, 3, 7, 7) for (64, 4, 7, 7)" in said
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "whole_module.pth")
    with pytest.raises(ValueError, match="cannot be read as plain weights"):
        read_weights(tmp_path / "whole_module.pth")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    for name in ("page.pth", "page.safetensors"):
        Path(tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as plain weights"):
            read_weights(tmp_path / name)


def test_a_file_without_names_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(tmp_path / "list.pth")


def test_names_follow_the_first_pattern_of_a_table():
    assert rename("layer5.stages.0.1.weight", DEXTR_NAMES) == "head.stages.0.1.weight"
    assert rename("layer4.2.bn3.bias", DEXTR_NAMES) == "backbone.layer4.2.bn3.bias"
    assert rename("fc.weight", DEXTR_NAMES) == "fc.weight"
    assert rename("upsamples.0.weight", {r"^upsamples\.0\.": None, r"^upsamples": "up"}) is None


def test_a_network_without_official_names_takes_its_own_and_a_given_table_goes_first(tmp_path):
    network, twin = nn.Linear(2, 1), nn.Linear(2, 1)
    torch.save(twin.state_dict(), tmp_path / "own.pth")
    load_official(network, tmp_path / "own.pth")
    assert torch.equal(network.weight, twin.weight)
    torch.save({"w": 2 * twin.weight, "bias": twin.bias, "dead": twin.bias}, tmp_path / "other.pth")
    load_official(network, tmp_path / "other.pth", {"^w$": "weight", "^dead$": None})
    assert torch.equal(network.weight, 2 * twin.weight)
