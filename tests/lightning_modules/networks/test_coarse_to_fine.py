import pytest
import torch
import torch.nn.functional as F
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.networks.coarse_to_fine import CoarseToFine

SMALL = {"backbone": "resnet10t", "widths": [8, 16, 32, 64], "channels": 16, "context_channels": 24}
PROFILES = [
    SMALL,
    {**SMALL, "backbone": "resnet14t"},
    {**SMALL, "backbone": "resnet18d"},
    {**SMALL, "backbone": "resnet34"},
    {**SMALL, "backbone": "resnet50"},
    {**SMALL, "backbone": "resnet10t", "output_stride": 8},
]

RECIPE = """
network:
  class_path: lightning_modules.networks.coarse_to_fine.CoarseToFine
  init_args:
    backbone: resnet18d
    in_channels: 5
    click_channels: 2
    channels: 16
    context_channels: 24
    widths: [8, 16, 32, 64]
    pretrained: null
"""


def inputs(network: CoarseToFine, objects: int = 2, size: tuple[int, int] = (64, 96)) -> tuple[Tensor, Tensor | None]:
    """Crops and click maps, 0..255."""
    maps = 255 * torch.rand(objects, 2, *size) if network.click_channels else None
    return 255 * torch.rand(objects, 5, *size), maps


@pytest.mark.parametrize("click_channels", [0, 2])
@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: f"{p['backbone']}-{p.get('output_stride', 16)}")
@pytest.mark.parametrize("size", [(64, 96), (65, 51), (32, 33)])
def test_five_maps_have_the_size_of_the_input_whatever_it_is(profile, click_channels, size):
    network = CoarseToFine(**profile, click_channels=click_channels).eval()
    logits = network(*inputs(network, 1, size))
    assert [tuple(logit.shape) for logit in logits] == [(1, 1, *size)] * 5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"click_channels": 2},
        {"context": False},
        {"context": False, "click_channels": 2},
        {"fine": False},
        {"context": False, "fine": False},
        {"init": "timm"},
        {"click_channels": 3},
    ],
)
def test_every_parameter_learns_from_the_sum_of_the_losses(options):
    """What no loss reaches would stop a training on several devices."""
    network = CoarseToFine(**{**SMALL, **options})
    x = torch.rand(2, 5, 64, 64)
    logits = network(x, torch.rand(2, options["click_channels"], 64, 64) if "click_channels" in options else None)
    target = (torch.rand_like(logits[0]) > 0.5).float()
    sum(F.binary_cross_entropy_with_logits(logit, target) for logit in logits).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_prediction_comes_first_and_then_the_coarse_maps_from_coarse_to_fine():
    """Each map is made to say its own number by its batch norm, the last thing before it is stretched."""
    network = CoarseToFine(**SMALL).eval()
    with torch.no_grad():
        for number, decision in enumerate([network.fine.decision, *network.coarse.decisions]):
            decision.norm.weight.zero_()
            decision.norm.bias.fill_(number)
        logits = network(torch.rand(1, 5, 64, 64))
    for number, logit in enumerate(logits):
        torch.testing.assert_close(logit, torch.full_like(logit, number))


def test_without_finenet_the_last_coarse_map_is_the_prediction_and_is_given_once():
    full = CoarseToFine(**SMALL).eval()
    network = CoarseToFine(**SMALL, fine=False).eval()
    network.load_state_dict({k: v for k, v in full.state_dict().items() if not k.startswith("fine.")})
    x = torch.rand(2, 5, 64, 64)
    fine, *coarse = full(x)
    prediction, *sides = network(x)
    assert torch.equal(prediction, coarse[-1])
    assert len(sides) == 3
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(sides, coarse))
    assert not torch.allclose(fine, prediction)


def test_context_is_what_lets_a_pixel_see_the_whole_crop():
    """Without stage 4's own reach in the way: the context module alone, on features that differ in one cell."""
    for context, reach in ((True, 64), (False, 1)):
        module = CoarseToFine(**SMALL, context=context).context.eval()
        features = torch.rand(1, 64, 8, 8)
        changed = features.clone()
        changed[..., 2, 5] += 10
        seen = (module(features) != module(changed)).any(dim=1)
        assert seen.sum() == reach


@pytest.mark.parametrize("click_channels", [0, 2])
@torch.no_grad()
def test_features_of_an_object_serve_every_further_click(click_channels):
    network = CoarseToFine(**SMALL, click_channels=click_channels).eval()
    x, maps = inputs(network)
    features = network.encode(x)
    kept = [feature.clone() for feature in features]
    for _ in range(3):
        _, maps = inputs(network)
        for ours, theirs in zip(network.decode(features, (64, 96), maps), network(x, maps)):
            assert torch.equal(ours, theirs)
    assert all(torch.equal(before, after) for before, after in zip(kept, features))


@torch.no_grad()
def test_a_click_in_the_late_branch_moves_all_five_maps():
    network = CoarseToFine(**SMALL, click_channels=2).eval()
    x, maps = inputs(network)
    clicked = maps.clone()
    clicked[1, 1, 20:30, 40:50] = 255
    for before, after in zip(network(x, maps), network(x, clicked)):
        assert torch.equal(before[0], after[0])  # the other object's clicks are not its own
        assert not torch.allclose(before[1], after[1])


def test_click_maps_go_to_networks_with_a_branch_for_them_and_to_no_other():
    plain, refining = CoarseToFine(**SMALL), CoarseToFine(**SMALL, click_channels=2)
    x = torch.rand(2, 5, 32, 32)
    with pytest.raises(
        ValueError, match=r"no click branch, got click maps \(2, 2, 32, 32\); build it with click_channe"
    ):
        plain(x, torch.rand(2, 2, 32, 32))
    with pytest.raises(ValueError, match=r"needs maps \(2, 2, 32, 32\) of 0\.\.255 from the first clicks on, got none"):
        refining(x)
    for wrong in [(2, 1, 32, 32), (2, 2, 16, 32), (1, 2, 32, 32)]:
        with pytest.raises(ValueError, match=r"needs maps \(2, 2, 32, 32\).*got \(\d, \d, \d\d, 32\)"):
            refining(x, torch.rand(wrong))


def test_the_multi_grid_has_one_rate_per_block():
    def rates(**options) -> list[int]:
        return [block.conv2.dilation[0] for block in CoarseToFine(**{**SMALL, **options}).backbone.layer4]

    assert rates(backbone="resnet34") == rates(backbone="resnet50") == [2, 4, 8]
    assert rates(backbone="resnet18d") == [2, 4]
    assert rates() == [2]
    assert rates(backbone="resnet34", output_stride=8) == [4, 8, 16]
    assert rates(backbone="resnet34", dilations=[1, 1, 1, 2]) == [2, 2, 2]


def test_another_output_stride_is_refused():
    with pytest.raises(ValueError, match="output stride of 8, 16 or 32, got 4"):
        CoarseToFine(**SMALL, output_stride=4)


def test_a_single_object_cannot_train_the_pyramid_but_all_else():
    with pytest.raises(ValueError, match="PSP trains on two objects or more at a time, got one"):
        CoarseToFine(**SMALL)(torch.rand(1, 5, 32, 32))
    assert len(CoarseToFine(**SMALL, context=False)(torch.rand(1, 5, 32, 32))) == 5
    assert len(CoarseToFine(**SMALL).eval()(torch.rand(1, 5, 32, 32))) == 5


def test_logits_are_float32_under_autocast():
    network = CoarseToFine(**SMALL, click_channels=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert {logit.dtype for logit in network(*inputs(network))} == {torch.float32}


def test_training_standardises_each_map_over_the_batch():
    """One-channel batch norm, at a quarter of the size: the logits' scale is its own, whatever the features'."""
    network = CoarseToFine(**SMALL)
    seen: list[Tensor] = []
    for decision in [network.fine.decision, *network.coarse.decisions]:
        decision.register_forward_hook(lambda *call: seen.append(call[-1]))
    network(inputs(network)[0])
    assert [tuple(logit.shape) for logit in seen] == [(2, 1, 16, 24)] * 5
    for logit in seen:
        assert logit.mean().item() == pytest.approx(0, abs=1e-4)
        assert logit.std().item() == pytest.approx(1, abs=1e-2)


def test_only_the_official_start_draws_coarsenet_s_convolutions_from_he_s_distribution_over_outputs():
    def deviation(part: nn.Module) -> float:
        return part.weight.std().item()

    official, plain = CoarseToFine("resnet10t"), CoarseToFine("resnet10t", init="timm")
    for network, of_1x1, of_3x3 in (
        (official, (2 / 256) ** 0.5, (2 / 9) ** 0.5),
        (plain, (1 / (3 * 256)) ** 0.5, (1 / (3 * 9 * 256)) ** 0.5),  # PyTorch's uniform one over inputs
    ):
        decision = network.coarse.decisions[0]
        assert deviation(decision.before[0]) == pytest.approx(of_1x1, rel=0.05)
        assert deviation(decision.logit) == pytest.approx(of_3x3, rel=0.05)
        assert deviation(network.fine.cascade[0][0].conv1) == pytest.approx((1 / (3 * 256)) ** 0.5, rel=0.05)
    norms = [m for m in official.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


@pytest.mark.parametrize("options", [{}, {"click_channels": 2}, {"fine": False}])
@torch.no_grad()
def test_the_prediction_alone_is_the_same(options):
    network = CoarseToFine(**SMALL, **options).eval()
    x, maps = inputs(network)
    (prediction,) = network(x, maps, sides=False)
    assert torch.equal(prediction, network(x, maps)[0])


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
@torch.no_grad()
@pytest.mark.slow
def test_a_further_click_costs_at_most_half_of_the_first(backbone):
    """Counted multiply-accumulates of the published networks at 512 px."""
    with torch.device("meta"):
        network = CoarseToFine(backbone, click_channels=2).eval()
        x, maps = torch.rand(1, 5, 512, 512), torch.rand(1, 2, 512, 512)
        with FlopCounterMode(display=False) as first:
            network(x, maps, sides=False)
        features = network.encode(x)
        with FlopCounterMode(display=False) as further:
            network.decode(features, (512, 512), maps, sides=False)
    assert further.get_total_flops() < {"resnet50": 0.4, "resnet101": 0.3}[backbone] * first.get_total_flops()


def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    return parser


def test_a_recipe_makes_the_network_of_the_code_where_it_says_nothing_else():
    network = parser().instantiate(parser().parse_object(yaml.safe_load(RECIPE))).network
    blocks = network.backbone.layer4
    assert [block.conv1.dilation[0] for block in blocks] == [2, 4]
    assert network.backbone.strides == (4, 8, 16, 16)
    assert all(p.requires_grad for p in network.parameters())
    assert [logit.shape for logit in network(torch.rand(2, 5, 64, 64), torch.rand(2, 2, 64, 64))] == [
        (2, 1, 64, 64)
    ] * 5


def test_a_typo_in_the_recipe_is_refused():
    with pytest.raises(Exception, match="context_channel"):
        parser().parse_object(yaml.safe_load(RECIPE.replace("context_channels", "context_channel")))
