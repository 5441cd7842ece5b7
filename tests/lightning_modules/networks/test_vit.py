"""The encoder of EXITS: tokens by three makers, positions as MAL brings them to size, attention, first weights."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_modules.networks import first_weights
from lightning_modules.networks.vit import ViT, resized

GOLDEN = Path(__file__).parents[2] / "golden" / "exits.npz"
TINY = "vit_tiny_patch16_224"
SMALL = {"model": TINY, "size": 64, "pretrained": False, "embed_dim": 48, "depth": 3, "num_heads": 3}
# What makes tokens -> strides that it can have.
MAKERS = {"conv_stem": (16,), "patch16": (16,), "tf_efficientnet_lite0": (8, 16), "resnet10t": (8, 16)}


@pytest.fixture(scope="module")
def official() -> dict[str, NDArray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("pos/")}


@pytest.fixture
def nothing_cached(monkeypatch):
    monkeypatch.delenv("HUB", raising=False)
    monkeypatch.setattr(first_weights, "try_to_load_from_cache", lambda *_: None)


@pytest.fixture(scope="module")
def of_timm() -> dict[str, Tensor]:
    torch.manual_seed(1)
    weights = timm.create_model(TINY).state_dict()
    weights["cls_token"] = torch.randn_like(weights["cls_token"])  # timm begins with nearly zeros
    return weights


# ------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(("maker", "stride"), [(maker, s) for maker, strides in MAKERS.items() for s in strides])
def test_every_maker_gives_one_token_per_stride_and_every_weight_a_gradient(maker, stride):
    vit = ViT(**SMALL | {"size": 96}, patch_embed=maker, stride=stride)
    tokens = vit(torch.randn(2, 3, 96, 64))
    assert vit.grid == 96 // stride
    assert tokens.shape == (2, vit.channels, 96 // stride, 64 // stride) == (2, 48, 96 // stride, 64 // stride)
    tokens.square().sum().backward()
    assert [name for name, weight in vit.named_parameters() if weight.grad is None] == []


@torch.no_grad()
def test_on_its_own_crop_a_vit_of_patches_gives_the_tokens_of_timm(tmp_path):
    timm_s = timm.create_model(TINY, depth=2).eval()
    torch.save(timm_s.state_dict(), tmp_path / "tiny.pth")
    vit = ViT(TINY, 224, "patch16", pretrained=str(tmp_path / "tiny.pth"), depth=2).eval()
    image = torch.randn(1, 3, 224, 224)
    theirs = timm_s.forward_features(image)[:, 1:]
    torch.testing.assert_close(vit(image).flatten(2).transpose(1, 2), theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_tokens_lie_where_their_pixels_lie():
    """Row-major: what changes in one corner changes the token of this corner most."""
    for maker in ("conv_stem", "patch16"):
        vit = ViT(**SMALL, patch_embed=maker).eval()
        image = torch.randn(1, 3, 64, 64)
        other = image.clone()
        other[..., :16, 48:] += 3
        change = (vit(other) - vit(image)).square().sum(dim=1)[0]
        assert divmod(int(change.argmax()), 4) == (0, 3)


@torch.no_grad()
def test_the_stem_halves_four_times_and_normalises_each_crop_for_itself():
    stem = ViT(**SMALL).patch_embed
    assert [tuple(stage[0].weight.shape[:2]) for stage in stem.stages] == [(6, 3), (12, 6), (24, 12), (48, 24)]
    image = torch.randn(1, 3, 64, 64)
    halves = [stage(image) for stage in (stem.stages[:1], stem.stages[:2], stem.stages)]
    assert [made.shape[-1] for made in halves] == [32, 16, 4]
    # Group norm over all channels: a brighter, more contrasted crop is the same to the stem, up to borders
    torch.testing.assert_close(stem.stages[0](2 * image), stem.stages[0](image), rtol=1e-3, atol=1e-3)


def test_there_is_no_dropout_and_the_epsilon_of_the_norms_is_the_published_one():
    vit = ViT(**SMALL).train()
    assert [layer for layer in vit.modules() if isinstance(layer, nn.Dropout) and layer.p] == []
    norms = [layer for layer in vit.modules() if isinstance(layer, nn.LayerNorm | nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {1e-6}
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(vit(image), vit(image))


# ---------------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("size", [512, 384])
def test_positions_are_brought_to_size_as_in_the_official_code(official, size):
    made = resized(torch.from_numpy(official["pos/embed_14"]), (size // 16, size // 16))
    torch.testing.assert_close(made, torch.from_numpy(official[f"pos/expected_{size}"]), rtol=0, atol=1e-5)


def test_positions_of_the_own_grid_and_of_the_class_token_stay():
    positions = torch.randn(1, 1 + 14 * 14, 8)
    assert resized(positions, (14, 14)) is positions
    other = resized(positions, (4, 9))
    assert other.shape == (1, 1 + 36, 8)
    assert torch.equal(other[:, 0], positions[:, 0])


@pytest.mark.parametrize("side", range(1, 65))
def test_rounding_never_costs_a_row_of_positions(side):
    assert resized(torch.randn(1, 197, 2), (side, side)).shape == (1, 1 + side * side, 2)


# ---------------------------------------------------------------------------------------------------- attention


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 3])
def test_attention_is_the_mean_softmax_of_queries_and_keys_without_the_class_token(layer):
    vit = ViT(**SMALL).eval()
    image = torch.randn(2, 3, 64, 48)
    seen = []
    vit.blocks[layer - 1].attn.qkv.register_forward_hook(lambda _, __, made: seen.append(made))
    vit(image)
    q, k, _ = seen[0].reshape(2, 13, 3, 3, 16).permute(2, 0, 3, 1, 4)
    expected = (q @ k.transpose(-2, -1) / 16**0.5).softmax(-1).mean(1)[:, 1:, 1:]
    made = vit.attention(image, layer)
    assert made.shape == (2, 12, 12)
    torch.testing.assert_close(made, expected)


@torch.no_grad()
def test_rows_of_attention_sum_to_just_below_one_in_float32_under_autocast_too():
    vit = ViT(**SMALL).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        made = vit.attention(image, 2)
    assert made.dtype == torch.float32
    sums = made.sum(dim=-1)
    assert ((sums < 1) & (sums > 0.8)).all()
    torch.testing.assert_close(made, vit.attention(image, 2), rtol=0.05, atol=1e-3)


@torch.no_grad()
def test_attention_runs_no_block_beyond_its_own_and_of_this_one_no_more_than_queries_and_keys():
    vit = ViT(**SMALL).eval()
    ran = []
    for number, block in enumerate(vit.blocks, start=1):
        block.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    vit.attention(torch.randn(1, 3, 64, 64), 2)
    assert ran == [1]


# ------------------------------------------------------------------------------------------------ first weights


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_timm_fill_all_but_the_stem_and_the_record_says_so(of_timm, tmp_path, suffix):
    path = tmp_path / f"tiny.{suffix}"
    save_file(of_timm, path) if suffix == "safetensors" else torch.save(of_timm, path)
    vit = ViT(TINY, 64, "conv_stem", pretrained=str(path))
    own = vit.state_dict()
    filled = [name for name in of_timm if not name.startswith(("patch_embed.", "head."))]
    assert all(torch.equal(own[name], of_timm[name]) for name in filled)
    assert {*own} - {*filled} == {name for name in own if name.startswith("patch_embed.")}
    assert vit.weights_source == f"tiny.{suffix} without its patch projection"


def test_with_patches_the_projection_comes_along(of_timm, tmp_path):
    torch.save({"model": of_timm}, tmp_path / "tiny.pth")
    vit = ViT(TINY, 64, "patch16", pretrained=str(tmp_path / "tiny.pth"))
    assert torch.equal(vit.patch_embed.proj.weight, of_timm["patch_embed.proj.weight"])
    assert vit.weights_source == "tiny.pth"


def test_the_decoder_of_a_masked_autoencoder_is_left_out(of_timm, tmp_path):
    decoder = ("mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.bias")
    whole = of_timm | {name: torch.zeros(2) for name in decoder}
    torch.save({"model": whole}, tmp_path / "mae.pth")
    assert ViT(TINY, 64, pretrained=str(tmp_path / "mae.pth")).weights_source.startswith("mae.pth")


def test_weights_in_timm_s_cache_are_found_by_name(of_timm, monkeypatch, tmp_path):
    save_file(of_timm, tmp_path / "model.safetensors")
    monkeypatch.setattr(first_weights, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    vit = ViT(TINY, 64, pretrained="imagenet")
    assert torch.equal(vit.blocks[5].mlp.fc1.weight, of_timm["blocks.5.mlp.fc1.weight"])
    assert vit.weights_source == "timm vit_tiny_patch16_224.augreg_in21k_ft_in1k without its patch projection"


def test_where_no_weights_are_training_says_that_it_starts_at_random(nothing_cached):
    with pytest.warns(UserWarning, match=r"no ImageNet weights for vit_tiny_patch16_224 .*random ones \(HUB=1"):
        assert ViT(TINY, 64, pretrained="imagenet").weights_source == "random (timm)"


def test_a_file_of_another_vit_is_refused_by_name_and_shape(of_timm, tmp_path):
    torch.save(of_timm, tmp_path / "tiny.pth")
    small = {"model": "vit_small_patch16_224", "size": 64, "depth": 2}
    with pytest.raises(ValueError, match=r"tiny\.pth holds other weights than this ViT; nothing loaded") as refusal:
        ViT(**small, pretrained=str(tmp_path / "tiny.pth"))
    said = str(refusal.value)
    assert "120 unexpected: blocks.2.norm1.weight" in said
    assert "of another shape: cls_token (1, 1, 192) for (1, 1, 384)" in said


def test_a_cnn_as_tokens_has_first_weights_of_its_own(tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "cnn.pth")
    vit = ViT(**SMALL, patch_embed="resnet10t", embed_pretrained=str(tmp_path / "cnn.pth"))
    assert (vit.patch_embed.stages.weights_source, vit.weights_source) == ("cnn.pth", "random (timm)")


# ---------------------------------------------------------------------------------------------------- odd input


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"size": 72}, "side must be a multiple of the stride of 16 pixels, got 72"),
        ({"stride": 8}, "tokens of conv_stem have stride 16, those of a CNN 8 or 16, got 8"),
        ({"patch_embed": "conv_stm"}, "patch_embed is conv_stem, patch16 or the name of a CNN of timm, got 'conv_stm'"),
        ({"patch_embed": TINY}, "vit_tiny_patch16_224 is a transformer itself; patch_embed is"),
        ({"model": "vit_bas"}, "no ViT vit_bas in timm; the published one is vit_base_patch16_224.mae"),
        ({"model": "resnet18"}, "resnet18 is no plain ViT"),
        ({"model": "vit_tiny_r_s16_p8_224"}, "vit_tiny_r_s16_p8_224 is no plain ViT"),
        ({"model": "vit_small_patch14_reg4_dinov2"}, "is a ViT with registers, with patches of 14, with"),
        ({"model": "vit_base_patch32_224"}, "is a ViT with patches of 32; take one as"),
        ({"pretrained": "imagenet"}, r"fit a ViT of other sizes \(embed_dim, depth, num_heads\); set pretrained"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(asked, said):
    with pytest.raises(ValueError, match=said):
        ViT(**SMALL | asked)


def test_images_that_tokens_do_not_fill_and_layers_that_are_not_there_are_refused():
    vit = ViT(**SMALL)
    with pytest.raises(ValueError, match=r"sides that are multiples of 16, got \(1, 3, 64, 60\)"):
        vit(torch.zeros(1, 3, 64, 60))
    for layer in (0, 4):
        with pytest.raises(ValueError, match=f"this ViT has layers 1 to 3, got layer {layer}"):
            vit.attention(torch.zeros(1, 3, 64, 64), layer)


def test_likeness_is_that_of_the_final_tokens_whatever_their_length():
    vit = ViT(**SMALL).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = vit(image).flatten(2).transpose(1, 2)
        likeness = vit.likeness(image)
    unit = tokens / tokens.norm(dim=2, keepdim=True)
    expected = torch.exp(10 * unit @ unit.transpose(1, 2))
    torch.testing.assert_close(likeness, expected / expected.sum(2, keepdim=True))
    assert (likeness.argmax(2) == torch.arange(16)).all()  # nothing is more like a token than itself
