"""The click benchmark, played by a network that needs no training: it paints a disc at every click, in their order."""

import copy
import json
import math
import re
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pytorch_lightning import LightningModule, Trainer

from datamodules import geometry
from datamodules.batch import FullMask, Sample, collate
from datamodules.clicks.extreme import extreme_points, tight_box
from datamodules.clicks.inside_outside import InsideOutside
from datamodules.clicks.points import EXTREME_KINDS, PointKind, Target, clicks_made
from datamodules.clicks.rules import RULES
from datamodules.keys import rng
from datamodules.selection import open_objects
from experiments import evaluate
from experiments import execute as execute_command
from experiments.composition.compose import compose
from experiments.evaluation import click_summary
from experiments.evaluation.clicking import click_rule, click_through
from experiments.evaluation.clicks import ClickScorer
from experiments.evaluation.evaluate import protocol_of
from experiments.evaluation.pasting import Paste, box_kept
from experiments.evaluation.rows import merge_rows, read_rows
from experiments.evaluation.settings import MaskSettings, read_settings
from experiments.evaluation.simulated_user import SimulatedUser
from experiments.launching.making import execute
from experiments.runs.folder import find_run
from experiments.runs.node import Node
from experiments.runs.reading import load_node
from lightning_modules.metrics.masks import object_iou
from tests.conftest import GOLDEN, disc, square
from tests.experiments.processes import done_by
from tests.experiments.tiny import TINY

INSIDE, OUTSIDE = PointKind.INSIDE, PointKind.OUTSIDE
CLICKS = {"rule": "itis", "most": 20, "corrections": None, "start": "nothing", "targets": [0.8, 0.85, 0.9]}


class Discs(LightningModule):
    """Paints discs around the clicks in their order, 1 for positive and extreme ones, 0 for negative ones."""

    def __init__(self, radius=9.0):
        super().__init__()
        self.radius, self.started, self.previous = radius, 0, []

    def start(self, image, points):
        self.started += 1
        return image.shape[-2:]

    def predict(self, state, points, previous_mask=None):
        self.previous.append(previous_mask)
        y, x = np.mgrid[: state[0], : state[1]]
        painted = np.zeros((len(points.xy), 1, *state), np.float32)
        for i, (places, kinds) in enumerate(zip(points.xy.numpy(), points.kinds.numpy(), strict=True)):
            for (cx, cy), kind in zip(places, kinds, strict=True):
                if kind != PointKind.PADDING:
                    painted[i, 0][(x - cx) ** 2 + (y - cy) ** 2 <= self.radius**2] = kind != PointKind.NEGATIVE
        return torch.from_numpy(painted) * 20 - 10, state


class Same(Discs):
    """Answers with the same masks whatever is clicked."""

    def __init__(self, *masks):
        super().__init__()
        self.masks = torch.from_numpy(np.stack(masks)[:, None]).float() * 20 - 10

    def predict(self, state, points, previous_mask=None):
        self.previous.append(previous_mask)
        return self.masks, state


def whole_image(*masks, void=None, scale=1.0):
    """A batch whose crops are the images, by `scale` larger or smaller, without a first point."""
    samples = []
    for number, mask in enumerate(masks):
        height, width = mask.shape
        size = (round(height * scale), round(width * scale))
        box = np.array([0, 0, width - 1, height - 1])
        samples.append(
            Sample(
                image=np.zeros((*size, 3), np.uint8),
                mask=geometry.resize(mask, size, "nearest"),
                void=np.zeros(size, np.uint8),
                points=np.zeros((0, 2), np.float32),
                point_kinds=np.zeros(0, np.int64),
                to_crop=geometry.box_to_grid(box, size),
                crop_box=box,
                box=tight_box(mask) if mask.any() else box,
                image_size=mask.shape,
                object_id=number,
                rle=FullMask(coco_mask.encode(np.asfortranarray(mask)), void),
            )
        )
    return collate(samples)


def user_of(mask, rule="itis", void=None, **more):
    return SimulatedUser(mask, void, RULES[rule], draws=lambda t: None, **more)


def played(model, *users, scale=1.0, paste=None):
    """The users after they clicked through their batch."""
    batch = whole_image(*(user.mask for user in users), scale=scale)
    click_through(model, batch, users, paste or Paste())
    return users


@pytest.fixture(scope="module", params=["itis", "ritm"])
def recorded(request):
    name = {"itis": "itis", "ritm": "clicks_ritm"}[request.param]
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as stored:
        return request.param, dict(stored)


@pytest.mark.parametrize("sequence", range(6))
def test_twenty_clicks_on_discs_are_the_authors_clicks_and_ious(recorded, sequence):
    rule, golden = recorded
    label = golden[f"gt_{golden['seq_case'][sequence]:02d}"]
    mask, void = (label == 1).astype(np.uint8), (label == 255).astype(np.uint8)
    (user,) = played(Discs(golden["seq_disc_radius"]), user_of(mask, rule, void if void.any() else None))
    expected = [(x, y, sign == 1) for y, x, sign in golden["seq_clicks"][sequence] if sign >= 0]
    positive = [kind == PointKind.POSITIVE for kind in user.kinds]
    assert [(x, y, sign) for (x, y), sign in zip(user.clicks, positive, strict=True)] == expected
    np.testing.assert_array_equal(user.curve(), golden["seq_iou"][sequence])


def test_objects_of_a_batch_are_clicked_as_each_alone():
    masks = [disc((50, 60), (20, 20), 9), square((50, 60), (10, 15), (20, 40)), disc((50, 60), (45, 30), 14)]
    together = played(Discs(), *map(user_of, masks))
    for user, mask in zip(together, masks, strict=True):
        (alone,) = played(Discs(), user_of(mask))
        assert (user.clicks, user.kinds, user.curve()) == (alone.clicks, alone.kinds, alone.curve())
    with ThreadPoolExecutor(3) as pool:
        threaded = [user_of(mask) for mask in masks]
        click_through(Discs(), whole_image(*masks), threaded, Paste(), pool.map)
    assert [user.clicks for user in threaded] == [user.clicks for user in together]


def test_a_mask_without_error_is_final_and_needs_no_network():
    model = Discs(9)
    (user,) = played(model, user_of(disc((50, 60), (30, 25), 9)))
    assert user.clicks == [(30, 25)]
    assert user.curve() == [1.0] * 20
    assert len(model.previous) == 1


def test_a_round_without_a_click_counts_and_changes_nothing():
    frame = np.zeros((20, 30), np.uint8)
    frame[0] = 1  # ITIS clicks nothing in the outermost pixels
    model = Discs()
    (user,) = played(model, user_of(frame))
    assert user.clicks == []
    assert user.curve() == [0.0] * 20
    assert not model.previous


def test_an_object_without_a_click_keeps_its_mask_while_others_go_on():
    frame = np.zeros((40, 40), np.uint8)
    frame[0] = 1
    model = Discs(4)
    stuck, free = played(model, user_of(frame), user_of(square(40, (5, 8), 21)))
    assert stuck.curve() == [0.0] * 20
    assert len(free.clicks) == 20
    assert free.curve()[-1] > 0.75
    assert not any(previous[0].any() for previous in model.previous[1:])


def with_extreme_points(mask):
    """A batch of one whose sample gives the four extreme points first, and its user's arguments."""
    points = extreme_points(mask)
    batch = whole_image(mask)
    batch = replace(batch, points=torch.from_numpy(points)[None], point_kinds=torch.tensor([EXTREME_KINDS]))
    return batch, {"first_points": points, "first_kinds": np.array(EXTREME_KINDS)}


def test_before_its_first_points_a_method_has_no_mask_and_after_its_last_correction_it_keeps_one():
    mask = square((60, 60), (10, 10), (30, 40))
    batch, first = with_extreme_points(mask)
    model = Discs(12)
    user = user_of(mask, corrections=0, **first)
    click_through(model, batch, [user], Paste())
    assert model.started == len(model.previous) == 1
    assert user.curve()[:3] == [0.0] * 3
    assert 0 < user.curve()[3] < 1
    assert user.curve()[3:] == [user.curve()[3]] * 17
    assert user.written().split() == [f"{x:g},{y:g},e" for x, y in first["first_points"]]


def test_the_first_points_are_clicks_and_corrections_come_after_them():
    mask = square((60, 60), (10, 10), (30, 40))
    batch, first = with_extreme_points(mask)
    model = Discs(6)
    user = user_of(mask, most=7, **first)
    click_through(model, batch, [user], Paste())
    assert len(model.previous) == 4
    assert len(user.clicks) == len(user.curve()) == 7
    assert {x[-1] for x in user.written().split()[4:]} <= {"+", "-"}


def test_more_first_points_than_clicks_are_refused():
    _, first = with_extreme_points(square(30, (5, 5), 9))
    with pytest.raises(ValueError, match="takes 4 clicks before its first mask, more than the 3 of"):
        user_of(square(30, (5, 5), 9), most=3, **first)


def test_the_network_sees_its_last_mask():
    model = Discs(6)
    played(model, user_of(square(40, (5, 5), 25), most=3))
    first, second, third = model.previous
    assert first is None
    assert second.shape == (1, 1, 40, 40)
    assert second.dtype == torch.float32
    np.testing.assert_array_equal(second[0, 0], disc((40, 40), (17, 17), 6))
    assert third.sum() > second.sum()


def test_refinement_starts_from_a_mask_and_corrects_it_at_once():
    mask, start = square((40, 60), (10, 10), (20, 40)), square((40, 60), (10, 10), (20, 30))
    model = Discs(3)
    (user,) = played(model, user_of(mask, start=start, most=2), scale=2.0, paste=Paste(interpolation="linear"))
    assert user.start_iou == 600 / 800
    assert 40 <= user.clicks[0][0] < 50  # in the part that the start mask misses
    np.testing.assert_array_equal(model.previous[0][0, 0], geometry.resize(start, (80, 120), "nearest"))
    assert len(user.curve()) == 2


def test_a_start_mask_without_error_needs_no_click():
    mask = square((40, 60), (10, 10), 20)
    (user,) = played(Discs(), user_of(mask, start=mask.copy()))
    assert (user.clicks, user.start_iou, user.curve()) == ([], 1.0, [1.0] * 20)


def test_void_pixels_are_neither_clicked_nor_counted():
    mask, void = square((40, 60), (20, 15), 9), square((40, 60), (30, 0), (40, 30))
    (user,) = played(Same(square((40, 60), (25, 10), 30)), user_of(mask, void=void, most=5))
    assert not any(void[y, x] for x, y in user.clicks)
    assert user.curve()[-1] == object_iou(square((40, 60), (25, 10), 30), mask, void)


def test_an_object_all_of_void_is_no_task():
    mask = square((20, 20), (5, 5), 6)
    (user,) = played(Discs(), user_of(mask, void=mask.copy(), most=2))
    assert (user.clicks, user.curve()) == ([], [1.0, 1.0])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_images_are_played_to_the_end(size):
    (user,) = played(Discs(2), user_of(np.ones(size, np.uint8), "ritm"))
    assert len(user.curve()) == 20
    assert user.curve()[-1] == 1


def test_a_click_is_found_in_the_image_and_shown_to_the_network_in_its_crop():
    mask = disc((40, 60), (30, 20), 9)
    seen = []

    class Seeing(Discs):
        def predict(self, state, points, previous_mask=None):
            seen.append(points.xy.clone())
            return super().predict(state, points, previous_mask)

    (user,) = played(Seeing(18), user_of(mask, most=2), scale=2.0, paste=Paste(interpolation="linear"))
    assert user.clicks[0] == (30, 20)
    np.testing.assert_allclose(seen[0][0], [[60.5, 40.5]])  # the centre of pixel 30 of 60 is at 60.5 of 120
    assert user.curve()[0] > 0.9


def test_a_click_on_the_rim_of_a_shrunken_image_stays_on_it():
    mask = np.zeros((40, 40), np.uint8)
    mask[0, 0] = 1
    seen = []

    class Seeing(Same):
        def predict(self, state, points, previous_mask=None):
            seen.append(points.xy.clone())
            return super().predict(state, points, previous_mask)

    (user,) = played(Seeing(np.zeros((10, 10), np.uint8)), user_of(mask, "ritm", most=1), scale=0.25)
    assert user.clicks == [(0, 0)]
    assert (seen[0] == 0).all()


def test_a_prediction_outside_the_tight_box_is_dropped_where_the_method_says_so():
    mask = square((40, 40), (10, 10), 10)
    everything = Same(np.ones((40, 40), np.uint8))
    assert played(everything, user_of(mask, most=1), paste=Paste(box="tight"))[0].curve() == [1.0]
    assert played(everything, user_of(mask, most=1), paste=Paste(box="crop"))[0].curve() == [100 / 1600]


@given(st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_a_threshold_of_the_logits_is_the_threshold_of_the_probability(threshold, seed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (50,)))
    by_probability = torch.sigmoid(logits) > threshold
    assert torch.equal(logits > Paste(threshold).logit, by_probability)


def test_a_crop_is_pasted_as_object_iou_does_it():
    mask = disc((50, 70), (40, 25), 10)
    box = tight_box(mask)
    crop_box = geometry.relax_box(box, 5)
    probability = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 3)
    crop = geometry.resize(geometry.crop(probability, crop_box), (32, 32), "linear")
    logits = torch.logit(torch.from_numpy(crop).clamp(1e-4, 1 - 1e-4))[None, None]
    batch = replace(
        whole_image(mask),
        image=torch.zeros(1, 3, 32, 32),
        crop_box=torch.from_numpy(crop_box)[None],
        box=torch.from_numpy(box)[None],
    )
    paste = Paste(0.3, box="tight")
    (pasted,) = paste.masks(logits, logits > paste.logit, batch, [mask.shape])
    expected = geometry.paste(torch.sigmoid(logits)[0, 0].numpy(), crop_box, mask.shape, box) > 0.3
    np.testing.assert_array_equal(pasted, expected)


def test_draws_are_keyed_by_object_and_round():
    mask = disc((50, 60), (30, 25), 20)

    def clicks(object_id):
        user = SimulatedUser(mask, None, RULES["random"], draws=lambda t: rng(3, object_id, t, 1), most=5)
        return played(Discs(3), user)[0].clicks

    assert clicks(7) == clicks(7)
    assert clicks(7) != clicks(8)


def test_a_rule_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"no click rule 'rittm'; did you mean 'ritm'\?"):
        click_rule("rittm")
    with pytest.raises(ValueError, match="there are: itis"):
        click_rule("zzz")


def test_three_clicks_give_iog_its_five_points_since_two_corners_follow_from_the_others():
    mask = square((60, 60), (10, 10), (30, 40))
    points, kinds = InsideOutside(relax=5)(Target(mask), np.random.default_rng(0))
    batch = replace(whole_image(mask), points=torch.from_numpy(points)[None], point_kinds=torch.from_numpy(kinds)[None])
    user = user_of(mask, most=4, first_points=points, first_kinds=kinds)
    click_through(Discs(6), batch, [user], Paste())
    assert user.curve()[:2] == [0.0, 0.0]
    assert len(user.curve()) == 4
    assert user.curve()[2] > 0  # three clicks were made for the first mask, one more for the second
    assert [text[-1] for text in user.written().split()][:5] == ["i", *"oooo"]
    assert len(user.clicks) == 6


@pytest.mark.parametrize(
    ("kinds", "clicks"),
    [
        ([INSIDE, *[OUTSIDE] * 4], 3),
        ([*[OUTSIDE] * 4], 2),
        ([OUTSIDE] * 2, 2),
        ([OUTSIDE], 1),
        ([*EXTREME_KINDS], 4),
        ([], 0),
        ([INSIDE, *[OUTSIDE] * 4, PointKind.POSITIVE, PointKind.PADDING], 4),
    ],
)
def test_points_that_follow_from_others_cost_no_click(kinds, clicks):
    assert clicks_made(np.array(kinds, np.int64)) == clicks


def test_where_predictions_count_is_one_of_three():
    with pytest.raises(ValueError, match=r"box.*tight.*clicked.*crop.*loose"):
        read_settings(MaskSettings, {"box": "loose"})


def test_a_prediction_outside_the_box_that_the_user_clicked_can_be_dropped():
    mask = square((60, 60), (20, 20), 10)
    points, kinds = InsideOutside(relax=5)(Target(mask), np.random.default_rng(0))
    batch = replace(whole_image(mask), points=torch.from_numpy(points)[None], point_kinds=torch.from_numpy(kinds)[None])
    assert box_kept("clicked", batch, 0).tolist() == [15, 15, 34, 34]  # the object's, 20 to 29, and 5 more
    assert box_kept("tight", batch, 0).tolist() == [20, 20, 29, 29]
    everywhere = torch.ones(1, 1, 60, 60)
    (kept,) = Paste(box="clicked").masks(everywhere, everywhere > 0, batch, [(60, 60)])
    assert kept.sum() == 20 * 20
    assert box_kept("clicked", whole_image(mask), 0) is None  # nothing clicked, nothing dropped


def test_a_recipe_without_the_section_is_refused():
    with pytest.raises(ValueError, match=r"recipe fairs has no section evaluation\.clicks"):
        protocol_of({"method": "fairs", "evaluation": {"protocol": "clicks"}})
    for value, complaint in (("start", "clicks.start"), ("most", "at least one click")):
        wrong = {"protocol": "clicks", "clicks": {**CLICKS, value: {"start": "masks", "most": 0}[value]}}
        with pytest.raises(ValueError, match=complaint):
            protocol_of({"method": "fairs", "evaluation": wrong})


@pytest.fixture
def tree(here):
    """A composed tree that shows whole images of the drawn data to the discs."""
    config = compose("dextr", profile="miniature", overrides=["data.workers=0", "evaluation.batch_size=1"])
    nothing = {"class_path": "datamodules.clicks.points.NoPoints", "init_args": {}}
    config["data"]["init_args"]["sample"] |= {"test_view": "whole_image", "test_points": nothing}
    config["evaluation"] |= {"protocol": "clicks", "clicks": copy.deepcopy(CLICKS), "paste": "linear", "box": "crop"}
    config["evaluation"]["test"] = [{"name": "berkeley", "limit": 5}]
    return config


def scored(model, config, folder):
    """Rows and metrics of an evaluation by one process."""
    data = config["data"]["init_args"]
    index = open_objects(config["evaluation"]["test"], data["root"], data["seed"])
    folder.mkdir()
    scorer = ClickScorer(model, index, config, folder)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **quiet).test(scorer, verbose=False)
    path = merge_rows(folder, len(index), 1)
    how, settings = protocol_of(config)
    return list(read_rows(path)), how.summarise(path, settings), index


def test_rows_hold_the_evidence_and_metrics_are_computed_from_them(tree, tmp_path):
    tree["evaluation"]["clicks"]["sweep"] = [0.5, 0.7]
    rows, metrics, index = scored(Discs(5), tree, tmp_path / "run")
    assert len(rows) == metrics["n"] == len(index) == 5
    curves = np.array([[float(row[f"iou_{t}"]) for t in range(1, 21)] for row in rows])
    for t in range(1, 21):
        assert metrics[f"iou_{t}"] == pytest.approx(curves[:, t - 1].mean())
    assert metrics["mean_iou"] == metrics["iou_20"]
    reached = [next((t + 1 for t, iou in enumerate(curve) if iou >= 0.5), 20) for curve in curves]
    assert metrics["sweep_clicks@0.5"] == statistics.mean(reached)
    assert metrics["failed@0.9"] == sum(curve.max() < 0.9 for curve in curves)
    assert metrics["noc@0.9"] == statistics.mean(int(row["noc@0.9"]) for row in rows)
    assert metrics["wholeset@0.9"] is None
    for row, mask in zip(rows, (index.read_mask(i) for i in range(5)), strict=True):
        clicks = [click.split(",") for click in row["clicks"].split()]
        assert len(clicks) == 20
        first_x, first_y, sign = clicks[0]
        assert sign == "+"
        assert mask.mask[int(first_y), int(first_x)]
    assert metrics["seconds_per_click"] > 0
    assert metrics["overhead_per_click"] > 0


def test_metrics_do_not_depend_on_how_many_rows_are_read_at_a_time(tree, tmp_path, monkeypatch):
    _, metrics, _ = scored(Discs(5), tree, tmp_path / "run")
    monkeypatch.setattr(click_summary, "CHUNK", 2)
    how, settings = protocol_of(tree)
    assert how.summarise(tmp_path / "run" / "rows.csv", settings) == metrics


def test_a_picture_shows_the_masks_after_several_clicks(tree, tmp_path):
    rows, _, _ = scored(Discs(5), tree, tmp_path / "run")
    pictures = sorted((tmp_path / "run" / "pictures").glob("*.png"))
    assert [path.stem for path in pictures] == [
        f"{i:07d}-iou{100 * float(row['iou_20']):04.1f}" for i, row in enumerate(rows)
    ]
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    assert width > 4 * height / 1.2  # five beside each other


def test_start_masks_make_a_point_of_the_curve_before_the_first_click(tree, tmp_path, monkeypatch):
    tree["evaluation"]["clicks"] |= {"start": "mask", "most": 3}
    with pytest.raises(ValueError, match=r"5 of 5 objects of berkeley.* have no start mask"):
        scored(Discs(5), tree, tmp_path / "without")
    data = tree["data"]["init_args"]
    index = open_objects(tree["evaluation"]["test"], data["root"], data["seed"])
    eroded = {i: cv2.erode(index.read_mask(i).mask, np.ones((5, 5), np.uint8)) for i in range(5)}
    started = replace(index, start_file=np.zeros(5, np.int32))
    monkeypatch.setattr("tests.experiments.evaluation.test_clicks.open_objects", lambda *_: started)
    monkeypatch.setattr(type(index), "start_mask", lambda self, i: eroded[i])
    rows, metrics, _ = scored(Discs(5), tree, tmp_path / "with")
    assert float(rows[0]["iou_0"]) == object_iou(eroded[0], index.read_mask(0).mask)
    assert metrics["iou_0"] == pytest.approx(statistics.mean(float(row["iou_0"]) for row in rows))


def test_the_console_shows_a_few_lines(tree, tmp_path):
    _, metrics, _ = scored(Discs(5), tree, tmp_path / "run")
    how, settings = protocol_of(tree)
    lines = how.table(metrics, settings).splitlines()
    assert lines[0].split() == ["clicks", "1", "3", "5", "10", "20"]
    assert f"{100 * metrics['iou_20']:.1f}" == lines[1].split()[-1]
    assert lines[-1].split() == ["90%", f"{metrics['noc@0.9']:.2f}", str(metrics["failed@0.9"]), ">20"]
    assert "(itis rule)" in how.describe(metrics, settings)


def test_the_command_line_says_rule_clicks_and_size(tree, monkeypatch):
    monkeypatch.setattr(evaluate, "finished_training", lambda reference: Node("train", tree))

    def asked(line):
        return evaluate.node_of(evaluate.parse(line)).config

    line = ["--run=0", "--data=davis345", "--protocol=clicks", "--rule=ritm", "--clicks=5", "--long-side=384"]
    config = asked([*line, "--every=3", "--limit=200"])
    assert (config["evaluation"]["clicks"]["rule"], config["evaluation"]["clicks"]["most"]) == ("ritm", 5)
    assert config["data"]["init_args"]["sample"]["long_side"] == 384
    assert config["evaluation"]["test"] == [{"name": "davis345", "every": 3, "limit": 200}]
    assert tree["evaluation"]["clicks"]["rule"] == "itis"
    mapping = asked(["--run=0", "--data={name: davis345, min_area: 3}", "--limit=2"])
    assert mapping["evaluation"]["test"] == [{"name": "davis345", "min_area": 3, "limit": 2}]
    with pytest.raises(ValueError, match="did you mean 'ritm'"):
        asked(["--run=0", "--data=x", "--protocol=clicks", "--rule=rtm"])
    with pytest.raises(ValueError, match="--rule and --clicks are of `--protocol clicks`"):
        asked(["--run=0", "--data=x", "--rule=ritm", "--protocol=object_iou"])
    assert asked(["--run=0", "--data=x"])["evaluation"]["protocol"] == "clicks"


@pytest.mark.slow
def test_a_trained_network_is_clicked_by_command_and_by_two_processes_as_by_one(store, finished, capsys, tmp_path):
    """With crops, the four extreme points, draws and a thread pool."""
    record = finished(TINY)
    line = ["--run", record["parents"]["model"], "--data", "{name: berkeley, limit: 3}", "--protocol", "clicks"]
    evaluate.main([*line, "--rule", "ritm", "--clicks", "6"])
    assert re.search(r"clicks +1 +3 +5\n +mean IoU % +0\.0 +0\.0 ", capsys.readouterr().out)
    training = load_node(find_run(record["parents"]["model"]))
    config = copy.deepcopy(training.config)
    config["evaluation"] |= {"protocol": "clicks", "paste": "cubic", "batch_size": 2}
    config["evaluation"]["clicks"] = {**CLICKS, "rule": "random", "most": 7}
    found = []
    for processes in (1, 2):
        node = Node("evaluate", copy.deepcopy(config), {"model": training})
        node.config["trainer"].update(devices=processes, strategy="ddp" if processes > 1 else "auto")
        folder = node.folder
        folder.prepare(node.describe())
        if processes > 1:
            done_by(processes, lambda place=str(folder.path): execute_command.main([place]), tmp_path / "log")
        else:
            execute(node)
        assert folder.record["devices"]["processes"] == processes
        rows = list(read_rows(folder.path / "rows.csv"))
        found.append([{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows])
        metrics = {k: v for k, v in folder.record["metrics"].items() if not k.endswith("per_click")}
        found[-1].append(json.dumps(metrics))
        for name in ("record.json", "config.yaml"):
            (folder.path / name).unlink()
    assert found[0] == found[1]
    assert math.isclose(float(found[0][0]["iou_3"]), 0)


def test_a_click_is_one_look_one_paste_and_one_search():
    """What these cost beside the network is measured by `make bench`."""
    mask, counted = disc((48, 86), (40, 24), 15), Counter()

    def counting(name, function):
        return lambda *arguments, **options: counted.update([name]) or function(*arguments, **options)

    paste, model = Paste(), Discs(4)
    pasting = SimpleNamespace(logit=paste.logit, masks=counting("paste", paste.masks))
    user = SimulatedUser(mask, None, counting("search", RULES["itis"]), draws=lambda t: None)
    click_through(model, whole_image(mask), [user], pasting)
    looks = len(model.previous)
    assert counted == {"search": looks, "paste": looks}
    assert (model.started, looks) == (1, 20)
