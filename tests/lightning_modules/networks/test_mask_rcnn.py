"""Mask R-CNN: sizes, pooling and pasting to the pixel, losses by hand, images without objects, a small training."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNeXt101_64X4D_Weights
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.image_list import ImageList

from lightning_modules.networks import mask_rcnn
from lightning_modules.networks.mask_rcnn import AlignedPooling, MaskRCNN, masks_within, pasted
from lightning_modules.networks.statistics import batch_norms
from tests.lightning_modules.networks.drawn_instances import FOUR_IMAGES, best_iou, drawn_batch

SMALL = {
    "backbone": "resnet18",
    "frozen_stages": 0,
    "widths": [16, 32, 48, 64],
    "channels": 32,
    "box_width": 128,
    "mask_layers": 2,
    "anchors": (16, 24, 32, 48, 96),
    "proposals": 60,
    "sampled": 32,
    "score_threshold": 0.05,
    "detections": 20,
}
TINY = SMALL | {"widths": [8, 8, 8, 8], "channels": 16, "box_width": 16, "proposals": 20}


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def counted(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


# -------------------------------------------------------------------------------------------------------- sizes


def resnext101(groups: int) -> int:
    """Weights of a ResNeXt-101 with 4 channels per group, without its classifier (Xie et al., Table 1)."""
    weights, ins = 3 * 64 * 7 * 7 + 2 * 64, 64
    for stage, blocks in enumerate([3, 4, 23, 3]):
        inner, outs = groups * 4 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            weights += ins * inner + inner * (inner // groups) * 9 + inner * outs + 2 * (2 * inner + outs)
            weights += 0 if block else ins * outs + 2 * outs
            ins = outs
    return weights


def pyramid_and_heads(classes: int) -> int:
    """Weights of FPN, proposals, two hidden layers for boxes and four convolutions for masks, all 256 or 1024 wide."""
    pyramid = sum(256 * width + 256 for width in (256, 512, 1024, 2048)) + 4 * (256 * 256 * 9 + 256)
    proposals = 256 * 256 * 9 + 256 + 3 * (256 + 1) + 12 * (256 + 1)
    boxes = 256 * 49 * 1024 + 1024 + 1024 * 1024 + 1024 + 5 * (classes + 1) * (1024 + 1)
    masks = 4 * (256 * 256 * 9 + 256) + 256 * 256 * 4 + 256 + (classes + 1) * (256 + 1)
    return pyramid + proposals + boxes + masks


def test_on_a_resnet_50_it_is_as_large_as_torchvision_says_of_its_own():
    with torch.device("meta"):
        network = MaskRCNN(90, "resnet50")
    # torchvision counts its batch norms' scale and shift as no parameters
    frozen = sum(norm.weight.numel() + norm.bias.numel() for norm in batch_norms(network.backbone))
    assert counted(network) - frozen == MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]


@pytest.mark.parametrize(("groups", "number"), [(32, 69_065_351), (64, 108_342_919)])
def test_the_published_networks_of_lvis_have_the_weights_that_their_description_adds_up_to(groups, number):
    classifier = 2048 * 1000 + 1000
    assert resnext101(64) + classifier == ResNeXt101_64X4D_Weights.IMAGENET1K_V1.meta["num_params"]
    with torch.device("meta"):
        network = MaskRCNN(1203, f"resnext101_{groups}x4d")
    assert counted(network) == resnext101(groups) + pyramid_and_heads(1203) == number


def test_stem_and_first_stage_are_frozen_and_loaded_statistics_stay(tmp_path):
    network = MaskRCNN(3, **TINY | {"frozen_stages": 1, "bn_statistics": "frozen"}).train()
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert frozen == {
        f"backbone.{name}"
        for name, _ in network.backbone.named_parameters()
        if name.startswith(("conv1.", "bn1.", "layer1."))
    }
    assert not any(norm.training for norm in batch_norms(network))


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="at least 1 class apart"):
        MaskRCNN(0, **TINY)
    with pytest.raises(ValueError, match="anchors has one side for each of P2 to P6"):
        MaskRCNN(3, **TINY | {"anchors": (32, 64)})


# ------------------------------------------------------------------------------------------- pooling and pasting


def test_pooled_cells_lie_where_they_lie_in_the_image():
    """Of maps that say how far right a pixel's middle is, each cell says where its own middle is."""
    maps = [((torch.arange(256 // s) + 0.5) * s).expand(1, 1, 256 // s, -1) for s in (4, 8, 16, 32)]
    boxes = torch.tensor([[40.0, 50.0, 96.0, 90.0], [37.3, 60.0, 41.5, 200.0], [40.0, 20.0, 208.0, 188.0]])
    pooled = AlignedPooling(7)(maps, [boxes])
    middle = boxes[:, :1] + (torch.arange(7) + 0.5) / 7 * (boxes[:, 2:3] - boxes[:, :1])
    torch.testing.assert_close(pooled[:, 0], middle[:, None].expand(-1, 7, -1), rtol=0, atol=1e-3)


def test_larger_boxes_are_pooled_from_coarser_maps():
    maps = [torch.full((2, 1, 512 // s, 512 // s), float(s)) for s in (4, 8, 16, 32)]
    sides = torch.tensor([4.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 512.0])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], dim=1)
    pooled = AlignedPooling(1)(maps, [boxes[:0], boxes])
    assert pooled.flatten().tolist() == [4, 4, 8, 8, 16, 16, 32, 32]


def test_boxes_are_pooled_from_their_own_image():
    maps = [torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 1, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    assert AlignedPooling(1)(maps, [box, box]).flatten().tolist() == [1, 2]


def test_a_mask_seen_from_its_own_box_is_full_and_from_twice_the_box_half_full():
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[1, 10:38, 20:48] = 1
    boxes = torch.tensor([[20.0, 10.0, 48.0, 38.0], [20.0, 10.0, 76.0, 38.0], [20.0, 10.0, 48.0, 38.0]])
    seen = masks_within(masks, boxes, torch.tensor([1, 1, 0]), 28)
    assert seen[0].all()
    assert seen[1, :, :14].all()
    assert not seen[1, :, 14:].any()
    assert not seen[2].any()


def test_a_full_mask_is_pasted_as_exactly_its_box():
    boxes = torch.tensor([[10.0, 20.0, 38.0, 48.0], [-5.0, 30.0, 9.0, 58.0], [3.0, 4.0, 3.5, 4.5]])
    masks = pasted(torch.ones(3, 28, 28), boxes, (50, 60), 0.5)
    expected = torch.zeros(3, 50, 60, dtype=torch.bool)
    expected[0, 20:48, 10:38] = True
    expected[1, 30:50, :9] = True
    assert masks[:2].equal(expected[:2])
    assert int(masks[2].sum()) <= 1


def test_masks_are_pasted_as_a_bilinear_grid_over_the_box_does(monkeypatch):
    boxes = torch.rand(5, 4).cumsum(1) * torch.tensor([40.0, 30.0, 40.0, 30.0]) + 0.3
    boxes[:, 2:] += boxes[:, :2]
    masks = torch.rand(5, 28, 28)
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    place = (torch.stack([x, y], -1) - boxes[:, None, None, :2]) / (boxes[:, 2:] - boxes[:, :2])[:, None, None]
    expected = F.grid_sample(masks[:, None], 2 * place - 1, align_corners=False)[:, 0]
    assert ((pasted(masks, boxes, (60, 80), 0.5) == (expected > 0.5)) | ((expected - 0.5).abs() < 1e-4)).all()
    whole = pasted(masks, boxes, (60, 80), 0.5)
    monkeypatch.setattr(mask_rcnn, "AT_ONCE", 1)
    assert pasted(masks, boxes, (60, 80), 0.5).equal(whole)
    assert pasted(masks[:0], boxes[:0], (60, 80), 0.5).shape == (0, 60, 80)


# ------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("smooth", "per_number"), [(0.0, 0.05), (1 / 9, 0.5 * 0.05**2 * 9)])
def test_the_loss_of_proposals_is_l1_or_smooth_per_sampled_anchor(smooth, per_number):
    network = MaskRCNN(3, **TINY, smooth=smooth)
    labels, wanted = [torch.tensor([1.0, 0.0, -1.0, 0.0])], [torch.zeros(4, 4)]
    of_objects, of_boxes = network.rpn.compute_loss(torch.zeros(4, 1), torch.full((4, 4), 0.05), labels, wanted)
    assert float(of_boxes) == pytest.approx(4 * per_number / 3)
    assert float(of_objects) == pytest.approx(float(torch.tensor(2.0).log()))


@torch.no_grad()
def test_a_box_s_mask_is_torchvision_s_of_its_class():
    network = MaskRCNN(3, **TINY)
    maps = [torch.randn(1, 16, 64 // s, 64 // s) for s in (4, 8, 16, 32, 64)]
    boxes, labels = [torch.tensor([[3.0, 5.0, 40.0, 50.0], [10.0, 10.0, 20.0, 30.0]])], torch.tensor([3, 1])
    heads = network.heads
    whole = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(maps, boxes)))
    assert whole.shape == (2, 4, 28, 28)
    torch.testing.assert_close(network.masks(maps, boxes, labels), whole[[0, 1], labels])


@pytest.mark.parametrize("images", [[[], []], [[], FOUR_IMAGES[0]]])
def test_images_without_objects_leave_no_weight_without_gradient(images):
    network = MaskRCNN(3, **TINY).train()
    terms = network.losses(*drawn_batch(images))
    loss = total(terms)
    loss.backward()
    assert loss.isfinite()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
    if not any(images):
        assert [terms[name].item() for name in ("mask", "box", "proposal")] == [0, 0, 0]


def test_boxes_losses_and_objects_are_in_float32_under_autocast_too():
    network = MaskRCNN(3, **TINY | {"score_threshold": 0.0}).train()
    image, batch = drawn_batch([FOUR_IMAGES[0]])
    with torch.autocast("cpu", torch.bfloat16):
        terms = network.losses(image, batch)
        (found,) = network.eval().detect(image, batch.size, batch.original_size)
        maps = network.pyramid(network.backbone(image))
        proposals, _ = network.rpn(ImageList(image, [(128, 128)]), mask_rcnn.named(maps))
    assert (maps[0].dtype, proposals[0].dtype) == (torch.bfloat16, torch.float32)
    assert {term.dtype for term in terms.values()} == {found.scores.dtype} == {torch.float32}
    assert all(term.isfinite() for term in terms.values())


def test_boxes_without_width_are_left_out_and_the_annotated_ones_are_learned():
    network = MaskRCNN(3, **TINY)
    _, batch = drawn_batch([FOUR_IMAGES[0]])
    batch.boxes[0][0, 2] = batch.boxes[0][0, 0]
    batch.boxes[0][1] = torch.tensor([60.0, 50.0, 110.0, 120.0])  # larger than its mask
    (target,) = network.targets(batch, torch.device("cpu"))
    assert target["boxes"].tolist() == [[60, 50, 110, 120]]
    assert target["labels"].tolist() == [2]  # class 1; 0 is the background
    assert target["masks"].equal(batch.masks[0][1:])


@torch.no_grad()
def test_what_is_found_has_the_size_of_each_file_and_classes_from_0():
    network = MaskRCNN(2, **TINY | {"score_threshold": 0.0}).eval()
    size, files = torch.tensor([[64, 48], [40, 64]]), torch.tensor([[128, 96], [50, 80]])
    found = network.detect(torch.randn(2, 3, 64, 64), size, files)
    assert [tuple(each.masks.shape[1:]) for each in found] == [(128, 96), (50, 80)]
    for each in found:
        assert 0 < len(each.scores) <= 20
        assert set(each.labels.tolist()) <= {0, 1}
        assert (each.scores.diff() <= 0).all()
        assert each.masks.flatten(1).any(dim=1).all()


# ----------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_sixty_steps_learn_four_images_by_heart():
    torch.manual_seed(0)
    network = MaskRCNN(3, **SMALL).train()
    image, batch = drawn_batch(FOUR_IMAGES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        loss = total(network.losses(image, batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    found = network.eval().detect(image, batch.size, 2 * batch.original_size)
    for each, masks, labels in zip(found, batch.masks, batch.labels):
        for mask, label in zip(masks, labels.tolist()):
            assert best_iou(each, mask.repeat_interleave(2, 0).repeat_interleave(2, 1), label) > 0.5


@pytest.mark.slow
def test_one_step_of_the_published_network_of_lvis_on_an_image_of_512_pixels():
    """A quarter of the area of the published 800 x 1333."""
    torch.manual_seed(0)
    network = MaskRCNN(1203, "resnext101_32x4d").train()
    terms = network.losses(*drawn_batch([[(50, 40, 250, 210, 0), (300, 250, 450, 470, 2)]], 512))
    total(terms).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    gradients = [weight.grad for weight in network.parameters() if weight.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
