"""Mask2Former: its losses against the official criterion, sizes, weights of timm, one and two processes, inference."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.networks import mask2former
from lightning_modules.networks.mask2former import Mask2Former, from_timm, swin_sizes
from tests.lightning_modules.networks.drawn_instances import FOUR_IMAGES, best_iou, drawn_batch

GOLDEN = Path(__file__).parents[2] / "golden" / "stage2_m2f.npz"
SMALL = {
    "backbone": "swin_tiny_patch4_window7_224",
    "embed_dim": 24,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 2, 4, 8],
    "window": 4,
    "drop_path": 0.0,
    "queries": 12,
    "hidden": 64,
    "heads": 4,
    "encoder_layers": 2,
    "encoder_width": 128,
    "decoder_layers": 3,
    "decoder_width": 128,
    "points": 1024,
}
TINY = SMALL | {"depths": [1, 1, 1, 1], "hidden": 32, "encoder_layers": 1, "decoder_layers": 1, "points": 64}


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name.removeprefix("m2f_"): torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


@pytest.fixture(scope="module")
def published() -> Mask2Former:
    with torch.device("meta"):
        return Mask2Former(80)


# ------------------------------------------------------------------------------------------------------- losses


def test_point_losses_and_costs_are_those_of_the_official_criterion(official):
    from transformers.models.mask2former import modeling_mask2former as used

    logits, targets, number = official["logits"], official["targets"].float(), float(official["num_masks"])
    dice, cross_entropy = used.dice_loss, used.sigmoid_cross_entropy_loss
    assert float(dice(logits, targets, number)) == pytest.approx(float(official["dice"]), rel=1e-4)
    assert float(cross_entropy(logits, targets, number)) == pytest.approx(float(official["bce"]), rel=1e-4)
    costs = {"cost_dice": used.pair_wise_dice_loss, "cost_bce": used.pair_wise_sigmoid_cross_entropy_loss}
    for name, cost in costs.items():
        torch.testing.assert_close(cost(logits, targets[:3]), official[name], rtol=1e-4, atol=1e-5)


def test_these_functions_make_the_terms_once_per_answer_with_the_published_weights(monkeypatch):
    from transformers.models.mask2former import modeling_mask2former as used

    network = Mask2Former(3, **TINY)
    made: dict[str, list[float]] = {"dice_loss": [], "sigmoid_cross_entropy_loss": []}

    def noted(name):
        original = getattr(used, name)

        def called(*arguments):
            made[name].append(float((value := original(*arguments)).detach()))
            return value

        monkeypatch.setattr(used, name, called)

    for name in made:
        noted(name)
    terms = network.losses(*drawn_batch(FOUR_IMAGES[:2], 128))
    assert len(made["dice_loss"]) == 2  # the learnable queries and the one layer
    assert terms["dice"].item() == pytest.approx(5 * sum(made["dice_loss"]), rel=1e-5)
    assert terms["mask"].item() == pytest.approx(5 * sum(made["sigmoid_cross_entropy_loss"]), rel=1e-5)


def test_defaults_are_the_published_values(published):
    network, criterion = published.network, published.network.criterion
    assert len(network.model.transformer_module.decoder.layers) == 9
    assert len(network.model.pixel_level_module.decoder.encoder.layers) == 6
    assert (criterion.num_points, criterion.oversample_ratio, criterion.importance_sample_ratio) == (12_544, 3.0, 0.75)
    matcher = criterion.matcher
    assert (matcher.num_points, matcher.cost_class, matcher.cost_mask, matcher.cost_dice) == (12_544, 2.0, 5.0, 5.0)
    assert (criterion.eos_coef, network.config.dropout, network.config.backbone_config.drop_path_rate) == (0.1, 0, 0.3)


def objects_of_class_1(*count: int) -> list[list[tuple[int, int, int, int, int]]]:
    return [[(8 * i, 8 * i, 8 * i + 30, 8 * i + 20, 1) for i in range(each)] for each in count]


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
def test_images_without_objects_leave_no_weight_without_gradient(counts):
    network = Mask2Former(3, **TINY)
    terms = network.losses(*drawn_batch(objects_of_class_1(*counts), 64))
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    assert torch.isfinite(loss)
    learned = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert {name for name, weight in network.named_parameters() if weight.grad is not None} == learned
    assert {name for name, _ in network.named_parameters()} - learned == {
        f"network.model.pixel_level_module.encoder.swin.layernorm.{part}" for part in ("weight", "bias")
    }
    if not any(counts):
        assert [terms[name].item() for name in ("mask", "dice")] == [0, 0]


def test_more_objects_than_queries_are_no_error():
    terms = Mask2Former(3, **TINY | {"queries": 2}).losses(*drawn_batch(objects_of_class_1(4), 64))
    assert all(torch.isfinite(term) for term in terms.values())


def fixed_points(*shape: int, device: torch.device | None = None) -> Tensor:
    """In place of torch.rand: the same points of every mask, however many there are."""
    points = np.random.default_rng(0).random(shape[1:], dtype=np.float32)
    return torch.from_numpy(points).expand(*shape).clone()


def gradient_of(images: slice) -> NDArray[np.float32]:
    """Of all weights by some of four images with 1, 3, 0 and 2 objects; queries without object weigh like others."""
    torch.manual_seed(3)
    network = Mask2Former(3, **TINY, no_object=1.0)
    seen, batch = drawn_batch(objects_of_class_1(1, 3, 0, 2), 64)
    terms = network.losses(seen[images], replace(batch, masks=batch.masks[images], labels=batch.labels[images]))
    torch.stack(list(terms.values())).sum().backward()
    return torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None]).numpy()


def _one_process(rank: int, meeting: str, answer: str) -> None:
    torch.set_num_threads(1)
    torch.rand = fixed_points
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mean = torch.from_numpy(gradient_of(slice(2 * rank, 2 * rank + 2)))
    dist.all_reduce(mean)
    if rank == 0:
        np.save(answer, mean.numpy() / 2)  # what DistributedDataParallel does
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_4_and_2_objects_make_the_gradient_of_one_with_all(tmp_path, monkeypatch):
    mp.spawn(_one_process, args=(str(tmp_path / "meeting"), str(tmp_path / "mean.npy")), nprocs=2)
    monkeypatch.setattr(torch, "rand", fixed_points)
    alone = gradient_of(slice(0, 4))
    assert np.abs(alone).max() > 0.1
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), alone, rtol=1e-3, atol=1e-5)


def test_losses_and_objects_are_in_float32_under_autocast_too():
    network = Mask2Former(3, **TINY)
    image, batch = drawn_batch(objects_of_class_1(2), 64)
    with torch.autocast("cpu", torch.bfloat16):
        terms = network.losses(image, batch)
        (found,) = network.eval().detect(image, batch.size, batch.original_size)
    assert {term.dtype for term in terms.values()} == {found.scores.dtype} == {torch.float32}
    assert all(term.isfinite() for term in terms.values())


# -------------------------------------------------------------------------------------------------------- sizes


def test_the_published_network_has_the_weights_that_its_description_adds_up_to(published):
    """Counted by hand from the sizes in the paper and in Swin's; the paper's table says 69M."""

    def linear(ins: int, outs: int, bias: bool = True) -> int:
        return ins * outs + bias * outs

    def norm(width: int) -> int:
        return 2 * width

    def block(width: int, heads: int) -> int:
        attention = linear(width, 3 * width) + linear(width, width) + (2 * 7 - 1) ** 2 * heads
        return 2 * norm(width) + attention + linear(width, 4 * width) + linear(4 * width, width)

    widths = [96, 192, 384, 768]
    swin = linear(3 * 4 * 4, 96) + norm(96) + norm(768) + sum(map(norm, widths))
    swin += sum(n * block(w, h) for n, w, h in zip([2, 2, 18, 2], widths, [3, 6, 12, 24]))
    swin += sum(norm(4 * w) + linear(4 * w, 2 * w, bias=False) for w in widths[:3])
    # Per head 3 levels of 4 points: two offsets and one attention weight each
    deformable = linear(256, 8 * 3 * 4 * 2) + linear(256, 8 * 3 * 4) + 2 * linear(256, 256)
    pixels = 6 * (deformable + 2 * norm(256) + linear(256, 1024) + linear(1024, 256))
    pixels += sum(linear(w, 256) + norm(256) for w in widths[1:]) + 3 * 256  # three levels, their embeddings
    pixels += linear(96, 256, bias=False) + linear(9 * 256, 256, bias=False) + 2 * norm(256) + linear(256, 256)
    layer = 2 * 4 * linear(256, 256) + 3 * norm(256) + linear(256, 2048) + linear(2048, 256)
    decoder = 9 * layer + norm(256) + 2 * 100 * 256 + 3 * 256 + 3 * linear(256, 256) + linear(256, 81)
    counted = sum(weight.numel() for weight in published.parameters())
    assert counted == swin + pixels + decoder == 68_741_083
    assert round(counted / 1e6) == 69


def test_sizes_come_from_the_name_of_the_swin():
    assert swin_sizes("swin_small_patch4_window7_224.ms_in1k") == {
        "embed_dim": 96,
        "depths": [2, 2, 18, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
    }
    with pytest.raises(ValueError, match=r"takes a Swin of timm .* got 'resnet50'"):
        Mask2Former(3, "resnet50")
    with pytest.raises(ValueError, match="hidden is a multiple of 32"):
        Mask2Former(3, hidden=48)


def test_looking_for_the_class_does_not_load_transformers():
    code = "import sys, lightning_modules.networks.mask2former; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------------------------------ weights


@pytest.fixture(scope="module")
def of_timm() -> torch.nn.Module:
    torch.manual_seed(2)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 2, 2, 2), num_heads=(1, 2, 4, 8), always_partition=True
    )
    for weight in swin.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # timm begins with norms of 1 and biases of 0
    return swin.eval()


ON_TIMM = TINY | {"depths": [1, 2, 2, 2], "window": None}


@torch.no_grad()
@pytest.mark.parametrize("layout", ["timm", "authors"])
def test_weights_of_timm_give_the_features_that_timm_gives(of_timm, tmp_path, layout):
    weights = of_timm.state_dict()
    if layout == "authors":  # theirs merge patches at the end of a stage, and hold tables of indices
        stage = r"layers.{}.downsample."
        for later, part in [(1, 0), (2, 1), (3, 2)]:
            names = [name for name in weights if name.startswith(stage.format(later))]
            for name in names:
                weights[name.replace(stage.format(later), stage.format(part))] = weights.pop(name)
        weights["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    torch.save(weights, tmp_path / "swin.pth")
    network = Mask2Former(3, **ON_TIMM, pretrained=str(tmp_path / "swin.pth")).eval()
    assert network.weights_source == "swin.pth"
    image = torch.randn(1, 3, 224, 224)
    shown = {"output_hidden_states": True, "output_hidden_states_before_downsampling": True}
    swin = network.backbone.swin(image, always_partition=True, **shown)
    theirs = of_timm.forward_intermediates(image, intermediates_only=True)
    assert len(theirs) == 4
    for ours, each in zip(swin.reshaped_hidden_states[1:], theirs):
        assert each.std() > 0.1
        torch.testing.assert_close(ours, each, rtol=1e-3, atol=1e-3)


def test_every_weight_of_timm_s_swin_small_has_its_place(published):
    with torch.device("meta"):
        renamed = from_timm(timm.create_model("swin_small_patch4_window7_224").state_dict())
    own = {name: tuple(weight.shape) for name, weight in published.backbone.swin.named_parameters()}
    assert {name: tuple(weight.shape) for name, weight in renamed.items()} == own


def test_a_file_of_another_swin_is_refused(of_timm, tmp_path):
    torch.save(of_timm.state_dict(), tmp_path / "swin.pth")
    with pytest.raises(ValueError, match="of another shape"):
        Mask2Former(3, **ON_TIMM | {"embed_dim": 48}, pretrained=str(tmp_path / "swin.pth"))


# ------------------------------------------------------------------------------------------------------- groups


def test_groups_name_what_never_decays_and_what_learns_slowly(published):
    names = {id(weight): name for name, weight in published.named_parameters()}
    groups = {
        (group["rate_factor"], group["decay_factor"]): {names[id(weight)] for weight in group["params"]}
        for group in published.parameter_groups()
    }
    assert set(groups) == {(0.1, 1.0), (0.1, 0.0), (1.0, 1.0), (1.0, 0.0)}
    learned = {name for name, weight in published.named_parameters() if weight.requires_grad}
    assert set.union(*groups.values()) == learned
    assert sum(map(len, groups.values())) == len(learned)
    swin = groups[0.1, 1.0] | groups[0.1, 0.0]
    assert swin == {name for name in learned if ".pixel_level_module.encoder." in name}

    kinds = {"relative_position_bias_table", "queries_embedder", "queries_features", "level_embed"}
    never = groups[0.1, 0.0] | groups[1.0, 0.0]
    assert {kind for kind in kinds if any(kind in name for name in never)} == kinds
    of_norms = {name for name in never if not any(kind in name for kind in kinds)}
    # Two per block, one per merging, the stem's and one per stage; in the decoders 2 and 3 per layer, 7 besides
    assert len(of_norms) == 2 * (2 * 24 + 3 + 1 + 4 + 2 * 6 + 3 * 9 + 5 + 1)
    decays = groups[0.1, 1.0] | groups[1.0, 1.0]
    assert not [name for name in decays if "norm" in name or any(kind in name for kind in kinds)]
    assert any(name.endswith("q_proj.bias") for name in decays)


# ---------------------------------------------------------------------------------------------------- inference


def answers_by_hand() -> tuple[Tensor, Tensor]:
    """Of 4 queries and 2 classes on a grid of 32 x 32 pixels at stride 4; nothing is unsure."""
    probability = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.05, 0.45], [0.7, 0.2, 0.1]])
    logits = torch.full((4, 8, 8), -20.0)
    logits[0, :3] = 20.0  # the upper 12 rows, beyond the image's width, too
    logits[1, 2:6, 1:5] = 2.0
    logits[3, :, 6:] = 20.0  # wholly in the padding of an image of 24 columns
    return probability.log(), logits


def test_an_image_s_objects_are_read_from_its_own_part_of_the_masks_at_the_size_of_its_file():
    network = Mask2Former(2, **TINY)
    found = network.instances(*answers_by_hand(), padded=(32, 32), size=(32, 24), file=(64, 48))
    sure = torch.tensor(2.0).sigmoid()
    assert found.labels.tolist() == [1, 0, 1, 0]  # of queries 1, 0, 0, 1; 2 has no pixel, 3 none in the image
    assert found.masks.shape == (4, 64, 48)
    assert found.masks[1].equal(found.masks[2])
    inside = found.masks[1].float().mean(dim=1)
    assert (inside[:23] == 1).all()  # 12 of 32 rows, to a bilinear pixel
    assert (inside[25:] == 0).all()
    assert found.masks[0, 20:44, 12:36].all()
    assert all(best >= worse for best, worse in pairwise(found.scores.tolist()))
    assert 0.5 < float(found.scores[0]) < 0.8 * float(sure)  # the rim is less sure than the middle
    assert float(found.scores[1]) == pytest.approx(0.6, abs=0.03)


def test_masks_are_the_same_however_many_are_resized_at_once(monkeypatch):
    network = Mask2Former(2, **TINY)
    arguments = (*answers_by_hand(), (32, 32), (32, 24), (64, 48))
    whole = network.instances(*arguments)
    monkeypatch.setattr(mask2former, "AT_ONCE", 1)
    for one, other in zip(network.instances(*arguments), whole):
        assert torch.equal(one, other)


def test_no_more_objects_are_answered_than_asked_for():
    arguments = (*answers_by_hand(), (32, 32), (32, 24), (64, 48))
    assert len(Mask2Former(2, **TINY, detections=1).instances(*arguments).scores) == 1
    assert Mask2Former(2, **TINY, score_threshold=0.4).instances(*arguments).scores.min() >= 0.4


@torch.no_grad()
def test_the_network_has_no_use_for_a_mask_of_padded_pixels():
    network = Mask2Former(3, **TINY).eval()
    image = torch.randn(1, 3, 64, 64)
    padded = torch.zeros(1, 64, 64)
    assert torch.equal(
        network.network(image, pixel_mask=padded).masks_queries_logits, network.network(image).masks_queries_logits
    )


# ----------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_sixty_steps_learn_four_images_by_heart():
    torch.manual_seed(0)
    network = Mask2Former(3, **SMALL).train()
    image, batch = drawn_batch(FOUR_IMAGES)
    groups = [{"params": group["params"]} for group in network.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    losses = []
    for _ in range(60):
        loss = torch.stack(list(network.losses(image, batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    found = network.eval().detect(image, batch.size, 2 * batch.original_size)
    for each, masks, labels in zip(found, batch.masks, batch.labels):
        for mask, label in zip(masks, labels.tolist()):
            assert best_iou(each, mask.repeat_interleave(2, 0).repeat_interleave(2, 1), label) > 0.8


@pytest.mark.slow
def test_one_step_of_the_published_network_on_an_image_of_512_pixels():
    """Half the side of the published 1024, which takes 10 GB."""
    torch.manual_seed(0)
    network = Mask2Former(80).train()
    terms = network.losses(*drawn_batch([[(50, 40, 250, 210, 0), (300, 250, 450, 470, 2)]], 512))
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(term) for term in terms.values())
    gradients = [weight.grad for weight in network.parameters() if weight.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
