"""Two stages: where the second model is clicked, what each of them sees, what an empty first mask leads to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from datamodules.clicks.points import PointKind, Points
from lightning_modules.two_stage import TwoStage, box_centres, with_inside

SIZE = 40
INSIDE, OUTSIDE, POSITIVE = PointKind.INSIDE, PointKind.OUTSIDE, PointKind.POSITIVE


class Says(nn.Module):
    """A method that predicts what it was told, and remembers what it was asked."""

    def __init__(self, *masks: Tensor) -> None:
        super().__init__()
        self.logits = torch.stack(masks)[:, None].float() * 8 - 4
        self.started: list[Points] = []
        self.asked: list[Points] = []

    def start(self, image: Tensor, points: Points) -> str:
        self.started.append(points)
        return "0"

    def predict(self, state: str, points: Points, previous_mask: Tensor | None = None) -> tuple[Tensor, str]:
        self.asked.append(points)
        self.previous = previous_mask
        return self.logits, f"{int(state) + 1}"


def square(x: int, y: int, side: int) -> Tensor:
    mask = torch.zeros(SIZE, SIZE)
    mask[y : y + side, x : x + side] = 1
    return mask


def boxes(*corners: tuple[int, int, int, int], inside: tuple[int, int] = (0, 0)) -> Points:
    """An inside point and the four corners of each box (x_min, y_min, x_max, y_max)."""
    xy = [[inside, (a, b), (a, d), (c, b), (c, d)] for a, b, c, d in corners]
    kinds = torch.tensor([[INSIDE] + 4 * [OUTSIDE]] * len(corners))
    return Points(torch.tensor(xy, dtype=torch.float32), kinds, torch.ones(len(corners), 2))


IMAGE = torch.zeros(2, 3, SIZE, SIZE)


def clicked(points: Points, i: int, kind: PointKind) -> list[list[float]]:
    return points.xy[i][points.kinds[i] == kind].tolist()


def test_the_second_model_is_clicked_where_the_first_mask_is_thickest():
    first = Says(square(4, 6, 9), torch.maximum(square(20, 20, 5), square(3, 30, 3)))
    second = Says(square(0, 0, 3), square(1, 1, 3))
    model = TwoStage(first, second)
    points = boxes((2, 4, 14, 16), (1, 18, 26, 34))
    logits, _ = model.predict(model.start(IMAGE, points), points)
    assert clicked(second.asked[0], 0, INSIDE) == [[8, 10]]
    assert clicked(second.asked[0], 1, INSIDE) == [[22, 22]]
    assert torch.equal(logits, second.logits)


def test_a_given_inside_point_is_shown_to_nobody_and_the_corners_to_both():
    first, second = Says(square(4, 6, 9)), Says(square(4, 6, 9))
    points = boxes((2, 4, 14, 16), inside=(30, 30))
    model = TwoStage(first, second)
    model.predict(model.start(IMAGE[:1], points), points)
    for seen in (*first.started, *first.asked, *second.started, *second.asked):
        assert [30.0, 30.0] not in seen.xy[0][seen.valid[0]].tolist()
        assert clicked(seen, 0, OUTSIDE) == [[2, 4], [2, 16], [14, 4], [14, 16]]
    assert not (first.asked[0].kinds == INSIDE).any()


def test_an_empty_first_mask_is_clicked_at_the_middle_of_the_box():
    second = Says(square(0, 0, 2), square(0, 0, 2))
    model = TwoStage(Says(torch.zeros(SIZE, SIZE), square(10, 10, 3)), second)
    model.start(IMAGE, boxes((2, 4, 15, 16), (9, 9, 13, 13)))
    assert clicked(second.started[0], 0, INSIDE) == [[8, 10]]
    assert clicked(second.started[0], 1, INSIDE) == [[11, 11]]


def test_the_threshold_is_of_the_first_models_probability():
    mask = square(4, 4, 20) * 0.55  # a probability of 0.6 or so
    mask[30:33, 30:33] = 1
    for threshold, place in ((0.5, [13, 13]), (0.9, [31, 31])):
        second = Says(square(0, 0, 2))
        TwoStage(Says(mask), second, threshold).start(IMAGE[:1], boxes((2, 2, 34, 34)))
        assert clicked(second.started[0], 0, INSIDE) == [place]


def test_the_first_model_runs_once_and_further_clicks_go_to_the_second():
    first, second = Says(square(4, 6, 9)), Says(square(4, 6, 9))
    model, points = TwoStage(first, second), boxes((2, 4, 14, 16))
    _, state = model.predict(model.start(IMAGE[:1], points), points)
    more = points.with_more(torch.tensor([[[5.0, 7.0]]]), torch.tensor([[POSITIVE]]))
    previous = torch.ones(1, 1, SIZE, SIZE)
    _, state = model.predict(state, more, previous)
    assert len(first.asked) == 1
    assert state.second == "2"
    assert second.previous is previous
    assert clicked(second.asked[1], 0, POSITIVE) == [[5, 7]]
    before = second.asked[0].xy.shape[1]  # only columns behind those of earlier calls are new
    assert torch.equal(second.asked[1].xy[:, :before], second.asked[0].xy)
    assert torch.equal(second.asked[1].kinds[:, :before], second.asked[0].kinds)


def test_an_object_without_a_box_is_refused():
    points = boxes((2, 4, 14, 16), (1, 18, 26, 34))
    points.kinds[1] = PointKind.PADDING
    with pytest.raises(ValueError, match="begins with a box, got an object without outside points"):
        TwoStage(Says(square(4, 6, 9)), Says(square(4, 6, 9))).start(IMAGE, points)


def test_padding_moves_no_middle_and_takes_no_place():
    points = boxes((2, 4, 15, 16), (10, 20, 10, 20))
    points.xy[0, 1:3] = 99.0
    points.kinds[0, 1:3] = PointKind.PADDING
    assert box_centres(points.of(OUTSIDE)).tolist() == [[15, 10], [10, 20]]  # of (15, 4) and (15, 16)
    whole = with_inside(points, torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    assert whole.kinds[0].tolist() == [
        INSIDE,
        PointKind.PADDING,
        PointKind.PADDING,
        PointKind.PADDING,
        OUTSIDE,
        OUTSIDE,
    ]
