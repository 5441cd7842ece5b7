"""What EXITS is taught at points, counted by hand on a grid of 4 x 4 nodes, and what four points say of an object."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.clicks.points import EXTREME_KINDS, PointKind, Points
from lightning_modules.point_retrieval import PointRetrieval, Retrieved
from lightning_modules.point_supervision import PointSupervision, box_areas, extreme_points_of, spanned
from lightning_modules.weak_losses import projection

LEFT, TOP, RIGHT, BOTTOM = EXTREME_KINDS
IDS = torch.tensor([7])
BOX = torch.zeros(1, 1, 8, 8)
BOX[..., 2:8, 2:8] = 1  # 3 x 3 nodes


def nodes(*at: int) -> Tensor:
    """(1, 16) bool with these nodes."""
    return torch.zeros(1, 16, dtype=torch.bool).index_fill_(1, torch.tensor(at, dtype=torch.int64), True)


def retrieved(foreground: tuple[int, ...] = (10,), background: tuple[int, ...] = (5, 15)) -> Retrieved:
    """Four seeds in the middle of the sides of the box, 7 nodes outside of it, and these points in between."""
    seeds, outside = nodes(6, 9, 11, 14), nodes(0, 1, 2, 3, 4, 8, 12)
    return Retrieved(
        seeds=seeds,
        outside=outside,
        inside=~(seeds | outside),
        foreground=nodes(*foreground),
        background=nodes(*background),
        score=torch.zeros(1, 16),
        found=torch.tensor([bool(foreground or background)]),
    )


def taught(found: Retrieved, probability: Tensor, epoch: int = 0, **options) -> float:
    """The loss of one object."""
    supervision = PointSupervision(PointRetrieval(), **{"dropout": 0.0, **options})
    (loss,) = supervision(found, probability, BOX, IDS, epoch).tolist()
    return loss


def dice_of_halves(object_nodes: int, known: int) -> float:
    """1 - 2 sum(p y) / (sum(p^2) + sum(y^2) + 0.002) where p is 0.5 at every node that is known."""
    return 1 - 2 * 0.5 * object_nodes / (0.25 * known + object_nodes + 0.002)


HALF = torch.full((1, 1, 8, 8), 0.5)
BY_BOX = float(projection(HALF, BOX))


def test_found_points_and_initial_ones_are_taught_together():
    assert taught(retrieved(), HALF) == pytest.approx(dice_of_halves(5, 14), abs=1e-6)


def test_a_prediction_that_is_right_at_all_points_has_no_loss_whatever_it_says_elsewhere():
    right = torch.full((1, 1, 8, 8), 0.7)
    for node, value in {
        **dict.fromkeys((6, 9, 10, 11, 14), 1.0),
        **dict.fromkeys((0, 1, 2, 3, 4, 5, 8, 12, 15), 0.0),
    }.items():
        y, x = divmod(node, 4)
        right[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = value
    assert taught(retrieved(), right) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_where_nothing_is_found_the_box_says_what_it_says_in_mal(weight):
    alone = dice_of_halves(4, 11)
    assert taught(retrieved((), ()), HALF, box_weight=weight) == pytest.approx(alone + weight * BY_BOX, abs=1e-6)


def test_initial_points_alone_always_have_the_box_beside_them():
    """Table 5: no propagated set, so that eq. 8's indicator is 1 for every object, whatever the walk would find."""
    expected = dice_of_halves(4, 11) + BY_BOX
    for found in (retrieved(), retrieved((), ())):
        for exact in (False, True):
            assert taught(found, HALF, taught="initial", exact=exact) == pytest.approx(expected, abs=1e-6)


def test_points_that_were_all_left_out_were_found_nevertheless():
    """The indicator asks what was found before the dropout: the box's loss stays away."""
    assert taught(retrieved(), HALF, dropout=1.0) == pytest.approx(dice_of_halves(4, 11), abs=1e-6)


def test_an_object_without_background_nodes_trains():
    everywhere = torch.ones(1, 1, 8, 8)
    found = replace(retrieved(tuple(range(16))[7:9], ()), outside=nodes())
    student = HALF.clone().requires_grad_()
    (loss,) = PointSupervision(PointRetrieval(), dropout=0.0)(found, student, everywhere, IDS, 0)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert float(loss) == pytest.approx(1 - 6 / (0.25 * 6 + 6.002), abs=1e-6)


def test_what_is_left_out_depends_on_seed_epoch_and_object_alone():
    found = retrieved((5, 7, 10, 13), (15,))
    several = [
        {"dropout": 0.5, "epoch": epoch, "seed": seed} for epoch, seed in ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1))
    ]
    losses = [taught(found, HALF, **options) for options in several]
    assert losses == [taught(found, HALF, **options) for options in several]
    assert len(set(losses)) > 1


@given(st.permutations(range(3)), st.integers(0, 9))
def test_an_object_s_loss_does_not_depend_on_which_others_share_its_batch(order, epoch):
    parts = [retrieved(), retrieved((), ()), retrieved((5, 7, 10, 13), (15,))]
    together = Retrieved(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})
    student = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(epoch))
    ids, boxes = torch.tensor([3, 4, 5]), BOX.expand(3, 1, 8, 8)
    supervision = PointSupervision(PointRetrieval(), dropout=0.5)
    losses = supervision(together, student, boxes, ids, epoch)
    shuffled = Retrieved(**{name: value[order] for name, value in vars(together).items()})
    torch.testing.assert_close(supervision(shuffled, student[order], boxes, ids[order], epoch), losses[order])
    assert ((losses >= 0) & (losses <= 3)).all()


def test_a_dropout_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"dropout of points must be between 0 and 1, got 9"):
        PointSupervision(PointRetrieval(), dropout=9)


# -- what four points say ----------------------------------------------------------------------------------------------


def points_of(*clicks: tuple[float, float, int], scale: tuple[float, float] = (1.0, 1.0)) -> Points:
    """The clicks of one object."""
    xy = torch.tensor([[[x, y] for x, y, _ in clicks]], dtype=torch.float32)
    return Points(xy, torch.tensor([[kind for *_, kind in clicks]]), torch.tensor([scale]))


DIAMOND = ((4.0, 20.0, LEFT), (18.0, 2.0, TOP), (40.0, 22.0, RIGHT), (16.0, 30.0, BOTTOM))


def test_the_area_of_a_box_is_counted_in_pixels_of_the_image():
    """A crop that shows the image twice as wide and four times as high has eight times the area."""
    assert box_areas(points_of(*DIAMOND)).tolist() == [36 * 28]
    assert box_areas(points_of(*DIAMOND, scale=(2.0, 4.0))).tolist() == [36 * 28 / 8]


def test_corners_of_a_box_say_its_area_and_further_clicks_do_not():
    corners = ((4.0, 2.0, PointKind.OUTSIDE), (40.0, 30.0, PointKind.OUTSIDE))
    more = ((0.0, 0.0, PointKind.NEGATIVE), (60.0, 60.0, PointKind.POSITIVE), (90.0, 90.0, PointKind.PADDING))
    assert box_areas(points_of(*corners, *more)).tolist() == [36 * 28]
    assert box_areas(points_of(*more, *DIAMOND)).tolist() == [36 * 28]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_extreme_points_come_as_left_top_right_bottom_in_whatever_order_they_lie(order):
    mixed = points_of((9.0, 9.0, PointKind.POSITIVE), *(DIAMOND[i] for i in order), (0.0, 0.0, PointKind.PADDING))
    assert extreme_points_of(mixed).tolist() == [[[x, y] for x, y, _ in DIAMOND]]


def test_four_points_on_one_pixel_span_a_box_without_area():
    one = points_of(*((5.0, 6.0, kind) for kind in EXTREME_KINDS))
    assert box_areas(one).tolist() == [0]
    assert spanned(one).low.tolist() == spanned(one).high.tolist() == [[5, 6]]


def test_three_extreme_points_are_refused_and_so_is_an_object_without_any():
    with pytest.raises(ValueError, match="EXITS begins with all four extreme points, got an object with fewer"):
        extreme_points_of(points_of(*DIAMOND[:3]))
    with pytest.raises(ValueError, match="spanned by extreme or outside points, got an object without any"):
        box_areas(points_of((3.0, 3.0, PointKind.POSITIVE)))


@given(st.integers(0, 2**31 - 1), st.sampled_from([32, 96]))
@settings(max_examples=40)
def test_a_box_of_exactly_a_border_s_size_has_exactly_its_area_wherever_the_crop_lies(seed, side):
    draw = np.random.default_rng(seed)
    scale = 192 / draw.uniform(side, 8 * side, 2)
    first = draw.uniform(0, 50, 2)
    last = first + side
    corners = [[first[0], first[1]], [last[0], first[1]], [last[0], last[1]], [first[0], last[1]]]
    xy = np.array(corners) * scale
    points = Points(
        torch.tensor(xy, dtype=torch.float32)[None],
        torch.tensor([list(map(int, EXTREME_KINDS))]),
        torch.tensor(scale, dtype=torch.float32)[None],
    )
    assert box_areas(points).tolist() == [side**2]
