"""Which cells of SOLOv2's grids answer for which objects: golden arrays, masks drawn by hand, and shifts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.solo_targets import SoloTargets, centres_of_mass, quarter_masks, solo_targets
from tests.conftest import GOLDEN, square

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """What the published code answered; two public implementations agree on it."""
    with np.load(GOLDEN / "stage2.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("tgt")}


def targets_of(
    masks, labels=None, boxes=None, grids=(8,), ranges=((1, 2048),), num_classes=3, **options
) -> SoloTargets:
    masks = torch.from_numpy(np.stack(masks)) if isinstance(masks, list) else masks
    if boxes is None:
        boxes = torch.stack([box_of(mask) for mask in masks])
    labels = torch.arange(len(masks)) if labels is None else torch.tensor(labels)
    return solo_targets(masks, boxes, labels, num_classes, grids, ranges, **options)


def box_of(mask: torch.Tensor) -> torch.Tensor:
    y, x = mask.nonzero().T
    return torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


def grid_of(targets: SoloTargets, side: int = 8) -> list[list[int]]:
    return targets.classes.view(side, side).tolist()


@pytest.mark.parametrize("case", ["tgt", "tgt2"])
def test_targets_are_those_of_the_published_code(golden, case):
    masks, boxes, labels = (golden[f"{case}_{name}"] for name in ("masks", "boxes", "labels"))
    targets = solo_targets(masks, boxes, labels, 3, GRIDS, RANGES)
    begin = 0
    for level, side in enumerate(GRIDS):
        own = (targets.cells >= begin) & (targets.cells < begin + side**2)
        cells, classes = targets.cells[own] - begin, targets.classes[begin : begin + side**2]
        assert torch.equal(cells, golden[f"{case}_order_l{level}"])
        assert torch.equal(classes.view(side, side), golden[f"{case}_cate_l{level}"])
        assert torch.equal(classes < 3, golden[f"{case}_ind_l{level}"])
        assert torch.equal(targets.masks[targets.objects[own]], golden[f"{case}_ins_l{level}"].bool())
        begin += side**2
    assert begin == len(targets.classes)


def test_centres_of_mass_are_those_of_the_published_code(golden):
    centre, area = centres_of_mass(golden["tgt_masks"])
    torch.testing.assert_close(centre[:, 0].float(), golden["tgt_center_x"])
    torch.testing.assert_close(centre[:, 1].float(), golden["tgt_center_y"])
    assert area.tolist() == golden["tgt_masks"].flatten(1).sum(1).tolist()


def test_a_pixel_s_centre_is_its_index_without_a_half():
    centre, area = centres_of_mass(torch.from_numpy(square(8, (3, 5), 1))[None])
    assert (centre.tolist(), area.tolist()) == ([[3, 5]], [1])


def test_places_are_divided_by_the_padded_size():
    """An object around 47.5 lies in the third of four columns over 64 pixels, in the second of four over 128."""
    object_ = square(64, (47, 47), 2)
    padded = np.pad(object_, ((0, 0), (0, 64)))
    assert targets_of([object_], grids=(4,)).cells.tolist() == [2 * 4 + 2]
    assert targets_of([padded], grids=(4,)).cells.tolist() == [2 * 4 + 1]


def test_an_object_takes_at_most_three_by_three_cells_though_its_region_is_larger():
    """A region of 0.8 of a box of 48 pixels reaches over five cells of 8 pixels."""
    targets = targets_of([square(64, (8, 8), 48)], region=0.8)  # centre 31.5, cell 3
    rows = [[3] * 8] * 2 + [[3, 3, 0, 0, 0, 3, 3, 3]] * 3 + [[3] * 8] * 3
    assert grid_of(targets) == rows


def test_the_region_is_a_fifth_of_the_annotated_box_around_the_mask_s_centre():
    """A tiny mask in the middle of a large annotated box: a tenth of 40 x 10 pixels to each side of (32, 32)."""
    mask, box = square(64, (32, 32), 1), torch.tensor([[12.0, 27, 52, 37]])
    targets = targets_of([mask], boxes=box, num_classes=1)
    assert [divmod(cell, 8) for cell in targets.cells.tolist()] == [(row, x) for row in (3, 4) for x in (3, 4)]
    assert targets_of([mask], boxes=box, region=0.0).cells.tolist() == [4 * 8 + 4]


def test_the_region_ends_at_the_grid():
    targets = targets_of([square(64, (0, 0), (4, 64))], region=1.0)
    assert grid_of(targets)[0] == [3, 3, 0, 0, 0, 3, 3, 3]
    assert len(targets.cells) == 3


@pytest.mark.parametrize(("side", "levels"), [(47, [0]), (48, [0, 1]), (96, [0, 1, 2]), (97, [1, 2]), (192, [1, 2, 3])])
def test_both_ends_of_a_range_of_scales_belong_to_it(side, levels):
    targets = targets_of([square(256, (10, 10), side)], grids=(4, 4, 4, 4, 4), ranges=RANGES)
    assert sorted({cell // 16 for cell in targets.cells.tolist()}) == levels


def test_the_scale_is_that_of_the_box_and_not_of_the_mask():
    mask = square(128, (60, 60), 2)
    targets = targets_of([mask], boxes=torch.tensor([[0.0, 0, 120, 120]]), grids=(4, 4), ranges=((1, 64), (64, 256)))
    assert all(cell >= 16 for cell in targets.cells.tolist())


def test_an_object_above_all_ranges_is_nowhere():
    targets = targets_of([square(64, (0, 0), 64)], ranges=((1, 63),))
    assert len(targets.cells) == 0
    assert (targets.classes == 3).all()


def test_later_objects_take_cells_from_earlier_ones_but_both_keep_their_mask():
    large, small = square(64, (16, 16), 32), square(64, (26, 26), 6)
    targets = targets_of([large, small], labels=[2, 1])  # around 31.5 and 28.5, cells of 8 pixels
    assert targets.cells.tolist() == [27, 28, 35, 36, 27]
    assert targets.objects.tolist() == [0, 0, 0, 0, 1]
    assert targets.classes[[27, 28, 35, 36]].tolist() == [1, 2, 2, 2]
    assert targets_of([small, large], labels=[1, 2]).classes[27] == 2


def test_an_object_without_mask_is_none_and_moves_no_other():
    empty, object_ = square(64, (0, 0), 0), square(64, (28, 28), 8)
    boxes = torch.tensor([[20.0, 20, 40, 40], [28, 28, 36, 36]])
    targets = targets_of([empty, object_], labels=[0, 2], boxes=boxes)
    assert targets.objects.tolist() == [1] * len(targets.cells)
    assert targets.classes[targets.cells].tolist() == [2] * len(targets.cells)


def test_an_image_without_objects_is_all_background():
    targets = solo_targets(
        torch.zeros(0, 64, 96, dtype=torch.uint8),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        3,
        GRIDS,
        RANGES,
    )
    assert [len(part) for part in targets] == [sum(side**2 for side in GRIDS), 0, 0, 0]
    assert (targets.classes == 3).all()
    assert targets.masks.shape == (0, 16, 24)


def test_half_of_a_quarter_s_sample_counts_as_object():
    """The four inner pixels of each 4 x 4: two of them are enough, one is not, and the outer twelve do not count."""
    mask = torch.zeros(1, 4, 16, dtype=torch.uint8)
    mask[0, 1, 1:3] = 1
    mask[0, 1, 5] = 1
    mask[0, 0, 8:12] = 1
    mask[0, 1, 13] = mask[0, 2, 14] = 1
    assert quarter_masks(mask).tolist() == [[[True, False, False, True]]]
    assert torch.equal(quarter_masks(mask), quarter_masks(mask.bool()))


@given(st.integers(0, 2**32 - 1))
def test_a_quarter_is_the_bilinear_sample_of_at_least_one_half(seed):
    masks = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (2, 16, 24), np.uint8))
    sampled = torch.nn.functional.interpolate(masks[None].float(), scale_factor=0.25, mode="bilinear")[0]
    assert torch.equal(quarter_masks(masks), sampled >= 0.5)


boxes_ = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 24), st.integers(1, 24))


@given(st.lists(boxes_, min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 3))
def test_targets_move_with_a_shift_of_whole_cells(drawn, right, down):
    """Cells of 16 pixels, in the middle of a grid of 16, where no border cuts a region."""
    masks = [np.pad(square(64, (x, y), (height, width)), 96) for x, y, height, width in drawn]
    moved = [np.roll(mask, (16 * down, 16 * right), (0, 1)) for mask in masks]
    still, gone = (targets_of(each, num_classes=4, grids=(16,), region=1.0) for each in (masks, moved))
    assert torch.equal(still.objects, gone.objects)
    assert torch.equal(still.cells + 16 * down + right, gone.cells)
    expected = torch.roll(still.classes.view(16, 16), (down, right), (0, 1))
    assert torch.equal(expected, gone.classes.view(16, 16))


@given(st.lists(boxes_, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_each_object_has_the_same_cells_in_any_company(drawn, random):
    masks = [square(64, (x, y), (height, width)) for x, y, height, width in drawn]
    order = list(range(len(masks)))
    random.shuffle(order)
    together = targets_of([masks[i] for i in order], num_classes=5, grids=(8, 4), ranges=((1, 12), (8, 99)))
    for place, i in enumerate(order):
        alone = targets_of([masks[i]], num_classes=5, grids=(8, 4), ranges=((1, 12), (8, 99)))
        assert torch.equal(together.cells[together.objects == place], alone.cells)


@given(st.integers(1, 60), st.integers(1, 7))
def test_a_centre_between_two_cells_belongs_to_the_second(side, cell):
    """Exactly: 3 / (1 / S) and the like would round some of them down."""
    mask = np.zeros((4, 8 * side), np.uint8)
    mask[:, cell * side] = 1
    assert targets_of([mask], region=0.0).cells[0] % 8 == cell
