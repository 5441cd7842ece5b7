"""What every backbone is to the networks on it: four stages, each with its stride and its channels."""

from torch import Tensor

from lightning_modules.networks.statistics import KeepsStatistics

STRIDES = (4, 8, 16, 32)


class Stages(KeepsStatistics):
    """A backbone as a pyramid of maps.

    Shape:
        input: (B, in_channels, H, W).
        output: one map per stage, finest first, (B, channels[i], H / strides[i], W / strides[i]), sizes rounded up.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    adapted: str = ""  # for the record: strides and dilations, if others than those that its weights were trained with

    def forward(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        """The maps of the first so many stages; those after them are not computed."""
        raise NotImplementedError

    def last_stage(self, x: Tensor) -> Tensor:
        """The last stage alone, on features (B, channels[2], h, w) of the one before: region-based networks ask it."""
        raise ValueError(f"{type(self).__name__} has no last stage that could run alone; take a ResNet")
