"""A view is a class: those of the recipes, and one that nobody here knows."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules import geometry
from datamodules.clicks.extreme import tight_box
from datamodules.keys import rng
from datamodules.recipe import SampleRecipe, seen_in_evaluation, seen_in_training, views_of
from datamodules.rendering import augmented_views, evaluation_views
from datamodules.samples import ObjectSamples
from datamodules.views import BoxView, Crop, FullImage, View, WholeImage, Window
from experiments.composition.building import sample_recipe
from experiments.composition.compose import compose
from tests.conftest import disc, square
from tests.datamodules.test_samples import COLOUR, SIZE, index_of, scenery

HERE = "tests.datamodules.test_views"


@dataclass(frozen=True)
class Expanded(BoxView):
    """The object's box, in training wider by up to `most` pixels on each side, at test by `margin`, on a torus."""

    most: int = 40
    margin: int = 10
    beyond: geometry.Beyond = "wrap"
    clean_moves = True

    def crop_box(self, box: NDArray, image_size: tuple[int, int], draw: np.random.Generator | None) -> NDArray:
        sides = [self.margin] * 4 if draw is None else draw.integers(0, self.most + 1, 4)
        return box + np.array([-1, -1, 1, 1]) * sides


@dataclass(frozen=True)
class Fixed(BoxView):
    """Always the same 40 x 40 pixels, on the upper and the right side beyond the image."""

    beyond: geometry.Beyond = "wrap"

    def crop_box(self, box: NDArray, image_size: tuple[int, int], draw: np.random.Generator | None) -> NDArray:
        return np.array([50, -8, 89, 31])


EXPANDED = SampleRecipe(size=64, view=Expanded(), flip=0.0, rotation=0.0, scale=(1.0, 1.0), interpolation="linear")
FORMS = pytest.mark.parametrize("form", ["chain", "fused"])


def test_a_recipes_words_are_views():
    assert SampleRecipe().training_view == SampleRecipe().evaluation_view == Crop(relax=50)
    windows = SampleRecipe(view="window", window="random", short_side=240, test_view="whole_image", long_side=384)
    assert windows.training_view == Window(short_side=240, place="random")
    assert windows.evaluation_view == WholeImage(long_side=384)
    assert replace(windows, test_view="same").evaluation_view == FullImage()
    assert views_of({"view": "full_image", "relax": 8}) == (FullImage(), FullImage())


def test_a_view_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no view 'cropp'; there are crop, full_image, window, whole_image, and"):
        views_of({"view": "cropp"})
    with pytest.raises(ValueError, match=r"^no view 'cropp'; there are .* and classes as \{class_path: \.\.\.\}$"):
        compose("dextr", profile="miniature", overrides=["data.sample.view=cropp"])
    config = compose("dextr", profile="miniature")
    config["data"]["init_args"]["sample"]["view"] = "cropp"
    with pytest.raises(ValueError, match=r"view: expected a Literal\['crop', .*\] or a class, got value: cropp$"):
        sample_recipe(config)
    wrong = {"class_path": f"{HERE}.Expanded", "init_args": {"least": 3}}
    with pytest.raises(ValueError, match=r"^no view can be made of .* unexpected keyword argument 'least'"):
        compose("dextr", overrides=[f"data.sample.view={json.dumps(wrong)}"])
    config["data"]["init_args"]["sample"]["view"] = wrong
    with pytest.raises(ValueError, match=r"view: Problem with given class_path .*Option 'least' is not accepted$"):
        sample_recipe(config)


@pytest.mark.parametrize("key", ["view", "test_view"])
def test_a_recipe_may_name_a_class_that_stands_anywhere(key):
    asked = f"data.sample.{key}={{class_path: {HERE}.Expanded, init_args: {{margin: 3}}}}"
    config = compose("itis", profile="miniature", overrides=[asked])
    recipe = sample_recipe(config)
    training, evaluation = recipe.training_view, recipe.evaluation_view
    assert (training if key == "view" else evaluation) == Expanded(margin=3)
    assert (evaluation if key == "view" else training) == (WholeImage() if key == "view" else Window(place="random"))
    assert views_of(config["data"]["init_args"]["sample"]) == (training, evaluation)


# -- what a view decides ----------------------------------------------------------------------------------------------


@FORMS
def test_a_view_draws_its_box_in_training_and_has_a_fixed_one_at_test(form):
    mask = square(SIZE, top_left=(30, 20), side=(12, 24))
    recipe = replace(EXPANDED, geometry=form)
    boxes = []
    for key in range(20):
        views = augmented_views(scenery(), mask, np.zeros_like(mask), recipe, rng(key))
        margins = np.abs(views.crop_box - tight_box(mask))
        boxes.append(margins)
        assert views.mask.shape == (64, 64)
        np.testing.assert_allclose(views.to_crop, geometry.box_to_grid(views.crop_box, (64, 64)))
    assert np.min(boxes, axis=0).max() < 12
    assert np.max(boxes, axis=0).min() > 28
    for _ in range(2):
        test = evaluation_views(scenery(), mask, np.zeros_like(mask), recipe)
        assert test.crop_box.tolist() == [20, 10, 63, 41]


@FORMS
def test_beyond_the_image_a_view_may_show_the_image_once_more(form):
    mask = square(SIZE, top_left=(60, 2), side=(20, 20))
    image, void = scenery(), square(SIZE, top_left=(0, 0), side=(60, 3))
    recipe = replace(EXPANDED, geometry=form, view=Fixed())
    views = augmented_views(image, mask, void, recipe, rng(0))
    torus = np.tile(image, (3, 3, 1))[SIZE[0] - 8 : SIZE[0] + 32, SIZE[1] + 50 : SIZE[1] + 90]
    expected = cv2.resize(torus.astype(np.float32), (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(views.image.astype(float) - expected).max() < (1e-3 if form == "chain" else 1.6)
    assert views.void[:, 49:52].all()  # of the image's left side, seen beyond its right one
    black = augmented_views(image, mask, void, replace(recipe, view=Fixed("zero")), rng(0))
    assert not black.void.any()
    assert not black.image[:10].any()


@FORMS
def test_a_clean_view_may_lie_where_the_first_one_does_and_differ_in_colours_alone(tmp_path, form):
    recipe = replace(EXPANDED, geometry=form, flip=0.5, extras=["clean_image", "others"])
    index = index_of(tmp_path, [disc(SIZE, (40, 30), 9), disc(SIZE, (70, 30), 5)])
    plain = ObjectSamples(index, recipe, train=True, seed=5)
    coloured = ObjectSamples(index, replace(recipe, transforms=[COLOUR]), train=True, seed=5)
    for epoch in range(4):
        np.testing.assert_array_equal(plain[epoch, 0].clean_image, plain[epoch, 0].image)
        np.testing.assert_array_equal(coloured[epoch, 0].clean_image, plain[epoch, 0].image)
        assert not np.array_equal(coloured[epoch, 0].image, plain[epoch, 0].image)


def test_other_objects_stand_beyond_the_image_as_the_image_does(tmp_path):
    own, other = disc(SIZE, (72, 30), 6), disc(SIZE, (5, 30), 4)
    index = index_of(tmp_path, [own, other])
    for beyond, seen in (("wrap", True), ("zero", False)):
        recipe = replace(EXPANDED, view=Expanded(margin=12, beyond=beyond), extras=["others"])
        sample = ObjectSamples(index, recipe, train=False)[0]
        assert sample.others.any() == seen


def test_a_window_at_test_is_the_corner_window():
    mask = square((60, 200), (150, 20), (20, 30))
    recipe = SampleRecipe(size=60, view="window", test_view=Window(place="random"), test_interpolation="linear")
    views = evaluation_views(scenery((60, 200)), mask, np.zeros_like(mask), recipe)
    assert views.crop_box.tolist() == [119, 0, 178, 59]
    np.testing.assert_array_equal(views.image, scenery((60, 200))[:, 119:179])


def test_a_view_says_itself_in_words():
    words = {
        Crop(relax=50): "512 px, margin 50 px of the image, crop",
        FullImage(): "512 px, full image",
        Window(): "corner window of 512 px, the image's shorter side resized to 512 px",
        Window(240, "random"): "random window of 512 px, the image's shorter side resized to 240 px",
        WholeImage(): "the whole image, at its own size",
        WholeImage(384): "the whole image, its longer side at most 384 px",
        Expanded(margin=3): "Expanded (most 40, margin 3, beyond wrap)",
    }
    assert {view: view.in_words(512) for view in words} == words


@pytest.mark.parametrize(("view", "side"), [(Crop(), 512), (Window(), 512), (Window(short_side=240), 240)])
def test_pixel_constants_follow_the_side_that_says_how_large_a_pixel_is(view: View, side):
    assert view.pixel_side(512) == side


# -- what a result depends on -----------------------------------------------------------------------------------------


def plain(*overrides: str, recipe: str = "dextr") -> dict:
    return compose(recipe, overrides=overrides)["data"]["init_args"]["sample"]


def test_a_training_depends_on_nothing_of_the_test_and_on_no_flag_that_its_view_does_not_read():
    sample = plain()
    seen = seen_in_training(sample)
    assert seen["view"] == {"class": "Crop", "relax": 50}
    assert not {"relax", "short_side", "window", "test_view", "long_side", "test_points", "test_interpolation"} & {
        *seen
    }
    assert all(seen[key] == value for key, value in sample.items() if key in seen and key != "view")
    other = {"short_side": 9, "window": "random", "test_view": "whole_image", "long_side": 9, "test_points": None}
    assert seen_in_training({**sample, **other, "test_interpolation": "linear"}) == seen
    for key, value in {"relax": 9, "size": 9, "view": "full_image", "flip": 0.1, "geometry": "fused"}.items():
        assert seen_in_training({**sample, key: value}) != seen
    itis = seen_in_training(plain(recipe="itis"))
    assert itis["view"] == {"class": "Window", "short_side": 0, "place": "corner"}
    assert seen_in_training({**plain(recipe="itis"), "relax": 9}) == itis


def test_only_the_chain_interpolates_twice():
    fused, chain = ({"geometry": form, "interpolation": "linear"} for form in ("fused", "chain"))
    assert seen_in_training(fused) == seen_in_training({**fused, "warp_interpolation": "cubic"})
    assert seen_in_training(chain) == seen_in_training({**chain, "warp_interpolation": "linear"})
    assert seen_in_training(chain) != seen_in_training({**chain, "warp_interpolation": "cubic"})


def test_an_evaluation_depends_on_nothing_of_the_training():
    sample = plain()
    seen = seen_in_evaluation(sample)
    assert {*seen} == {"size", "view", "test_interpolation", "masks", "test_points", "extras"}
    assert seen["view"] == {"class": "Crop", "relax": 50}
    other = {"flip": 0.1, "rotation": 1.0, "scale": [1, 1], "geometry": "fused", "transforms": [1], "void_band": 3}
    assert seen_in_evaluation({**sample, **other, "train_points": None, "long_side": 9, "window": "random"}) == seen
    for key, value in {"relax": 9, "size": 9, "test_interpolation": "linear", "test_points": None}.items():
        assert seen_in_evaluation({**sample, key: value}) != seen


def test_a_whole_image_is_evaluated_whatever_was_trained_on():
    sample = plain(recipe="itis")
    seen = seen_in_evaluation(sample)
    assert {*seen} == {"view", "test_points", "extras"}
    assert seen["view"] == {"class": "WholeImage", "long_side": 0}
    other = {"view": "crop", "relax": 3, "short_side": 9, "window": "random", "size": 9, "test_interpolation": "cubic"}
    assert seen_in_evaluation({**sample, **other}) == seen
    assert seen_in_evaluation({**sample, "long_side": 384}) != seen


@pytest.mark.parametrize("seen", [seen_in_training, seen_in_evaluation])
def test_what_a_sample_leaves_out_counts_as_its_default(seen):
    points = {"class_path": "datamodules.clicks.extreme.ExtremePoints", "init_args": {}}
    given = {
        "size": 512,
        "relax": 50,
        "view": "crop",
        "test_view": "same",
        "scale": [0.75, 1.25],
        "train_points": points,
        "test_points": points,
        "extras": [],
        "masks": "hard",
    }
    assert seen({}) == seen(given)
    json.dumps(seen({}))


@pytest.mark.parametrize("seen", [seen_in_training, seen_in_evaluation])
def test_a_view_of_its_own_class_is_named_by_what_it_holds(seen):
    view = {"class_path": f"{HERE}.Expanded", "init_args": {"margin": 3}}
    named = seen(plain(f"data.sample.view={json.dumps(view)}"))["view"]
    assert named == {"class": f"{HERE}.Expanded", "most": 40, "margin": 3, "beyond": "wrap"}
