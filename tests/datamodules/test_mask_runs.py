"""Run lengths of many masks, drawn at the size they are wanted in: the same pixels as of full-size masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from datamodules.mask_runs import DamagedRuns, drawn_masks, runs_of

SIZE = (7, 9)


def encoded(mask: np.ndarray) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask))["counts"]


def drawn(masks, rows, columns, flip=False, grid=None):
    grid = (len(rows), len(columns)) if grid is None else grid
    everything = np.ones(len(masks), bool)
    return drawn_masks(
        runs_of([encoded(mask) for mask in masks], masks[0].shape), rows, columns, grid, everything, flip
    )


@given(st.lists(arrays(np.uint8, SIZE, elements=st.integers(0, 1)), min_size=1, max_size=5))
def test_masks_come_back_as_they_were(masks):
    shown, found = drawn(masks, np.arange(SIZE[0]), np.arange(SIZE[1]))
    assert shown.tolist() == [mask.any() for mask in masks]
    np.testing.assert_array_equal(found, np.array([mask for mask in masks if mask.any()]).reshape(-1, *SIZE))


@given(
    st.lists(arrays(np.uint8, SIZE, elements=st.integers(0, 1)), min_size=1, max_size=4),
    st.lists(st.integers(0, SIZE[0] - 1), min_size=1, max_size=20).map(sorted),
    st.lists(st.integers(0, SIZE[1] - 1), min_size=1, max_size=20).map(sorted),
    st.booleans(),
)
def test_any_rows_and_columns_are_shown_wherever_they_are_wanted(masks, rows, columns, flip):
    expected = [mask[rows][:, columns] for mask in masks]
    expected = [mask[:, ::-1] if flip else mask for mask in expected]
    grid = (len(rows) + 2, len(columns) + 3)
    shown, found = drawn(masks, np.array(rows), np.array(columns), flip, grid)
    assert shown.tolist() == [mask.any() for mask in expected]
    np.testing.assert_array_equal(
        found, np.array([np.pad(mask, ((0, 2), (0, 3))) for mask in expected if mask.any()]).reshape(-1, *grid)
    )


def test_a_large_mask_is_read_as_pycocotools_reads_it():
    mask = (np.random.default_rng(0).random((300, 400)) < 0.5).astype(np.uint8)
    mask[:, 100:350] = 1  # a run of 75,000 pixels: four digits
    large = cv2.resize(mask, (640, 480), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(drawn([large], np.arange(480), np.arange(640))[1][0], large)


def test_masks_that_are_not_wanted_are_not_drawn():
    masks = [np.ones(SIZE, np.uint8)] * 3
    runs = runs_of([encoded(mask) for mask in masks], SIZE)
    shown, found = drawn_masks(runs, np.arange(7), np.arange(9), SIZE, np.array([True, False, True]))
    assert shown.tolist() == [True, False, True]
    assert len(found) == 2


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff\xff",
        b"Ro",  # its last number goes on
        encoded(np.ones((5, 5), np.uint8)),
        encoded(np.zeros((5, 5), np.uint8)),
        encoded(np.eye(9, dtype=np.uint8)),
    ],
)
def test_damaged_run_lengths_are_found_among_others(broken):
    good = encoded(np.eye(7, 9, dtype=np.uint8))
    with pytest.raises(DamagedRuns) as found:
        runs_of([good, good, broken, good], SIZE)
    assert found.value.place == 2
