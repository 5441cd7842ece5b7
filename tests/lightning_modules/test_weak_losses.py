import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.weak_losses import dice, projection
from tests.conftest import GOLDEN, square


@pytest.fixture(scope="module")
def exits() -> dict[str, torch.Tensor]:
    """What the authors' MAL code answered."""
    with np.load(GOLDEN / "exits.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key.split("/")[0] in ("dice", "mil")}


def test_dice_is_the_authors(exits):
    loss = dice(exits["dice/input"], exits["dice/target"])
    np.testing.assert_allclose(loss, exits["dice/expected"], atol=1e-6)


def test_the_projection_loss_is_the_authors(exits):
    loss = projection(exits["mil/pred"][:, None], exits["mil/box"][:, None])
    np.testing.assert_allclose(loss, exits["mil/expected"], atol=1e-6)


def mask(top_left: tuple[int, int], side: int | tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(square(16, top_left, side)).float()[None, None]


def test_any_mask_that_touches_all_sides_of_its_box_projects_onto_it():
    box = mask((3, 2), (8, 10))
    cross = torch.zeros_like(box)
    cross[:, :, 2:10, 7] = cross[:, :, 5, 3:13] = 1
    assert projection(cross, box).item() == pytest.approx(0, abs=1e-3)
    assert projection(box, box).item() == pytest.approx(0, abs=1e-3)


def test_a_mask_that_leaves_its_box_or_does_not_fill_it_costs_something():
    box = mask((3, 2), (8, 10))
    assert projection(mask((3, 2), (8, 13)), box) > 0.05
    assert projection(mask((3, 2), (8, 5)), box) > 0.1
    assert projection(mask((14, 14), 2), box).item() == pytest.approx(2, abs=1e-3)


def test_only_the_highest_pixel_of_a_row_and_of_a_column_gets_a_gradient():
    torch.manual_seed(0)
    prediction = torch.rand(1, 1, 16, 16, requires_grad=True)
    projection(prediction, mask((3, 2), 8)).sum().backward()
    rows, columns = prediction.detach()[0, 0].argmax(1), prediction.detach()[0, 0].argmax(0)
    highest = torch.zeros(16, 16, dtype=torch.bool)
    highest[torch.arange(16), rows] = highest[columns, torch.arange(16)] = True
    assert not prediction.grad[0, 0][~highest].any()
    assert prediction.grad[0, 0][highest].any()


def test_an_empty_target_costs_one_whatever_is_predicted():
    nothing = torch.zeros(2, 1, 4, 4)
    assert dice(torch.stack([nothing[0], nothing[0] + 0.5]), nothing).tolist() == [1, 1]


@given(st.integers(0, 1000))
def test_losses_lie_in_their_range_and_fall_to_nothing_on_the_target_itself(seed):
    draw = torch.Generator().manual_seed(seed)
    p, t = torch.rand(2, 3, 1, 6, 5, generator=draw)
    t = (t > 0.7).float()
    assert ((dice(p, t) >= 0) & (dice(p, t) <= 1)).all()
    assert ((projection(p, t) >= -1e-6) & (projection(p, t) <= 2)).all()
    objects = t.flatten(1).any(1)
    assert (dice(t, t)[objects] < 1e-3 + 1e-6).all()


def test_objects_do_not_change_each_others_losses():
    torch.manual_seed(1)
    p, t = torch.rand(2, 4, 1, 8, 8)
    for loss in (dice, projection):
        assert torch.equal(loss(p, t), torch.cat([loss(p[i : i + 1], t[i : i + 1]) for i in range(4)]))


def test_half_precision_comes_in_and_single_precision_goes_out():
    ones = torch.ones(1, 1, 256, 256, dtype=torch.float16)  # 65,536 squares: beyond half precision
    assert dice(ones, ones).dtype == projection(ones, ones).dtype == torch.float32
    assert dice(ones, ones).item() == pytest.approx(0, abs=1e-6)


def test_shapes_that_disagree_are_refused_in_words():
    with pytest.raises(ValueError, match="of one shape"):
        dice(torch.zeros(1, 4, 4), torch.zeros(1, 5, 4))
    with pytest.raises(ValueError, match="resize the box"):
        projection(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8))
