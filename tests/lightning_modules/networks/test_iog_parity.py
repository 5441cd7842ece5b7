"""Same weights, same input, same output: the suite's network of IOG against a second implementation of its rules."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.coarse_to_fine import CoarseToFine
from lightning_modules.networks.deeplab import DeepLab
from lightning_modules.networks.official import IOG_NAMES, load_official, rename
from tests.lightning_modules.networks.reference import OFFICIAL_SHAPES as DEXTR_SHAPES
from tests.lightning_modules.networks.reference import official_weights
from tests.lightning_modules.networks.reference_iog import NETWORKS, IOGRules, iog, official_shapes

DEAD = 66_048  # parameters of Coarse_net.upsamples.0, which the official network has and never calls
# The sheet's parts: backbone, context, CoarseNet, FineNet, click branch, and their sum.
SIZES = {
    "main_resnet50": (23_514_304, 6_296_576, 1_063_432, 2_257_666, 0, 33_131_978),
    "main_resnet101": (42_506_432, 6_296_576, 1_063_432, 2_257_666, 0, 52_124_106),
    "refine_resnet50": (23_514_304, 6_628_480, 1_063_432, 2_257_666, 977_536, 34_441_418),
    "refine_resnet101": (42_506_432, 6_628_480, 1_063_432, 2_257_666, 977_536, 53_433_546),
}
IOG = IOGRules()


def built(network: str) -> CoarseToFine:
    kind, backbone = network.split("_")
    return CoarseToFine(backbone, click_channels=2 if kind == "refine" else 0)


def rules_of(network: str) -> IOGRules:
    return replace(IOG, depths=(3, 4, 23, 3)) if network.endswith("101") else IOG


def load(ours: CoarseToFine, weights: dict[str, Tensor], folder: Path) -> None:
    path = folder / "official.pth"
    torch.save(weights, path)
    load_official(ours, path)
    path.unlink()  # some 200 MB, which pytest would keep


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return official_weights(official_shapes("refine_resnet50"))


@pytest.fixture(scope="module")
def image() -> Tensor:
    """RGB and guidance, 0..255; at stride 4 and 16 both sides are even, which ceil_mode rounds the other way."""
    return 255 * torch.rand(2, 5, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def maps() -> Tensor:
    return 255 * torch.rand(2, 2, 64, 96, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def logits(
    weights: dict[str, Tensor], image: Tensor, maps: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, list[Tensor]]:
    """Of the refinement network on ResNet-50, with the stored statistics (False) and with the batch's (True)."""
    network = built("refine_resnet50")
    load(network, weights, tmp_path_factory.mktemp("official"))
    with torch.no_grad():
        return {live: network.train(live)(image, maps) for live in (False, True)}


def deviations(logits: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Largest difference of each map, relative to its largest logit."""
    return [float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in zip(logits, expected)]


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
@pytest.mark.slow
def test_official_weights_give_the_five_official_maps(network, image, maps, tmp_path):
    weights = official_weights(official_shapes(network))
    clicks = maps if network.startswith("refine") else None
    ours = built(network).eval()
    load(ours, weights, tmp_path)
    expected = iog(weights, image, rules_of(network), clicks)
    logits = ours(image, clicks)
    assert [tuple(logit.shape) for logit in logits] == [(2, 1, 64, 96)] * 5
    assert max(deviations(logits, expected)) < 1e-4


@torch.no_grad()
@pytest.mark.slow
def test_official_training_normalises_with_the_batch(logits, weights, image, maps):
    expected = iog(weights, image, replace(IOG, batch_statistics=True), maps)
    assert max(deviations(logits[True], expected)) < 1e-3  # many normalisations by few values: rounding adds up


@pytest.mark.parametrize(
    "broken",
    [
        replace(IOG, stride_on_first_1x1=True),
        replace(IOG, dilations=((1,) * 3, (1,) * 4, (1,) * 23, (2, 2, 2))),  # no multi-grid
        replace(IOG, dilations=((1,) * 3, (1,) * 4, (1,) * 23, (1, 2, 4))),
        replace(IOG, ceil_mode=True),
        replace(IOG, align_corners=False),
        replace(IOG, channel_order=(2, 1, 0, 3, 4)),  # BGR
        replace(IOG, channel_order=(0, 1, 2, 4, 3)),  # outside points first
        replace(IOG, channel_order=(3, 4, 0, 1, 2)),  # guidance first
        replace(IOG, click_order=(1, 0)),
        replace(IOG, branch_first=True),
        replace(IOG, concatenation=("features", "p1", "p2", "p3", "p6")),
        replace(IOG, concatenation=("p6", "p3", "p2", "p1", "features")),
        replace(IOG, lateral_rectifier=False),
        replace(IOG, second_level_as_is=False),
        replace(IOG, upsamples=(0, 1)),
        replace(IOG, upsamples=(2, 1)),
        replace(IOG, rectify_from_above=True),
        replace(IOG, rectify_sum=True),
        replace(IOG, batch_statistics=True, convolve_before_upsampling=True),
        replace(IOG, batch_statistics=True),
    ],
    ids=lambda rules: ",".join(f"{k}" for k, v in vars(rules).items() if v != getattr(IOG, k)),
)
@torch.no_grad()
@pytest.mark.slow
def test_every_rule_of_what_all_maps_share_is_kept(logits, weights, image, maps, broken):
    live = broken.batch_statistics and broken.convolve_before_upsampling
    changed = deviations(logits[live], iog(weights, image, broken, maps))
    assert max(changed) > 1e-2
    assert changed[0] > 3e-3


@pytest.mark.parametrize(
    ("broken", "which"),
    [
        (replace(IOG, side_rectifier=False), "coarse"),
        (replace(IOG, quarter_size_first=False), "coarse"),
        (replace(IOG, batch_statistics=True, normalise_before_upsampling=True), "coarse"),
        (replace(IOG, normalised_logits=False), "all"),
        (replace(IOG, blocks_per_level=(2, 2, 1, 0)), "fine"),
        (replace(IOG, blocks_per_level=(3, 2, 0, 0)), "fine"),
        (replace(IOG, upsample_before_blocks=True), "fine"),
        (replace(IOG, projected_shortcut=False), "fine"),
        (replace(IOG, block_rectifier=False), "fine"),
        (replace(IOG, fine_order=(3, 2, 1, 0)), "fine"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else [k for k in vars(value) if vars(value)[k] != vars(IOG)[k]][-1]
    ),
)
@torch.no_grad()
@pytest.mark.slow
def test_every_rule_of_one_kind_of_map_is_kept(logits, weights, image, maps, broken, which):
    fine, *coarse = deviations(logits[broken.batch_statistics], iog(weights, image, broken, maps))
    assert (fine > 3e-3) == (which in ("fine", "all"))
    assert (max(coarse) > 3e-3) == (which in ("coarse", "all"))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_official_tensor_but_the_dead_module_is_one_of_ours(network):
    with torch.device("meta"):
        ours = built(network)
    own = {name: list(value.shape) for name, value in ours.state_dict().items()}
    official = official_shapes(network)
    dead = [name for name in official if rename(name, IOG_NAMES) is None]
    assert dead == [name for name in official if name.startswith("Coarse_net.upsamples.0.")]
    assert len(dead) == 6  # a convolution, and batch norm with its counter
    learned = [official[f"Coarse_net.upsamples.0.{layer}"] for layer in ("1.weight", "2.weight", "2.bias")]
    assert sum(torch.Size(shape).numel() for shape in learned) == DEAD
    pairs = [(name, rename(name, IOG_NAMES)) for name in official if name not in dead]
    assert len({theirs for theirs, _ in pairs}) == len({name for _, name in pairs}) == len(own)
    assert {name: official[theirs] for theirs, name in pairs} == own


@pytest.mark.parametrize("network", NETWORKS)
def test_the_networks_have_the_official_parameters_but_the_dead_ones(network):
    with torch.device("meta"):
        ours = built(network)
    parts = [ours.backbone, ours.context, ours.coarse, ours.fine, *([ours.clicks] if ours.clicks else [])]
    counts = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in parts]
    backbone, context, coarse, fine, clicks, total = SIZES[network]
    assert counts == [backbone, context, coarse - DEAD, fine, *([clicks] if clicks else [])]
    assert sum(p.numel() for p in ours.parameters()) == total - DEAD


def stand_in(shapes: dict[str, list[int]], path: Path) -> Path:
    """A file with these names and shapes, and with next to no content."""
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, path)
    return path


@pytest.mark.parametrize(
    ("network", "wrong", "said"),
    [
        ("main_resnet50", "dextr", r"missing: backbone\.conv1\.weight.*unexpected: conv1\.weight"),
        ("main_resnet50", "refine_resnet50", r"30 unexpected: clicks\.0\.weight.*context\.stages\.0\.1\.weight \(528"),
        ("refine_resnet50", "main_resnet50", r"25 missing: clicks\.0\.weight.*context\.stages\.0\.1\.weight \(512"),
        ("main_resnet101", "main_resnet50", r"missing: backbone\.layer3\.6\.conv1\.weight"),
        ("main_resnet50", "main_resnet101", r"unexpected: backbone\.layer3\.6\.conv1\.weight"),
    ],
)
def test_files_of_other_networks_are_refused_with_a_list(network, wrong, said, tmp_path):
    path = stand_in(DEXTR_SHAPES if wrong == "dextr" else official_shapes(wrong), tmp_path / f"{wrong}.pth")
    with torch.device("meta"):
        ours = built(network)
    with pytest.raises(ValueError, match=rf"(?s){wrong}\.pth holds other weights than this CoarseToFine.*{said}"):
        load_official(ours, path)
    assert ours.backbone.weights_source == "random (timm)"


def test_a_file_of_iog_is_refused_by_the_network_of_dextr(tmp_path):
    path = stand_in(official_shapes("main_resnet50"), tmp_path / "iog.pth")
    with torch.device("meta"):
        network = DeepLab("resnet50", 5)
    with pytest.raises(ValueError, match=r"(?s)iog\.pth holds other weights than this DeepLab.*Coarse_net\.laterals"):
        load_official(network, path)
