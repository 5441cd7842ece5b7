import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
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
    with pytest.raises(ValueError, match="holds more than plain weights"):
        read_weights(tmp_path / "whole_module.pth")


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


def flipped(whole: bytes) -> bytes:
    return bytes(255 - byte if place % 7 == 0 else byte for place, byte in enumerate(whole))


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("old.pth", lambda old, new, safe: old[:20], "cut off"),
        ("old.pth", lambda old, new, safe: old[: len(old) // 2], "cut off"),
        ("old.pth", lambda old, new, safe: flipped(old), "damaged"),
        ("new.pth", lambda old, new, safe: new[: len(new) // 2], "cut off"),
        ("new.pth", lambda old, new, safe: flipped(new), "damaged"),
        ("empty.pth", lambda old, new, safe: b"", "is empty"),
        ("page.pth", lambda old, new, safe: b"<!DOCTYPE html><html></html>", "web page"),
        ("page.safetensors", lambda old, new, safe: b"<html></html>", "web page"),
        ("cut.safetensors", lambda old, new, safe: safe[:-4], "cut off"),
        ("empty.safetensors", lambda old, new, safe: b"", "is empty"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence_of_ours(name, content, cause, tmp_path):
    weights = {"w": torch.ones(40)}
    torch.save(weights, tmp_path / "o", _use_new_zipfile_serialization=False)
    torch.save(weights, tmp_path / "n")
    save_file(weights, tmp_path / "s")
    (tmp_path / name).write_bytes(content(*((tmp_path / part).read_bytes() for part in "ons")))
    with pytest.raises(ValueError, match=cause) as refusal:
        read_weights(tmp_path / name)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)


def test_numbers_as_names_a_folder_and_another_zip_are_no_weights(tmp_path):
    torch.save({1: torch.ones(1)}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match=r"numbers\.pth holds no state dict: its names must be text, got 1"):
        read_weights(tmp_path / "numbers.pth")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_weights(tmp_path)
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="zip archive, but no PyTorch checkpoint"):
        read_weights(tmp_path / "photos.pth")
