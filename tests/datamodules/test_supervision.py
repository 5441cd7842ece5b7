"""Supervision by boxes: of an object nothing is seen but its four extreme points and the box that they span."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules import geometry
from datamodules.clicks.extreme import ExtremePoints, extreme_points, tight_box
from datamodules.clicks.points import EXTREME_KINDS, NoPoints
from datamodules.clicks.recorded import RecordedExtremePoints
from datamodules.clicks.vertices import VertexPoints
from datamodules.expanded import ExpandedBox
from datamodules.index import MaskKind, ObjectIndex
from datamodules.recipe import DEFAULTS, SampleRecipe, seen_in_evaluation, seen_in_training
from datamodules.samples import ObjectSamples, spanned_box, within
from datamodules.selection import Selection, open_objects
from tests.conftest import disc, ellipse, square
from tests.datamodules.test_samples import SIZE, assert_same, index_of, scenery

BOX = SampleRecipe(
    size=64,
    view=ExpandedBox(),
    rotation=0.0,
    scale=(1.0, 1.0),
    supervision="box",
    train_points=VertexPoints(),
    test_points=VertexPoints(),
    extras=["clean_image"],
)
MASKS = [ellipse(SIZE, (30, 30), (18, 9), 30), disc(SIZE, (70, 12), 12), square(SIZE, (4, 40), (8, 30))]
CORNERS = [[12.4, 30.2], [29.7, 14.9], [47.2, 33.0], [30.1, 45.8]]


def polygons(root, rings=(CORNERS,), size=SIZE) -> ObjectIndex:
    """One object that is stored as rings of corners."""
    index = index_of(root, [disc(size, (30, 30), 15)])
    flat = [np.asarray(ring, np.float64).ravel() for ring in rings]
    return replace(
        index,
        mask_kind=np.array([MaskKind.POLYGONS], np.uint8),
        mask_range=np.array([[0, len(rings)]]),
        ring_offsets=np.concatenate([[0], np.cumsum([len(ring) for ring in flat])]),
        coordinates=np.concatenate(flat),
    )


def recorded(root, index: ObjectIndex, points) -> RecordedExtremePoints:
    records = [{"object": name, "xy": np.asarray(xy).tolist()} for name, xy in zip(index.native_id, points)]
    file = root / "points.json"
    file.write_text(json.dumps({"version": 1, "type": "extreme", "points": records}))
    return RecordedExtremePoints(str(file))


def of_rule(rule, recipe=BOX) -> SampleRecipe:
    return replace(recipe, train_points=rule, test_points=rule)


# -- what is seen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["fused", "chain"])
def test_with_points_that_people_clicked_the_true_masks_play_no_part(tmp_path, form):
    index = index_of(tmp_path, MASKS, void=square(SIZE, (40, 0), (60, 3)))
    boxes = replace(index, mask_kind=np.full(len(index), MaskKind.BOX, np.uint8))
    rule = recorded(tmp_path, index, [extreme_points(mask) + 0.3 for mask in MASKS])
    recipe = replace(of_rule(rule), geometry=form, void_band=2)
    truth, weak = (ObjectSamples(part, recipe, train=True, seed=3) for part in (index, boxes))
    flipped = set()
    for epoch in range(6):
        for i in range(len(index)):
            sample = truth[epoch, i]
            assert_same(sample, weak[epoch, i])
            flipped.add(sample.to_crop[0, 0] < 0)
            assert tuple(sample.point_kinds) == EXTREME_KINDS
            left, top, right, bottom = sample.points
            assert left[0] == sample.points[:, 0].min()
            assert top[1] == sample.points[:, 1].min()
            assert right[0] == sample.points[:, 0].max()
            assert bottom[1] == sample.points[:, 1].max()
    assert flipped == {True, False}


@pytest.mark.parametrize("rule", [VertexPoints(), ExtremePoints(), ExtremePoints("band", 3)])
@pytest.mark.parametrize("train", [True, False])
def test_the_mask_is_the_box_that_the_points_span(tmp_path, rule, train):
    samples = ObjectSamples(index_of(tmp_path, MASKS), replace(of_rule(rule), flip=0.0), train=train)
    for i in range(len(MASKS)):
        sample = samples[0, i]
        to_image = geometry.apply(_inverse(sample.to_crop), sample.points)
        assert spanned_box(to_image).tolist() == sample.box.tolist()
        filled = square(
            SIZE, tuple(sample.box[:2].tolist()), tuple((sample.box[2:] - sample.box[:2] + 1)[::-1].tolist())
        )
        size = (sample.mask.shape[0], sample.mask.shape[1])
        seen = geometry.warp(filled, sample.to_crop, size, "nearest", "wrap" if train else "zero")
        assert (seen != sample.mask).mean() < 0.02
        assert not sample.void.any()


def _inverse(matrix: NDArray) -> NDArray[np.float64]:
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def test_at_test_the_full_size_truth_is_the_true_mask(tmp_path):
    void = square(SIZE, (76, 40), (10, 4))
    samples = ObjectSamples(index_of(tmp_path, MASKS, void=void), BOX, train=False)
    for i, mask in enumerate(MASKS):
        sample = samples[i]
        np.testing.assert_array_equal(coco_mask.decode(sample.rle.mask), mask)
        np.testing.assert_array_equal(coco_mask.decode(sample.rle.void), void)
        assert sample.box.tolist() == tight_box(mask).tolist()


def test_points_of_vertices_span_the_box_whose_far_edge_lies_on_the_images(tmp_path):
    """Polygons of COCO end at x = W, one pixel beyond the last one."""
    ring = [[60.0, 10.0], [80.0, 10.0], [80.0, 60.0], [60.0, 60.0]]
    sample = ObjectSamples(polygons(tmp_path, [ring]), replace(BOX, flip=0.0), train=True)[0, 0]
    assert sample.box.tolist() == [60, 10, 79, 59]
    assert geometry.apply(_inverse(sample.to_crop), sample.points)[2, 0] == pytest.approx(79, abs=1e-4)


@pytest.mark.parametrize("clicked", [False, True])
def test_polygons_are_not_filled_in_training(tmp_path, monkeypatch, clicked):
    index = polygons(tmp_path)
    recipe = of_rule(recorded(tmp_path, index, [CORNERS])) if clicked else BOX

    def refuse(*_: object) -> None:
        raise AssertionError("a mask is read")

    monkeypatch.setattr(ObjectIndex, "read_mask", refuse)
    sample = ObjectSamples(index, recipe, train=True)[0, 0]
    assert sample.mask.any()
    assert sample.rle is None
    with pytest.raises(AssertionError, match="a mask is read"):
        ObjectSamples(index, of_rule(ExtremePoints()), train=True)[0, 0]


def test_vertices_are_used_beside_true_masks_too(tmp_path):
    recipe = replace(BOX, supervision="mask", flip=1.0)
    sample = ObjectSamples(polygons(tmp_path), recipe, train=True)[0, 0]
    back = geometry.apply(_inverse(sample.to_crop), sample.points)[[2, 1, 0, 3]]
    np.testing.assert_allclose(back, np.trunc(CORNERS), atol=1)
    assert sample.points[0, 0] == sample.points[:, 0].min()


# -- the outline -------------------------------------------------------------------------------------------------------


def test_the_outline_of_polygons_is_all_their_vertices_in_the_files_order(tmp_path):
    second = [[50.0, 5.0], [55.0, 5.0], [52.0, 9.0]]
    assert polygons(tmp_path, [CORNERS, second]).outline(0).tolist() == CORNERS + second


def test_the_outline_of_any_other_mask_is_the_ends_of_its_rows(tmp_path):
    mask = square(SIZE, (3, 2), (2, 3))
    index = index_of(tmp_path, [mask])
    ends = [[x, y] for y in (2, 3) for x in (3, 5)]
    assert index.outline(0).tolist() == ends
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
    by_run_lengths = replace(
        index,
        mask_kind=np.array([MaskKind.RLE], np.uint8),
        mask_range=np.array([[0, len(counts)]]),
        rle=np.frombuffer(counts, np.uint8),
    )
    assert by_run_lengths.outline(0).tolist() == ends
    assert replace(index, mask_kind=np.array([MaskKind.BOX], np.uint8)).outline(0).tolist() == ends


# -- odd objects and bad input -----------------------------------------------------------------------------------------


def test_an_object_of_one_pixel_and_four_clicks_on_one_spot_are_boxes_of_a_pixel(tmp_path):
    index = index_of(tmp_path, [square(SIZE, (33, 21), 1)])
    for rule in (VertexPoints(), recorded(tmp_path, index, [[[33.2, 21.1]] * 4])):
        for train in (True, False):
            sample = ObjectSamples(index, replace(of_rule(rule), flip=0.0), train=train)[0, 0]
            assert sample.box.tolist() == [33, 21, 33, 21]
            assert sample.mask.any()


def test_the_order_of_clicked_points_does_not_matter(tmp_path):
    index = index_of(tmp_path, MASKS[:1])
    points = extreme_points(MASKS[0])
    samples = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 0, 1, 2])):
        (tmp_path / str(number)).mkdir()
        rule = recorded(tmp_path / str(number), index, [points[order]])
        samples.append(ObjectSamples(index, of_rule(rule), train=True)[1, 0])
    assert_same(*samples)


def test_fewer_points_than_four_are_refused(tmp_path):
    index = index_of(tmp_path, MASKS)
    for rule, number in ((NoPoints(), 0), (ExtremePoints(counts=(3,)), 3)):
        samples = ObjectSamples(index, of_rule(rule), train=True)
        with pytest.raises(
            ValueError, match=rf"^object a_0 of drawn on .* four extreme points .*, got {number} of them"
        ):
            samples[0, 0]


def test_clicks_beyond_the_image_are_refused(tmp_path):
    index = index_of(tmp_path, MASKS[:1])
    rule = recorded(tmp_path, index, [[[3, 3], [5, 1], [99, 3], [5, 9]]])
    with pytest.raises(ValueError, match=r"leave the image of \(60, 80\) \(H, W\); .*correct them, or leave"):
        ObjectSamples(index, of_rule(rule), train=True)[0, 0]


def test_an_empty_mask_is_refused_where_points_need_it(tmp_path):
    index = index_of(tmp_path, [MASKS[0]])
    gone = replace(index, mask_value=np.full(1, 256, np.int32))
    with pytest.raises(ValueError, match="has no pixels in its mask; list the objects again"):
        ObjectSamples(gone, of_rule(ExtremePoints()), train=True)[0, 0]
    with pytest.raises(ValueError, match="at least one vertex"):
        ObjectSamples(gone, BOX, train=True)[0, 0]


def test_masks_of_other_objects_are_not_shown():
    with pytest.raises(ValueError, match=r"supervision is box.*leave others out, or set supervision to mask"):
        ObjectSamples(None, replace(BOX, extras=["others"]), train=True)  # type: ignore[arg-type]


def test_points_come_in_the_order_of_a_box():
    points = np.array([[5, 9], [9, 5], [1, 5], [5, 1]], np.float32)
    kinds = np.array([3, 2, 0, 1])
    assert within(points, kinds, SIZE).tolist() == [[1, 5], [5, 1], [9, 5], [5, 9]]


# -- names of runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [seen_in_training, seen_in_evaluation])
def test_supervision_names_a_run_only_where_it_is_not_the_mask(seen):
    assert "supervision" not in seen({})
    assert seen({"supervision": "mask"}) == seen({})
    assert seen({"supervision": "box"}) == {**seen({}), "supervision": "box"}


def test_names_of_runs_with_masks_are_made_of_what_they_always_were():
    training = {"size", "view", "geometry", "interpolation", "masks", "void_band", "flip", "rotation", "scale"}
    assert {*seen_in_training({})} == training | {"train_points", "transforms", "extras"}
    assert {*seen_in_evaluation({})} == {"size", "view", "test_interpolation", "masks", "test_points", "extras"}
    assert DEFAULTS["supervision"] == "mask"


def test_the_scene_of_these_tests_is_smooth():
    assert np.abs(np.diff(scenery().astype(int), axis=1)).max() < 12


# -- which objects -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One image; objects in one, two and three parts, and a thin one, each called by what it is."""
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    left, right, crumb = square(SIZE, (5, 5), (20, 20)), square(SIZE, (50, 5), (20, 15)), square(SIZE, (30, 50), (5, 5))
    corner = square(SIZE, (25, 25), (10, 10))  # touches the left one with a corner: 8-connected
    objects = {
        "one": left | corner,
        "thin": square(SIZE, (5, 55), (2, 40)),
        "three": left | right | square(SIZE, (30, 50), (7, 7)),
        "two": left | right | crumb,  # the crumb holds 25 of 725 pixels: 3.4 %
    }
    for kind in ("img", "gt"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for name, mask in objects.items():
        Image.fromarray(scenery()).save(tmp_path / "own" / "img" / f"{name}.png")
        Image.fromarray(255 * mask).save(tmp_path / "own" / "gt" / f"{name}.png")
    return f"folder:{tmp_path / 'own'}"


def chosen(folder: str, **more) -> list[str]:
    return list(open_objects([{"name": folder, **more}]).native_id)


def test_separated_objects_have_large_parts(folder):
    assert chosen(folder, pieces=1) == ["one", "thin", "three", "two"]
    assert chosen(folder, pieces=2) == ["three", "two"]
    assert chosen(folder, pieces=3) == ["three"]
    assert chosen(folder, pieces=3, piece_share=0.03) == ["three", "two"]
    assert chosen(folder, pieces=2, every=2) == ["three"]
    assert chosen(folder, pieces=2, limit=1)[0] in ("three", "two")


def test_small_and_thin_boxes_are_left_out(folder):
    """Of boxes of 30 x 30, 40 x 2, 60 x 52 and 60 x 50 pixels; the values themselves are kept."""
    assert chosen(folder, min_side=2) == ["one", "thin", "three", "two"]
    assert chosen(folder, min_side=3) == ["one", "three", "two"]
    assert chosen(folder, min_box_area=900) == ["one", "three", "two"]
    assert chosen(folder, min_box_area=901) == ["three", "two"]
    assert chosen(folder, min_box_area=3001, min_side=3) == ["three"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("pieces", -1, "pieces must be a whole number|pieces must be at least 0, got -1"),
        ("pieces", 1.5, "pieces must be a whole number at least 0, got 1.5"),
        ("piece_share", 2, "piece_share must be between 0 and 1, got 2"),
        ("min_side", -1, "min_side must be at least 0, got -1"),
        ("min_box_area", "large", "min_box_area must be a number at least 0, got 'large'"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(key, value, expected):
    with pytest.raises(ValueError, match=f"pascal/val: ({expected})"):
        Selection.of({"name": "pascal/val", key: value})


def test_selections_of_before_are_named_as_before(folder):
    """A run knows its data by what the recipe says of them and by their fingerprint."""
    index = open_objects([folder])
    everything = {"min_box_area": 0, "min_side": 0, "pieces": 0, "piece_share": 0.5}
    assert open_objects([{"name": folder, **everything}]).fingerprint() == index.fingerprint()
    assert open_objects([{"name": folder, "pieces": 2}]).fingerprint() != index.fingerprint()
