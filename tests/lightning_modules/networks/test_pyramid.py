"""Detection backbones learn what is not frozen, and a pyramid's maps have one width and know the coarser ones."""

import pytest
import timm
import torch
from torch import nn

from lightning_modules.networks.deformable import DeformableConv
from lightning_modules.networks.pyramid import FeaturePyramid, detection_backbone, freeze_stages
from lightning_modules.networks.statistics import batch_norms

LITE = "tf_efficientnet_lite0"


def learning(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def test_stem_and_first_stage_of_a_resnet_are_frozen_and_the_rest_learns():
    backbone = detection_backbone("resnet26")
    frozen = {name for name, _ in backbone.named_parameters()} - learning(backbone)
    assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1"}
    assert {name.split(".")[0] for name in learning(backbone)} == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize(
    ("stages", "first"), [(0, "body.conv_stem.weight"), (1, "body.blocks.2"), (2, "body.blocks.3")]
)
def test_a_number_says_how_many_stages_are_frozen_in_other_families_too(stages, first):
    """EfficientNets have their maps after blocks 1, 2, 4 and 6."""
    backbone = detection_backbone(LITE, frozen_stages=stages)
    names = [name for name, weight in backbone.named_parameters() if weight.requires_grad]
    every = [name for name, _ in backbone.named_parameters()]
    assert names[0].startswith(first)
    assert names == every[every.index(names[0]) :]


def test_four_stages_are_the_whole_backbone_and_five_are_none():
    assert not learning(detection_backbone("resnet10t", frozen_stages=4))
    with pytest.raises(ValueError, match="a backbone has four stages, frozen_stages is 0 to 4, got 5"):
        detection_backbone("resnet10t", frozen_stages=5)


def test_a_plain_transformer_whose_first_map_is_made_of_all_is_refused():
    with pytest.raises(ValueError, match=r"the first map of .* is made of all its weights; set frozen_stages to 0"):
        freeze_stages(_LastFirst(), 1)


class _LastFirst(nn.Module):
    """Stands for a network whose maps all come from its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor, stages: int = 4) -> list[torch.Tensor]:
        return [self.conv(x)] * stages


def test_stored_statistics_stay_for_ever_while_scale_and_shift_learn(tmp_path):
    torch.save(timm.create_model("resnet26", zero_init_last=False).state_dict(), tmp_path / "r26.pth")
    backbone = detection_backbone("resnet26", pretrained=str(tmp_path / "r26.pth")).eval().train()
    assert backbone.training
    assert backbone.weights_source == "r26.pth"
    norms = batch_norms(backbone)
    assert not any(norm.training for norm in norms)
    before = norms[-1].running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
    assert torch.equal(norms[-1].running_mean, before)
    assert norms[-1].weight.grad is not None
    assert norms[-1].bias.grad is not None
    assert norms[0].weight.grad is None


def test_a_random_start_has_live_statistics_unless_they_are_frozen():
    live = {
        mode: any(norm.training for norm in batch_norms(detection_backbone("resnet10t", bn_statistics=mode)))
        for mode in ("loaded", "live", "frozen")
    }
    assert live == {"loaded": True, "live": True, "frozen": False}


def test_frozen_stages_and_deformable_convolutions_go_together_and_offsets_learn():
    backbone = detection_backbone("resnet26", deformable=True)
    offsets = {name for name, _ in backbone.named_parameters() if ".offsets." in name}
    assert offsets
    assert offsets <= learning(backbone)
    assert not any(isinstance(layer, DeformableConv) for layer in backbone.layer1.modules())


@pytest.mark.parametrize("name", ["resnet10t", LITE])
def test_a_pyramid_has_five_maps_of_one_width_at_strides_4_to_64(name):
    backbone = detection_backbone(name, frozen_stages=0)
    pyramid = FeaturePyramid(backbone.channels, 24)
    maps = pyramid(backbone(torch.randn(1, 3, 128, 192)))
    assert [tuple(each.shape) for each in maps] == [(1, 24, 128 // s, 192 // s) for s in (4, 8, 16, 32, 64)]
    assert torch.equal(maps[4], maps[3][..., ::2, ::2])


def test_finer_maps_are_told_of_coarser_ones_by_their_nearest_pixel_and_not_the_other_way():
    pyramid = FeaturePyramid([2, 2, 2, 2], 3)
    maps = [torch.zeros(1, 2, size, size, requires_grad=True) for size in (32, 16, 8, 4)]
    made = pyramid(maps)
    grads = torch.autograd.grad(made[0].sum(), maps, retain_graph=True)
    assert all(each.abs().sum() > 0 for each in grads)
    grads = torch.autograd.grad(made[3].sum(), maps, allow_unused=True)
    assert [each is None for each in grads] == [True, True, True, False]
