from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.point_retrieval import (
    PointRetrieval,
    Retrieved,
    background_nodes,
    grid_of,
    inward,
    kept,
    nodes_of,
    point_loss,
    sinkhorn,
    transition,
    walk_scores,
)
from tests.conftest import GOLDEN, square

SEEDS = st.integers(0, 10**6)
GRID = (8, 8)
STRIDE = 4
SIDE = GRID[0] * STRIDE


@pytest.fixture(scope="module")
def exits() -> dict[str, NDArray]:
    """The walk in plain NumPy, float64."""
    with np.load(GOLDEN / "exits.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files if key.split("/")[0] in ("walk", "grid")}


def similarity_of(seed: int, nodes: int = 64, objects: int = 1) -> Tensor:
    """Rows as of an attention: positive, peaked, summing to 1."""
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(objects, nodes, nodes, generator=draw, dtype=torch.float64)).softmax(2)


def nodes(count: int, *at: int) -> Tensor:
    """(1, count) bool with these nodes."""
    return torch.zeros(1, count, dtype=torch.bool).index_fill_(1, torch.tensor(at, dtype=torch.int64), True)


@pytest.mark.parametrize("first", ["columns", "rows"])
@pytest.mark.parametrize("rounds", [1, 3, 10, 100])
def test_sinkhorn_is_the_golden_one(exits, first, rounds):
    answer = sinkhorn(torch.from_numpy(exits["walk/S"])[None], rounds, first)[0]
    name = f"walk/sinkhorn_{first.removesuffix('umns').removesuffix('s')}first_{rounds}"
    np.testing.assert_allclose(answer, exits[name], atol=1e-10)


def test_the_transition_matrix_is_the_golden_one(exits):
    np.testing.assert_allclose(transition(torch.from_numpy(exits["walk/S"])[None])[0], exits["walk/T"], atol=1e-10)


@pytest.mark.parametrize("alpha", [1, 2, 3])
@pytest.mark.parametrize("side", ["f", "b"])
def test_scores_of_the_walk_are_the_golden_ones(exits, alpha, side):
    seeds = nodes(12, *exits[f"walk/{side}g"])
    scores = walk_scores(torch.from_numpy(exits["walk/T"])[None], seeds, alpha)[0]
    np.testing.assert_allclose(scores, exits[f"walk/pi_{side}_alpha{alpha}"], atol=1e-10)


def golden_retrieval(exits) -> Retrieved:
    """The golden grid's cells are its pixels, and its thresholds are for as many nodes as it has."""
    top, left, bottom, right = torch.from_numpy(exits["grid/extreme_xy_tlbr"]).float()
    x0, y0, x1, y1 = exits["grid/box_xyxy_inclusive"]
    box = torch.from_numpy(square(12, (x0, y0), (y1 - y0 + 1, x1 - x0 + 1)))[None, None]
    points = torch.stack([left, top, right, bottom])[None]
    return PointRetrieval(delta=1, nodes=144)(torch.from_numpy(exits["grid/S"])[None], points, box)


def test_the_golden_grid_retrieves_its_points(exits):
    found = golden_retrieval(exits)
    for name, key in (("seeds", "fg"), ("outside", "bg"), ("foreground", "pseudo_fg"), ("background", "pseudo_bg")):
        assert sorted(exits[f"grid/idx_{key}"]) == getattr(found, name)[0].nonzero()[:, 0].tolist()
    np.testing.assert_allclose(found.score[0], exits["grid/pi_f"] - exits["grid/pi_b"], atol=1e-10)
    assert found.found.tolist() == [True]


def test_the_point_loss_of_the_golden_grid_is_its_own(exits):
    labels, labelled = kept(golden_retrieval(exits), 0, torch.tensor([1]), epoch=0, seed=0)
    assert torch.equal(labels.view(12, 12), torch.from_numpy(exits["grid/Y"]).float())
    assert torch.equal(labelled.view(12, 12), torch.from_numpy(exits["grid/K"]).float())
    loss = point_loss(torch.from_numpy(exits["grid/M"])[None, None], labels, labelled, (12, 12))
    assert loss.item() == pytest.approx(float(exits["grid/point_loss_no_dropout"]), abs=1e-6)


@given(SEEDS, st.integers(1, 5), st.sampled_from(["columns", "rows"]))
def test_the_sums_divided_by_last_are_one_and_a_walk_loses_little(seed, rounds, first):
    similarity = similarity_of(seed)
    last = {"columns": 2, "rows": 1}[first]
    np.testing.assert_allclose(sinkhorn(similarity, rounds, first).sum(last), 1, atol=1e-10)
    walks = transition(similarity, 100)
    assert torch.equal(walks, walks.mT)
    assert walk_scores(walks, nodes(64, 3, 40), 3).sum().item() == pytest.approx(1, abs=0.02)


@given(SEEDS)
def test_scores_do_not_depend_on_the_order_of_nodes(seed):
    similarity, seeds = similarity_of(seed), nodes(64, 5, 17, 60)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    scores = walk_scores(transition(similarity), seeds, 3)
    shuffled = walk_scores(transition(similarity[:, order][:, :, order]), seeds[:, order], 3)
    np.testing.assert_allclose(shuffled, scores[:, order], atol=1e-12)


@given(SEEDS, st.integers(0, 4))
def test_hops_of_vectors_are_the_power_of_the_matrix(seed, hops):
    walks, seeds = transition(similarity_of(seed)), nodes(64, 1, 2, 33)
    power = torch.linalg.matrix_power(walks[0], hops)
    np.testing.assert_allclose(walk_scores(walks, seeds, hops)[0], power[[1, 2, 33]].mean(0), atol=1e-12)


def test_a_walk_without_seeds_is_nowhere_and_sets_may_come_together():
    walks = transition(similarity_of(0, objects=2))
    seeds = torch.stack([torch.cat([nodes(64, 4), nodes(64, 9)]), torch.cat([nodes(64), nodes(64, 1, 2)])], dim=1)
    together = walk_scores(walks, seeds, 3)
    assert not together[0, 1].any()
    for k in range(2):
        np.testing.assert_allclose(together[:, k], walk_scores(walks, seeds[:, k], 3), atol=1e-15)


def test_half_precision_is_walked_in_single_under_autocast_too():
    similarity = similarity_of(2).half()
    with torch.autocast("cpu", torch.bfloat16):
        scores = walk_scores(transition(similarity), nodes(64, 4), 3)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, walk_scores(transition(similarity.double()), nodes(64, 4), 3), atol=1e-6)


def test_extreme_points_move_into_the_object_and_y_points_down():
    points = torch.tensor([[[4.0, 20.0], [18.0, 2.0], [40.0, 22.0], [16.0, 30.0]]])
    assert inward(points, 3).tolist() == [[[7, 20], [18, 5], [37, 22], [16, 27]]]


def test_opposite_points_meet_and_do_not_cross():
    thin = torch.tensor([[[10.0, 20.0], [12.0, 2.0], [13.0, 22.0], [11.0, 40.0]]])
    moved = inward(thin, 8)
    assert moved[0, 0].tolist() == [11.5, 20]
    assert moved[0, 2].tolist() == [11.5, 22]
    assert (moved[0, 1, 1], moved[0, 3, 1]) == (10, 32)
    one = torch.full((1, 4, 2), 7.0)
    assert torch.equal(inward(one, 8), one)


def test_a_point_belongs_to_the_cell_of_its_pixel_and_points_beyond_to_the_border():
    points = torch.tensor([[[0.0, 0.0], [15.0, 16.0], [16.0, 15.0], [15.4, 15.4], [-9.0, 99.0], [99.0, 31.0]]])
    assert nodes_of(points, (2, 2), 16)[0].tolist() == [True, True, True, True]
    assert nodes_of(points[:, [0, 3]], (2, 2), 16)[0].tolist() == [True, False, False, False]
    assert nodes_of(points[:, 4:5], (2, 2), 16)[0].tolist() == [False, False, True, False]


def test_a_node_is_background_when_no_pixel_of_its_cell_is_in_the_box():
    box = torch.from_numpy(square(16, (4, 4), (4, 5))).float()[None, None]  # one pixel of a further column
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[1, 1:3] = False
    assert torch.equal(background_nodes(box, (4, 4)).view(4, 4), expected)
    box[0, 0, 15, 0] = 1e-3  # a part that the crop wrapped round
    expected[3, 0] = False
    assert torch.equal(background_nodes(box, (4, 4)).view(4, 4), expected)


def example(seed: int, margin: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """A similarity, four extreme points of whole pixels and their box, in a crop of 8 x 8 cells."""
    draw = np.random.default_rng(seed)
    low, high = margin, SIDE - 1 - margin
    x, y = draw.integers(low, high + 1, (2, 4))
    x[0], y[1], x[2], y[3] = low, low, high, high
    box = torch.from_numpy(square(SIDE, (low, low), high - low + 1))[None, None].float()
    return similarity_of(seed), torch.from_numpy(np.stack([x, y], axis=1))[None].float(), box


@given(SEEDS)
@settings(max_examples=30)
def test_a_flipped_crop_retrieves_the_flipped_points(seed):
    similarity, points, box = example(seed)
    retrieval = PointRetrieval(delta=2 / (SIDE // 8))
    flip = torch.arange(64).view(GRID).flip(1).flatten()
    mirrored = points[:, [2, 1, 0, 3]] * torch.tensor([-1, 1]) + torch.tensor([SIDE - 1, 0])
    straight = retrieval(similarity, points, box)
    flipped = retrieval(similarity[:, flip][:, :, flip], mirrored, box.flip(3))
    for field in fields(Retrieved):
        one, other = getattr(straight, field.name), getattr(flipped, field.name)
        np.testing.assert_allclose(other, one if field.name == "found" else one[:, flip], atol=1e-12)


@given(SEEDS, st.floats(0, 1), st.booleans())
@settings(max_examples=30)
def test_what_is_labelled_contains_the_labels_and_sets_are_disjoint(seed, rate, exact):
    found = PointRetrieval(delta=2 / (SIDE // 8))(*example(seed))
    sets = torch.stack([found.seeds, found.outside, found.inside]).sum(0)
    assert (sets == 1).all()
    assert not (found.foreground & found.background).any()
    assert not ((found.foreground | found.background) & ~found.inside).any()
    labels, labelled = kept(found, rate, torch.tensor([seed]), 0, 0, exact)
    assert (labelled >= labels).all()
    assert (labels[found.seeds] == 1).all()
    assert (labelled[found.seeds | found.outside] == 1).all()
    assert not labels[found.outside | found.background].any()


def test_a_similarity_of_two_groups_retrieves_the_group_of_its_seeds():
    """Nodes of the object attend to each other, all others among themselves; the box holds both."""
    object_ = torch.zeros(GRID, dtype=torch.bool)
    object_[2:6, 2:4] = object_[2:4, 2:6] = True
    group = object_.flatten()
    similarity = (6 * (group[:, None] == group).double()).softmax(1)[None]
    points = torch.tensor([[[8.0, 18.0], [18.0, 8.0], [23.0, 10.0], [10.0, 23.0]]])
    box = torch.from_numpy(square(SIDE, (8, 8), 16))[None, None]
    found = PointRetrieval(delta=2 / (SIDE // 8))(similarity, points, box)
    assert torch.equal((found.seeds | found.foreground)[0], object_.flatten())
    assert torch.equal(found.background[0], ~object_.flatten() & ~found.outside[0])
    labels, labelled = kept(found, 0, torch.tensor([5]), 0, 0)
    mask = torch.kron(labels.view(1, 1, *GRID), torch.ones(2, 2))
    assert point_loss(mask, labels, labelled, GRID).item() == pytest.approx(0, abs=1e-3)
    assert point_loss(1 - mask, labels, labelled, GRID).item() == pytest.approx(1)


def test_an_object_that_fills_its_crop_has_no_background_nodes_and_only_pseudo_foreground():
    similarity, points, _ = example(1, margin=0)
    found = PointRetrieval(delta=2 / (SIDE // 8))(similarity, points, torch.ones(1, 1, SIDE, SIDE))
    assert not found.outside.any()
    assert not found.background.any()
    assert found.found.all()
    np.testing.assert_allclose(found.score, walk_scores(transition(similarity), found.seeds, 3), atol=1e-15)


def test_thresholds_are_shares_of_a_uniform_score():
    """With n nodes a uniform node scores 1 / n: tau_foreground of 1024 nodes is one and a bit."""
    uniform = torch.full((1, 64, 64), 1 / 64)
    points, box = torch.full((1, 4, 2), 16.0), torch.ones(1, 1, SIDE, SIDE)
    assert not PointRetrieval()(uniform, points, box).found.any()
    found = PointRetrieval(tau_foreground=0.97e-3)(uniform, points, box)
    assert torch.equal(found.foreground, found.inside)


def many(objects: int = 64, count: int = 100) -> Retrieved:
    """Of every object 40 pseudo foreground, 50 pseudo background points, 4 seeds and 6 nodes outside."""
    at = torch.arange(count).expand(objects, -1)
    found, none = torch.ones(objects, dtype=torch.bool), torch.zeros(objects, count)
    sets = {"seeds": at < 4, "outside": at >= 94, "inside": (at >= 4) & (at < 94)}
    return Retrieved(
        **sets, foreground=(at >= 4) & (at < 44), background=sets["inside"] & (at >= 44), score=none, found=found
    )


def test_point_dropout_keeps_the_share_that_it_says():
    labels, labelled = kept(many(), 0.9, torch.arange(64), 3, 7)
    assert labels[:, 4:].mean() / 0.4 * 0.96 == pytest.approx(0.1, abs=0.02)
    assert (labelled - labels)[:, 44:94].mean() == pytest.approx(0.1, abs=0.02)
    assert len({tuple(row.tolist()) for row in labelled}) == 64


def test_an_exact_share_is_one_of_every_object_and_of_each_kind():
    labels, labelled = kept(many(), 0.9, torch.arange(64), 3, 7, exact=True)
    assert (labels[:, 4:44].sum(1) == 4).all()
    assert (labelled[:, 44:94].sum(1) == 5).all()
    none, all_ = (kept(many(), rate, torch.arange(64), 3, 7, exact=True)[1] for rate in (1, 0))
    assert not none[:, 4:94].any()
    assert all_.all()


@pytest.mark.parametrize("exact", [False, True])
def test_dropout_depends_on_seed_epoch_and_object_alone(exact):
    ids = torch.arange(64) + 2**60
    points = many()
    labels, labelled = kept(points, 0.5, ids, 3, 7, exact)
    part = Retrieved(**{field.name: getattr(points, field.name)[20:30].flip(0) for field in fields(points)})
    again = kept(part, 0.5, ids[20:30].flip(0), 3, 7, exact)
    assert torch.equal(again[0], labels[20:30].flip(0))
    assert torch.equal(again[1], labelled[20:30].flip(0))
    for epoch, seed in ((4, 7), (3, 8)):
        assert not torch.equal(kept(points, 0.5, ids, epoch, seed, exact)[1], labelled)


def test_unlabelled_nodes_and_dropped_points_carry_no_gradient():
    labels, labelled = kept(many(2), 0.9, torch.arange(2), 0, 0)
    probability = torch.full((2, 1, 20, 20), 0.4, requires_grad=True)
    point_loss(probability, labels, labelled, (10, 10)).sum().backward()
    cells = probability.grad.view(2, 10, 2, 10, 2).abs().amax((2, 4)).flatten(1)
    assert torch.equal(cells > 0, labelled > 0)


def test_the_mask_is_averaged_over_a_cell_or_read_in_its_middle():
    probability = torch.zeros(1, 1, 8, 8)
    probability[..., 0, 0] = 1  # a corner of the first cell of 4 x 4
    labels, labelled = nodes(4, 0).float(), torch.ones(1, 4)
    assert point_loss(probability, labels, labelled, (2, 2)).item() == pytest.approx(1 - 2 / 16 / (1 + 1 / 256 + 2e-3))
    assert point_loss(probability, labels, labelled, (2, 2), "bilinear").item() == pytest.approx(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer": -1},
        {"rounds": -1},
        {"alpha": 0},
        {"delta": -1.0},
        {"nodes": 0},
        {"first": "both"},
        {"tau_background": 0.1},
    ],
)
def test_settings_that_make_no_retrieval_are_refused(wrong):
    with pytest.raises(ValueError, match=r"from 1|one of|must lie below"):
        PointRetrieval(**wrong)


def test_bad_input_is_refused_in_words():
    similarity, points, box = example(0)
    retrieval = PointRetrieval()
    with pytest.raises(ValueError, match="leave the class token out"):
        retrieval(similarity[:, 1:], points, box)
    with pytest.raises(ValueError, match="another crop or patch size"):
        retrieval(similarity, points, box[..., :-2])
    with pytest.raises(ValueError, match="left, top, right, bottom"):
        retrieval(similarity, points[:, :3], box)
    with pytest.raises(ValueError, match="whole cells"):
        background_nodes(box, (5, 5))
    with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
        kept(retrieval(similarity, points, box), 90, torch.tensor([1]), 0, 0)
    with pytest.raises(ValueError, match="on a grid of"):
        point_loss(box, torch.zeros(1, 4), torch.zeros(1, 4), GRID)
    with pytest.raises(ValueError, match="by one of"):
        point_loss(box, torch.zeros(1, 64), torch.zeros(1, 64), GRID, "nearest")
    assert grid_of(1024, (512, 512)) == ((32, 32), 16)
    assert grid_of(8, (32, 64)) == ((2, 4), 16)


def test_a_cell_that_the_box_cuts_lies_outside_only_where_less_than_half_of_it_is_inside():
    box = torch.zeros(1, 1, 8, 8)
    box[..., :5] = 1  # of two cells of 4 x 4 across: the first whole, a quarter of the second
    assert background_nodes(box, (2, 2)).tolist() == [[False, False, False, False]]
    assert background_nodes(box, (2, 2), "half").tolist() == [[False, True, False, True]]
    with pytest.raises(ValueError, match=r"one of .*got 'corner'"):
        PointRetrieval(outside="corner")
