"""Which batch statistics the batch norms of a part of a network see in training."""

from typing import Literal, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class KeepsStatistics(nn.Module):
    """A part of a network that knows which batch statistics its batch norms see in training.

    `bn_statistics`: the batch's (live), the stored ones for ever (frozen), or the stored ones if they were `loaded` and
    the batch's where the part began at random: frozen there, mean 0 and variance 1 would stay for ever.
    """

    bn_statistics: Literal["live", "frozen", "loaded"] = "live"
    loaded: bool = False
    weights_source: str = "random"  # for the record of a run

    def train(self, mode: bool = True) -> Self:
        """As ever, but frozen batch statistics stay frozen: those layers never leave eval mode."""
        super().train(mode)
        if self.bn_statistics == "frozen" or (self.bn_statistics == "loaded" and self.loaded):
            for norm in batch_norms(self):
                norm.eval()
        return self


def statistics_loaded(module: nn.Module) -> None:
    """Say to every part that its weights came from elsewhere, with their statistics."""
    for part in module.modules():
        if isinstance(part, KeepsStatistics):
            part.loaded = True
            part.train(part.training)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All of them, those included that Lightning turned into `SyncBatchNorm`, which is no BatchNorm2d."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
