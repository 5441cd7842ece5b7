"""What an object was clicked is there again in the next epoch, once per epoch, on any number of processes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.clicks.points import PointKind
from lightning_modules import click_columns, click_memory
from lightning_modules.click_memory import ClickMemory, Remembered

LARGEST = 2**63 - 1
FIRST, SECOND = (120.5, 33.25), (7.0, 480.0)


def clicks(*points, negative=()):
    """Positive clicks at these points, and then negative ones."""
    kinds = [PointKind.POSITIVE] * len(points) + [PointKind.NEGATIVE] * len(negative)
    return np.array([*points, *negative], np.float32).reshape(-1, 2), np.array(kinds, np.int64)


def of(object_id, epoch, rank=0):
    """The clicks and the mask that this process found for the object in this epoch: as many as one likes to tell."""
    count = (object_id + epoch + rank) % 4
    xy = np.array([[object_id % 1000, epoch + k + rank / 8] for k in range(count)], np.float32).reshape(-1, 2)
    kinds = np.array([PointKind.POSITIVE if k % 2 else PointKind.NEGATIVE for k in range(count)], np.int64)
    return (xy, kinds), f"{object_id} {epoch} {rank}".encode()


def note(memory, epoch, ids, rank=0):
    states = [of(i, epoch, rank) for i in ids]
    memory.note(epoch, np.array(ids, np.int64), [c for c, _ in states], [m for _, m in states])


def remembers(memory, object_id, state) -> bool:
    """Whether this, clicks and mask or None, is what the memory holds of the object."""
    (held,) = memory.recall(np.array([object_id]))
    if held is None or state is None:
        return held is None and state is None
    (xy, kinds), mask = state
    assert isinstance(held, Remembered)
    assert (held.xy.dtype, held.kinds.dtype) == (np.float32, np.int8)
    same_mask = held.mask == (mask if memory.masks else None)
    return np.array_equal(held.xy, xy) and held.xy.shape == xy.shape and np.array_equal(held.kinds, kinds) and same_mask


def reread(state):
    """A state after its way through a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(state, other) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


SMALL = [(click_memory, "LOG", 3), (click_memory, "EXCHANGED", 9), (click_columns, "COPIED", 4)]
"""So that a few objects are many pieces."""


def test_clicks_come_back_in_their_order_and_an_unseen_object_has_none():
    memory = ClickMemory()
    memory.note(0, np.array([LARGEST, 0]), [clicks(FIRST, negative=[SECOND]), clicks(SECOND)])
    seen, unseen, first = memory.recall(np.array([LARGEST, 5, 0]))
    assert unseen is None
    np.testing.assert_array_equal(seen.xy, np.array([FIRST, SECOND], np.float32))
    assert seen.kinds.tolist() == [PointKind.POSITIVE, PointKind.NEGATIVE]
    assert seen.mask is None
    assert first.xy.tolist() == [list(SECOND)]
    assert len(memory) == 2
    assert memory.epochs(np.array([5, 0])).tolist() == [-1, 0]


def test_an_object_without_clicks_is_not_an_unseen_one():
    memory = ClickMemory()
    memory.note(0, np.array([7]), [clicks()])
    for _ in range(2):
        (seen,) = memory.recall(np.array([7]))
        assert seen is not None
        assert seen.xy.shape == (0, 2)
        memory.gather()


@pytest.mark.parametrize("merged", [False, True])
def test_an_object_gains_one_state_per_epoch_and_never_an_older_one(merged):
    memory = ClickMemory()
    for epoch, point, expected in [(1, FIRST, FIRST), (1, SECOND, FIRST), (0, SECOND, FIRST), (2, SECOND, SECOND)]:
        memory.note(epoch, np.array([7]), [clicks(point)])
        if merged:
            memory.gather()
        assert memory.recall(np.array([7]))[0].xy.tolist() == [list(expected)]
    memory.note(3, np.array([7, 7]), [clicks(FIRST), clicks(SECOND)])  # nor two in one step
    assert memory.recall(np.array([7]))[0].xy.tolist() == [list(FIRST)]
    assert len(memory) == 1


@pytest.mark.parametrize("merged", [False, True])
def test_what_a_caller_does_with_arrays_changes_no_memory(merged):
    memory, (xy, kinds) = ClickMemory(), clicks(FIRST)
    memory.note(0, np.array([7]), [(xy, kinds)])
    if merged:
        memory.gather()
    xy[:] = -1
    memory.recall(np.array([7]))[0].xy[:] = -1
    assert memory.recall(np.array([7]))[0].xy.tolist() == [list(FIRST)]


def test_masks_are_kept_on_demand():
    for masks, expected in (True, b"0=1"), (False, None):
        memory = ClickMemory(masks=masks)
        memory.note(0, np.array([7]), [clicks(FIRST)], [b"0=1"])
        assert memory.recall(np.array([7]))[0].mask == expected
        memory.gather()
        assert memory.recall(np.array([7]))[0].mask == expected
        assert "rle" in memory.state_dict() if masks else "rle" not in memory.state_dict()


@settings(max_examples=100)
@given(
    actions=st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.sampled_from([0, 1, 5, 12, 2**40, LARGEST]), max_size=5))
        | st.sampled_from(["gather", "save"]),
        max_size=25,
    ),
    masks=st.booleans(),
)
def test_it_answers_as_a_dictionary_would(actions, masks):
    memory, known = ClickMemory(masks=masks), {}
    with pytest.MonkeyPatch.context() as patch:
        for module, name, size in SMALL:
            patch.setattr(module, name, size)
        for action in actions:
            if action == "gather":
                memory.gather()
            elif action == "save":
                state, memory = memory.state_dict(), ClickMemory(masks=masks)
                memory.load_state_dict(reread(state))
            else:
                epoch, ids = action
                note(memory, epoch, ids)
                known |= {i: epoch for i in ids if known.get(i, -1) < epoch}
            assert len(memory) == len(known)
            for i in (0, 1, 5, 12, 2**40, LARGEST):
                assert remembers(memory, i, of(i, known[i]) if i in known else None)
                assert memory.epochs([i]).tolist() == [known.get(i, -1)]
    clicks_known = sum(len(of(i, epoch)[0][1]) for i, epoch in known.items())
    memory.gather()
    if not masks:
        assert memory.nbytes == 8 + 21 * len(known) + 9 * clicks_known


@settings(max_examples=30)
@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_neither_the_order_of_notes_nor_merges_change_the_state(order, gathers):
    plain, mixed = ClickMemory(masks=True), ClickMemory(masks=True)
    for epoch in range(2):
        note(plain, epoch, list(range(12)))
        for i in order:
            note(mixed, epoch, [i])
            if i in gathers:
                mixed.gather()
    assert same(plain.state_dict(), mixed.state_dict())


def test_a_checkpoint_in_the_middle_of_an_epoch_keeps_what_the_epoch_gave():
    memory, resumed = ClickMemory(masks=True), ClickMemory(masks=True)
    note(memory, 0, [1, 2, 3])
    note(memory, 1, [2])
    resumed.load_state_dict(reread(memory.state_dict()))
    assert resumed.epochs([1, 2, 3]).tolist() == [0, 1, 0]
    note(resumed, 1, [2, 3], rank=1)
    assert remembers(resumed, 2, of(2, 1))
    assert remembers(resumed, 3, of(3, 1, rank=1))


def test_a_saved_state_stays_as_it_was():
    memory = ClickMemory()
    note(memory, 0, [1, 2])
    state = memory.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    note(memory, 1, [1, 2, 3])
    memory.gather()
    assert same(state, before)


WRONG_STATES = {
    "not sorted": lambda s: s | {"ids": s["ids"].flip(0)},
    "an id twice": lambda s: s | {"ids": s["ids"].new_tensor([1, 1, 3])},
    "a negative id": lambda s: s | {"ids": s["ids"].new_tensor([-1, 2, 3])},
    "too few epochs": lambda s: s | {"epochs": s["epochs"][:2]},
    "a negative epoch": lambda s: s | {"epochs": -1 - s["epochs"]},
    "clicks cut off": lambda s: s | {"xy": s["xy"][:-1], "kinds": s["kinds"][:-1]},
    "kinds cut off": lambda s: s | {"kinds": s["kinds"][:-1]},
    "padding": lambda s: s | {"kinds": torch.full_like(s["kinds"], PointKind.PADDING)},
    "an unknown kind": lambda s: s | {"kinds": torch.full_like(s["kinds"], 99)},
    "not finite": lambda s: s | {"xy": s["xy"] * float("nan")},
    "flat points": lambda s: s | {"xy": s["xy"].flatten()},
    "offsets fall": lambda s: s | {"offsets": s["offsets"][[0, 2, 1, 3]]},
    "offsets empty": lambda s: s | {"offsets": s["offsets"][:0]},
    "another type": lambda s: s | {"xy": s["xy"].double()},
    "no tensor": lambda s: s | {"xy": s["xy"].tolist()},
    "a column missing": lambda s: {name: s[name] for name in s if name != "epochs"},
    "masks cut off": lambda s: s | {"rle": s["rle"][:-1]},
    "no masks": lambda s: {name: s[name] for name in s if "rle" not in name},
}


@pytest.mark.parametrize("wrong", WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_broken_state_is_refused_and_changes_nothing(wrong):
    memory, other = ClickMemory(masks=True), ClickMemory(masks=True)
    note(memory, 0, [1, 2, 3])
    note(other, 0, [9])
    with pytest.raises(ValueError, match="click memory") as error:
        other.load_state_dict(wrong(memory.state_dict()))
    assert "\n" not in str(error.value)
    assert remembers(other, 9, of(9, 0))
    assert len(other) == 1


@pytest.mark.parametrize(
    ("ids", "given", "masks"),
    [
        ([7, 8], [clicks(FIRST)], [b"0", b"0"]),
        ([7], [clicks(FIRST)], None),
        ([7], [clicks(FIRST)], ["0"]),
        ([-7], [clicks(FIRST)], [b"0"]),
        ([7.0], [clicks(FIRST)], [b"0"]),
        ([[7]], [clicks(FIRST)], [b"0"]),
        ([7], [(np.zeros((1, 3)), np.full(1, 6))], [b"0"]),
        ([7], [(np.zeros((2, 2)), np.full(1, 6))], [b"0"]),
        ([7], [(np.zeros((1, 2)), np.full(1, PointKind.PADDING))], [b"0"]),
        ([7], [(np.full((1, 2), np.nan), np.full(1, 6))], [b"0"]),
    ],
)
def test_a_step_that_fits_no_memory_is_refused_whole(ids, given, masks):
    memory = ClickMemory(masks=True)
    with pytest.raises(ValueError, match=r"expected|integers|kinds|finite|masks"):
        memory.note(0, np.array(ids), given, masks)
    assert len(memory) == 0


def test_nothing_is_noted_by_an_empty_step():
    memory = ClickMemory()
    memory.note(0, np.zeros(0, np.int64), [])
    memory.gather()
    assert memory.recall(np.zeros(0, np.int64)) == []
    assert len(memory) == 0


# -- several processes -----------------------------------------------------------------------------------------------

OBJECTS = [int(i) for i in np.random.default_rng(3).integers(0, 2**63, 40)]


def _one_process(rank, processes, folder):
    torch.set_num_threads(1)
    for module, name, size in SMALL:  # of this process alone
        setattr(module, name, size)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    memory = ClickMemory(masks=True)
    memory.gather()  # of nothing
    note(memory, 0, OBJECTS[rank::processes])
    memory.gather()
    assert all(remembers(memory, i, of(i, 0)) for i in OBJECTS)  # every process knows every object
    if rank == 0:
        note(memory, 1, OBJECTS[:20])  # the others have nothing new
    memory.gather()
    note(memory, 1, OBJECTS[20 + rank :: processes])
    memory.gather()
    torch.save(memory.state_dict(), f"{folder}/state {rank}")

    note(memory, 2 + rank % 2, [OBJECTS[0]], rank)  # both 0 and 2 note it in epoch 2, and 1 in epoch 3
    note(memory, 2, [OBJECTS[1]] if rank else [], rank)
    memory.gather()
    assert remembers(memory, OBJECTS[0], of(OBJECTS[0], 3, 1))
    assert remembers(memory, OBJECTS[1], of(OBJECTS[1], 2, 1))  # of the lowest rank that saw it
    note(memory, 2, [OBJECTS[1]], rank)
    memory.gather()
    assert remembers(memory, OBJECTS[1], of(OBJECTS[1], 2, 1))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_what_they_noted_and_hold_what_one_process_would(tmp_path, processes):
    multiprocessing.start_processes(_one_process, (processes, str(tmp_path)), nprocs=processes, start_method="fork")
    alone = ClickMemory(masks=True)
    for epoch in range(2):
        note(alone, epoch, OBJECTS)
    for rank in range(processes):
        state = torch.load(tmp_path / f"state {rank}", weights_only=True)
        assert same(state, alone.state_dict())
        resumed = ClickMemory(masks=True)
        resumed.load_state_dict(state)
        assert all(remembers(resumed, i, of(i, 1)) for i in OBJECTS)


def _resume(rank, processes, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    memory = ClickMemory(masks=True)
    memory.load_state_dict(torch.load(f"{folder}/state", weights_only=True))
    note(memory, 1, OBJECTS[rank::processes])
    memory.gather()
    torch.save(memory.state_dict(), f"{folder}/state {rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_checkpoint_in_the_middle_of_an_epoch_resumes_on_two_processes(tmp_path):
    memory = ClickMemory(masks=True)
    note(memory, 0, OBJECTS)
    note(memory, 1, OBJECTS[5:9])
    torch.save(memory.state_dict(), tmp_path / "state")
    multiprocessing.start_processes(_resume, (2, str(tmp_path)), nprocs=2, start_method="fork")
    note(memory, 1, OBJECTS)
    for rank in range(2):
        assert same(torch.load(tmp_path / f"state {rank}", weights_only=True), memory.state_dict())
