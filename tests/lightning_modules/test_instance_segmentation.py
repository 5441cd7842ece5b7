"""InstanceSegmentation: what the network sees, at which rate its parts learn, and what a record says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from datamodules.instances import ImageBatch
from lightning_modules.instance_segmentation import InstanceSegmentation, own_pixels
from lightning_modules.networks.detections import Detections
from lightning_modules.networks.mask2former import Mask2Former
from lightning_modules.networks.mask_rcnn import MaskRCNN
from lightning_modules.networks.solov2 import SOLOv2
from lightning_modules.schedules import Constant, Steps, Warmup
from tests.lightning_modules.networks.drawn_instances import FOUR_IMAGES, drawn_batch

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
SMALL = {
    "solov2": lambda: SOLOv2(
        "resnet10t.c3_in1k", 3, widths=[8, 16, 24, 32], channels=16, tower=16, blocks=1, kernels=8, mask_channels=8,
        norm_groups=4, frozen_stages=0, grids=(8, 8, 6, 4, 2),
    ),
    "mask2former": lambda: Mask2Former(
        3, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window=4, queries=4, hidden=32, heads=2,
        encoder_layers=1, encoder_width=16, decoder_layers=1, decoder_width=16, points=64,
    ),
    "mask_rcnn": lambda: MaskRCNN(
        3, "resnet10t.c3_in1k", widths=[8, 16, 24, 32], channels=16, box_width=16, mask_layers=1, frozen_stages=0,
        anchors=(8, 16, 32, 64, 128), proposals=20, sampled=16,
    ),
}  # fmt: skip


class OneWeight(nn.Module):
    """Says the mean of what it sees, and detects nothing."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def losses(self, image: torch.Tensor, batch: ImageBatch) -> dict[str, torch.Tensor]:
        self.saw = image
        return {"slow": self.slow.sum() * image.mean(), "fast": 2 * self.fast.sum()}

    def detect(self, image: torch.Tensor, size: torch.Tensor, original_size: torch.Tensor) -> list[Detections]:
        none = torch.zeros(0)
        return [Detections(none, none.long(), none.new_zeros((0, *file.tolist())).bool()) for file in original_size]

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": [self.slow], "rate_factor": 0.1, "decay_factor": 0.0},
            {"params": [self.fast], "rate_factor": 1.0, "decay_factor": 1.0},
        ]


class Batches(LightningDataModule):
    """The same batch again and again, with its categories and the global batch."""

    def __init__(self, batch: ImageBatch, categories: tuple[str, ...], val: bool = False) -> None:
        super().__init__()
        self.batch, self.categories, self.batch_size, self.val = batch, categories, 2, val

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.batch] * 4, batch_size=None)

    def val_dataloader(self) -> DataLoader | list:
        return DataLoader([self.batch], batch_size=None) if self.val else []


def batch_of(value: int = 100) -> ImageBatch:
    """Two images on a grid of 4 x 6: one of 4 x 6, one of 2 x 3."""
    return ImageBatch(
        image=torch.full((2, 3, 4, 6), value, dtype=torch.uint8),
        size=torch.tensor([[4, 6], [2, 3]]),
        original_size=torch.tensor([[8, 12], [4, 6]]),
        position=torch.arange(2),
        masks=[torch.zeros((0, 4, 6), dtype=torch.uint8)] * 2,
        boxes=[torch.zeros((0, 4))] * 2,
        labels=[torch.zeros(0, dtype=torch.int64)] * 2,
    )


def sgd(groups, lr=0.5):
    return torch.optim.SGD(groups, lr=lr, weight_decay=0.25)


def test_images_are_normalised_and_nothing_is_beyond_them():
    model = InstanceSegmentation(OneWeight(), sgd, image_mean=[90.0, 100.0, 110.0], image_std=10.0)
    seen = model.seen(batch_of())
    assert seen[0, :, 3, 5].tolist() == [1.0, 0.0, -1.0]
    assert seen[1, :, 1, 2].tolist() == [1.0, 0.0, -1.0]
    assert not seen[1, :, 2:].any() and not seen[1, :, :, 3:].any()  # noqa: PT018
    filled = InstanceSegmentation(OneWeight(), sgd, image_mean=90.0, image_std=10.0, zero_beyond=False)
    assert filled.seen(batch_of())[1, 0, 3, 5] == 1.0


def test_the_pixels_of_an_image_are_those_within_its_own_size():
    inside = own_pixels(torch.tensor([[1, 2], [0, 5]]), torch.zeros(2, 3, 2, 5))
    assert inside[0, 0].tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert not inside[1].any()


def test_parts_of_a_network_learn_at_their_own_shares_of_rate_and_decay():
    model = InstanceSegmentation(OneWeight(), sgd, warmup=Warmup(2, 0.5))
    model.trainer = SimpleNamespace(estimated_stepping_batches=10)  # type: ignore[assignment]
    made = model.configure_optimizers()
    groups = made["optimizer"].param_groups
    assert [(group["initial_lr"], group["weight_decay"]) for group in groups] == [(0.05, 0.0), (0.5, 0.25)]
    assert [group["lr"] for group in groups] == [0.025, 0.25]  # half the rate in the first step


def test_a_warm_up_is_counted_in_steps_and_the_schedule_goes_on_meanwhile():
    warmup = Warmup(500, 1 / 3)
    assert [warmup(step) for step in (0, 250, 500, 9000)] == [pytest.approx(v) for v in (1 / 3, 2 / 3, 1, 1)]
    assert Warmup(0)(0) == 1
    with pytest.raises(ValueError, match="0 or more steps, from 0 to 1 of the rate"):
        Warmup(-1)


def test_a_training_says_its_rate_its_samples_and_its_classes():
    model = InstanceSegmentation(OneWeight(), sgd, schedule=Steps([0.5], [1.0, 0.1]))
    trainer = Trainer(accelerator="cpu", max_steps=3, **QUIET)
    trainer.fit(model, datamodule=Batches(batch_of(), ("cat", "dog")))
    assert model.facts() == {
        "learning_rate": "0.5 at its peak, for a global batch of 2 images",
        "samples": "6 images seen in 3 steps",
        "classes": ["cat", "dog"],
    }
    assert trainer.callback_metrics["train/loss"] == pytest.approx(
        float(trainer.callback_metrics["train/slow"] + trainer.callback_metrics["train/fast"])
    )


def test_a_network_of_another_number_of_classes_is_refused():
    trainer = Trainer(accelerator="cpu", max_steps=1, **QUIET)
    with pytest.raises(ValueError, match=r"tells 2 classes apart, the training data have 3 \(cat, cow, dog"):
        trainer.fit(InstanceSegmentation(OneWeight(), sgd), datamodule=Batches(batch_of(), ("cat", "cow", "dog")))


@pytest.mark.parametrize("name", SMALL)
def test_each_network_learns_validates_and_detects_in_one_story(name):
    torch.manual_seed(0)
    seen, batch = drawn_batch(FOUR_IMAGES[:2])
    batch.image = (127 + 64 * seen).clamp(0, 255).to(torch.uint8)
    model = InstanceSegmentation(SMALL[name](), torch.optim.AdamW, Constant(), image_mean=127.0, image_std=64.0)
    trainer = Trainer(accelerator="cpu", max_steps=2, val_check_interval=2, gradient_clip_val=1.0, **QUIET)
    trainer.fit(model, datamodule=Batches(batch, ("a", "b", "c"), val=True))
    logged = trainer.callback_metrics
    terms = {key.removeprefix("val/") for key in logged if key.startswith("val/")}
    assert terms == {key.removeprefix("train/") for key in logged if key.startswith("train/")}
    assert all(torch.isfinite(value) for value in logged.values())
    found = model.eval().detect(batch)
    assert [each.masks.shape[1:] for each in found] == [tuple(size) for size in batch.original_size.tolist()]
    assert all((each.scores.diff() <= 0).all() for each in found)


@pytest.mark.parametrize("trained", [True, False])
def test_stages_are_frozen_where_somebody_has_trained_them(trained):
    network = SOLOv2("resnet10t.c3_in1k", 3, channels=16, tower=16, blocks=1, kernels=8, mask_channels=8, norm_groups=4)
    network.backbone.loaded = trained  # by weights of ImageNet, or by the run that this one starts from
    model = InstanceSegmentation(network, sgd)
    model.setup("fit")
    learning = {name for name, weight in network.backbone.named_parameters() if weight.requires_grad}
    assert any(name.startswith("layer2") for name in learning)
    assert any(name.startswith("layer1") for name in learning) is not trained
