"""Rows of an evaluation: merged from any number of processes, counted once, summed in one order."""

import csv

import pytest

from experiments.evaluation.objects import ObjectIoU
from experiments.evaluation.rows import merge_rows, read_rows

COLUMNS = ["position", "iou", "error_rate", "seconds", "iou@0.5"]


def write_part(folder, rank, positions):
    with open(folder / f"rows.{rank}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([i, 1 / (i + 3), "", 0.5, 1 / (i + 7)] for i in positions)


def test_parts_are_merged_in_the_order_of_the_index_and_repeated_objects_count_once(tmp_path):
    write_part(tmp_path, 0, [0, 1, 4, 5, 8])
    write_part(tmp_path, 1, [2, 3, 6, 7])
    write_part(tmp_path, 2, [0, 1])
    rows = merge_rows(tmp_path, expected=9, processes=3)
    assert [int(row["position"]) for row in read_rows(rows)] == list(range(9))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_the_same_rows_give_the_same_digits_from_one_or_two_processes(tmp_path):
    alone, two = tmp_path / "alone", tmp_path / "two"
    for folder in (alone, two):
        folder.mkdir()
    write_part(alone, 0, range(50))
    write_part(two, 0, range(0, 50, 2))
    write_part(two, 1, range(1, 50, 2))
    first, second = (ObjectIoU().summarise(rows) for rows in (merge_rows(alone, 50, 1), merge_rows(two, 50, 2)))
    assert first == second
    assert first["n"] == 50
    assert first["mean_iou"] == pytest.approx(sum(1 / (i + 3) for i in range(50)) / 50)
    assert "error_rate" not in first


def test_a_missing_object_is_an_error_and_the_parts_stay(tmp_path):
    write_part(tmp_path, 0, [0, 1, 3])
    with pytest.raises(RuntimeError, match=r"4 units \(objects, or images\) were to be evaluated, 3 have rows"):
        merge_rows(tmp_path, expected=4, processes=1)
    assert (tmp_path / "rows.0.csv").exists()


def test_a_unit_may_have_several_rows_or_none(tmp_path):
    """Images with two, no and one detections; the process that repeats the first one counts once."""
    header = "position,score\n"
    (tmp_path / "rows.0.csv").write_text(f"{header}0,0.9\n0,0.4\n2,0.7\n")
    (tmp_path / "rows.1.csv").write_text(f"{header}1\n")
    (tmp_path / "rows.2.csv").write_text(f"{header}0,0.9\n0,0.4\n")
    rows = read_rows(merge_rows(tmp_path, expected=3, processes=3))
    assert [(row["position"], row["score"]) for row in rows] == [("0", "0.9"), ("0", "0.4"), ("2", "0.7")]
