"""Mask2Former (Cheng et al., CVPR 2022) on a Swin, as transformers builds it: our objects, weights, groups, inference.

Nothing of it is fetched, and its image processor is not used: that one resizes to 384 x 384 and flattens overlaps.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.instances import ImageBatch
from lightning_modules.networks.deeplab import full_precision
from lightning_modules.networks.detections import Detections
from lightning_modules.networks.first_weights import find_start
from lightning_modules.networks.official import NameTable, load_exactly, read_weights, rename
from lightning_modules.networks.pretrained import absent

PUBLISHED = "swin_small_patch4_window7_224.ms_in1k"
AT_ONCE = 2**25  # pixels of masks that are resized at once: 128 MB in float32
# timm's names of a Swin -> those of transformers. Tables of indices are no weights, and the classifier stays behind.
SWIN_NAMES: NameTable = {
    r"(relative_position_index|attn_mask)$|^head\.": None,
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"^patch_embed\.norm\.": "embeddings.norm.",
    r"^norm\.": "layernorm.",
    r"^(layers\.\d+\.blocks\.\d+)\.norm1\.": r"encoder.\1.layernorm_before.",
    r"^(layers\.\d+\.blocks\.\d+)\.norm2\.": r"encoder.\1.layernorm_after.",
    r"^(layers\.\d+\.blocks\.\d+)\.attn\.proj\.": r"encoder.\1.attention.o_proj.",
    r"^(layers\.\d+\.blocks\.\d+)\.attn\.([qkv])\.": r"encoder.\1.attention.\2_proj.",
    r"^(layers\.\d+\.blocks\.\d+)\.attn\.(?=relative)": r"encoder.\1.attention.relative_position_bias.",
    r"^(?=layers\.)": "encoder.",
}
WITHOUT_DECAY = re.compile(r"relative_position_bias_table|position_embeddings|queries_(embedder|features)|level_embed")


class Mask2Former(nn.Module):
    """Queries that look at a pyramid of pixels within their own last mask, and answer one mask and one class each.

    Ten answers (learnable queries and nine decoder layers) are each matched to the objects for themselves. Pixels that
    only pad a batch are seen like any others, as in the paper's code: the network knows no pixel mask (transformers
    takes one and does not use it), so masks are 0 there.

    Args:
        num_classes: classes of objects; one more stands for "no object".
        backbone: a Swin of timm, which gives the sizes; with its tag if its weights matter.
        pretrained: of the Swin. None or False: random; True, "timm" or "imagenet": ImageNet's, from the first source
            of `first_weights` that has them; else a file under timm's or the authors' names.
        embed_dim, depths, num_heads, window: other sizes than the backbone's, for small machines.
        drop_path: chance of the last block to be skipped in training, falling linearly to 0 at the first.
        queries: most objects per image.
        hidden: width of both decoders, a multiple of 32.
        heads: attention heads of both decoders.
        encoder_layers, encoder_width: of the pixel decoder, multi-scale deformable attention.
        decoder_layers, decoder_width: of the masked attention.
        points: random points of a mask that are compared for matching and for loss.
        oversampling, uncertain: of so many times as many candidates, this share of a loss' points is taken where
            logits are nearest to 0; the rest lies anywhere.
        class_weight, mask_weight, dice_weight: of the losses' terms, and of the costs of matching.
        no_object: weight of a query without object in the cross-entropy.
        backbone_rate: the Swin's learning rate, as a share of the others'.
        detections: most objects that are answered per image.
        score_threshold: objects with a lower score are left out.
    """

    mask_threshold = 0.5  # of the probability: where its logit is above 0

    def __init__(
        self,
        num_classes: int,
        backbone: str = PUBLISHED,
        pretrained: bool | str | None = None,
        embed_dim: int | None = None,
        depths: list[int] | None = None,
        num_heads: list[int] | None = None,
        window: int | None = None,
        drop_path: float = 0.3,
        queries: int = 100,
        hidden: int = 256,
        heads: int = 8,
        encoder_layers: int = 6,
        encoder_width: int = 1024,
        decoder_layers: int = 9,
        decoder_width: int = 2048,
        points: int = 12_544,
        oversampling: float = 3.0,
        uncertain: float = 0.75,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object: float = 0.1,
        backbone_rate: float = 0.1,
        detections: int = 100,
        score_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"Mask2Former tells at least 1 class apart, got num_classes={num_classes}")
        if hidden % 32 or hidden % heads:
            raise ValueError(
                f"hidden is a multiple of 32 (group norm) and of heads, got hidden={hidden}, heads={heads}"
            )
        # Here, not above: whoever looks through this package for a class should not wait four seconds for it.
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

        self.num_classes, self.detections, self.score_threshold = num_classes, detections, score_threshold
        self.backbone_rate = backbone_rate
        self.weights = {"class": class_weight, "mask": mask_weight, "dice": dice_weight}
        own = {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, "window_size": window}
        of_swin: dict[str, Any] = swin_sizes(backbone) | {name: size for name, size in own.items() if size is not None}
        of_swin |= {"drop_path_rate": drop_path, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
        sizes: dict[str, Any] = {
            "num_labels": num_classes,
            "num_queries": queries,
            "feature_size": hidden,
            "mask_feature_size": hidden,
            "hidden_dim": hidden,
            "num_attention_heads": heads,
            "encoder_layers": encoder_layers,
            "encoder_feedforward_dim": encoder_width,
            "decoder_layers": decoder_layers + 1,  # transformers counts the learnable queries as one
            "dim_feedforward": decoder_width,
            "train_num_points": points,
            "oversample_ratio": oversampling,
            "importance_sample_ratio": uncertain,
            "class_weight": class_weight,
            "mask_weight": mask_weight,
            "dice_weight": dice_weight,
            "no_object_weight": no_object,
        }
        config = Mask2FormerConfig(backbone_config=SwinConfig(**of_swin), **sizes)
        self.network = Mask2FormerForUniversalSegmentation(config)
        # Each stage has its own norm here; that of the whole Swin is never called, and DDP waits for its gradient.
        self.backbone.swin.layernorm.requires_grad_(False)
        self.weights_source = load_swin(self.backbone.swin, backbone, pretrained) or "random (transformers)"

    @property
    def backbone(self) -> Any:
        """The Swin with one norm per stage."""
        return self.network.model.pixel_level_module.encoder

    def losses(self, image: Tensor, batch: ImageBatch) -> dict[str, Tensor]:
        """Weighted terms `class`, `mask` and `dice`, each summed over the ten answers.

        Masks count per object, their number averaged over processes; the cross-entropy is a weighted mean over the
        queries of this process, as in the paper's code.

        Args:
            image: (B, 3, H, W) float32, normalised.
        """
        answers: list[tuple[Tensor, Tensor]] = list(self.answers(image))
        criterion: Any = self.network.criterion
        terms = {name: image.new_zeros(()) for name in self.weights}
        with full_precision(image):
            masks = [each.to(image.device, torch.float32) for each in batch.masks]
            labels = [each.to(image.device) for each in batch.labels]
            number = mean_over_processes(sum(map(len, labels)), image.device)
            for classes, logits in answers:
                matched = criterion.matcher(logits, classes, masks, labels)
                of_masks = criterion.loss_masks(logits, masks, matched, number)
                of_class = criterion.loss_labels(classes, labels, matched)["loss_cross_entropy"]
                terms["class"] = terms["class"] + self.weights["class"] * of_class
                terms["mask"] = terms["mask"] + self.weights["mask"] * of_masks["loss_mask"]
                terms["dice"] = terms["dice"] + self.weights["dice"] * of_masks["loss_dice"]
        return terms

    def answers(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each layer, the queries' own first: class logits (B, Q, C + 1), mask logits (B, Q, H / 4, W / 4)."""
        made = self.network(pixel_values=image, output_auxiliary_logits=True)
        for each in made.auxiliary_logits:
            yield each["class_queries_logits"].float(), each["masks_queries_logits"].float()
        yield made.class_queries_logits.float(), made.masks_queries_logits.float()

    @torch.no_grad()
    def detect(self, image: Tensor, size: Tensor, original_size: Tensor) -> list[Detections]:
        """The best pairs of query and class per image. Masks may overlap: nothing is suppressed.

        Args:
            image: (B, 3, H, W) float32, normalised.
            size, original_size: (B, 2) as (H, W), of each image on this grid and of its file.
        """
        made = self.network(pixel_values=image)
        padded = image.shape[-2], image.shape[-1]
        with full_precision(image):
            return [
                self.instances(classes.float(), logits.float(), padded, (own[0], own[1]), (file[0], file[1]))
                for classes, logits, own, file in zip(
                    made.class_queries_logits, made.masks_queries_logits, size.tolist(), original_size.tolist()
                )
            ]

    def instances(
        self, classes: Tensor, logits: Tensor, padded: tuple[int, int], size: tuple[int, int], file: tuple[int, int]
    ) -> Detections:
        """Objects of one image: class probability times mean mask probability within the mask.

        A query may answer with several classes; a mask without a pixel is no object.

        Args:
            classes: (Q, C + 1) logits; the last is "no object".
            logits: (Q, h, w) of masks of the whole padded grid.
            padded, size, file: (H, W) of the grid, of the image on it and of the image's file.
        """
        probability = classes.softmax(dim=-1)[:, :-1].flatten()
        scores, places = probability.topk(min(self.detections, len(probability)))
        queries, of_pair = torch.unique(places // self.num_classes, return_inverse=True)
        masks = torch.empty((len(queries), *file), dtype=torch.bool, device=logits.device)
        sureness = torch.empty(len(queries), device=logits.device)
        step = max(1, AT_ONCE // max(padded[0] * padded[1], file[0] * file[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            large = F.interpolate(logits[queries[part], None], padded, mode="bilinear", align_corners=False)
            own = large[..., : size[0], : size[1]]
            full = F.interpolate(own, file, mode="bilinear", align_corners=False)[:, 0]
            masks[part] = full > 0
            pixels = masks[part].flatten(1).sum(dim=1).clamp(min=1)
            sureness[part] = (full.sigmoid() * masks[part]).flatten(1).sum(dim=1) / pixels
        scores, labels = scores * sureness[of_pair], places % self.num_classes
        order = scores.argsort(descending=True, stable=True)
        order = order[(scores[order] > 0) & (scores[order] >= self.score_threshold)]
        return Detections(scores[order], labels[order], masks[of_pair[order]])

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Up to four groups of {params, rate_factor, decay_factor}: the Swin is slower, some weights never decay.

        Not decayed: norms, relative position bias, absolute position, query and level embeddings.
        """
        kept = {
            id(weight)
            for layer in self.modules()
            if isinstance(layer, nn.LayerNorm | nn.GroupNorm)
            for weight in layer.parameters()
        }
        kept |= {id(weight) for name, weight in self.named_parameters() if WITHOUT_DECAY.search(name)}
        swin = {id(weight) for weight in self.backbone.parameters()}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for weight in self.parameters():
            if weight.requires_grad:
                factors = (self.backbone_rate if id(weight) in swin else 1.0, 0.0 if id(weight) in kept else 1.0)
                groups.setdefault(factors, []).append(weight)
        return [
            {"params": weights, "rate_factor": rate, "decay_factor": decay} for (rate, decay), weights in groups.items()
        ]


def mean_over_processes(count: int, device: torch.device) -> Tensor:
    """The mean of a number of objects over the processes of a training, at least 1.

    transformers averages it under accelerate alone; elsewhere each process would divide by its own.
    """
    number = torch.tensor(float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(number)
        number = number / dist.get_world_size()
    return number.clamp(min=1)


def swin_sizes(name: str) -> dict[str, Any]:
    """What transformers calls the sizes of a Swin of timm. Raises ValueError for another network."""
    if not timm.is_model(name.split(".")[0]) or not timm.models.is_model_in_modules(
        name.split(".")[0], ["swin_transformer"]
    ):
        raise ValueError(f"Mask2Former takes a Swin of timm as its backbone, such as {PUBLISHED}, got {name!r}")
    with torch.device("meta"):
        swin: Any = timm.create_model(name.split(".")[0])
    blocks = [stage.blocks for stage in swin.layers]
    return {
        "embed_dim": swin.embed_dim,
        "depths": [len(each) for each in blocks],
        "num_heads": [each[0].attn.num_heads for each in blocks],
        "window_size": swin.layers[0].blocks[0].window_size[0],
    }


def load_swin(swin: nn.Module, name: str, pretrained: bool | str | None) -> str | None:
    """Fill a Swin of transformers, as `Mask2Former` is told. Returns where the weights came from, or None."""
    if not pretrained or next(swin.parameters()).is_meta:
        return None
    start = find_start(name, pretrained)
    if start is None:
        warnings.warn(absent(name), stacklevel=2)
        return None
    tables = {name: own for name, own in swin.state_dict().items() if name.endswith("relative_position_index")}
    load_exactly(swin, from_timm(read_weights(start.path)) | tables, start.known_as)
    return start.known_as


def from_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin's weights under the names of transformers, which has queries, keys and values apart.

    timm merges patches where a stage begins, transformers and the authors' files where the one before it ends.
    """
    merged_late = "layers.0.downsample.reduction.weight" in weights
    renamed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not merged_late and (merging := re.match(r"layers\.(\d+)\.downsample\.", name)):
            name = f"layers.{int(merging[1]) - 1}.downsample.{name[merging.end() :]}"
        if ".attn.qkv." in name:
            parts = {name.replace("qkv", letter): part for letter, part in zip("qkv", weight.chunk(3))}
        else:
            parts = {name: weight}
        renamed |= {ours: part for each, part in parts.items() if (ours := rename(each, SWIN_NAMES)) is not None}
    return renamed
