"""The view of MAL and EXITS: expanded by chance, on an image that repeats beyond its border."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.clicks.vertices import VertexPoints
from datamodules.expanded import ExpandedBox, drawn_shares, expanded_box
from datamodules.keys import rng
from datamodules.recipe import SampleRecipe, seen_in_training
from datamodules.rendering import augmented_views, evaluation_views
from datamodules.samples import ObjectSamples
from tests.conftest import GOLDEN, square
from tests.datamodules.test_samples import COLOUR, index_of, scenery

SIZE = (60, 80)
POINTS = VertexPoints()
RECIPE = SampleRecipe(
    size=96,
    view=ExpandedBox(),
    flip=0.5,
    rotation=0.0,
    scale=(1.0, 1.0),
    interpolation="linear",
    supervision="box",
    train_points=POINTS,
    test_points=POINTS,
)
FORMS = pytest.mark.parametrize("form", ["chain", "fused"])
ENDS = np.array([0, 0, 1, 1])  # the golden boxes end one pixel later than inclusive ones


@pytest.fixture(scope="module")
def exits() -> dict[str, NDArray]:
    with np.load(GOLDEN / "exits.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.split("/")[0] in ("crop", "wrap", "testcrop")}


# -- as the published code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(12))
def test_a_box_is_expanded_as_in_the_published_code(exits, number):
    box, (height, width) = exits["crop/boxes_xyxy"][number], exits["crop/hw"][number].tolist()
    test = ExpandedBox().crop_box(box, (height, width), None)
    assert (test + ENDS).tolist() == exits["crop/test_expanded"][number].tolist()
    training = expanded_box(box, exits["crop/train_effective_margins_ltrb"][number])
    assert (training + ENDS).tolist() == exits["crop/train_expanded"][number].tolist()


@pytest.mark.parametrize("number", range(8))
def test_the_image_repeats_beyond_its_border_as_in_the_published_code(exits, number):
    box = exits["wrap/boxes"][number] - ENDS
    crop = geometry.crop(exits["wrap/image"], box, ExpandedBox().beyond)
    np.testing.assert_array_equal(crop, exits[f"wrap/crop{number}"])


def test_the_whole_crop_at_test_is_that_of_the_published_code(exits):
    view, image, mask = ExpandedBox(), exits["testcrop/image"], exits["testcrop/boxmask_in"]
    box = view.crop_box(exits["testcrop/box"], image.shape[:2], None)
    assert (box + ENDS).tolist() == exits["testcrop/ext_box"].tolist()
    seen = view.resized(geometry.crop(image, box, "wrap"), (48, 48), "cubic")
    inside = view.resized_mask(geometry.crop(mask, box, "zero"), (48, 48), soft=False)
    assert np.abs(seen.astype(int) - exits["testcrop/image_out"]).max() <= 1
    np.testing.assert_array_equal(inside, exits["testcrop/boxmask_out"])


# -- where it lies -----------------------------------------------------------------------------------------------------


def test_without_growth_an_inclusive_box_stays_as_it_is():
    for box in ([3, 4, 20, 31], [5, 5, 5, 5], [2, 7, 9, 7]):
        assert expanded_box(np.array(box), np.zeros(4)).tolist() == box


@given(st.integers(0, 2**31), st.floats(0, 3))
def test_growth_on_opposite_sides_is_shared_by_a_gate(key, most):
    shares = drawn_shares(most, rng(key))
    assert ((shares >= 0) & (shares <= most)).all()
    assert (shares[:2] + shares[2:] <= most + 1e-9).all()


def test_growth_is_a_quarter_of_the_most_on_average():
    shares = np.stack([drawn_shares(1.2, rng(key)) for key in range(4000)])
    np.testing.assert_allclose(shares.mean(0), 0.3, atol=0.015)
    assert len({tuple(row) for row in shares.tolist()}) == 4000


boxes = st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(0, 59), st.integers(0, 39)).map(
    lambda v: np.array([min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])])
)


@given(boxes, st.sampled_from([None, 0, 1, 2]), st.sampled_from([0.0, 1.2, 9.0]))
def test_the_view_holds_the_box_and_leaves_the_image_by_less_than_its_size(box, key, most):
    view = ExpandedBox(most=most, margin=most)
    crop_box = view.crop_box(box, (40, 60), None if key is None else rng(key))
    assert (crop_box[:2] <= box[:2]).all()
    assert (crop_box[2:] >= box[2:]).all()
    assert (crop_box[:2] > [-60, -40]).all()
    assert (crop_box[2:] < [120, 80]).all()


def test_a_share_below_0_and_another_border_are_refused():
    with pytest.raises(ValueError, match=r"ExpandedBox: margin must be at least 0, got -0.1"):
        ExpandedBox(margin=-0.1)
    with pytest.raises(ValueError, match="ExpandedBox: beyond is 'mirror'; expected wrap or zero"):
        ExpandedBox(beyond="mirror")  # type: ignore[arg-type]


def test_a_report_says_what_is_seen():
    assert ExpandedBox().in_words(512) == (
        "512 px, box expanded by up to 1.2 (at test 0.3) of its half size, the image repeats beyond its border"
    )
    view = {"class_path": "datamodules.expanded.ExpandedBox", "init_args": {"margin": 0.5}}
    named = seen_in_training({"view": view})["view"]
    assert named == {"class": "ExpandedBox", "behaviour": 2, "most": 1.2, "margin": 0.5, "beyond": "wrap"}


# -- what it shows -----------------------------------------------------------------------------------------------------


def views_at(box_at, side, recipe=RECIPE, key=0, image=None):
    mask = square(SIZE, top_left=box_at, side=side)
    image = scenery() if image is None else image
    return augmented_views(image, mask, np.zeros_like(mask), recipe, rng(key))


def test_the_fused_map_shows_what_the_chain_shows():
    """On a smooth image; here 0.19 of 255 levels apart on average, and box masks with an IoU of 0.996 (least 0.976)."""
    apart, ious = [], []
    for key in range(30):
        place, side = rng(key).integers([0, 0], [50, 35]), rng(1, key).integers(8, 25, 2)
        chain, fused = (
            views_at(tuple(place.tolist()), tuple(side.tolist()), replace(RECIPE, geometry=form), key)
            for form in ("chain", "fused")
        )
        np.testing.assert_array_equal(chain.to_crop, fused.to_crop)
        np.testing.assert_array_equal(chain.crop_box, fused.crop_box)
        # the seam of the torus is an edge, on which cubic and linear sampling differ
        inner = cv2.erode(_inside(chain.to_crop, 96), np.ones((9, 9), np.uint8)) > 0
        apart.append(np.abs(chain.image.astype(float) - fused.image)[inner].mean())
        ious.append((chain.mask & fused.mask).sum() / (chain.mask | fused.mask).sum())
    assert np.mean(apart) < 0.25
    assert np.max(apart) < 0.5
    assert np.mean(ious) > 0.99
    assert np.min(ious) > 0.96


def _inside(to_crop: NDArray, size: int) -> NDArray[np.uint8]:
    """1 at pixels of the crop that lie in the image."""
    return geometry.warp(np.ones(SIZE, np.uint8), to_crop, (size, size), "nearest")


def test_the_fused_map_is_the_box_cut_out_flipped_and_resized():
    image, flipped = scenery(), set()
    for key in range(12):
        views = views_at((20, 8), (25, 40), replace(RECIPE, geometry="fused"), key)
        flip = views.to_crop[0, 0] < 0
        seen = geometry.crop(np.ascontiguousarray(image[:, ::-1]) if flip else image, views.crop_box, "wrap")
        expected = geometry.resize(np.ascontiguousarray(seen), (96, 96), "linear")
        assert np.abs(views.image.astype(int) - expected).max() <= 1  # a flip rounds the other way
        flipped.add(bool(flip))
        warped = geometry.warp(image, views.to_crop, (96, 96), "linear", "wrap")
        within = cv2.erode(_inside(views.to_crop, 96), np.ones((9, 9), np.uint8)) > 0
        assert np.abs(views.image.astype(int) - warped)[2:-2, 2:-2][within[2:-2, 2:-2]].max() <= 1
    assert flipped == {True, False}


@FORMS
def test_in_training_the_box_stands_beyond_the_image_once_more(form):
    """A box over all of the width but four columns: beyond either side of the image comes, after a gap, itself."""
    recipe = replace(RECIPE, geometry=form, flip=0.0)
    seen = 0
    for key in range(20):
        views = views_at((2, 20), (20, 76), recipe, key)
        beyond = _inside(views.to_crop, 96) == 0
        if views.crop_box[0] < -8 or views.crop_box[2] > SIZE[1] + 8:
            seen += 1
            assert views.mask[beyond].any()
            assert views.image[beyond].any()
    assert seen


def test_at_test_the_image_repeats_and_the_box_does_not():
    mask = square(SIZE, top_left=(0, 20), side=(20, 80))
    views = evaluation_views(scenery(), mask, np.zeros_like(mask), RECIPE)
    assert views.crop_box.tolist() == [-12, 17, 91, 42]
    beyond = cv2.dilate(_inside(views.to_crop, 96), np.ones((3, 3), np.uint8)) == 0
    assert beyond.any()
    assert views.image[beyond].min() > 0
    assert not views.mask[beyond].any()
    by_mask = evaluation_views(scenery(), mask, np.zeros_like(mask), replace(RECIPE, supervision="mask"))
    assert by_mask.mask[beyond].any()


@FORMS
@pytest.mark.parametrize(
    ("at", "side"),
    [((0, 0), 60), ((0, 0), (60, 80)), ((79, 59), 1), ((0, 0), 1), ((40, 0), (60, 1)), ((0, 30), (1, 80))],
)
def test_any_object_of_the_image_can_be_seen(form, at, side):
    """At the border, of one pixel, as large as the image."""
    for key in range(4):
        views = views_at(at, side, replace(RECIPE, geometry=form), key)
        assert views.image.shape == (96, 96, 3)
        assert views.mask.any()
        assert tight_box(square(SIZE, at, side)).tolist()[1::2] == views.box.tolist()[1::2]


def test_both_views_of_an_object_share_one_geometry(tmp_path):
    index = index_of(tmp_path, [square(SIZE, (30, 20), (20, 24))])
    plain = ObjectSamples(index, replace(RECIPE, extras=["clean_image"]), train=True)
    coloured = ObjectSamples(index, replace(RECIPE, extras=["clean_image"], transforms=[COLOUR]), train=True)
    for epoch in range(3):
        np.testing.assert_array_equal(coloured[epoch, 0].clean_image, plain[epoch, 0].image)
        assert not np.array_equal(coloured[epoch, 0].image, plain[epoch, 0].image)


@FORMS
def test_soft_masks_lie_between_0_and_1(form):
    views = views_at((20, 20), (20, 20), replace(RECIPE, geometry=form, masks="soft"))
    assert views.mask.dtype == np.float32
    assert views.mask.min() == 0
    assert views.mask.max() == 1
    assert ((views.mask > 0.2) & (views.mask < 0.8)).any()
