import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lightning_modules.networks.attention import ChannelAttention, DualAttention, PositionAttention
from lightning_modules.networks.deeplab import DeepLab

SMALL = {"backbone": "resnet10t", "widths": [8, 16, 32, 64]}
WIDE = (256, 512, 1024, 2048)
STAGES = (8, 16, 32, 64)


def plain_position(module: PositionAttention, x: Tensor) -> Tensor:
    """Position attention as DANet prints it, all N x N weights at once."""
    query, key, value = (layer(x).flatten(2) for layer in (module.query, module.key, module.value))
    weights = torch.softmax(torch.einsum("bdi,bdj->bij", query, key), dim=-1)
    return module.gamma * torch.einsum("bij,bcj->bci", weights, value).view_as(x) + x


def plain_channel(module: ChannelAttention, x: Tensor) -> Tensor:
    """Channel attention as DANet's code has it, its maximum included."""
    flat = x.flatten(2)
    energy = torch.einsum("ban,bcn->bac", flat, flat)
    weights = torch.softmax(energy.amax(dim=-1, keepdim=True) - energy, dim=-1)
    return module.gamma * torch.einsum("bac,bcn->ban", weights, flat).view_as(x) + x


def saved_tensors(task: Callable[[], Tensor]) -> list[Tensor]:
    """What a forward pass keeps for its backward pass."""
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        task()
    return saved


def opened(module: nn.Module, gamma: float = 0.7) -> nn.Module:
    """With an attention that takes part."""
    for name, parameter in module.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, gamma)
    return module


@pytest.mark.parametrize(
    ("module", "plain"),
    [
        (PositionAttention(16), plain_position),
        (ChannelAttention(), plain_channel),
    ],
)
@given(batch=st.integers(1, 3), height=st.integers(1, 7), width=st.integers(1, 7), seed=st.integers(0, 1000))
def test_attention_equals_the_printed_formula_in_values_and_gradients(module, plain, batch, height, width, seed):
    torch.manual_seed(seed)
    module = opened(copy.deepcopy(module)).double()
    x = torch.randn(batch, 16, height, width, dtype=torch.float64, requires_grad=True)
    towards = torch.randn_like(x)
    results = []
    for forward in (module, partial(plain, module)):
        y = forward(x)
        results.append([y, *torch.autograd.grad((y * towards).sum(), [x, *module.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_cell_takes_the_value_of_the_cell_that_its_query_asks_for():
    """Four cells: keys 0, 1, 2, 3 and query 100 everywhere, so that all weight is on the last one; by hand."""
    module = opened(PositionAttention(8), gamma=2)
    for layer in (module.query, module.key, module.value):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        module.query.bias.fill_(100)
        module.key.weight[0, 0] = 1
        module.value.weight[:, :, 0, 0] = torch.eye(8)
    x = torch.arange(4.0).view(1, 1, 2, 2) + 10 * torch.arange(8.0).view(1, 8, 1, 1)
    expected = x + 2 * (3 + 10 * torch.arange(8.0).view(1, 8, 1, 1))
    torch.testing.assert_close(module(x), expected)


def test_the_weights_are_not_those_of_a_transformer():
    """Query 1, keys 0 and ln 3 in each of two channels: the weights are 1 : 9 unscaled, with 1 / sqrt(2) others."""
    module = opened(PositionAttention(16), gamma=1)
    for layer in (module.query, module.key, module.value):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        module.query.bias.fill_(1)
        module.key.weight[:, 0] = torch.tensor(3.0).log()
        module.value.weight[:, 0] = 1
    x = torch.zeros(1, 16, 1, 2)
    x[..., 1] = 1  # values 0 and 1, mean 0.9
    torch.testing.assert_close(module(x) - x, torch.full_like(x, 0.9))


def test_unlike_channels_weigh_most():
    """Energies of the first channel: 4 with itself and its copy, -4 with its opposite, which takes all the weight."""
    x = torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2).contiguous()
    module = opened(ChannelAttention(), gamma=1)
    torch.testing.assert_close(module(x)[0, 0], torch.zeros(2, 2), atol=2e-3, rtol=0)  # 1 + (-1), but for e^-8
    assert module(x)[0, 0, 0, 0].item() == pytest.approx(1 + (2 - torch.e**8) / (2 + torch.e**8), abs=1e-6)


@pytest.mark.parametrize("module", [PositionAttention(16), ChannelAttention()])
def test_attention_starts_as_an_identity_and_only_gamma_learns_in_the_first_step(module):
    x = torch.randn(2, 16, 5, 4)
    y = module(x)
    assert torch.equal(y, x)
    (y * torch.randn_like(y)).sum().backward()
    learning = {name for name, parameter in module.named_parameters() if parameter.grad.any()}
    assert learning == {"gamma"}
    opened(module, 0.1)(x).square().sum().backward()
    key_bias = {"key.bias"}  # moves all energies of a query alike, which a softmax ignores: its gradient is rounding
    assert {name for name, p in module.named_parameters() if p.grad.abs().max() > 1e-3} | key_bias == {
        name for name, _ in module.named_parameters()
    } | key_bias


@pytest.mark.parametrize("channels", [16, 24, 64])
def test_no_weight_of_each_pair_of_cells_is_kept_for_the_backward_pass(channels):
    module, x = PositionAttention(channels), torch.randn(2, channels, 24, 25)
    cells = 24 * 25
    assert cells > 2 * channels
    ours, theirs = (saved_tensors(partial(task, x)) for task in (module, partial(plain_position, module)))
    assert max(tensor.numel() for tensor in theirs) == 2 * cells * cells
    assert max(tensor.numel() for tensor in ours) <= x.numel()
    assert all(tensor.shape[-2:] != (cells, cells) for tensor in ours)


@pytest.mark.parametrize("module", [PositionAttention(16), ChannelAttention()])
def test_attention_is_float32_under_autocast(module):
    """Energies of 1e6, where float16 ends at 65,504; bfloat16 would lose the 0.1 % by which they differ."""
    opened(module, 1.0)
    x = 300 * torch.rand(1, 16, 6, 6).bfloat16().float()
    if isinstance(module, PositionAttention):
        with torch.no_grad():
            module.query.weight.copy_(torch.eye(2, 16).view(2, 16, 1, 1))
            module.key.weight.copy_(torch.eye(2, 16).view(2, 16, 1, 1) * 10)
            module.value.weight.copy_(torch.eye(16).view(16, 16, 1, 1))
            for layer in (module.query, module.key, module.value):
                layer.bias.zero_()
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=2**-7, atol=0)
    for dtype in (torch.float16, torch.bfloat16):
        assert copy.deepcopy(module).to(dtype)(x.to(dtype)).dtype == dtype
    half = copy.deepcopy(module).half()(x.half()).float()
    assert half.isfinite().all()
    torch.testing.assert_close(half, exact, rtol=2**-7, atol=0)


@pytest.mark.parametrize("module", [PositionAttention(8), ChannelAttention()])
def test_means_are_not_rounded_to_half_under_autocast(module):
    """The mean of 1 and 1 + 2^-7, both bfloat16, is 1 + 2^-8, which is none."""
    opened(module, 1.0)
    if isinstance(module, PositionAttention):
        for layer in (module.query, module.key, module.value):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            module.value.weight[:, :, 0, 0] = torch.eye(8)
    x = torch.ones(1, 8, 2, 4)
    x[:, ::2, 0] = x[:, 1::2, 1] = 1 + 2**-7
    with torch.autocast("cpu", torch.bfloat16):
        mean = module(x) - x
    torch.testing.assert_close(mean, torch.full_like(x, 1 + 2**-8), rtol=0, atol=1e-5)


def test_the_published_head_has_its_parameters():
    with torch.device("meta"):
        head = DualAttention(WIDE)
    entry, exit_ = 2048 * 512 * 9 + 2 * 512, 512 * 512 * 9 + 2 * 512
    position = 2 * (512 * 64 + 64) + (512 * 512 + 512) + 1
    channel = 1
    expected = 2 * (entry + exit_) + position + channel + 3 * (512 + 1)
    assert sum(p.numel() for p in head.parameters()) == expected == 23_926_917
    assert [tuple(o.shape) for o in head([torch.rand(2, c, 64, 64, device="meta") for c in WIDE])] == [
        (2, 1, 64, 64)
    ] * 3


def test_the_prediction_is_decided_on_the_sum_and_each_side_on_its_branch():
    head = opened(DualAttention(STAGES, channels=16)).eval()
    features = [torch.rand(2, c, 6, 5) for c in STAGES]
    position, channel = (branch(features[-1]) for branch in head.branches.values())
    assert isinstance(head.branches["position"][1], PositionAttention)
    expected = [head.final(position + channel), head.sides["position"](position), head.sides["channel"](channel)]
    for ours, theirs in zip(head(features), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kept", "options"), [("channel", {"position": False}), ("position", {"channel": False})])
def test_one_branch_is_one_output_without_the_other_s_parameters(kept, options):
    head = DualAttention(STAGES, channels=16, **options).eval()
    features = [torch.rand(2, c, 6, 5) for c in STAGES]
    logits = head(features)
    assert len(logits) == 1
    torch.testing.assert_close(logits[0], head.final(head.branches[kept](features[-1])))
    sizes = {name: sum(p.numel() for p in branch.parameters()) for name, branch in head.branches.items()}
    assert sum(p.numel() for p in head.parameters()) == sizes[kept] + 17


def test_each_output_drops_channels_of_its_own_in_training_only():
    head = DualAttention(STAGES, channels=64, dropout=0.5)
    for decide in (head.final, *head.sides.values()):
        nn.init.ones_(decide[1].weight)
        nn.init.zeros_(decide[1].bias)
    x = torch.ones(1, 64, 3, 3)
    drawn = [decide(x) for decide in (head.final, *head.sides.values())]
    for logits in drawn:  # whole channels: all cells agree
        assert torch.equal(logits, logits[..., :1, :1].expand_as(logits))
    assert len({logits[0, 0, 0, 0].item() for logits in drawn}) > 1
    assert all(torch.equal(decide(x), torch.full((1, 1, 3, 3), 64.0)) for decide in head.eval().sides.values())


def test_the_skip_decides_the_prediction_at_stride_four_and_leaves_the_sides_coarse():
    features = DeepLab(**SMALL).backbone(torch.rand(2, 4, 64, 64))
    sizes = [tuple(o.shape[-2:]) for o in DualAttention(STAGES, channels=16, skip=True)(features)]
    assert sizes == [(16, 16), (8, 8), (8, 8)]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("options", "count"), [({}, 3), ({"position": False}, 1), ({"channel": False}, 1)])
def test_deeplab_brings_every_output_to_the_input_and_everything_in_it_learns(skip, options, count):
    network = opened(DeepLab(**SMALL, head=partial(DualAttention, channels=16, skip=skip, **options)))
    x = torch.rand(2, 4, 45, 64)
    logits = network(x)
    assert isinstance(logits, list)
    assert [tuple(o.shape) for o in logits] == [(2, 1, 45, 64)] * count
    torch.stack(logits).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert {o.dtype for o in network(x)} == {torch.float32}


def test_each_part_of_the_loss_teaches_its_own_branch():
    """The position output's loss reaches nothing of the channel branch, and the other way round."""
    head = opened(DualAttention(STAGES, channels=16))
    _, position, channel = head([torch.rand(2, c, 6, 5) for c in STAGES])
    for logits, mine, other in ((position, "position", "channel"), (channel, "channel", "position")):
        head.zero_grad()
        logits.square().sum().backward(retain_graph=True)
        assert all(p.grad is not None for p in head.branches[mine].parameters())
        assert all(p.grad is None for p in head.branches[other].parameters())


def test_a_single_object_trains_the_head():
    logits = DeepLab(**SMALL, head=partial(DualAttention, channels=16))(torch.rand(1, 4, 64, 64))
    assert [tuple(o.shape) for o in logits] == [(1, 1, 64, 64)] * 3


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match="position, channel or both, got neither; without attention take PSP"):
        DualAttention(STAGES, position=False, channel=False)
    with pytest.raises(ValueError, match="multiple of 8 channels, got 12"):
        DualAttention(STAGES, channels=12)
    assert len(DualAttention(STAGES, channels=12, position=False)([torch.rand(2, c, 4, 4) for c in STAGES])) == 1


def test_a_recipe_makes_the_network():
    recipe = """
    network:
      class_path: lightning_modules.networks.deeplab.DeepLab
      init_args:
        backbone: resnet10t
        head:
          class_path: lightning_modules.networks.attention.DualAttention
          init_args: {channels: null, position: true, channel: true, dropout: 0.1, skip: true}
        widths: [8, 16, 32, 64]
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    network = parser.instantiate(parser.parse_object(yaml.safe_load(recipe))).network
    assert network.head.final[1].in_channels == 16
    assert len(network(torch.rand(2, 4, 40, 56))) == 3
