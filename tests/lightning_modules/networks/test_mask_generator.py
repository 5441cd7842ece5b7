"""The network of EXITS and MAL: official names and numbers, scales by area, and what a decoder owes to its objects."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.networks.mask_generator import AttentionMaskDecoder, MaskGenerator, scales
from lightning_modules.networks.official import MAL_NAMES, load_exactly, load_official, rename

GOLDEN = Path(__file__).parents[2] / "golden"
OFFICIAL_SHAPES: dict[str, list[int]] = json.loads((GOLDEN / "mal_vit_base.json").read_text())
SMALL = {
    "model": "vit_tiny_patch16_224",
    "size": 64,
    "pretrained": False,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "channels": 8,
    "side": 16,
}


def seeded(seed: int) -> dict[str, Tensor]:
    """The weights that the official student had when the golden numbers were made, under the official names."""
    weights = {}
    for number, (name, shape) in enumerate(OFFICIAL_SHAPES.items()):
        z = np.random.RandomState(seed + number).standard_normal(shape)
        if len(shape) >= 2 and not name.endswith(("pos_embed", "cls_token")):
            z = z / np.sqrt(np.prod(shape[1:]))
        elif name.endswith(".weight"):
            z = 1 + 0.1 * z
        else:
            z = 0.02 * z
        weights[name] = torch.from_numpy(z.astype(np.float32))
    return weights


def to_official(network: MaskGenerator) -> dict[str, Tensor]:
    """Weights of a small network under the names that MAL's code would give them."""
    theirs = {rename(name, MAL_NAMES): name for name in OFFICIAL_SHAPES}
    return {theirs[name]: weight for name, weight in network.state_dict().items()}


# ------------------------------------------------------------------------------------------------ official code


def test_the_published_network_has_the_official_names_shapes_and_93_million_parameters():
    with torch.device("meta"):
        network = MaskGenerator()
    own = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert {rename(name, MAL_NAMES): shape for name, shape in OFFICIAL_SHAPES.items()} == own
    assert sum(weight.numel() for weight in network.parameters() if weight.requires_grad) == 93_090_400
    assert (network.grid, network.side) == (32, 128)


@pytest.mark.slow
@torch.no_grad()
def test_official_weights_give_official_tokens_attention_and_logits():
    with np.load(GOLDEN / "exits.npz", allow_pickle=False) as arrays:
        golden: dict[str, NDArray] = {
            name.removeprefix("student/"): arrays[name] for name in arrays.files if name.startswith("student/")
        }
    seed = int(golden["seed"])
    network = MaskGenerator(pretrained=False).eval()
    renamed = {rename(name, MAL_NAMES): weight for name, weight in seeded(seed).items()}
    load_exactly(network, renamed, source="the recipe")
    image = torch.from_numpy(np.random.RandomState(seed + 999).standard_normal((3, 3, 512, 512)).astype(np.float32))
    boxes = torch.from_numpy(golden["boxes_xyxy"])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert scales(areas, 3) == [0, 1, 2]

    tokens = network.backbone(image)
    first = tokens.flatten(2).transpose(1, 2)[:, :7, :8]
    logits = network.decoder(tokens, areas)
    mean_std = torch.stack([logits.mean((1, 2, 3)), logits.std((1, 2, 3))], dim=1)
    rows = network.similarity(image[:1], layer=10)[0][[0, 499]]
    for name, ours, theirs in (  # the official arrays have the class token, which is their token, row and column 0
        ("tokens", first, golden["feat_first8_tokens_first8_ch"][:, 1:]),
        ("attention", rows, golden["attn10_headmean_rows_0_1_500"][1:, 1:]),
        ("logits", logits[:, 0, ::8, ::8], golden["seg_stride8"]),
        ("mean and deviation", mean_std, golden["seg_mean_std"]),
    ):
        assert np.abs(ours.numpy() - theirs).max() < 1e-4 * np.abs(theirs).max(), name


def test_a_file_with_official_names_loads_whole_or_not_at_all(tmp_path):
    network, twin = MaskGenerator(**SMALL), MaskGenerator(**SMALL)
    official = to_official(twin)
    assert "mask_head.convs.0.conv.weight" in official
    assert "backbone.patch_embed.proj.3.3.bias" in official
    torch.save(official, tmp_path / "mal.pth")
    load_official(network, tmp_path / "mal.pth")
    assert all(torch.equal(weight, twin.state_dict()[name]) for name, weight in network.state_dict().items())
    assert network.backbone.weights_source == "official mal.pth"
    with pytest.raises(ValueError, match=r"of another shape: backbone\.cls_token \(1, 1, 48\) for \(1, 1, 24\)"):
        load_official(MaskGenerator(**SMALL | {"embed_dim": 24}), tmp_path / "mal.pth")


# ------------------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize(
    ("area", "scale"), [(0, 0), (1, 0), (1023.9, 0), (1024, 1), (5000, 1), (9215.9, 1), (9216, 2), (1e6, 2)]
)
def test_an_object_s_scale_follows_from_its_box_in_the_image_and_no_area_falls_between(area, scale):
    assert scales(torch.tensor([float(area)]), 1) == [scale]


@torch.no_grad()
def test_areas_on_the_borders_of_the_scales_get_logits():
    """MAL's code compares strictly on both sides and leaves them at 0."""
    decoder = AttentionMaskDecoder(12, channels=8, side=16)
    logits = decoder(torch.randn(3, 12, 4, 4), torch.tensor([0.0, 1024.0, 9216.0]))
    assert (logits.std((1, 2, 3)) > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("grid", [(4, 4), (4, 6), (5, 3), (1, 1)])
def test_convolutions_work_on_half_the_grid_on_the_grid_and_on_twice_the_grid(grid):
    decoder = AttentionMaskDecoder(12, channels=8, side=16)
    seen = []
    decoder.pixels[0].register_forward_hook(lambda _, __, made: seen.append(tuple(made.shape[-2:])))
    decoder.pixels[3].register_forward_hook(lambda _, __, made: seen.append(tuple(made.shape[-2:])))
    for area in (100.0, 2000.0, 20000.0):
        assert decoder(torch.randn(1, 12, *grid), torch.tensor([area])).shape == (1, 1, 16, 16)
    h, w = grid
    small = (max(h // 2, 1), max(w // 2, 1))
    inside = [small, grid, (2 * h, 2 * w)]
    assert seen == [size for h, w in inside for size in ((h, w), (2 * h, 2 * w))]


@torch.no_grad()
@settings(max_examples=20)
@given(st.lists(st.sampled_from([50.0, 1024.0, 4000.0, 9216.0, 1e5]), min_size=1, max_size=6), st.integers(0, 99))
def test_an_object_s_logits_do_not_depend_on_which_others_share_its_batch(areas, seed):
    torch.manual_seed(seed)
    decoder = AttentionMaskDecoder(6, channels=4, side=8)
    tokens = torch.randn(len(areas), 6, 4, 4)
    together = decoder(tokens, torch.tensor(areas))
    alone = [decoder(tokens[i : i + 1], torch.tensor(areas[i : i + 1])) for i in range(len(areas))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("areas", [[100.0], [100.0, 2000.0, 20000.0], [20000.0, 20000.0]])
def test_every_weight_gets_a_gradient_whichever_scales_a_batch_has(areas):
    """So that several processes, whose batches have other scales, agree on what to average."""
    network = MaskGenerator(**SMALL)
    network(torch.randn(len(areas), 3, 64, 64), torch.tensor(areas)).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


@torch.no_grad()
def test_a_logit_is_the_dot_product_of_query_and_pixel():
    """No resize at the end: the side is 8, twice the four rows of a medium object's tokens."""
    decoder = AttentionMaskDecoder(6, channels=4, side=8)
    tokens = torch.randn(1, 6, 4, 4)
    query = decoder.query(tokens.mean((2, 3)))[0]
    seen = []
    decoder.pixels[3].register_forward_hook(lambda _, __, made: seen.append(made.relu()[0]))
    logits = decoder(tokens, torch.tensor([2000.0]))
    for row, column in ((0, 0), (3, 6)):
        torch.testing.assert_close(logits[0, 0, row, column], query @ seen[0][:, row, column])


def test_a_new_decoder_has_kaiming_weights_by_fan_out_and_no_bias():
    decoder = AttentionMaskDecoder(64, channels=128)
    for conv in decoder.pixels:
        assert not conv.bias.any()
        assert abs(conv.weight.std() / (2 / (128 * 9)) ** 0.5 - 1) < 0.02


# -------------------------------------------------------------------------------------------------- the network


@torch.no_grad()
@pytest.mark.parametrize(
    "tokens", [{}, {"patch_embed": "patch16"}, {"patch_embed": "tf_efficientnet_lite0", "stride": 8}]
)
def test_every_kind_of_tokens_gives_a_mask_of_the_side_asked_for(tokens):
    network = MaskGenerator(**SMALL, **tokens).eval()
    image, areas = torch.randn(2, 3, 64, 64), torch.tensor([500.0, 50_000.0])
    logits = network(image, areas)
    assert logits.shape == (2, 1, network.side, network.side) == (2, 1, 16, 16)
    assert network.similarity(image, 2).shape == (2, network.grid**2, network.grid**2)
    flipped = network(image.flip(-1), areas)
    assert flipped.shape == logits.shape
    assert not torch.allclose(flipped, logits)


@torch.no_grad()
def test_logits_are_float32_under_autocast():
    network = MaskGenerator(**SMALL).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 3, 64, 64), torch.tensor([500.0])).dtype == torch.float32


@pytest.mark.slow
def test_the_published_network_takes_a_step_at_the_published_size():
    network = MaskGenerator(pretrained=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.9), weight_decay=5e-4)
    image, areas = torch.randn(1, 3, 512, 512), torch.tensor([20_000.0])
    before = network.backbone.blocks[0].attn.qkv.weight.detach().clone()
    logits = network(image, areas)
    assert logits.shape == (1, 1, 128, 128)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    assert not torch.equal(network.backbone.blocks[0].attn.qkv.weight, before)


@pytest.mark.parametrize(
    ("areas", "said"),
    [
        ([100.0], r"areas must be \(2,\), one for each object, got \(1,\)"),
        ([100.0, -1.0], "areas are those of boxes in pixels of the image, at least 0, got -1"),
        ([100.0, float("nan")], "at least 0, got nan"),
    ],
)
def test_areas_that_are_none_are_refused(areas, said):
    network = MaskGenerator(**SMALL)
    with pytest.raises(ValueError, match=said):
        network(torch.zeros(2, 3, 64, 64), torch.tensor(areas))
