"""Backbones of timm beyond ResNets: whatever has features at strides 4 to 32, and plain transformers with a pyramid."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.stages import STRIDES, Stages

BLOCKS = ("blocks", "stages")  # where timm's networks keep what they run one after another
# Of networks that were made for one size of image: what lets them see others, with position embeddings brought to size.
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
PROBED = 64  # side of the image on which a new backbone shows its strides
KNOWN = "EfficientNets, MobileNets, ConvNeXts, HRNets, ViTs with patches of 16 and others of timm"


class FamilyStages(Stages):
    """A network of timm, cut after its last features, whose parameters keep timm's names below `body`.

    Sides that are no multiple of the coarsest stride are filled up with zeros, and the maps cut to the sizes that all
    backbones have: patches and the branches of an HRNet would leave out the rest or not fit together.
    """

    def __init__(self, body: nn.Module, indices: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.body, self.indices = body, list(indices)
        self.strides = tuple(strides)
        info: Any = body.feature_info
        self.channels = tuple(info[index]["num_chs"] for index in self.indices)

    def forward(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        body: Any = self.body
        maps = body.forward_intermediates(
            filled(x), indices=self.indices[:stages], stop_early=True, intermediates_only=True
        )
        return cut(maps, x, self.strides)

    def last_stage(self, x: Tensor) -> Tensor:
        info: Any = self.body.feature_info
        before, last = (str(info[index].get("module", "")).split(".") for index in self.indices[2:])
        blocks = getattr(self.body, before[0], None)
        if before[0] not in BLOCKS or not isinstance(blocks, nn.Sequential) or len(before) < 2:
            return super().last_stage(x)
        made: Tensor = blocks[int(before[1]) + 1 : int(last[1]) + 1](x)
        return made


class PlainTransformer(Stages):
    """A ViT and the simple pyramid of its last map (ViTDet, Li et al. 2022, Sec. 3): enlarged, as it is, pooled.

    Stages that `output_stride` leaves no stride share the map of the stage before. Position embeddings are brought to
    the size of the input. A head that reads the last map alone leaves the enlarged ones without gradient, which several
    processes want to know: `trainer.strategy=ddp_find_unused_parameters_true`.
    """

    def __init__(self, body: nn.Module, output_stride: int) -> None:
        super().__init__()
        self.body = body
        self.strides = tuple(min(stride, output_stride) for stride in STRIDES)
        wide: int = body.embed_dim  # type: ignore[assignment]
        self.twice = nn.Sequential(*doubled(wide))
        self.fourfold = nn.Sequential(nn.GELU(), *doubled(wide // 2))
        channels = {4: wide // 4, 8: wide // 2, 16: wide, 32: wide}
        self.channels = tuple(channels[stride] for stride in self.strides)

    def forward(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        body: Any = self.body
        (last,) = body.forward_intermediates(filled(x), indices=1, norm=True, intermediates_only=True)
        twice = self.twice(last)
        made = {4: self.fourfold(twice), 8: twice, 16: last, 32: F.max_pool2d(last, 2)}
        return cut([made[stride] for stride in self.strides[:stages]], x, self.strides)


def doubled(channels: int) -> list[nn.Module]:
    """A map of twice the size and half the channels, normalised over all of them as ViTDet's layer norm does."""
    return [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2), nn.GroupNorm(1, channels // 2)]


def filled(x: Tensor) -> Tensor:
    """The image with zeros to its right and below, up to multiples of the coarsest stride."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))


def cut(maps: Sequence[Tensor], image: Tensor, strides: Sequence[int]) -> list[Tensor]:
    """Maps without what only the filling gave: sides of the image over the stride, rounded up."""
    height, width = image.shape[-2:]
    return [each[..., : -(-height // stride), : -(-width // stride)] for each, stride in zip(maps, strides)]


OfTimm = TypeVar("OfTimm", FamilyStages, PlainTransformer)


def family_stages(
    name: str,
    in_channels: int,
    output_stride: Literal[4, 8, 16, 32],
    dilations: Sequence[int | list[int]] | None,
    widths: Sequence[int] | None,
) -> FamilyStages | PlainTransformer:
    """A backbone by timm's name. Raises ValueError for one that has no such features, or cannot be dilated so.

    Args:
        dilations: None makes up for lost strides as timm does, by the rate of each stage; [1, 1, 1, 1] does not make up
            for them. Rates block by block are for ResNets alone, as `widths` are.
    """
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(
            f"no backbone {name} in timm; it has ResNets, {KNOWN}: python -c 'import timm; print(timm.list_models())'"
        )
    if widths is not None:
        raise ValueError(f"widths are for ResNets alone; {name} has its own")
    if dilations is not None and list(dilations) != [1, 1, 1, 1]:
        raise ValueError(
            f"{name} is dilated as timm does (dilations: null) or not at all ([1, 1, 1, 1]), got {dilations}"
        )
    plain = is_plain(name)
    body = built(name, in_channels, 32 if plain else output_stride)
    if not hasattr(body, "forward_intermediates") or not hasattr(body, "feature_info"):
        raise ValueError(f"timm gives no maps of {name} at strides; take one of: ResNets, {KNOWN}")
    if plain:
        body.prune_intermediate_layers(1)
        return checked(PlainTransformer(body, output_stride), name, in_channels)
    indices = [*range(len(body.feature_info) - 4, len(body.feature_info))]
    if indices[0] < 0:
        raise ValueError(f"{name} has {len(body.feature_info)} maps, four are needed, at strides 4, 8, 16 and 32")
    body.prune_intermediate_layers(indices, prune_norm=True)
    if dilations is not None:
        undilate(body)
    strides = [min(stride, output_stride) for stride in STRIDES]
    stages = checked(FamilyStages(body, indices, strides), name, in_channels)
    if output_stride != 32:
        stages.adapted = f"stride {output_stride}, " + ("dilated as timm does" if dilations is None else "not dilated")
    return stages


def names_of(name: str) -> list[str]:
    """Of all weights of timm's network, its classifier included, in its order."""
    with torch.device("meta"):
        return [*timm.create_model(name).state_dict()]


def is_plain(name: str) -> bool:
    """Whether a network keeps one stride, that of its patches, from the first layer to the last."""
    with torch.device("meta"):
        info = getattr(built(name, 3, 32), "feature_info", None)
    reductions = {each["reduction"] for each in info or ()}
    if len(reductions) == 1 and reductions != {16}:
        raise ValueError(f"{name} has patches of {reductions.pop()} pixels; the pyramid is made from patches of 16")
    return reductions == {16}


def built(name: str, in_channels: int, output_stride: int) -> Any:
    """timm's network, without a classifier. Raises ValueError if it cannot keep the stride below 32."""
    strided: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    for any_size in ANY_SIZE:
        try:
            return timm.create_model(name, in_chans=in_channels, num_classes=0, **any_size, **strided)
        except TypeError as error:  # an argument that this network does not know
            if "unexpected keyword" not in str(error):
                raise
            refused: Exception = error
        except (AssertionError, NotImplementedError) as error:
            refused = error
    raise ValueError(
        f"timm cannot dilate {name} to output stride {output_stride}; take output_stride 32, or one of those that "
        "it can: ResNets, EfficientNets, MobileNetV2, ConvNeXts"
    ) from refused


def undilate(body: nn.Module) -> None:
    """Every convolution at rate 1, with the padding that keeps the size: strides are lost without compensation."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1):
            if layer.padding != (0, 0):  # "same" padding is computed as it goes, and stands as 0
                layer.padding = tuple((size - 1) // 2 for size in layer.kernel_size)
            layer.dilation = (1, 1)


def checked(stages: OfTimm, name: str, in_channels: int) -> OfTimm:
    """The backbone. Raises ValueError unless the maps of a small image have the sizes and channels that it says."""
    weight = next(stages.parameters())
    training = stages.training
    stages.eval()
    try:
        with torch.no_grad():
            maps = stages(torch.zeros(1, in_channels, PROBED, PROBED, device=weight.device))
    except Exception as error:  # of networks that see one size of image only, or keep their maps otherwise
        raise ValueError(f"{name} cannot be used as a backbone here: {error}") from error
    stages.train(training)
    found = [tuple(each.shape[1:]) for each in maps]
    wanted = [
        (channels, PROBED // stride, PROBED // stride) for channels, stride in zip(stages.channels, stages.strides)
    ]
    if found != wanted:
        strides = [PROBED // each[-1] for each in found]
        raise ValueError(f"{name} has its last four maps at strides {strides}, wanted are {list(stages.strides)}")
    return stages
