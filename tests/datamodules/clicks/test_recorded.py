import json
import pickle
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules import geometry
from datamodules.clicks import recorded
from datamodules.clicks.inside_outside import outside_points
from datamodules.clicks.points import PointKind, Target
from datamodules.clicks.recorded import (
    RecordedExtremePoints,
    RecordedInsidePoint,
    RecordedPoints,
    in_box_order,
    write_points,
)
from datamodules.readers.folders import read_pairs
from datamodules.recipe import SampleRecipe
from datamodules.samples import ObjectSamples
from tests.conftest import disc, square

SIDES = [[9, 30], [40.5, 8], [77, 31], [41, 60]]  # left, top, right, bottom
FLIP = np.array([[-1.0, 0.0, 99.0], [0.0, 1.0, 0.0]])
MASK = disc((70, 100), (43, 34), 25)


def key():
    return np.random.default_rng(0)


def extreme(object_="a/1", xy=SIDES, **more):
    return {"object": object_, "xy": xy, **more}


@pytest.fixture
def write(tmp_path):
    """Writes a file as a person would, and gives its path."""

    def write(points, **head):
        file = tmp_path / "points.json"
        file.write_text(json.dumps({"version": 1, "type": "extreme", **head, "points": points}))
        return str(file)

    return write


def drawn(folder, masks):
    """A data set of one image (70, 100) per mask, named a, b, ..."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for name, mask in zip("abc", masks):
        Image.fromarray(np.full((*mask.shape, 3), 90, np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(255 * mask).save(folder / "masks" / f"{name}.png")
    return read_pairs(folder / "images", folder / "masks", "drawn")


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_extreme_points_come_in_the_order_of_a_box_however_they_were_clicked(write, order):
    file = write([extreme(xy=[SIDES[i] for i in order])])
    points, kinds = RecordedExtremePoints(file)(Target(MASK, native_id="a/1"), key())
    assert points.tolist() == SIDES
    assert points.dtype == np.float32
    assert kinds.tolist() == [PointKind.LEFT, PointKind.TOP, PointKind.RIGHT, PointKind.BOTTOM]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=4))
def test_ordering_loses_no_point_and_sorts_again_after_a_flip(clicked):
    points = np.array(clicked, float)
    left, top, right, bottom = ordered = in_box_order(points)
    assert sorted(map(tuple, ordered)) == sorted(map(tuple, points))
    assert left[0] <= right[0]
    assert top[1] <= bottom[1]
    flipped = in_box_order(points * [-1, 1])
    span = (right - left)[0] + (bottom - top)[1]
    assert (flipped[2] - flipped[0])[0] + (flipped[3] - flipped[1])[1] == span


def test_a_corner_that_is_extreme_twice_takes_one_place():
    """A triangle's corner is the left-most and the top-most point; people click it, and three more."""
    assert in_box_order(np.array([[50, 20], [10, 10], [30, 60], [10, 11]])).tolist() == [
        [10, 11],
        [10, 10],
        [50, 20],
        [30, 60],
    ]


def test_points_follow_the_crop_they_are_shown_in(write):
    file = write([extreme()])
    points, _ = RecordedExtremePoints(file)(Target(MASK, native_id="a/1", to_crop=FLIP), key())
    assert points.tolist() == [[22, 31], [58.5, 8], [90, 30], [58, 60]]  # the left one was right


def test_the_crop_is_around_what_was_clicked_and_not_around_the_mask(tmp_path, write):
    index = drawn(tmp_path / "set", [MASK])
    name = index.native_id[0]
    rule = RecordedExtremePoints(write([extreme(name)]))
    assert rule.box(name).tolist() == [9, 8, 77, 60]
    sample = ObjectSamples(index, SampleRecipe(size=64, relax=5, test_points=rule), train=False)[0]
    assert sample.box.tolist() == [9, 8, 77, 60]
    assert sample.crop_box.tolist() == [4, 3, 82, 65]
    expected = geometry.apply(geometry.box_to_grid(sample.crop_box, (64, 64)), np.array(SIDES))
    np.testing.assert_allclose(sample.points, expected, rtol=1e-6)


def test_clicks_between_pixels_count_for_the_nearest_one(write):
    file = write([extreme(xy=[[9.4, 30], [40, 7.5], [77.5, 31], [41, 60.49]])])
    assert RecordedExtremePoints(file).box("a/1").tolist() == [9, 8, 78, 60]


def test_a_human_inside_point_comes_with_the_masks_own_corners(tmp_path):
    file = tmp_path / "inside.json"
    write_points(file, "inside", [("7", 0, [[40, 30]]), ("7", 3, [[50.25, 20]])])
    grid = geometry.box_to_grid(np.array([0, 0, 99, 69]), (140, 200))
    large = np.kron(MASK, np.ones((2, 2), np.uint8))
    points, kinds = RecordedInsidePoint(str(file), annotator=3, relax=5)(Target(large, None, None, "7", grid), key())
    assert points[0].tolist() == [101, 40.5]
    np.testing.assert_array_equal(points[1:], outside_points(large, 5))
    assert kinds.tolist() == [PointKind.INSIDE] + 4 * [PointKind.OUTSIDE]
    assert RecordedInsidePoint(str(file))(Target(MASK, native_id="7"), key())[0][0].tolist() == [40, 30]
    assert RecordedInsidePoint(str(file)).box("7") is None  # nobody drew a box


def test_an_object_without_record_is_named_with_its_file(write):
    file = write([extreme(), extreme(annotator=2)])
    for rule, name in ((RecordedExtremePoints(file), "b/1"), (RecordedExtremePoints(file, annotator=1), "a/1")):
        with pytest.raises(ValueError, match=rf"points.json has no extreme points of object '{name}' by annotator"):
            rule(Target(MASK, native_id=name), key())
        with pytest.raises(ValueError, match="2 records by annotators 0, 2"):
            rule.box(name)


def test_a_file_is_read_once_in_a_process_and_goes_to_workers_unread(write, monkeypatch):
    file = write([extreme(), extreme("a/2")])
    reads = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **how: reads.append(self) or real(self, **how))
    rules = [RecordedExtremePoints(file), pickle.loads(pickle.dumps(RecordedExtremePoints(file)))]
    assert not reads
    for rule in rules:
        for name in ("a/1", "a/2"):
            rule(Target(MASK, native_id=name), key())
            rule.box(name)
    assert len(reads) == 1
    assert len(pickle.dumps(rules[0])) < 500
    write([extreme(xy=[[1, 1], [1, 1], [1, 1], [1, 1]])])
    assert rules[0].box("a/1").tolist() == [1, 1, 1, 1]  # a file that changed is another one


def test_numbers_and_texts_name_the_same_object(write):
    assert RecordedPoints.read(write([extreme(17)]), "extreme").of("17").tolist() == SIDES


def test_many_records_are_columns(write):
    count = 3000
    points = [extreme(i, [[i % 90, 0]] * 4, annotator=i % 3) for i in range(count)]
    read = RecordedPoints.read(write(points), "extreme")
    assert len(read) == count
    for i in (0, 1, 1234, count - 1):
        assert read.of(str(i), i % 3)[0].tolist() == [i % 90, 0]
    with pytest.raises(ValueError, match="by annotator 1"):
        read.of("0", 1)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([extreme(xy=SIDES[:3])], r"record 1 of .*points.json: extreme points of object 'a/1' are four points"),
        ([extreme(xy=[*SIDES[:3], [1]])], "are four points"),
        ([extreme(xy=[*SIDES[:3], [1, "2"]])], "are four points"),
        ([extreme(xy=[*SIDES[:3], [1, float("nan")]])], "are four points"),
        ([extreme(xy=[*SIDES[:3], [1, True]])], "are four points"),
        ([extreme(xy=[1, 2, 3, 4])], "are four points"),
        ([extreme(xy=[*SIDES[:3], [-1, 5]])], "a point of object 'a/1' is outside of the image"),
        ([extreme(), extreme()], "more than one record of object a/1 by annotator 0"),
        ([extreme(), extreme(annotator=0)], "more than one record of object a/1 by annotator 0"),
        ([extreme(annotator="anna")], "annotator of object 'a/1' is a whole number"),
        ([extreme(annotator=-1)], "annotator of object 'a/1' is a whole number"),
        ([extreme(anotator=1)], "expected the keys .* got 'object', 'xy', 'anotator'"),
        ([{"object": "a/1"}], "expected the keys .* got 'object'"),
        ([extreme(), 5], "record 2 of .* expected the keys .* got 5"),
        ([extreme(None)], "an object is a text or a whole number, got None"),
        ({}, 'in a list "points"'),
    ],
)
def test_a_record_that_does_not_fit_is_told_in_one_sentence(write, points, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        RecordedPoints.read(write(points), "extreme")
    assert "points.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ({"version": 2}, 'must say "version": 1, got 2'),
        ({"version": None}, 'must say "version": 1, got null'),
        ({"type": "inside"}, 'must say "type": "extreme", got "inside"'),
    ],
)
def test_a_file_of_another_kind_is_refused(write, head, sentence):
    with pytest.raises(ValueError, match=sentence):
        RecordedPoints.read(write([extreme()], **head), "extreme")


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    file = tmp_path / "points.json"
    with pytest.raises(FileNotFoundError, match=r"points\.json"):
        RecordedExtremePoints(str(file)).box("a/1")
    for content, sentence in ((b'{"version": 1, "po', "cut off"), (b"[]", '"version": 1'), (b"\xff\xd8\x00", "binary")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"points.json.*{sentence}"):
            RecordedPoints.read(file, "extreme")


def test_points_are_checked_against_their_data_set(tmp_path):
    index = drawn(tmp_path / "set", [MASK, square((70, 100), (5, 5), 9)])
    first, second = index.native_id
    file = tmp_path / "points.json"
    write_points(file, "inside", [(second, 0, [[99.4, 69]]), (first, 1, [[0, 0]])]).check(index)
    with pytest.raises(
        ValueError, match=r"outside of the image on 1 objects, such as .*\[\[99.5, 69.0\]\].*\[100, 70\]"
    ):
        write_points(file, "inside", [(first, 0, [[0, 0]]), (second, 0, [[99.5, 69]])]).check(index)
    with pytest.raises(ValueError, match="points on 1 objects that drawn does not list, such as 'zebra'"):
        write_points(file, "inside", [("zebra", 0, [[0, 0]]), (second, 0, [[9, 6]])]).check(index)


def test_what_is_written_is_what_is_read_and_a_refused_record_leaves_the_old_file(tmp_path):
    file = tmp_path / "new" / "points.json"
    records = [("b", 1, np.array(SIDES)), ("a", 0, np.float32(SIDES))]
    write_points(file, "extreme", records, dataset="drawn", source="a test")
    content = json.loads(file.read_text())
    assert list(content) == ["version", "type", "dataset", "source", "points"]
    assert [record["object"] for record in content["points"]] == ["b", "a"]
    assert RecordedPoints.read(file, "extreme").of("b", 1).tolist() == SIDES
    with pytest.raises(ValueError, match="are four points"):
        write_points(file, "extreme", [("b", 1, SIDES[:2])])
    assert json.loads(file.read_text()) == content
    assert [path.name for path in file.parent.iterdir()] == ["points.json"]


def test_a_file_without_records_is_a_file(write):
    read = RecordedPoints.read(write([]), "extreme")
    assert len(read) == 0
    with pytest.raises(ValueError, match="0 records by annotators none"):
        read.of("a/1")


def test_the_description_shows_a_file_that_can_be_read(tmp_path):
    text = recorded.__doc__
    example = text[text.index("    {") : text.index("]}\n") + 2]
    (tmp_path / "example.json").write_text(example)
    assert len(RecordedPoints.read(tmp_path / "example.json", "extreme")) == 2


def test_training_may_use_recorded_points_on_augmented_crops(tmp_path, write):
    """Flipped and turned with the image: the points are still the extreme ones of a disc that was clicked exactly."""
    sides = [[18, 34], [43, 9], [68, 34], [43, 59]]
    index = drawn(tmp_path / "set", [MASK])
    rule = RecordedExtremePoints(write([extreme(index.native_id[0], sides)]))
    recipe = replace(SampleRecipe(size=128, relax=5, train_points=rule), flip=1.0, rotation=10.0)
    sample = ObjectSamples(index, recipe, train=True)[0]
    to_image = np.linalg.inv(np.vstack([sample.to_crop, [0, 0, 1]]))[:2]
    back = geometry.apply(to_image, sample.points)
    np.testing.assert_allclose(back, np.array(sides)[[2, 1, 0, 3]], atol=1e-4)
