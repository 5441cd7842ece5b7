import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules import mean_field as module
from lightning_modules.mean_field import MeanField, mean_field
from tests.conftest import GOLDEN, square


@pytest.fixture(scope="module")
def exits() -> dict[str, Tensor]:
    """What the authors' MAL code answered."""
    with np.load(GOLDEN / "exits.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("crf/")}


def plain(image: Tensor, probability: Tensor, box: Tensor | None, rounds: int, window: int = 3, zeta: float = 0.1):
    """Formula by formula, in float64."""
    image, q, reach = image.double(), probability.double(), window // 2
    box = torch.ones_like(q) if box is None else box.double()

    def around(planes: Tensor) -> Tensor:
        return F.unfold(planes, window, padding=reach).view(len(planes), -1, window**2, *planes.shape[2:])

    inside = around(torch.ones_like(q))
    k = (-(around(image) - image[:, :, None]).square().sum(1, keepdim=True) / (2 * zeta**2)).exp() * inside
    q = (q * box).clamp(0.1, 0.9)
    for _ in range(rounds):
        foreground, background = ((around(p.log()) * k).sum(2).exp() for p in (q, 1 - q))
        foreground = foreground * box
        q = (foreground / (1e-6 + background + foreground)).clamp(0.1, 0.9)
    return q


@pytest.mark.parametrize("setting", ["k3_z0.1", "k5_z0.3"])
@pytest.mark.parametrize("with_box", [0, 1])
@pytest.mark.parametrize(("rounds", "tolerance"), [(1, 1e-4), (2, 1e-4), (10, 1e-3), (100, 1e-3)])
def test_the_mean_field_is_the_authors(exits, setting, with_box, rounds, tolerance):
    window, zeta = int(setting[1]), float(setting.split("_z")[1])
    box = exits["crf/box"][:, None] if with_box else None
    answer = mean_field(exits["crf/image"], exits["crf/prob"][:, None], box, rounds, window, zeta)
    expected = exits[f"crf/{setting}_box{with_box}/soft_iter{rounds}"]
    np.testing.assert_allclose(answer[:, 0], expected, atol=tolerance)
    if rounds == 100:
        binary = exits[f"crf/{setting}_box{with_box}/binary_iter100"]
        assert ((answer[:, 0] > 0.5) != binary).float().mean() <= 0.005


def scene(seed: int, size: tuple[int, int] = (20, 24), objects: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """A textured image in which some regions are smooth, a prediction without much conviction, and a soft box."""
    draw = torch.Generator().manual_seed(seed)
    height, width = size
    noise = torch.randn(objects, 3, height, width, generator=draw)
    smooth = F.avg_pool2d(noise, 5, 1, 2)
    image = torch.where(torch.arange(width) < width // 2, 0.3 * smooth, 0.6 * smooth + 0.1 * noise)
    probability = torch.sigmoid(4 * F.avg_pool2d(torch.randn(objects, 1, *size, generator=draw), 3, 1, 1))
    box = torch.zeros(objects, 1, *size)
    box[:, :, 3:-2, 2:-4] = 1
    box[:, :, 2:3, 2:-4] = 0.25
    return image, probability, box


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("with_box", [False, True])
def test_settling_pixels_early_changes_no_answer(monkeypatch, window, with_box):
    """Seeds are fixed: here and there rounds amplify what rounding left, and two orders of a sum part."""
    scenes = [scene(seed) for seed in range(5)]
    early = [mean_field(image, q, box if with_box else None, 60, window) for image, q, box in scenes]
    monkeypatch.setattr(module, "SETTLING", ())
    late = [mean_field(image, q, box if with_box else None, 60, window) for image, q, box in scenes]
    np.testing.assert_allclose(torch.cat(early), torch.cat(late), atol=1e-4)


@given(st.integers(0, 10**6), st.sampled_from([3, 5]))
@settings(max_examples=30)
def test_settled_pixels_stay_whatever_the_others_become(seed, window):
    image, probability, _ = scene(seed)
    before, q = (mean_field(image, probability, None, rounds, window) for rounds in (5, 6))
    ones, around = torch.ones(q.numel()), module.Neighbours(image, window, 0.1)
    still = module._open(before.flatten(), q.flatten(), ones, around)
    if still is None:
        return
    other = q.flatten().clone()
    other[still] = 0.1 + 0.8 * torch.rand(len(still), generator=torch.Generator().manual_seed(seed)).round()
    after = mean_field(image, other.view_as(q), None, 1, window)
    held = torch.ones(q.numel(), dtype=torch.bool).index_fill_(0, still, False)
    assert torch.equal(after.flatten()[held], q.flatten()[held])


def test_the_mean_field_is_its_formula_and_open_pixels_are_few():
    image, probability, box = scene(3, (40, 40))
    before, q = (mean_field(image, probability, box, rounds).flatten() for rounds in (5, 6))
    still = module._open(before, q, box.flatten(), module.Neighbours(image, 3, 0.1))
    assert still is not None
    assert 0 < len(still) < 0.2 * q.numel()
    answer = mean_field(image, probability, box, 60)
    np.testing.assert_allclose(answer, plain(image, probability, box, 60), atol=1e-4)
    held = torch.ones(q.numel(), dtype=torch.bool).index_fill_(0, still, False)
    assert torch.equal(answer.flatten()[held], q[held])


def test_pixels_of_one_colour_end_as_one_class_and_colours_do_not_mix():
    """Two flat halves: each becomes what most of it was, and the border between them falls where the colour changes."""
    image = torch.from_numpy(square(16, (8, 0), (16, 8))).float().expand(1, 3, -1, -1)
    probability = 0.3 + 0.4 * image[:, :1]
    probability[:, :, 3:6, 6:10] = 1 - probability[:, :, 3:6, 6:10]  # a hole and a stain
    assert torch.equal(mean_field(image, probability) > 0.5, image[:, :1] > 0)


def test_an_empty_box_holds_nothing():
    image, probability, box = scene(6)
    assert (mean_field(image, probability, torch.zeros_like(box)) == 0.1).all()


def test_nothing_outside_the_box_is_object():
    image, probability, box = scene(5)
    assert not (mean_field(torch.zeros_like(image), probability + 0.4, box)[box == 0] > 0.5).any()


def test_an_object_has_the_same_target_alone_and_in_a_batch():
    image, probability, box = scene(7, objects=3)
    together = mean_field(image, probability, box, 30)
    alone = [mean_field(*(plane[i : i + 1] for plane in (image, probability, box)), 30) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_objects_computed_at_once_do_not_see_each_other():
    """As on a GPU, where the pixels of all objects are one row."""
    image, probability, box = scene(8, objects=3)
    at_once = module._after(30, image, probability, box, window=3, zeta=0.1)
    np.testing.assert_allclose(at_once, mean_field(image, probability, box, 30), atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 40)])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_images_smaller_than_the_window_work(size, window):
    image, probability, _ = scene(9, size)
    answer = mean_field(image, probability, rounds=5, window=window)
    np.testing.assert_allclose(answer, plain(image, probability, None, 5, window), atol=1e-4)


def test_no_round_leaves_the_clipped_start():
    image, probability, box = scene(10)
    assert torch.equal(mean_field(image, probability, box, 0), (probability * box).clamp(0.1, 0.9))


def test_a_target_carries_no_gradient_and_can_stand_in_a_loss():
    image, probability, box = scene(11)
    logits = torch.logit(probability).requires_grad_()
    target = MeanField(rounds=8)(image, logits.sigmoid(), box)
    assert not target.requires_grad
    (logits.sigmoid() * target).sum().backward()
    assert logits.grad.any()


def test_half_precision_is_computed_in_single():
    image, probability, box = (plane.half() for plane in scene(12))
    answer = mean_field(image, probability, box, 8)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, mean_field(image.float(), probability.float(), box.float(), 8))


def test_a_batch_of_nothing_has_no_targets():
    assert mean_field(torch.zeros(0, 3, 4, 4), torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"window": 2}, {"window": 0}, {"zeta": 0.0}, {"zeta": float("nan")}])
def test_settings_that_make_no_mean_field_are_refused(wrong):
    with pytest.raises(ValueError, match="odd window"):
        MeanField(**wrong)
    with pytest.raises(ValueError, match="odd window"):
        mean_field(*scene(0)[:2], **wrong)


def test_an_image_of_another_size_is_refused_in_words():
    image, probability, box = scene(0)
    with pytest.raises(ValueError, match="resize the image"):
        mean_field(image[..., 1:], probability, box)
    with pytest.raises(ValueError, match="the box is a mask"):
        mean_field(image, probability, box[..., 1:])
