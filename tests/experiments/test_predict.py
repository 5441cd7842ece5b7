"""Masks for people who click: what the network sees, click by click, and what they are told."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from datamodules.clicks.corrective import RULES
from datamodules.clicks.guidance import SignedGaussians
from datamodules.clicks.mask_distance import MaskDistance
from datamodules.clicks.points import NoPoints, PointKind, Points
from datamodules.recipe import SampleRecipe
from experiments import fit, predict
from experiments.click_benchmark import Paste, click_through
from experiments.compose import compose
from experiments.predict import Predictor
from experiments.sentences import one_sentence
from experiments.simulated_user import SimulatedUser
from experiments.training import build_part
from lightning_modules.itis import ITIS, margin
from tests.conftest import disc, square
from tests.experiments.test_click_benchmark import whole_image

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
TINY = [
    "--config=itis", "--profile=miniature", "--threads=1", "--data.sample.size=32", "--data.batch_size=4",
    "--data.train=[{name: pascal/train, limit: 8}]", "--trainer.max_steps=2", "--model.network.widths=[8, 8, 16, 16]",
]  # fmt: skip


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
    return Predictor(model.eval(), recipe, 0.5)


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
        (lambda p: p(IMAGE, [(1, 2), (3, 4), (5, 6), (7, 8)]), "takes clicks, not extreme points; give --positive"),
        (lambda p: p.session(IMAGE).click_all([]), "at least one click, got none"),
        (lambda p: p.session(IMAGE).click(80, 3), "outside the image of 80 x 60 pixels: .*80"),
        (lambda p: p.session(IMAGE).click(3, -1, positive=False), "outside the image"),
        (lambda p: p.session(IMAGE).click(float("nan"), 3), "outside the image"),
        (lambda p: p.session(IMAGE, np.ones((60, 80))), "no mask channel.*leave out --mask"),
        (lambda _: painter(masks=True).session(IMAGE, np.ones((80, 60))), r"size \(60, 80\), got \(80, 60\)"),
        (lambda p: Predictor(p.model, SampleRecipe(), 0.5).session(IMAGE), "takes four extreme points, not clicks"),
        (lambda p: Predictor(p.model, SampleRecipe(test_points=NoPoints()), 0.5).session(IMAGE), "whole images"),
    ],
)  # fmt: skip
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
    assert "takes clicks, not extreme points" in refused(*extreme)
    assert "got both" in refused(*extreme, "--positive", "3,4")
    assert "got none" in refused()
    assert "no mask channel" in refused("--positive", "3,4", "--mask", "mask.png")
    assert "outside the image" in refused("--positive", "3,400")
