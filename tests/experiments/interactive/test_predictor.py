"""Masks for people who click: what the network sees, click by click, and what they are told."""

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import nn

from datamodules.batch import FullMask, Sample, collate
from datamodules.clicks.extreme import ExtremePoints
from datamodules.clicks.guidance import SignedGaussians
from datamodules.clicks.inside_outside import InsideOutside, InsideOutsideMaps
from datamodules.clicks.mask_distance import MaskDistance
from datamodules.clicks.points import EXTREME_KINDS, NoPoints, PointKind, Points, SimulatedPoints, Target
from datamodules.clicks.recorded import RecordedExtremePoints
from datamodules.clicks.rules import RULES
from datamodules.recipe import SampleRecipe
from datamodules.rendering import evaluation_views
from experiments import fit, predict
from experiments.composition.building import build_part
from experiments.composition.compose import compose
from experiments.console import one_sentence
from experiments.evaluation.clicks import click_through
from experiments.evaluation.pasting import Paste
from experiments.evaluation.simulated_user import SimulatedUser
from experiments.interactive.first_clicks import Opening
from experiments.interactive.predictor import Predictor
from lightning_modules.iog import IOG
from lightning_modules.itis import ITIS, margin
from tests.conftest import disc, square
from tests.experiments.evaluation.test_clicks import Discs, Same, whole_image

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
TINY = [
    "--config=itis",
    "--profile=miniature",
    "--threads=1",
    "--data.sample.size=32",
    "--data.batch_size=4",
    "--data.train=[{name: pascal/train, limit: 8}]",
    "--trainer.max_steps=2",
    "--model.network.widths=[8, 8, 16, 16]",
]


class Nearby(nn.Module):
    """Object where a positive click's map is the higher one, and at pixels of the last mask where neither says much."""

    def forward(self, seen):
        negative, positive = seen[:, -2:-1], seen[:, -1:]
        kept = 0.4 * (seen[:, 3:4] == -1) - 0.1 if seen.shape[1] == 6 else torch.full_like(positive, -0.1)
        return torch.cat([negative, positive + kept], 1)


def painter(masks=False, **sample):
    """A predictor whose masks can be told by hand: discs around positive clicks, holes around negative ones."""
    channel = MaskDistance() if masks else None
    model = ITIS(Nearby(), SignedGaussians(), nn.Identity(), torch.optim.Adam, mask_channel=channel)
    recipe = SampleRecipe(test_view="whole_image", test_points=NoPoints(), **sample)
    return Predictor(model.eval(), recipe, 0.5, paste="linear")


@pytest.fixture(scope="module")
def untrained(drawn):
    """The recipe's own network on the drawn data's scale, before it learned anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_ROOT", str(drawn))
        config = compose("itis", profile="miniature")
    torch.manual_seed(0)
    model = build_part(ITIS, config["model"]).eval()
    predictor = Predictor(model, build_part(SampleRecipe, config["data"]["init_args"]["sample"]), 0.5)
    image, points = torch.from_numpy(IMAGE).permute(2, 0, 1)[None], torch.tensor([[[20.0, 15.0]]])
    clicks = Points(points, torch.tensor([[PointKind.POSITIVE]]), torch.ones(1, 2))
    with torch.no_grad():  # undecided as it is: half of the pixels become object
        model.network.head.logits.bias[1] -= margin(model(image, clicks)).median()
    return predictor


CLICKS = [(20, 15, True), (60, 40, True), (30, 20, False), (79, 59, False)]


@pytest.mark.parametrize("name", ["painter", "untrained"])
def test_click_by_click_is_all_clicks_at_once(name, request):
    predictor = painter() if name == "painter" else request.getfixturevalue(name)
    session = predictor.session(IMAGE)
    masks = [session.click(x, y, positive) for x, y, positive in CLICKS]
    at_once = predictor.session(IMAGE).click_all([(20, 15), (60, 40)], [(30, 20), (79, 59)])
    np.testing.assert_array_equal(masks[-1], at_once)
    assert any((mask != masks[0]).any() for mask in masks)  # later clicks say something
    assert session.mask is masks[-1]
    assert session.points == [(x, y) for x, y, _ in CLICKS]
    assert session.kinds == [PointKind.POSITIVE] * 2 + [PointKind.NEGATIVE] * 2


def test_a_positive_click_adds_object_and_a_negative_one_takes_it_away():
    session = painter().session(IMAGE)
    assert session.mask.shape == (60, 80)
    assert not session.mask.any()
    first = session.click(20, 30)
    assert first[30, 20]
    assert not first[30, 60]
    second = session.click(60, 30)
    assert second[30, 20]
    assert second[30, 60]
    third = session.click(60, 30, positive=False)
    assert third[30, 20]
    assert not third[30, 60]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_session_sees_what_the_click_benchmark_sees(masks, scale):
    object_ = disc((60, 80), (50, 25), 18) | square((60, 80), top_left=(5, 40), side=(12, 20))
    user = SimulatedUser(object_, None, RULES["ritm"], draws=lambda t: None, most=6)
    predictor = painter(masks, long_side=round(80 * scale))
    click_through(predictor.model, whole_image(object_, scale=scale), [user], Paste(0.5, "linear"))
    assert len(user.clicks) == 6
    session = predictor.session(np.zeros((60, 80, 3), np.uint8))
    for (x, y), kind in zip(user.clicks, user.kinds, strict=True):
        session.click(x, y, kind == PointKind.POSITIVE)
    np.testing.assert_array_equal(session.mask, user.prediction > 0)


def test_an_image_beyond_the_long_side_is_shown_smaller_and_its_mask_is_as_large_as_it_is():
    shown = []
    predictor = painter(long_side=40)
    start = predictor.model.start
    predictor.model.start = lambda image, points: shown.append((image, points)) or start(image, points)
    session = predictor.session(IMAGE)
    mask = session.click(79, 0)
    ((image, points),) = shown
    assert image.shape == (1, 3, 30, 40)
    assert points.xy.tolist() == [[[39, 0]]]  # the outermost pixel, not beyond it
    assert mask.shape == (60, 80)
    assert mask[0, 79]
    session.click(10, 50)
    assert len(shown) == 1  # the image is looked at once


def test_a_network_with_a_mask_channel_starts_from_a_mask():
    start = square((60, 80), top_left=(50, 30), side=20)
    session = painter(masks=True).session(IMAGE, start)
    np.testing.assert_array_equal(session.mask, start > 0)
    mask = session.click(10, 10)
    assert mask[10, 10]
    assert mask[30:50, 50:70].all()  # what it started from
    assert not painter(masks=True).session(IMAGE).click(10, 10)[30:50, 50:70].any()
    assert not session.click(60, 40, positive=False)[40, 60]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (lambda p: p(IMAGE, [(1, 2), (3, 4), (5, 6), (7, 8)]), "with clicks, not extreme points; give --positive"),
        (lambda p: p.session(IMAGE).click_all([]), "at least one click, got none"),
        (lambda p: p.session(IMAGE).click(80, 3), "outside the image of 80 x 60 pixels: .*80"),
        (lambda p: p.session(IMAGE).click(3, -1, positive=False), "outside the image"),
        (lambda p: p.session(IMAGE).click(float("nan"), 3), "outside the image"),
        (lambda p: p.session(IMAGE, np.ones((60, 80))), "no mask channel.*leave out --mask"),
        (lambda _: painter(masks=True).session(IMAGE, np.ones((80, 60))), r"size \(60, 80\), got \(80, 60\)"),
        (lambda p: Predictor(p.model, SampleRecipe(), 0.5).session(IMAGE), "four extreme points; give --points x,y x"),
        (lambda p: Predictor(p.model, SampleRecipe(test_points=NoPoints()), 0.5).session(IMAGE), "whole images"),
    ],
)
def test_what_cannot_be_clicked_is_refused_in_one_sentence(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        asked(painter())


def test_a_refused_click_leaves_the_session_as_it_was():
    session, other = painter().session(IMAGE), painter().session(IMAGE)
    session.click(20, 15)
    with pytest.raises(ValueError, match="outside"):
        session.click(200, 15)
    other.click(20, 15)
    assert session.points == [(20, 15)]
    np.testing.assert_array_equal(session.click(60, 40), other.click(60, 40))


# An object whose crop is as large as the network's: what is simulated in the crop can be clicked in the image.
OBJECT = square((60, 80), top_left=(30, 20), side=(24, 20))
BOX = (27, 17, 56, 42)  # 3 pixels around it


class Maps(nn.Module):
    """Object where the map of inside and positive clicks is higher than the other, and the picture is not too dark."""

    def forward(self, seen):
        return (seen[:, 3:4] + 1 - seen[:, 4:5]) * 0.1 - (seen[:, :1] < 60).float()


def iog(relax=5, size=40, inside="centre", **more):
    recipe = SampleRecipe(
        size=size, relax=relax, test_interpolation="linear", test_points=InsideOutside(relax=3, inside=inside)
    )
    model = IOG(Maps(), InsideOutsideMaps(fwhm=14.0), nn.Identity(), torch.optim.Adam)
    return Predictor(model.eval(), recipe, 0.5, box="crop", **more)


def dextr(**more):
    recipe = SampleRecipe(size=32, relax=4, test_interpolation="linear")
    return Predictor(Discs(5.0), recipe, 0.5, **more)


def evaluated(predictor, object_, drawn=None):
    """The batch of one that an evaluation makes of an object, in a box that its user has drawn."""
    nothing = np.zeros_like(object_)
    views = evaluation_views(IMAGE, object_, nothing, predictor.recipe, drawn)
    points, kinds = predictor.recipe.test_points(Target(views.mask), np.random.default_rng(0))
    sample = Sample(
        image=views.image,
        mask=views.mask,
        void=views.void,
        points=points,
        point_kinds=kinds,
        to_crop=views.to_crop,
        crop_box=views.crop_box,
        box=views.box,
        image_size=(60, 80),
        object_id=0,
        rle=FullMask(coco_mask.encode(np.asfortranarray(object_)), None),
    )
    return collate([sample])


def test_iog_predicts_what_its_evaluation_predicts_from_the_same_points():
    predictor, object_ = iog(size=40), square((60, 80), top_left=(30, 20), side=24)
    batch = evaluated(predictor, object_, np.array([27, 17, 56, 46]))
    first, kinds = batch.points[0].numpy(), batch.point_kinds[0].numpy()
    user = SimulatedUser(
        object_, None, rule=RULES["iog"], first_points=first + np.array([22, 12]), first_kinds=kinds, most=7
    )
    click_through(predictor.model, batch, [user], Paste(0.5, "cubic", box="crop"))
    assert len(user.clicks) == 5 + 4
    (inside, *_), (start, end) = user.clicks, (user.clicks[1], user.clicks[4])
    session = predictor.session(IMAGE, inside=inside, box=(*start, *end))
    assert session.points == user.clicks[:5]
    first_mask = session.mask
    for (x, y), kind in zip(user.clicks[5:], user.kinds[5:], strict=True):
        session.click(x, y, kind == PointKind.POSITIVE)
    np.testing.assert_array_equal(session.mask, user.prediction > 0)
    assert 0 < first_mask.sum() != session.mask.sum()


def test_extreme_points_predict_what_their_evaluation_predicts():
    object_ = disc((60, 80), (41.5, 31.5), 12)
    for box in ("tight", "clicked", "crop"):
        predictor = dextr(box=box)
        batch = evaluated(predictor, object_)
        assert batch.size == (32, 32)
        first = batch.points[0].numpy() + np.array([26, 16])
        user = SimulatedUser(
            object_, None, rule=RULES["itis"], first_points=first, first_kinds=np.array(EXTREME_KINDS), most=7
        )
        click_through(predictor.model, batch, [user], Paste(0.5, "cubic", box=box))
        session = predictor.session(IMAGE, points=user.clicks[2::-1] + user.clicks[3:4])
        np.testing.assert_array_equal(predictor(IMAGE, user.clicks[:4]), session.mask)
        for (x, y), kind in zip(user.clicks[4:], user.kinds[4:], strict=True):
            session.click(x, y, kind == PointKind.POSITIVE)
        np.testing.assert_array_equal(session.mask, user.prediction > 0)


def test_a_mask_reaches_as_far_as_the_run_s_evaluation_lets_it():
    everywhere = Same(np.ones((32, 32), np.uint8))
    points = [(30, 30), (40, 20), (53, 30), (40, 43)]
    recipe = SampleRecipe(size=32, relax=4)
    dropped, kept = (Predictor(everywhere, recipe, 0.5, box=box)(IMAGE, points) for box in ("tight", "crop"))
    np.testing.assert_array_equal(dropped, square((60, 80), top_left=(30, 20), side=24) > 0)
    np.testing.assert_array_equal(kept, square((60, 80), top_left=(26, 16), side=32) > 0)
    map_ = Predictor(everywhere, recipe, 0.5, box="crop").probability(IMAGE, points)
    np.testing.assert_array_equal(map_ > 0.5, kept)


def test_two_corners_are_four_outside_points_whichever_diagonal():
    predictor = iog()
    one = predictor.session(IMAGE, inside=(40, 30), box=BOX)
    two = predictor.session(IMAGE, inside=(40, 30), box=(56, 17, 27, 42))
    assert one.points == two.points == [(40, 30), (27, 17), (27, 42), (56, 17), (56, 42)]
    assert one.kinds == [PointKind.INSIDE, *[PointKind.OUTSIDE] * 4]
    np.testing.assert_array_equal(one.mask, two.mask)
    shown = predictor.session(IMAGE, inside=(40, 30), box=BOX).batch
    assert shown.crop_box.tolist() == [[22, 12, 61, 47]]  # the box as it was drawn, and relax
    assert shown.points[0, 1].tolist() == [5, 6]  # 5 px at scales of 1 and 40 / 36, to the nearest pixel


def test_a_box_alone_is_enough_where_the_run_learned_without_an_inside_point():
    session = iog(inside="none").session(IMAGE, box=BOX)
    assert session.kinds == [PointKind.OUTSIDE] * 4
    with pytest.raises(ValueError, match="begins with a box around the object, not an inside point; give --box"):
        iog(inside="none").session(IMAGE, inside=(40, 30), box=BOX)


def test_what_does_not_depend_on_clicks_is_computed_once():
    predictor = dextr()
    session = predictor.session(IMAGE, points=[(30, 30), (40, 20), (53, 30), (40, 43)])
    session.click(40, 30)
    session.click(35, 25, positive=False)
    assert predictor.model.started == 1
    assert len(predictor.model.previous) == 3
    assert session.kinds == [*EXTREME_KINDS, PointKind.POSITIVE, PointKind.NEGATIVE]


class Three(SimulatedPoints):
    """The extreme points without the topmost one."""

    def __call__(self, target, draw):
        points, kinds = ExtremePoints()(target, draw)
        return points[[0, 2, 3]], kinds[[0, 2, 3]]


def test_a_method_of_three_points_is_given_three():
    recipe = SampleRecipe(size=32, relax=4, test_points=Three())
    predictor = Predictor(Discs(5.0), recipe, 0.5)
    session = predictor.session(IMAGE, points=[(53, 30), (40, 43), (30, 28)])
    assert session.points == [(30, 28), (53, 30), (40, 43)]
    assert session.kinds == [PointKind.LEFT, PointKind.RIGHT, PointKind.BOTTOM]
    assert session.batch.box.tolist() == [[30, 28, 53, 43]]
    with pytest.raises(ValueError, match=r"expected three points x,y .*, got 4"):
        predictor(IMAGE, [(30, 30), (40, 20), (53, 30), (40, 43)])


def test_a_run_of_recorded_points_asks_for_what_it_was_trained_with():
    recipe = SampleRecipe(test_points=RecordedExtremePoints("nowhere.json"))
    assert Opening.of(recipe).kinds == EXTREME_KINDS


EXTREME = [(30, 30), (40, 20), (53, 30), (40, 43)]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (lambda: iog().session(IMAGE), "an inside point and a box around the object; give --inside x,y --box x0,y0"),
        (lambda: iog().session(IMAGE, inside=(3, 4)), "; give --box x0,y0,x1,y1$"),
        (lambda: iog().session(IMAGE, box=BOX), "; give --inside x,y$"),
        (lambda: iog()(IMAGE, EXTREME), "not extreme points; give --inside x,y --box"),
        (lambda: iog().session(IMAGE, inside=(3, 4), box=BOX), r"inside point \[3.0, 4.0\] lies outside of its box"),
        (lambda: iog().session(IMAGE, inside=(40, 30), box=(27, 17, 90, 42)), "outside the image of 80 x 60"),
        (lambda: iog().session(IMAGE, inside=(40, 30), box=(27, 17, 42)), "expected a box x0,y0,x1,y1"),
        (lambda: iog().session(IMAGE, inside=[(1, 2), (3, 4)], box=BOX), "expected one inside point"),
        (lambda: dextr().session(IMAGE, inside=(3, 4), box=BOX), "four extreme points, not an inside point and a box"),
        (lambda: dextr()(IMAGE, EXTREME[:3]), "expected four points x,y .*, got 3"),
        (lambda: dextr(corrections=0).session(IMAGE, points=EXTREME).click(40, 30), "makes no further clicks"),
        (lambda: dextr(corrections=1).session(IMAGE, points=EXTREME).click_all(EXTREME), "at most 1 more.*got 4"),
        (lambda: dextr().session(IMAGE, np.ones((60, 80)), points=EXTREME), "no mask channel"),
    ],
)
def test_what_the_method_does_not_begin_with_is_refused_by_the_option_s_name(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        asked()


def test_the_command_takes_an_inside_point_and_a_box_and_further_clicks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Predictor, "from_run", classmethod(lambda cls, run: iog()))
    monkeypatch.setattr(predict, "finished_training", lambda run: None)
    monkeypatch.setattr(predict, "finds_instances", lambda training: False)
    cv2.imwrite("image.png", IMAGE[..., ::-1])
    session = iog().session(IMAGE, inside=(40, 30), box=BOX)
    for more, mask in (([], session.mask), (["--positive", "50,22", "--negative", "30,40"], None)):
        predict.main(["image.png", "--run", "0", "--inside", "40,30", "--box", "27,17,56,42", *more])
        mask = session.click_all([(50, 22)], [(30, 40)]) if mask is None else mask
        np.testing.assert_array_equal(cv2.imread("image.mask.png", cv2.IMREAD_GRAYSCALE), 255 * mask)
    for box in ("27,17,56", "27,17,56,x", "27;17;56;42"):
        with pytest.raises(ValueError, match="a box is written x0,y0,x1,y1"):
            predict.main(["image.png", "--run", "0", "--inside", "40,30", "--box", box])


@pytest.mark.slow
def test_the_command_takes_clicks_for_a_run_that_begins_without_points(here, capsys):
    (record,) = fit.run([*TINY, "--no-test"])
    run = record["run"]
    cv2.imwrite("image.png", IMAGE)
    cv2.imwrite("mask.png", 255 * square((60, 80), top_left=(50, 30), side=20))
    predict.main(["image.png", "--run", run, "--positive", "20,15", "60,40", "--negative", "30,20"])
    mask = cv2.imread("image.mask.png", cv2.IMREAD_GRAYSCALE)
    session = Predictor.from_run(run).session(IMAGE[..., ::-1])
    for click in [(20, 15), (60, 40), (30, 20, False)]:
        session.click(*click)
    np.testing.assert_array_equal(mask, 255 * session.mask)
    overlay = cv2.imread("image.overlay.png")
    green, red = (overlay[round((y + 0.5) * 6), round((x + 0.5) * 6)] for x, y in ((20, 15), (30, 20)))
    assert green.argmax() == 1
    assert red.argmax() == 2

    def refused(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            one_sentence(lambda: predict.main(["image.png", "--run", run, *arguments]))
        return capsys.readouterr().err

    extreme = ("--points", "1,2", "3,4", "5,6", "7,8")
    assert "begins with clicks, not extreme points" in refused(*extreme)
    assert "begins with clicks, not extreme points" in refused(*extreme, "--positive", "3,4")
    assert "not an inside point and a box" in refused("--inside", "3,4", "--box", "1,1,9,9")
    assert "got none" in refused()
    assert "no mask channel" in refused("--positive", "3,4", "--mask", "mask.png")
    assert "outside the image" in refused("--positive", "3,400")
