"""EXITS' and MAL's training story on a network of one convolution that notes what it is shown."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from datamodules.batch import Batch, FullMask
from datamodules.clicks.points import EXTREME_KINDS, PointKind
from lightning_modules.exits import EXITS, GUIDE_STD
from lightning_modules.mean_field import MeanField
from lightning_modules.networks.official import load_exactly
from lightning_modules.point_retrieval import PointRetrieval
from lightning_modules.point_supervision import PointSupervision
from lightning_modules.weak_losses import dice, projection
from tests.conftest import square

SIDE, GRID, MASK = 32, 4, 8
MEAN, STD = 100.0, 50.0
BOXES = ((8, 8, 23, 23), (4, 10, 27, 17))  # inclusive


class Tiny(nn.Module):
    """A mask generator that notes what it was asked, in which mode; nodes of like colours are similar."""

    def __init__(self, size=SIDE, grid=GRID):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Dropout(0.5))
        self.backbone.size, self.grid, self.depth = size, grid, 1
        self.shown = []

    def _note(self, image, areas=None):
        self.shown.append(
            SimpleNamespace(image=image, areas=areas, training=self.training, learns=torch.is_grad_enabled())
        )

    def forward(self, image, areas):
        self._note(image, areas)
        return F.adaptive_avg_pool2d(self.backbone(image), MASK)

    def similarity(self, image, layer):
        self._note(image)
        colours = F.adaptive_avg_pool2d(image, self.grid).flatten(2).transpose(1, 2)
        return (-20 * torch.cdist(colours, colours)).softmax(2)


def exits(points=True, mean_field=True, seed=0, **options):
    """A model as a recipe builds it: with `points` EXITS, else MAL; without `mean_field` too the extractor."""
    torch.manual_seed(seed)
    retrieval = PointRetrieval(layer=1, delta=0)
    given = {
        "points": PointSupervision(retrieval, dropout=0.0) if points is True else points or None,
        "mean_field": MeanField(rounds=3) if mean_field is True else mean_field or None,
        "image_mean": MEAN,
        "image_std": STD,
        **options,
    }
    return EXITS(Tiny(), lambda weights: torch.optim.SGD(weights, lr=0.5), **given)


def batch_of(boxes=BOXES, seed=0, size=SIDE, **fields):
    """Objects of filled boxes in noise, their points in the middle of the sides; the coloured view is a darker one."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.rand(len(boxes), 3, size, size, generator=draw) * 255
    masks = [square(size, (x0, y0), (y1 - y0 + 1, x1 - x0 + 1)) for x0, y0, x1, y1 in boxes]
    middle = [
        [[x0, (y0 + y1) // 2], [(x0 + x1) // 2, y0], [x1, (y0 + y1) // 2], [(x0 + x1) // 2, y1]]
        for x0, y0, x1, y1 in boxes
    ]
    mask = torch.stack([torch.from_numpy(mask) for mask in masks])[:, None]
    window = torch.tensor([[0, 0, size - 1, size - 1]]).expand(len(boxes), 4)
    given = {
        "image": clean * 0.6,
        "mask": mask,
        "void": torch.zeros_like(mask),
        "points": torch.tensor(middle, dtype=torch.float32),
        "point_kinds": torch.tensor([EXTREME_KINDS] * len(boxes)),
        "to_crop": torch.eye(2, 3, dtype=torch.float64).expand(len(boxes), 2, 3),
        "crop_box": window,
        "box": torch.tensor(boxes),
        "image_size": window[:, 2:] + 1,
        "object_id": torch.arange(len(boxes)) + 11,
        "clean_image": clean,
        "rle": [FullMask(coco_mask.encode(np.asfortranarray(mask)), None) for mask in masks],
    }
    return Batch(**{**given, **fields})


@pytest.fixture
def stepped(monkeypatch):
    """Takes a training step of a model as the trainer would after so many steps; its loss and what it logs."""

    def step(model, batch, global_step=10**6):
        logged = {}
        monkeypatch.setattr(EXITS, "trainer", SimpleNamespace(global_step=global_step))
        monkeypatch.setattr(
            model, "log_dict", lambda said, **_: logged.update({k: v.detach() for k, v in said.items()})
        )
        return model.training_step(batch, 0), {name: float(value) for name, value in logged.items()}

    return step


def probability(network, image, boxes=BOXES):
    areas = torch.tensor([float((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes])
    return torch.sigmoid(network((image - MEAN) / STD, areas))


def to_grid(x):
    return F.interpolate(x.float(), (MASK, MASK), mode="bilinear", align_corners=False)


def by_mean_field(model, batch, guide):
    """The second term, written out; dropout is off."""
    student, teacher = probability(model.network, batch.image), probability(model.teacher, batch.clean_image)
    target = MeanField(rounds=3)(
        to_grid(guide / torch.tensor(GUIDE_STD).view(3, 1, 1)), (student + teacher) / 2, to_grid(batch.mask)
    )
    return dice(student, (target > 0.5).float()).mean()


# -- the two terms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", ["student", "clean"])
def test_mal_s_loss_is_the_projection_of_the_box_and_the_mean_field_of_student_and_teacher(stepped, guide):
    model, batch = exits(points=False, crf_guide=guide).eval(), batch_of()
    for weight in model.teacher.parameters():
        weight.data.mul_(-0.5)  # a teacher that says something else
    loss, said = stepped(model, batch)
    first = projection(probability(model.network, batch.image), to_grid(batch.mask)).mean()
    second = by_mean_field(model, batch, batch.image if guide == "student" else batch.clean_image)
    assert said["train/first"] == pytest.approx(float(first), abs=1e-6)
    assert said["train/crf"] == pytest.approx(float(second), abs=1e-6)
    assert float(loss) == pytest.approx(float(4 * first + 0.5 * second), abs=1e-5)
    assert model.extractor is None


def test_exits_learns_at_the_points_that_its_extractor_retrieves_on_the_clean_view(stepped):
    model, batch = exits().eval(), batch_of()
    _, said = stepped(model, batch)
    similarity = Tiny().similarity((batch.clean_image - MEAN) / STD, 1)
    found = PointRetrieval(layer=1, delta=0)(similarity, batch.points, batch.mask)
    assert found.found.any()
    student = probability(model.network, batch.image)
    terms = PointSupervision(PointRetrieval(), dropout=0.0)(found, student, to_grid(batch.mask), batch.object_id, 0)
    assert said["train/first"] == pytest.approx(float(terms.mean()), abs=1e-6)
    assert "train/crf" in said


@pytest.mark.parametrize("step", [0, 25, 50, 120, 200, 5000])
def test_both_weights_rise_with_the_steps_and_then_stay(stepped, step):
    model = exits(points=False, weight=4.0, ramp=50, crf_weight=0.5, crf_ramp=200).eval()
    loss, said = stepped(model, batch_of(), step)
    expected = 4 * min(1, step / 50) * said["train/first"] + 0.5 * min(1, step / 200) * said["train/crf"]
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    assert said["train/loss"] == float(loss)


def test_without_ramps_the_first_step_counts_in_full(stepped):
    loss, said = stepped(exits(points=False, ramp=0, crf_ramp=0).eval(), batch_of(), 0)
    assert float(loss) == pytest.approx(4 * said["train/first"] + 0.5 * said["train/crf"], abs=1e-5)


def test_the_extractor_s_own_training_has_one_term_and_no_other_network(stepped):
    model, batch = exits(points=False, mean_field=False).eval(), batch_of()
    loss, said = stepped(model, batch)
    by_box = projection(probability(model.network, batch.image), to_grid(batch.mask)).mean()
    assert float(loss) == pytest.approx(4 * float(by_box), abs=1e-5)
    assert set(said) == {"train/loss", "train/first"}
    assert model.teacher is model.extractor is None
    assert model.frozen == {}
    assert model.configure_callbacks() == []
    assert {name.partition(".")[0] for name in model.state_dict()} == {"network", "averaged"}


def test_an_extractor_is_taken_wherever_there_are_points_and_only_there():
    assert EXITS.takes({"points": {"class_path": "PointSupervision"}}) == {"extractor": "extractor"}
    assert EXITS.takes({"points": None}) == EXITS.takes({}) == {}


# -- who sees what -----------------------------------------------------------------------------------------------------


def test_the_student_sees_the_coloured_view_and_teacher_and_extractor_the_clean_one(stepped):
    model, batch = exits().train(), batch_of()
    stepped(model, batch)
    (student,), (teacher,), (extractor,) = (part.shown for part in (model.network, model.teacher, model.extractor))
    coloured, clean = ((view - MEAN) / STD for view in (batch.image, batch.clean_image))
    assert torch.equal(student.image, coloured)
    assert torch.equal(teacher.image, clean)
    assert torch.equal(extractor.image, clean)
    assert student.areas.tolist() == teacher.areas.tolist() == [15 * 15, 23 * 7]
    assert (student.training, student.learns) == (True, True)
    assert not any(part.training or part.learns for part in (teacher, extractor))


@pytest.mark.parametrize("guide", ["student", "clean"])
def test_the_mean_field_follows_the_edges_of_the_view_that_is_named(stepped, guide):
    seen = []

    class Noting(MeanField):
        def forward(self, image, probability, box=None):
            seen.append(image)
            return super().forward(image, probability, box)

    batch = batch_of()
    stepped(exits(mean_field=Noting(rounds=1), crf_guide=guide), batch)
    view = batch.image if guide == "student" else batch.clean_image
    torch.testing.assert_close(seen[0], to_grid(view / torch.tensor(GUIDE_STD).view(3, 1, 1)))


def test_a_batch_without_the_clean_view_is_refused(stepped):
    with pytest.raises(ValueError, match=r"see the clean view; set data.sample.extras to \[clean_image\]"):
        stepped(exits(), batch_of(clean_image=None))


@pytest.mark.parametrize(
    "boxes",
    [((0, 0, 31, 31),), ((5, 9, 5, 9),), ((0, 3, 0, 30),), ((30, 30, 31, 31), (0, 0, 31, 31))],
    ids=["all of the crop, without background", "one pixel", "one column at the border", "a corner and all"],
)
def test_odd_objects_make_a_step_with_a_gradient(stepped, boxes):
    model = exits().train()
    loss, _ = stepped(model, batch_of(boxes))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(weight.grad).all() for weight in model.network.parameters())


def test_the_order_in_which_points_lie_changes_nothing(stepped):
    losses = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        batch = batch_of()
        losses.append(
            stepped(exits().eval(), batch_of(points=batch.points[:, order], point_kinds=batch.point_kinds[:, order]))[0]
        )
    assert losses[0] == losses[1]


def test_three_points_are_refused_in_a_sentence(stepped):
    batch = batch_of()
    with pytest.raises(ValueError, match=r"^EXITS begins with all four extreme points, got an object with fewer$"):
        stepped(exits(), batch_of(points=batch.points[:, :3], point_kinds=batch.point_kinds[:, :3]))


# -- what never learns -------------------------------------------------------------------------------------------------


class Steps(LightningDataModule):
    """The same batches for every trainer: `batch_size` objects a step."""

    batch_size = 2

    def train_dataloader(self):
        return DataLoader([batch_of(seed=seed) for seed in range(8)], None)

    def val_dataloader(self):
        return DataLoader([batch_of(seed=9)], None)


def trained(model, folder, steps=2, **how):
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=how.pop("val", 0),
        **how,
    )
    trainer.fit(model, datamodule=Steps())
    return trainer


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_only_the_student_learns_and_is_ever_in_training_mode(tmp_path):
    model = exits(ramp=0, crf_ramp=0)
    before = state_of(model)
    model.train().eval().train()
    modes = {name: part.training for name, part in model.frozen.items()}
    assert modes == {"teacher": False, "extractor": False}
    trainer = trained(model, tmp_path)
    after = state_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("extractor."))
    assert not any(
        torch.equal(before[name], after[name]) for name in before if name.startswith(("network.", "teacher."))
    )
    learning = {id(weight) for group in trainer.optimizers[0].param_groups for weight in group["params"]}
    assert learning == {id(weight) for weight in model.network.parameters()}
    assert all(weight.grad is None for part in model.frozen.values() for weight in part.parameters())
    assert not any(call.training or call.learns for part in model.frozen.values() for call in part.shown)
    assert int(model.averaged) == 2


def test_the_teacher_follows_its_student_by_its_momentum(tmp_path):
    model = exits(points=False, momentum=0.75, ramp=0, crf_ramp=0, rate_of="step")
    first = model.network.backbone[0].weight.detach().clone()
    trained(model, tmp_path, 1)
    now = model.network.backbone[0].weight
    assert not torch.equal(now, first)
    torch.testing.assert_close(model.teacher.backbone[0].weight, 0.75 * first + 0.25 * now)


def test_processes_exchange_nothing_of_what_never_learns():
    model = exits()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        exchanged = {id(weight) for weight in wrapped._module_parameters}
        assert exchanged == {id(weight) for weight in model.network.parameters()}
        buffers = set(map(id, wrapped.modules_buffers))
        assert buffers.isdisjoint(map(id, (*model.teacher.buffers(), *model.extractor.buffers())))
    finally:
        torch.distributed.destroy_process_group()


# -- the rate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_rate_of_a_sample_is_multiplied_by_the_global_batch_however_it_is_passed(tmp_path, accumulated):
    model = exits(points=False)
    trainer = trained(model, tmp_path, accumulate_grad_batches=accumulated)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1.0
    assert model.facts() == {"learning_rate": "1 at its peak, 0.5 per object times the global batch of 2"}


def test_the_rate_of_a_step_is_taken_as_it_is(tmp_path):
    model = exits(points=False, rate_of="step")
    trainer = trained(model, tmp_path)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5
    assert model.facts() == {"learning_rate": "0.5 at its peak"}


# -- who predicts ------------------------------------------------------------------------------------------------------


def test_validation_counts_the_teacher_once_it_has_learned(tmp_path):
    model = exits(points=False)
    logged = []
    model.log = lambda name, *_, **__: logged.append(name)
    model.validation_step(batch_of(), 0)
    assert logged == ["val/iou_crop"]
    trainer = trained(exits(points=False), tmp_path, 8, val=1)
    assert {"val/iou_crop", "val/iou_crop_teacher"} <= {*trainer.callback_metrics}


def test_validation_counts_the_true_mask_inside_of_the_box():
    """A network that says "object" everywhere is cut to its box, of which the true mask is a half."""
    model = exits(points=False, mean_field=False).eval()
    nn.init.zeros_(model.network.backbone[0].weight)
    nn.init.ones_(model.network.backbone[0].bias)
    truth = square(SIDE, (8, 8), (16, 8))
    batch = batch_of(BOXES[:1], rle=[FullMask(coco_mask.encode(np.asfortranarray(truth)), None)])
    logged = {}
    model.log = lambda name, value, **_: logged.update({name: float(value)})
    model.validation_step(batch, 0)
    assert logged == {"val/iou_crop": 0.5}


def test_student_teacher_or_the_mean_of_their_logits_is_shown():
    batch, models = (
        batch_of(),
        {shown: exits(points=False, shown=shown).eval() for shown in ("student", "teacher", "mean")},
    )
    for model in models.values():
        model.averaged.fill_(1)
        model.teacher.backbone[0].bias.data.add_(3.0)
    logits = {shown: model.start(batch.image, batch.clicks) for shown, model in models.items()}
    assert logits["student"].shape == (2, 1, SIDE, SIDE)
    torch.testing.assert_close(logits["teacher"], logits["student"] + 3)
    torch.testing.assert_close(logits["mean"], logits["student"] + 1.5)


def test_who_is_not_there_or_has_learned_nothing_is_not_shown():
    with pytest.raises(ValueError, match=r"without a mean field there is no teacher: .* got teacher"):
        exits(points=False, mean_field=False, shown="teacher")
    batch = batch_of()
    with pytest.raises(ValueError, match=r"the teacher has learned nothing.*model\.shown=student"):
        exits(points=False, shown="mean").eval().start(batch.image, batch.clicks)


def test_further_clicks_change_nothing():
    batch, model = batch_of(), exits().eval()
    state = model.start(batch.image, batch.clicks)
    more = batch.clicks.with_more(torch.full((2, 1, 2), 3.0), torch.full((2, 1), int(PointKind.NEGATIVE)))
    logits, again = model.predict(state, more)
    assert torch.equal(logits, state)
    assert again is state


# -- files and runs of others ------------------------------------------------------------------------------------------


def test_an_extractor_of_another_method_crop_or_grid_is_refused():
    model, other = exits(), exits(points=False, mean_field=False)
    with pytest.raises(
        ValueError, match=r"^the extractor is a run of EXITS without points, got one of LightningModule$"
    ):
        model.check_taken("extractor", LightningModule())
    model.check_taken("extractor", other)
    other.network = Tiny(size=64)
    with pytest.raises(
        ValueError, match=r"^the extractor was trained with a size of 64, this generator has 32: .*train"
    ):
        model.check_taken("extractor", other)
    other.network = Tiny(grid=8)
    with pytest.raises(ValueError, match=r"^the extractor was trained with a grid of 8, this generator has 4: "):
        model.check_taken("extractor", other)


def test_a_file_of_a_teacher_without_its_student_is_refused():
    weights = {name: value for name, value in exits().state_dict().items() if not name.startswith("network.")}
    with pytest.raises(
        ValueError, match=r"t.pth holds other weights than this EXITS; nothing loaded:\n  2 missing: net"
    ):
        load_exactly(exits(), weights, "t.pth")


def test_a_model_without_points_retrieves_none():
    batch = batch_of()
    with pytest.raises(ValueError, match="a model without points retrieves none: it has no extractor"):
        exits(points=False).retrieved(batch.clean_image, batch.clicks, batch.mask)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({"supervision": "mask", "extras": ["clean_image"]}, "data.sample.supervision is box, got mask"),
        ({"supervision": "box", "extras": []}, r"set data.sample.extras to \[clean_image\]"),
    ],
)
def test_data_that_show_masks_or_no_clean_view_are_refused_before_the_first_step(monkeypatch, sample, said):
    monkeypatch.setattr(EXITS, "trainer", SimpleNamespace(datamodule=SimpleNamespace(sample=SimpleNamespace(**sample))))
    with pytest.raises(ValueError, match=said):
        exits().on_fit_start()


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"ramp": -5}, {"crf_weight": -0.1}])
def test_weights_and_ramps_below_zero_are_refused(wrong):
    with pytest.raises(ValueError, match=f"model.{next(iter(wrong))}"):
        exits(**wrong)


def test_an_extractor_that_saw_other_colours_or_has_points_is_refused():
    generator = exits(image_mean=10.0)
    with pytest.raises(ValueError, match="means and deviations"):
        generator.check_taken("extractor", exits(points=False, mean_field=False))
    with pytest.raises(ValueError, match="without points, got one with points"):
        generator.check_taken("extractor", exits(image_mean=10.0))
