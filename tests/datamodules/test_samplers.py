from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.samplers import EvaluationSampler, ImageSampler, TrainingSampler, copies, epoch_order


def flat(lists: Sequence[list]) -> list:
    return list(chain.from_iterable(lists))


def steps(size, batch_size, processes=1, passes=1, seed=0, epoch=0, consumed=0) -> list[list[int]]:
    """The objects of each optimiser step, in the order of the ranks within each pass."""
    micro_batch = batch_size // (processes * passes)
    ranks = []
    for rank in range(processes):
        sampler = TrainingSampler(
            size,
            batch_size=batch_size,
            micro_batch=micro_batch,
            rank=rank,
            processes=processes,
            seed=seed,
            consumed=consumed,
        )
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {e for e, _ in keys} <= {epoch}
        ranks.append(np.array([i for _, i in keys]).reshape(-1, passes, micro_batch))
    return np.stack(ranks, axis=2).reshape(-1, batch_size).tolist()  # (steps, passes, ranks, micro_batch)


def test_an_epoch_is_every_object_once():
    assert sorted(flat(steps(60, 12))) == list(range(60))
    assert flat(steps(60, 12)) != list(range(60))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 5))
def test_only_what_does_not_fill_a_batch_waits_for_another_epoch(size, batch_size, epoch):
    if size < batch_size:
        return
    seen = Counter(flat(steps(size, batch_size, epoch=epoch)))
    assert max(seen.values()) == 1
    assert len(seen) == size - size % batch_size


def test_whoever_waits_in_one_epoch_comes_in_another():
    left_out = [set(range(23)) - set(flat(steps(23, 5, epoch=epoch))) for epoch in range(12)]
    assert all(len(objects) == 3 for objects in left_out)
    assert not set.intersection(*left_out)


@pytest.mark.parametrize(("processes", "passes"), [(2, 1), (4, 1), (1, 2), (1, 8), (2, 4), (4, 2)])
def test_a_step_sees_the_same_objects_on_any_number_of_processes_and_passes(processes, passes):
    for epoch in (0, 7):
        assert steps(53, 8, processes, passes, seed=3, epoch=epoch) == steps(53, 8, seed=3, epoch=epoch)


@pytest.mark.parametrize(("processes", "passes"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("done", [0, 1, 4, 6, 9])
def test_training_resumes_with_the_very_next_batch(processes, passes, done):
    """53 objects in batches of 8 are 6 steps an epoch; `done` steps are behind us."""
    uninterrupted = [steps(53, 8, processes, passes, epoch=epoch) for epoch in range(3)]
    resumed = [steps(53, 8, processes, passes, epoch=e, consumed=done * passes) for e in range(done // 6, 3)]
    assert flat(resumed) == flat(uninterrupted)[done:]
    assert len(resumed[0]) == 6 - done % 6


def test_the_length_of_an_epoch_does_not_depend_on_what_was_consumed():
    sampler = TrainingSampler(53, 8, 2, rank=1, processes=2, consumed=5)
    assert sampler.passes == 12
    assert len(sampler) == 24
    assert len(list(sampler)) == 24 - 5 * 2


def test_orders_differ_by_seed_and_epoch_and_are_reproducible():
    orders = {tuple(epoch_order(40, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert tuple(epoch_order(40, 3, 2)) in orders
    assert steps(40, 8, seed=1, epoch=0) != steps(40, 8, seed=0, epoch=1)


@pytest.mark.parametrize(("processes", "micro_batch"), [(3, 1), (2, 3), (1, 4)])
def test_a_batch_that_does_not_split_is_refused(processes, micro_batch):
    with pytest.raises(ValueError, match=f"batch of 10 does not split over {processes} processes of {micro_batch}"):
        TrainingSampler(100, 10, micro_batch, processes=processes)


def test_fewer_objects_than_a_batch_come_more_than_once_in_it():
    sampler = TrainingSampler(3, 8, 4)
    assert sampler.passes == 2
    order = epoch_order(3, 0, 0).tolist()
    assert [i for _, i in sampler] == [*order, *order, *order[:2]]
    halves = [[i for _, i in TrainingSampler(3, 8, 4, rank=rank, processes=2)] for rank in range(2)]
    assert sorted([*halves[0], *halves[1]]) == sorted([*order, *order, *order[:2]])
    with pytest.raises(ValueError, match="there is no object to train on"):
        TrainingSampler(0, 8, 4)


def batches(size, batch_size, rank, processes) -> list[list[int]]:
    """As a DataLoader cuts them."""
    sampler = EvaluationSampler(size, batch_size, rank, processes)
    positions = list(sampler)
    assert len(sampler) == len(positions)
    return [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 3))
def test_evaluation_deals_out_the_same_batches_and_each_object_once(size, batch_size, processes):
    alone = batches(size, batch_size, 0, 1)
    dealt = [batches(size, batch_size, rank, processes) for rank in range(processes)]
    assert sorted(flat(dealt[: len(alone)])) == alone
    assert flat(alone) == list(range(size))
    assert dealt[len(alone) :] == [alone[:1]] * (processes - len(alone))  # no process may be idle


def test_a_process_without_a_batch_repeats_the_first():
    assert batches(3, 8, rank=1, processes=2) == [[0, 1, 2]]


def images_seen(factors, rounding="up", seed=0, epoch=0, batch_size=1) -> list[tuple[int, int]]:
    sampler = ImageSampler(len(factors), np.array(factors), rounding, seed=seed, batch_size=batch_size, micro_batch=1)
    sampler.set_epoch(epoch)
    return [(image, copy) for _, image, copy in sampler]


def test_an_image_of_factor_r_comes_r_times_rounded_up_and_each_time_as_another_copy():
    seen = images_seen([1.0, 2.0, 1.2, 3.0])
    assert sorted(seen) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert [copy for image, copy in seen if image == 3] == [0, 1, 2]


def test_stochastic_rounding_has_the_factor_on_average_and_is_drawn_for_each_epoch():
    factors = [1.0, 1.25, 2.5, 1.0] * 20
    epochs = []
    for epoch in range(60):
        sampler = ImageSampler(80, np.array(factors), "stochastic", batch_size=1, micro_batch=1)
        sampler.set_epoch(epoch)
        epochs.append(sampler.repeats())
        assert len(list(sampler)) == len(sampler) == 115
    mean = np.mean(epochs, axis=0).reshape(20, 4).mean(axis=0)
    np.testing.assert_allclose(mean, [1, 1.25, 2.5, 1], atol=0.06)
    assert len({tuple(epoch) for epoch in epochs}) == 60
    assert images_seen(factors, "stochastic", epoch=3) == images_seen(factors, "stochastic", epoch=3)
    assert images_seen(factors, "stochastic", epoch=3) != images_seen(factors, "stochastic", seed=1, epoch=3)


def test_without_factors_images_come_in_the_order_of_objects():
    sampler = ImageSampler(23, None, batch_size=5, micro_batch=5, seed=2)
    plain = TrainingSampler(23, 5, 5, seed=2)
    assert [(epoch, image) for epoch, image, _ in sampler] == list(plain)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_a_copy_is_how_often_a_value_came_before(values):
    expected = [values[:place].count(value) for place, value in enumerate(values)]
    assert copies(np.array(values)).tolist() == expected
