"""Where training clicks come from: one per object and epoch from its own errors, through any flip and crop."""

from __future__ import annotations

import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from datamodules import geometry
from datamodules.batch import Batch, Sample, collate
from datamodules.clicks.guidance import SignedGaussians
from datamodules.clicks.points import PointKind
from lightning_modules.iterative import EpochMemory, FreshClicks, WithinBatch
from lightning_modules.itis import ITIS
from tests.conftest import disc, ellipse, square

SIZE = (60, 80)
BLOB = ellipse(SIZE, (40, 30), (18, 12), 20)
WHOLE = np.eye(2, 3)
POSITIVE, NEGATIVE = int(PointKind.POSITIVE), int(PointKind.NEGATIVE)
CENTRE = [(40, 30, POSITIVE)]


def window(x=0.0, y=0.0, zoom=1.0, *, flipped=False, size=SIZE):
    """From an image of `size` to a crop that begins at (x, y) of the (flipped) image, `zoom` crop pixels per pixel."""
    first = geometry.flip_matrix(size[1]) if flipped else WHOLE
    return geometry.after(np.array([[zoom, 0, -x * zoom], [0, zoom, -y * zoom]]), first)


def batch_of(masks, to_crop=WHOLE, *, ids=None, size=SIZE, clicks=CENTRE, void=None) -> Batch:
    """Objects, each a full-size mask, seen through `to_crop` on a crop of `size`; `clicks` are fresh (x, y, kind)."""
    samples = []
    for i, mask in enumerate(masks):
        xy = np.array([click[:2] for click in clicks], np.float32).reshape(-1, 2)
        samples.append(
            Sample(
                image=np.zeros((*size, 3), np.uint8),
                mask=geometry.warp(mask, to_crop, size, "nearest"),
                void=np.zeros(size, np.uint8) if void is None else geometry.warp(void, to_crop, size, "nearest"),
                points=xy,
                point_kinds=np.array([click[2] for click in clicks], np.int64),
                to_crop=to_crop,
                crop_box=np.array([0, 0, size[1] - 1, size[0] - 1]),
                box=np.array([0, 0, 1, 1]),
                image_size=mask.shape,
                object_id=i + 1 if ids is None else ids[i],
            )
        )
    return collate(samples)


def logits_of(*predictions) -> Tensor:
    """Logits (B, 1, H, W) that say exactly these masks."""
    return torch.from_numpy(np.stack(predictions).astype(np.float32))[:, None] - 0.5


def no_segment(image, points, masks):
    raise AssertionError("a memory of epochs needs no forward pass of its own")


def step(iteration, batch, epoch, *predictions):
    """One training step: what the forward pass began with, and what it said remembered."""
    start = iteration.before(batch, epoch, 0, no_segment)
    iteration.after(batch, start, logits_of(*predictions), epoch)
    iteration.settle()
    return start


def shown(start, i=0):
    """The clicks of an object as [(x, y, kind)], without padding."""
    valid = start.points.valid[i]
    return [(*xy, kind) for xy, kind in zip(start.points.xy[i][valid].tolist(), start.points.kinds[i][valid].tolist())]


def remembered(memory, object_id=1):
    (held,) = memory.memory.recall(np.array([object_id]))
    return held


def never(**more) -> EpochMemory:
    """A memory whose coin lets nobody begin anew."""
    return EpochMemory(reset_probability=0.0, **more)


NOTHING = np.zeros(SIZE, np.uint8)


# -- one click per epoch, on the error --------------------------------------------------------------------------------


def test_an_object_that_never_begins_anew_gains_one_click_per_epoch():
    memory, before = never(), []
    for epoch in range(8):
        start = step(memory, batch_of([BLOB]), epoch, NOTHING)
        clicks = shown(start)
        assert len(clicks) == 1 + epoch
        assert clicks[: len(before)] == before
        before = clicks


@pytest.mark.parametrize("seed", range(6))
def test_a_click_lies_on_the_error_of_the_pass_that_made_it_and_tells_its_sign(seed):
    draw, memory = np.random.default_rng(seed), never(seed=seed)
    prediction = None
    for epoch in range(4):
        said = disc(SIZE, tuple(draw.integers(15, 45, 2)), int(draw.integers(8, 14)))
        start = step(memory, batch_of([BLOB]), epoch, said)
        if prediction is not None:
            x, y, kind = shown(start)[-1]
            assert BLOB[int(y), int(x)] != prediction[int(y), int(x)]
            assert kind == (POSITIVE if BLOB[int(y), int(x)] else NEGATIVE)
        prediction = said


def test_void_is_never_an_error_and_a_right_mask_adds_no_click():
    void = 1 - BLOB
    memory = never()
    step(memory, batch_of([BLOB], void=void), 0, np.ones(SIZE))  # wrong where nobody labelled
    assert shown(step(memory, batch_of([BLOB], void=void), 1, BLOB)) == [(40.0, 30.0, POSITIVE)]
    assert len(remembered(memory).kinds) == 1


def test_objects_of_a_batch_keep_apart_and_shorter_lists_are_padded():
    other = square(SIZE, top_left=(4, 4), side=20)
    memory = never()
    step(memory, batch_of([BLOB, other]), 0, BLOB, NOTHING)
    start = step(memory, batch_of([other, BLOB], ids=[2, 1]), 1, other, BLOB)
    assert start.points.xy.shape[:2] == start.points.kinds.shape == (2, 2)
    (_, _, added), (x, y, kind) = shown(start)
    assert (added, kind) == (POSITIVE, POSITIVE)
    assert other[int(y), int(x)]
    assert shown(start, 1) == [(40.0, 30.0, POSITIVE)]


def test_an_object_may_begin_without_clicks():
    memory = never()
    assert shown(step(memory, batch_of([BLOB], clicks=[]), 0, BLOB)) == []
    assert shown(step(memory, batch_of([BLOB], clicks=[]), 1, NOTHING)) == []
    assert len(shown(step(memory, batch_of([BLOB], clicks=[]), 2, NOTHING))) == 1


def test_an_object_without_pixels_in_the_crop_can_have_negative_clicks():
    memory = never()
    step(memory, batch_of([NOTHING], clicks=[]), 0, BLOB)
    ((x, y, kind),) = shown(step(memory, batch_of([NOTHING], clicks=[]), 1, NOTHING))
    assert kind == NEGATIVE
    assert BLOB[int(y), int(x)]


def test_objects_without_finite_logits_keep_their_old_state_and_so_do_those_nobody_saw():
    memory = never()
    step(memory, batch_of([BLOB] * 3), 0, NOTHING, NOTHING, NOTHING)
    before = memory.memory.recall(np.array([1, 2, 3]))
    batch = batch_of([BLOB] * 3, ids=[1, 2, 9])
    start = memory.before(batch, 1, 0, no_segment)
    logits = logits_of(NOTHING, NOTHING, NOTHING)
    logits[0, 0, 3, 3], logits[2, 0, 0, 0] = torch.nan, torch.inf
    memory.after(batch, start, logits, 1)
    memory.settle()
    after = memory.memory.recall(np.array([1, 2, 3]))
    for old, new in ((before[0], after[0]), (before[2], after[2])):
        np.testing.assert_array_equal(old.xy, new.xy)
    assert len(after[1].kinds) == len(before[1].kinds) + 1
    assert memory.memory.epochs([1, 2, 3, 9]).tolist() == [0, 1, 0, -1]


# -- beginning anew ---------------------------------------------------------------------------------------------------


def test_three_in_ten_objects_begin_anew_in_each_epoch_and_not_always_the_same():
    memory = EpochMemory(seed=3)
    ids = np.random.default_rng(0).integers(2**62, size=3000)
    first, second = (np.array([memory.resets(int(i), epoch) for i in ids]) for epoch in (1, 2))
    for coin in (first, second):
        assert coin.mean() == pytest.approx(0.3, abs=0.03)  # four standard deviations
    assert (first & second).mean() == pytest.approx(0.09, abs=0.025)
    assert (np.array([EpochMemory(seed=4).resets(int(i), 1) for i in ids]) != first).any()


def test_the_released_codes_coin_picks_the_same_objects_in_every_epoch():
    memory = EpochMemory(coin="once")
    picked = [[memory.resets(i, epoch) for i in range(1000)] for epoch in range(4)]
    assert picked[0] == picked[1] == picked[2] == picked[3]
    assert np.mean(picked[0]) == pytest.approx(0.3, abs=0.06)
    masks, ids = [BLOB] * 8, list(range(8))
    for epoch in range(3):
        start = step(memory, batch_of(masks, ids=ids), epoch, *[NOTHING] * 8)
    lengths = {i: len(shown(start, i)) for i in ids}
    assert lengths == {i: 1 if picked[0][i] else 3 for i in ids}
    assert set(lengths.values()) == {1, 3}


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 5), (1.0, 1)])
def test_an_object_that_begins_anew_has_the_simulated_clicks_alone(probability, expected):
    memory = EpochMemory(reset_probability=probability)
    for epoch in range(5):
        start = step(memory, batch_of([BLOB]), epoch, NOTHING)
    assert len(shown(start)) == expected


def test_clicks_grow_again_after_a_new_start():
    memory, previous = EpochMemory(seed=0), 0
    resets = [memory.resets(1, epoch) for epoch in range(12)]
    assert 0 < sum(resets[1:]) < 11
    for epoch in range(12):
        count = len(shown(step(memory, batch_of([BLOB]), epoch, NOTHING)))
        assert count == (1 if resets[epoch] else previous + 1)
        previous = count


def test_order_and_batching_do_not_change_what_is_remembered():
    draw = np.random.default_rng(0)
    masks = {i: disc(SIZE, tuple(draw.integers(20, 40, 2)), int(draw.integers(8, 14))) for i in range(1, 7)}
    said = {(i, e): disc(SIZE, tuple(draw.integers(20, 40, 2)), 11) for i in masks for e in range(4)}

    def trained(batches):
        memory = EpochMemory(seed=2)
        for epoch in range(4):
            for ids in batches(epoch):
                batch = batch_of([masks[i] for i in ids], ids=ids)
                step(memory, batch, epoch, *[said[i, epoch] for i in ids])
        memory.gather()
        return memory.state_dict()

    one = trained(lambda epoch: [[1, 2, 3], [4, 5, 6]])
    other = trained(lambda epoch: [[6, 2], [5], [3, 1, 4]] if epoch % 2 else [[4], [3], [2, 6, 5, 1]])
    for name, column in one.items():
        torch.testing.assert_close(column, other[name], rtol=0, atol=0)


def test_a_memory_read_from_a_checkpoint_goes_on_alike():
    memory, again = EpochMemory(seed=5), EpochMemory(seed=5)
    for epoch in range(3):
        step(memory, batch_of([BLOB, BLOB]), epoch, NOTHING, NOTHING)
    memory.gather()
    again.load_state_dict(memory.state_dict())
    for epoch in range(3, 6):
        one, other = (step(m, batch_of([BLOB, BLOB]), epoch, NOTHING, NOTHING) for m in (memory, again))
        assert [shown(one, i) for i in (0, 1)] == [shown(other, i) for i in (0, 1)]
    with pytest.raises(ValueError, match="click memory"):
        EpochMemory(masks=True).load_state_dict(memory.state_dict())


# -- through flips, windows and scales --------------------------------------------------------------------------------

VIEWS = st.builds(window, x=st.floats(-10, 30), y=st.floats(-10, 20), zoom=st.floats(0.4, 2.5), flipped=st.booleans())
FULL_HD = (1080, 1920)


@given(VIEWS, VIEWS)
def test_a_click_lands_on_the_same_place_of_the_image_in_another_view(first, second):
    memory = never()
    start = step(memory, batch_of([BLOB], first, clicks=[(35, 25, POSITIVE)]), 0, BLOB)
    place = geometry.apply(cv2.invertAffineTransform(first), np.array([[35.0, 25.0]]))
    there = geometry.apply(second, place)[0]
    assume((there > 0).all() and (there < np.array(SIZE[::-1]) - 1).all())
    start = memory.before(batch_of([BLOB], second), 1, 0, no_segment)
    x, y, kind = shown(start)[0]
    assert kind == POSITIVE
    assert x == round(x)
    assert y == round(y)
    assert np.abs(np.array([x, y]) - there).max() <= 0.5 + 1e-3  # on the pixel it falls in


def test_a_flip_takes_a_corrective_click_along():
    memory = never()
    step(memory, batch_of([BLOB], clicks=[]), 0, NOTHING)
    ((x, y, _),) = shown(memory.before(batch_of([BLOB], clicks=[]), 1, 0, no_segment))
    ((mirrored, same, _),) = shown(memory.before(batch_of([BLOB], window(flipped=True), clicks=[]), 1, 0, no_segment))
    assert (mirrored, same) == (SIZE[1] - 1 - x, y)


def test_clicks_outside_of_a_window_are_hidden_and_come_back():
    memory, away = never(), window(x=60, y=0)
    step(memory, batch_of([BLOB], clicks=[(40, 30, POSITIVE), (70, 5, NEGATIVE)]), 0, BLOB)
    start = step(memory, batch_of([BLOB], away), 1, NOTHING)
    assert shown(start) == [(10.0, 5.0, NEGATIVE)]
    assert shown(memory.before(batch_of([BLOB]), 2, 0, no_segment)) == [(40.0, 30.0, POSITIVE), (70.0, 5.0, NEGATIVE)]


def test_a_click_found_while_others_were_hidden_is_added_to_them():
    memory = never()
    step(memory, batch_of([BLOB], clicks=[(40, 30, POSITIVE)]), 0, BLOB)
    step(memory, batch_of([BLOB], window(x=60)), 1, disc(SIZE, (12, 20), 8))  # where the blob is not
    expected = [(40.0, 30.0, POSITIVE), (72.0, 20.0, NEGATIVE)]
    assert shown(memory.before(batch_of([BLOB]), 2, 0, no_segment)) == expected


def test_a_click_just_off_the_border_is_shown_on_its_last_pixel():
    memory = never()
    step(memory, batch_of([BLOB], clicks=[(0, 0, NEGATIVE), (79, 59, NEGATIVE)]), 0, BLOB)
    for shift, expected in ((0.4, 2), (-0.4, 2), (0.6, 1), (-0.6, 1)):
        start = memory.before(batch_of([BLOB], window(x=shift, y=shift)), 1, 0, no_segment)
        assert len(shown(start)) == expected


def test_remembered_clicks_do_not_drift_over_twenty_epochs_of_other_views():
    draw, memory = np.random.default_rng(0), never()
    mask = ellipse(FULL_HD, (900, 500), (300, 200), 10)
    clicks = [(13, 7, NEGATIVE), (60, 40, POSITIVE), (61, 52, NEGATIVE)]
    place = None
    for epoch in range(20):
        zoom = draw.uniform(0.05, 0.5)
        matrix = window(*draw.uniform(0, 800, 2), zoom, flipped=bool(draw.random() < 0.5), size=FULL_HD)
        batch = batch_of([mask], matrix, clicks=clicks)
        step(memory, batch, epoch, batch.mask[0, 0].numpy())
        if place is None:
            place = geometry.apply(cv2.invertAffineTransform(matrix), np.array(clicks)[:, :2])
        np.testing.assert_allclose(remembered(memory).xy, place, atol=1e-3)
    assert memory.memory.epochs([1]).tolist() == [19]


# -- masks ------------------------------------------------------------------------------------------------------------


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize(
    "second",
    [
        window(),
        window(flipped=True),
        window(x=7.3, y=4.6),
        window(x=3, y=2, zoom=0.8, flipped=True),
        window(x=14, y=8, zoom=1.3),
    ],
)
def test_the_last_prediction_comes_back_through_another_view(second):
    said = ellipse(SIZE, (42, 32), (20, 14), -15)
    memory, first = never(masks=True), window(x=2.5, y=1.5, zoom=1.1, flipped=True)
    batch = batch_of([BLOB, BLOB], first)
    start = step(memory, batch, 0, geometry.warp(said, first, SIZE, "nearest"), NOTHING)
    assert start.masks.shape == (2, 1, *SIZE)
    assert (start.masks == -1).all()  # nothing was predicted yet
    start = memory.before(batch_of([BLOB] * 3, second), 1, 0, no_segment)
    assert iou(start.masks[0, 0].numpy() > 0, geometry.warp(said, second, SIZE, "nearest") > 0) > 0.93
    assert set(start.masks[0].unique().tolist()) == {0, 1}
    assert (start.masks[1] == 0).all()  # predicted: nothing
    assert (start.masks[2] == -1).all()


def test_a_large_mask_survives_a_round_through_the_image_and_what_no_crop_showed_is_background():
    size = (400, 600)
    said = ellipse(size, (300, 200), (150, 100), 20)
    first = window(x=120, y=60, zoom=0.7, size=size)
    memory = never(masks=True)
    step(memory, batch_of([said], first, size=(256, 256)), 0, geometry.warp(said, first, (256, 256), "nearest"))
    second = window(x=100, y=50, zoom=0.9, flipped=True, size=size)
    start = memory.before(batch_of([said], second, size=(320, 384)), 1, 0, no_segment)
    assert iou(start.masks[0, 0].numpy() > 0, geometry.warp(said, second, (320, 384), "nearest") > 0) > 0.97
    step(memory, batch_of([said], window(size=size), size=(200, 300)), 2, np.ones((200, 300)))
    start = memory.before(batch_of([said], window(size=size), size=size), 3, 0, no_segment)
    assert start.masks[0, 0].sum() == 200 * 300


def test_an_object_that_begins_anew_has_no_mask_and_without_masks_nobody_has_one():
    memory = EpochMemory(reset_probability=1.0, masks=True)
    step(memory, batch_of([BLOB]), 0, BLOB)
    assert (memory.before(batch_of([BLOB]), 1, 0, no_segment).masks == -1).all()
    plain = never()
    step(plain, batch_of([BLOB]), 0, BLOB)
    assert plain.before(batch_of([BLOB]), 1, 0, no_segment).masks is None
    assert remembered(plain).mask is None


# -- within the batch, and not at all ---------------------------------------------------------------------------------


class Segmenter:
    """Counts its passes; always says these masks."""

    def __init__(self, *predictions):
        self.logits, self.seen = logits_of(*predictions), []

    def __call__(self, image, points, masks):
        self.seen.append((points, masks))
        return self.logits


def test_rounds_within_the_batch_add_a_click_each_and_never_more_than_three():
    iteration, counts = WithinBatch(seed=0), []
    for n in range(40):
        segment = Segmenter(NOTHING, BLOB)
        start = iteration.before(batch_of([BLOB, BLOB]), 0, n, segment)
        counts.append(len(segment.seen))
        assert len(shown(start)) == 1 + counts[-1]
        assert shown(start, 1) == [(40.0, 30.0, POSITIVE)]  # nothing to correct
        assert all(BLOB[int(y), int(x)] and kind == POSITIVE for x, y, kind in shown(start))
        assert [len(points.xy[0]) for points, _ in segment.seen] == [1 + k for k in range(counts[-1])]
    assert set(counts) == {0, 1, 2, 3}
    assert WithinBatch(most=0).before(batch_of([BLOB]), 0, 0, no_segment).points.xy.shape == (1, 1, 2)


def test_rounds_and_their_clicks_are_a_function_of_seed_epoch_and_step():
    def drawn(seed, epoch, n):
        start = WithinBatch(seed=seed).before(batch_of([BLOB]), epoch, n, Segmenter(NOTHING))
        return shown(start)

    keys = [(seed, epoch, n) for seed in (0, 1) for epoch in (0, 1) for n in range(12)]
    made = [drawn(*key) for key in keys]
    assert made == [drawn(*key) for key in keys]
    for a, b in ((made[:12], made[12:24]), (made[:24], made[24:])):
        assert a != b


def test_rounds_hand_on_the_last_mask_where_it_is_asked_for():
    iteration = WithinBatch(masks=True)
    for n in range(20):
        segment = Segmenter(BLOB)
        start = iteration.before(batch_of([NOTHING]), 0, n, segment)
        masks = [*(masks for _, masks in segment.seen), start.masks]
        assert (masks[0] == -1).all()
        assert all(torch.equal(mask[0, 0], torch.from_numpy(BLOB).to(torch.int8)) for mask in masks[1:])


class Watched(nn.Module):
    """A convolution with batch norm and dropout that notes how each pass was made."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 1))
        self.passes = []

    def forward(self, x):
        self.passes.append((self.training, torch.is_grad_enabled()))
        return self.layers(x)


@pytest.mark.parametrize("training", [True, False])
def test_only_the_last_pass_of_a_step_has_gradients_and_the_network_keeps_its_mode(training):
    network = Watched().train(training)
    iteration = WithinBatch()
    module = ITIS(network, SignedGaussians(), nn.Identity(), optimizer=torch.optim.Adam, iteration=iteration)
    module.train(training)
    batch = batch_of([BLOB, BLOB])
    statistics = network.layers[1].running_mean.clone()
    rounds = max((iteration.before(batch, 0, n, module.segment), len(network.passes))[1] for n in range(6))
    assert rounds > 0
    assert network.passes == [(False, False)] * rounds
    assert all(layer.training is training for layer in network.modules())
    torch.testing.assert_close(network.layers[1].running_mean, statistics, rtol=0, atol=0)
    module(batch.image, batch.clicks)[:, 1].mean().backward()
    assert network.passes[-1] == (training, True)


def test_a_part_of_the_network_that_is_frozen_stays_frozen():
    network = Watched().train()
    network.layers[1].eval()
    module = ITIS(network, SignedGaussians(), nn.Identity(), torch.optim.Adam)
    batch = batch_of([BLOB])
    module.segment(batch.image, batch.clicks)
    assert not network.layers[1].training
    assert network.training


def test_fresh_clicks_are_those_of_the_data_in_every_epoch():
    iteration, batch = FreshClicks(), batch_of([BLOB, BLOB])
    for epoch in range(3):
        start = step(iteration, batch, epoch, NOTHING, NOTHING)
        iteration.gather()
        assert torch.equal(start.points.xy, batch.points)
        assert torch.equal(start.points.kinds, batch.point_kinds)
        assert start.masks is None
        assert iteration.state_dict() == {}
    iteration.load_state_dict({})


def test_an_iteration_can_be_copied_and_sent_to_another_process():
    for iteration in (EpochMemory(), WithinBatch(), FreshClicks()):
        assert type(pickle.loads(pickle.dumps(copy.deepcopy(iteration)))) is type(iteration)
