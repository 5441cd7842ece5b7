"""Mask R-CNN (He et al., ICCV 2017) of torchvision's parts on our backbones, with the losses of the LVIS baselines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

from datamodules.instances import ImageBatch
from lightning_modules.networks.detections import Detections
from lightning_modules.networks.pyramid import FeaturePyramid, detection_backbone
from lightning_modules.networks.stages import STRIDES

BOX_SIDE, MASK_SIDE = 7, 14  # cells of a box's features
OF_IMAGENET, OF_IMAGENET_LEVEL = 224, 2  # a box of this side is pooled from this map of P2..P5, as an image of ImageNet
AT_ONCE = 2**25  # pixels of masks that are pasted at once: 128 MB in float32


class MaskRCNN(nn.Module):
    """Proposals from a pyramid; of each its class, its box, and a mask per class within that box.

    As the LVIS baselines have it where torchvision differs: L1 loss of boxes, half-pixel-aligned RoIAlign with as many
    samples as a bin needs, 1000 proposals in training, masks of 0 and 1 as targets. Class and box outputs are
    torchvision's, with a mask and four unused numbers for the background, too. Of many proposals of one class each,
    only that class' mask is computed: 300 times 1203 masks would take a gigabyte.

    Args:
        num_classes: classes of objects, 1203 in LVIS v1.
        backbone: of timm, with strides 4, 8, 16 and 32; with its tag if its weights matter.
        pretrained, frozen_stages, bn_statistics, widths: see `detection_backbone`.
        channels: of the pyramid and of the convolutions of its heads.
        box_width: of the two hidden layers for class and box.
        mask_layers: convolutions before a mask is doubled in size.
        anchors: side of the anchors of P2 to P6 in pixels, each at ratios 1:2, 1:1, 2:1.
        proposals: most per image in training and in evaluation.
        sampled: proposals per image that classes are learned from, a quarter of them objects at most.
        smooth: below this error the loss of boxes is quadratic; 0 is L1, torchvision has 1/9.
        score_threshold: objects with no better score are left out; 1e-4 for LVIS, 0.05 for COCO.
        detections: most objects that are answered per image; 300 for LVIS, 100 for COCO.
        box_nms: IoU of boxes of one class from which on the lesser one is left out.
        mask_threshold: probability from which on a pixel is object.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnext101_32x4d.gluon_in1k",
        pretrained: bool | str | None = None,
        frozen_stages: int = 1,
        bn_statistics: Literal["live", "frozen", "loaded"] = "loaded",
        widths: list[int] | None = None,
        channels: int = 256,
        box_width: int = 1024,
        mask_layers: int = 4,
        anchors: Sequence[int] = (32, 64, 128, 256, 512),
        proposals: int = 1000,
        sampled: int = 512,
        smooth: float = 0.0,
        score_threshold: float = 1e-4,
        detections: int = 300,
        box_nms: float = 0.5,
        mask_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"Mask R-CNN tells at least 1 class apart, got num_classes={num_classes}")
        if len(anchors) != len(STRIDES) + 1:
            raise ValueError(f"anchors has one side for each of P2 to P6, 5 numbers, got {list(anchors)}")
        self.num_classes, self.smooth, self.mask_threshold = num_classes, smooth, mask_threshold
        self.backbone = detection_backbone(backbone, pretrained, frozen_stages, bn_statistics, widths=widths)
        self.pyramid = FeaturePyramid(self.backbone.channels, channels)
        generator = AnchorGenerator(tuple((side,) for side in anchors), ((0.5, 1.0, 2.0),) * len(anchors))
        self.rpn = ProposalNetwork(
            generator,
            ProposalHead(channels, generator.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * proposals, "testing": proposals},
            post_nms_top_n={"training": proposals, "testing": proposals},
            nms_thresh=0.7,
        )
        self.rpn.smooth = smooth
        self.heads = RoIHeads(
            box_roi_pool=AlignedPooling(BOX_SIDE),
            box_head=TwoMLPHead(channels * BOX_SIDE**2, box_width),
            box_predictor=FastRCNNPredictor(box_width, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=sampled,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=box_nms,
            detections_per_img=detections,
            mask_roi_pool=AlignedPooling(MASK_SIDE),
            mask_head=MaskRCNNHeads(channels, (channels,) * mask_layers, 1),
            mask_predictor=MaskRCNNPredictor(channels, channels, num_classes + 1),
        )

    def losses(self, image: Tensor, batch: ImageBatch) -> dict[str, Tensor]:
        """Terms of proposals (`object`, `proposal`) and of what is made of them (`class`, `box`, `mask`).

        Boxes are the annotated ones, not those of the masks; one without width or height is left out.

        Args:
            image: (B, 3, H, W) float32, normalised, zero beyond each image; H and W divisible by 32.
        """
        sizes, targets = shapes(batch.size), self.targets(batch, image.device)
        maps = self.pyramid(self.backbone(image))
        # torchvision's answers losses in training alone, and differs in nothing else but the number of its proposals.
        training, self.rpn.training = self.rpn.training, True
        proposals, of_proposals = self.rpn(ImageList(image, sizes), named(maps), targets)
        self.rpn.training = training
        proposals, matched, labels, deltas = self.heads.select_training_samples(proposals, targets)
        class_logits, box_deltas = self.boxes(maps, proposals)
        every_label = torch.cat(labels)
        objects = every_label.nonzero().flatten()
        own_deltas = box_deltas.unflatten(1, (-1, 4))[objects, every_label[objects]]
        of_boxes = F.smooth_l1_loss(own_deltas, torch.cat(deltas)[objects], beta=self.smooth, reduction="sum")

        places = [each.nonzero().flatten() for each in labels]
        object_boxes = [each[place] for each, place in zip(proposals, places)]
        mask_logits = self.masks(maps, object_boxes, every_label[objects])
        wanted = torch.cat(
            [
                masks_within(target["masks"], boxes, of[place], mask_logits.shape[-1])
                for target, boxes, of, place in zip(targets, object_boxes, matched, places)
            ]
        )
        # Without an object in the batch there is nothing to average; the parts still get their gradient, which is 0.
        of_masks = F.binary_cross_entropy_with_logits(mask_logits, wanted, reduction="sum") / max(wanted.numel(), 1)
        return {
            "object": of_proposals["loss_objectness"],
            "proposal": of_proposals["loss_rpn_box_reg"],
            "class": F.cross_entropy(class_logits, every_label),
            "box": of_boxes / every_label.numel(),
            "mask": of_masks,
        }

    @torch.no_grad()
    def detect(self, image: Tensor, size: Tensor, original_size: Tensor) -> list[Detections]:
        """The best boxes per image after suppression within each class, each with its mask at the size of the file.

        Args:
            image: (B, 3, H, W) float32, as in `losses`.
            size, original_size: (B, 2) as (H, W), of each image on this grid and of its file.
        """
        sizes = shapes(size)
        maps = self.pyramid(self.backbone(image))
        proposals, _ = self.rpn(ImageList(image, sizes), named(maps))
        boxes, scores, labels = self.heads.postprocess_detections(*self.boxes(maps, proposals), proposals, sizes)
        logits = self.masks(maps, boxes, torch.cat(labels)).split([len(each) for each in boxes])
        found = []
        for own, file, box, score, label, mask in zip(sizes, shapes(original_size), boxes, scores, labels, logits):
            grown = box * box.new_tensor([file[1] / own[1], file[0] / own[0]]).repeat(2)
            masks = pasted(mask.sigmoid(), grown, file, self.mask_threshold)
            kept = masks.flatten(1).any(dim=1)
            found.append(Detections(score[kept], label[kept] - 1, masks[kept]))
        return found

    def boxes(self, maps: list[Tensor], proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (n, C + 1), the background first, and box deltas (n, 4 (C + 1)) of all proposals."""
        hidden = self.heads.box_head(self.heads.box_roi_pool(maps, proposals))
        class_logits, deltas = self.heads.box_predictor(hidden)
        return class_logits.float(), deltas.float()

    def masks(self, maps: list[Tensor], boxes: list[Tensor], labels: Tensor) -> Tensor:
        """Logits (n, 28, 28) of the mask of each box's own class; labels (n,) count from 1."""
        predictor = self.heads.mask_predictor
        features = self.heads.mask_head(self.heads.mask_roi_pool(maps, boxes))
        features = predictor.relu(predictor.conv5_mask(features)).float()
        output = predictor.mask_fcn_logits
        return torch.einsum("nchw,nc->nhw", features, output.weight[labels, :, 0, 0]) + output.bias[labels, None, None]

    def targets(self, batch: ImageBatch, device: torch.device) -> list[dict[str, Tensor]]:
        """What torchvision's parts are told of each image; classes count from 1, as 0 is the background."""
        made = []
        for boxes, labels, masks in zip(batch.boxes, batch.labels, batch.masks):
            kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            made.append(
                {
                    "boxes": boxes[kept].to(device, torch.float32),
                    "labels": labels[kept].to(device) + 1,
                    "masks": masks[kept.to(masks.device)].to(device),
                }
            )
        return made


class ProposalHead(RPNHead):
    """torchvision's, with answers in float32 under autocast, too: boxes take the type of their deltas.

    In bfloat16 a box at pixel 1000 would be known to 4 pixels, the annotated ones among the proposals included.
    """

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, with the loss of boxes as a value: `smooth` is where it begins to be linear, 0 is L1."""

    smooth: float = 0.0

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the sampled anchors, and the loss of boxes of those on an object, per sampled anchor."""
        on, off = (torch.cat(each).nonzero().flatten() for each in self.fg_bg_sampler(labels))
        sampled = torch.cat([on, off])
        of_boxes = F.smooth_l1_loss(
            pred_bbox_deltas[on].float(), torch.cat(regression_targets)[on], beta=self.smooth, reduction="sum"
        )
        of_objects = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled].float(), torch.cat(labels)[sampled]
        )
        return of_objects, of_boxes / sampled.numel()


class AlignedPooling(nn.Module):
    """RoIAlign from the map of P2 to P5 that fits a box's size; a pixel's value sits in its middle.

    Shape:
        input: the maps, finest first, and per image boxes (n, 4) xyxy in pixels of the image.
        output: (sum of n, C, side, side).
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        images = torch.cat([torch.full_like(each[:, :1], image) for image, each in enumerate(boxes)])
        regions = torch.cat([images, torch.cat(boxes)], dim=1)
        area = (regions[:, 3:] - regions[:, 1:3]).clamp(min=0).prod(dim=1)
        level = (OF_IMAGENET_LEVEL + torch.log2(area.sqrt() / OF_IMAGENET + 1e-8)).floor().clamp(0, len(STRIDES) - 1)
        pooled = regions.new_zeros((len(regions), maps[0].shape[1], self.side, self.side))
        for place, (stride, features) in enumerate(zip(STRIDES, maps)):
            here = (level == place).nonzero().flatten()
            pooled[here] = roi_align(features.float(), regions[here], self.side, 1 / stride, -1, aligned=True)
        return pooled


def masks_within(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """Masks (N, H, W) as boxes (n, 4) see them, each of mask matched[i]: (n, side, side) of 0 and 1."""
    used, place = torch.unique(matched, return_inverse=True)
    regions = torch.cat([place[:, None].to(boxes.dtype), boxes], dim=1)
    return (roi_align(masks[used, None].to(boxes.dtype), regions, side, 1.0, -1, aligned=True)[:, 0] >= 0.5).float()


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Where masks (n, M, M) of probabilities within boxes (n, 4) exceed a threshold in an image: (n, H, W) bool.

    Bilinear, 0 around the box; a mask's first cell begins where the box begins. torchvision's own rounds boxes to
    pixels and makes them one pixel larger.
    """
    pieces = [masks.new_zeros((0, *size), dtype=torch.bool)]
    step = max(1, AT_ONCE // (size[0] * size[1]))
    for mask, box in zip(masks.split(step), boxes.split(step)):
        columns = shares(box[:, 0], box[:, 2], size[1], mask.shape[-1])
        rows = shares(box[:, 1], box[:, 3], size[0], mask.shape[-1])
        pieces.append(rows @ mask @ columns.transpose(1, 2) > threshold)
    return torch.cat(pieces)


def shares(start: Tensor, end: Tensor, length: int, cells: int) -> Tensor:
    """What each of `length` pixels takes from each of the cells that divide start..end (n,): (n, length, cells)."""
    middle = torch.arange(length, device=start.device, dtype=start.dtype) + 0.5
    place = (middle - start[:, None]) / (end - start).clamp(min=1e-3)[:, None] * cells - 0.5
    return (1 - (place[..., None] - torch.arange(cells, device=start.device)).abs()).clamp(min=0)


def shapes(size: Tensor) -> list[tuple[int, int]]:
    """(B, 2) as plain numbers."""
    return [(height, width) for height, width in size.tolist()]


def named(maps: list[Tensor]) -> OrderedDict[str, Tensor]:
    """Maps as torchvision's parts take them."""
    return OrderedDict((str(level), each) for level, each in enumerate(maps))
