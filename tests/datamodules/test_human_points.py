"""Points that people clicked: published ones matched to objects, simulated ones as their stand-in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.io import savemat

from datamodules.catalog import open_index
from datamodules.clicks.recorded import RecordedPoints
from datamodules.human_points import main, on_boundary, simulated
from datamodules.readers.folders import read_pairs
from datamodules.readers.voc_extreme import box_ious, match_to_objects, read_voc_extreme
from datamodules.selection import open_objects
from tests.conftest import disc
from tests.datamodules.layouts import rectangle, write_gray, write_image, write_sbd

LEFT, RIGHT = (1, 2, 6, 9), (9, 3, 13, 8)  # boxes of two objects
NAME = "2008_000007"


def clicks_on(box, shift=0) -> list[list[float]]:
    """Left, top, right and bottom of a box, moved by `shift`."""
    x0, y0, x1, y1 = (side + shift for side in box)
    return [[x0, y0 + 2], [x0 + 1, y0], [x1, y0 + 3], [x1 - 1, y1]]


@pytest.fixture
def sbd(tmp_path, monkeypatch):
    """Two objects on one image of SBD train, one on an image of val."""
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    for variable in ("SBD_ROOT", "PASCAL_EXT_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    two = rectangle(*LEFT, value=1, on=rectangle(*RIGHT, value=2))
    splits = {"train": {NAME: (two, [3, 5])}, "val": {"2008_000009": (rectangle(*LEFT), [3])}}
    return write_sbd(tmp_path / "data" / "benchmark_RELEASE" / "dataset", splits)


def written(tmp_path) -> dict:
    content = json.loads((tmp_path / "points.json").read_text())
    return {record["object"]: record["xy"] for record in content["points"]}


def convert(tmp_path, clicks, *more) -> int:
    return main(["voc-extreme", str(clicks), "--out", str(tmp_path / "points.json"), *more])


# ---------------------------------------------------------------------------------------------------- published clicks


@pytest.mark.parametrize("shape", ["n 4 2", "n 8", "x and y", "structs", "one file"])
def test_clicks_find_their_objects_however_a_mat_holds_them(tmp_path, sbd, shape):
    points = np.array([clicks_on(RIGHT, shift=1), clicks_on(LEFT, shift=1)], np.float64)  # counted from 1
    content = {
        "n 4 2": {"clicks": points},
        "n 8": {"clicks": points.reshape(2, 8)},
        "x and y": {"x": points[..., 0], "y": points[..., 1]},
        "structs": {"object": [{"class": "car", "bbox": [1, 2, 3, 4], "extreme": each} for each in points]},
        "one file": {"annotation": [{"im": f"JPEGImages/{NAME}.jpg", "p": points}, {"im": "2008_999999", "p": points}]},
    }[shape]
    (tmp_path / "clicks").mkdir()
    savemat(tmp_path / "clicks" / ("all.mat" if shape == "one file" else f"{NAME}.mat"), content)
    assert convert(tmp_path, tmp_path / "clicks") == 0
    assert written(tmp_path) == {f"{NAME}/1": clicks_on(LEFT), f"{NAME}/2": clicks_on(RIGHT)}


def test_what_pascal_ext_lists_are_the_clicked_objects(tmp_path, sbd, capsys):
    (tmp_path / "clicks.json").write_text(json.dumps({NAME: [clicks_on(RIGHT)], "2008_000555": [clicks_on(LEFT)]}))
    with pytest.raises(FileNotFoundError, match=r"points\.json is missing: fetch the extreme clicks of Papadopoulos"):
        open_index("pascal/ext")
    out = tmp_path / "data" / "pascal_ext" / "points.json"
    assert main(["voc-extreme", str(tmp_path / "clicks.json"), "--first-pixel", "0", "--out", str(out)]) == 0
    assert "1 objects with extreme points; 1 clicked objects have no mask" in capsys.readouterr().out
    index = open_index("pascal/ext")
    assert (list(index.native_id), index.num_images) == ([f"{NAME}/2"], 1)
    assert np.array_equal(index.read_mask(0).mask, rectangle(*RIGHT))
    RecordedPoints.read(out, "extreme").check(index)
    whole = open_objects("sbd/train")
    assert index.object_id[0] == whole.object_id[1]
    assert list(open_objects({"name": "sbd/train", "recorded": str(out)}).native_id) == [f"{NAME}/2"]


def test_other_clicks_make_another_index(tmp_path, sbd):
    file = tmp_path / "data" / "pascal_ext" / "points.json"
    file.parent.mkdir()
    prints = []
    for shift in (0.0, 0.25):
        record = {"object": f"{NAME}/1", "xy": clicks_on(LEFT, shift)}
        file.write_text(json.dumps({"version": 1, "type": "extreme", "points": [record]}))
        prints.append(open_index("pascal/ext").fingerprint())
    assert prints[0] != prints[1]


def test_clicks_that_fit_no_object_are_counted(tmp_path, sbd):
    index = open_objects("sbd/train")
    far = [np.array(clicks_on((1, 10, 6, 11)), np.float64)]
    assert match_to_objects({NAME: far}, index) == ([], 1)
    twice = [np.array(clicks_on(LEFT), np.float64), np.array(clicks_on(LEFT, 1), np.float64)]
    records, unmatched = match_to_objects({NAME: twice}, index)
    assert ([name for name, _, _ in records], unmatched) == ([f"{NAME}/1"], 1)
    assert records[0][2].tolist() == clicks_on(LEFT)  # the better one
    records, _ = match_to_objects({NAME: [np.array([[-3, 5], [2, 2], [6, 5], [4, 9]], np.float64)]}, index)
    assert records[0][2].tolist() == [[0, 5], [2, 2], [6, 5], [4, 9]]  # moved into the image


def test_box_iou_counts_pixels():
    assert box_ious([[0, 0, 3, 3]], [[0, 0, 3, 3], [2, 0, 5, 3], [4, 0, 5, 3]]).tolist() == [[1, 8 / 24, 0]]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (f"{NAME}.json", "[1, 2, 3]", "no extreme clicks can be read from .*; expected four points"),
        (f"{NAME}.json", "[", "is no .mat up to version 7 and no .json"),
        (f"{NAME}.mat", "MATLAB 7.3", "is no .mat up to version 7 and no .json"),
        ("clicks.json", "[[[1, 2], [3, 4], [5, 6], [7, 8]]]", "an image that it does not name"),
        (f"{NAME}.json", "[[[1, 2], [3, 4], [5, 6], [7, NaN]]]", "a point of image 2008_000007 that is not finite"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, sbd, capsys, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        read_voc_extreme(tmp_path / name)
    assert convert(tmp_path, tmp_path / name) == 1
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "points.json").exists()


def test_a_folder_without_clicks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no extreme clicks at"):
        read_voc_extreme(tmp_path)


# ---------------------------------------------------------------------------------------------------- a stand-in


@pytest.fixture
def discs(tmp_path):
    for name, radius in (("a", 12), ("b", 6)):
        write_image(tmp_path / "img" / f"{name}.png", (48, 64))
        write_gray(tmp_path / "gt" / f"{name}.png", disc((48, 64), (30, 20), radius) * 255)
    return read_pairs(tmp_path / "img", tmp_path / "gt", "discs")


def test_simulated_inside_points_scatter_around_the_centre_within_their_spread(discs):
    records = list(simulated(discs, "inside", annotators=40, spread=0.2))
    assert [(name, annotator) for name, annotator, _ in records[38:42]] == [("a", 38), ("a", 39), ("b", 0), ("b", 1)]
    away = [np.hypot(*(points[0] - (30, 20))) for name, _, points in records if name == "a"]
    assert max(away) <= 0.2 * 25
    assert max(away) > 0.1 * 25
    assert len({tuple(points[0]) for _, _, points in records}) > 20
    assert all(discs.read_mask("ab".index(name)).mask[int(p[0, 1]), int(p[0, 0])] for name, _, p in records)


def test_simulated_extreme_points_lie_on_the_boundary_near_the_true_ones(discs):
    for name, _, points in simulated(discs, "extreme", annotators=10):
        radius = {"a": 12, "b": 6}[name]
        assert points.shape == (4, 2)
        distances = np.hypot(*(points - (30, 20)).T)
        assert distances.min() > radius - 1.5
        assert distances.max() <= radius
        assert np.abs(points - (30, 20))[[0, 2], 0].min() > 0.5 * radius  # left and right are still left and right


def test_a_seed_fixes_what_is_simulated_for_each_object(discs):
    draws = [[p.tolist() for _, _, p in simulated(discs, "extreme", seed=seed)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    alone = next(simulated(discs.select(np.array([1])), "extreme"))
    assert alone[2].tolist() == draws[0][1]


def test_the_boundary_of_an_object_at_the_border_is_its_own():
    assert on_boundary(np.array([[0.2, 3.4]]), rectangle(0, 0, 15, 11)).tolist() == [[0, 3]]
    assert on_boundary(np.array([[9.0, 9.0]]), rectangle(4, 5, 4, 5)).tolist() == [[4, 5]]


def test_the_command_writes_what_its_reader_reads(tmp_path, sbd, capsys):
    out = tmp_path / "inside.json"
    assert main(["simulate", "sbd/train", "--type", "inside", "--annotators", "3", "--out", str(out)]) == 0
    points = RecordedPoints.read(out, "inside")
    points.check(open_objects("sbd/train"))
    assert len(points) == 6
    assert "6 simulated records" in capsys.readouterr().out
