"""EXITS by its commands on drawn data: extractor, then generators, then whatever is done with a method's masks."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytorch_lightning import Callback

from datamodules import objects
from datamodules.batch import collate
from datamodules.clicks.extreme import extreme_points
from datamodules.index import MaskKind
from datamodules.samples import ObjectSamples
from datamodules.selection import open_objects
from experiments import compare, evaluate, fit, label, predict, sweep_local
from experiments.composition.building import sample_recipe
from experiments.composition.compose import compose
from experiments.evaluation.rows import read_rows
from experiments.reproduction.plan import Conditions
from experiments.reproduction.planned import planned_cells
from experiments.reproduction.tables import load_table
from experiments.runs.folder import find_run
from experiments.runs.models import finished_training, load_model
from experiments.runs.node import Node, in_order
from experiments.training import train as training
from tests.conftest import square
from tests.experiments.processes import done_by
from tests.experiments.tiny import TINY

# EXITS: 6 x 6 tokens of a ViT of two layers, whose attention is nearly even: a hop finds points at low thresholds.
TINY_EXITS = [
    "--config=exits",
    "--profile=miniature",
    "--threads=1",
    "--data.sample.size=96",
    "--data.batch_size=4",
    "--data.train=[{name: pascal/train, limit: 12}]",
    "--evaluation.test=[{name: pascal/val, limit: 5}]",
    "--trainer.max_steps=4",
    "--model.network.patch_embed=patch16",
    "--model.network.stride=16",
    "--model.network.embed_dim=16",
    "--model.network.depth=2",
    "--model.network.channels=8",
    "--model.network.side=16",
    "--model.points.retrieval.alpha=1",
    "--model.points.retrieval.tau_foreground=1e-7",
    "--model.points.retrieval.tau_background=-1e-7",
    "--model.ramp=2",
    "--model.crf_ramp=2",
]
EXTRACTOR = [*TINY_EXITS, "--model.points=null", "--model.mean_field=null"]
MAL = [*TINY_EXITS, "--model.points=null"]

PART = "{name: pascal/val, limit: 4}"


@pytest.fixture
def extractor(finished):
    """The name of a finished similarity extractor."""
    return finished([*EXTRACTOR, "--no-test"])["run"]


@pytest.fixture
def generator(finished, extractor):
    """The name of a finished generator that was trained with it."""
    given = finished([*TINY_EXITS, "--parent", f"extractor={extractor}", "--no-test"])
    return given["run"]


def with_extractor(run, *more):
    return [*TINY_EXITS, "--parent", f"extractor={run}", "--no-test", *more]


def weights_of(run):
    return torch.load(find_run(run).path / "weights.pt", weights_only=True)


def assert_same_weights(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


# -- extractor, MAL, EXITS ---------------------------------------------------------------------------------------------


def test_a_generator_keeps_the_network_of_its_extractor_and_a_teacher_of_its_own(here, extractor, generator):
    record = find_run(generator).record
    assert record["parents"] == {"extractor": extractor}
    assert record["steps"] == 4
    assert record["said"] == {"learning_rate": "0.002 at its peak"}
    given, kept = weights_of(extractor), weights_of(generator)
    names = [name.removeprefix("network.") for name in given if name.startswith("network.")]
    assert all(torch.equal(given[f"network.{name}"], kept[f"extractor.{name}"]) for name in names)
    assert not any(torch.equal(kept[f"network.{name}"], kept[f"teacher.{name}"]) for name in names if "bias" in name)
    assert int(kept["averaged"]) == 4
    assert set(record["metrics"]) == {"train/loss", "train/first", "train/crf"}
    assert set(find_run(extractor).record["metrics"]) == {"train/loss", "train/first"}


def test_a_generator_that_starts_from_an_extractor_has_a_copy_of_it_as_teacher(here, extractor):
    """After one step the teacher is the mean of what was loaded and of the student, 0.98 and 0.02 of them."""
    both = ["--parent", f"start={extractor}"]
    (mal,) = fit.run([*MAL, *both, "--no-test", "--trainer.max_steps=1"])
    (exits,) = fit.run(with_extractor(extractor, *both, "--trainer.max_steps=1"))
    loaded = weights_of(extractor)
    for record in (mal, exits):
        made = weights_of(record["run"])
        assert int(made["averaged"]) == 1
        names = [name.removeprefix("network.") for name in loaded if name.startswith("network.")]
        assert any(not torch.equal(made[f"network.{name}"], loaded[f"network.{name}"]) for name in names)
        for name in names:
            mean = torch.lerp(loaded[f"network.{name}"].float(), made[f"network.{name}"].float(), 0.02)
            torch.testing.assert_close(made[f"teacher.{name}"].float(), mean, rtol=1e-5, atol=1e-7, msg=name)
    assert record["parents"] == {"start": extractor, "extractor": extractor}


def test_the_points_that_a_generator_learns_from_are_found_on_drawn_objects(here, generator):
    """So that the trainings below are not those of a walk that finds nothing."""
    training = find_run(generator).config["config"]
    model, data = load_model(finished_training(generator)), training["data"]["init_args"]
    index = open_objects(data["train"], data["root"], data["seed"])
    samples = ObjectSamples(index, sample_recipe(training), train=True, seed=data["seed"])
    batch = collate([samples[0, i] for i in range(len(index))])
    found = model.retrieved(batch.clean_image, batch.clicks, batch.mask)
    assert found.found.any()
    assert found.foreground.any()
    assert found.background.any()


def test_the_record_says_the_rate_of_an_object_times_the_global_batch(here):
    (record,) = fit.run([*MAL, "--model.rate_of=sample", "--no-test", "--trainer.max_steps=1"])
    assert record["said"] == {"learning_rate": "0.008 at its peak, 0.002 per object times the global batch of 4"}


def test_points_need_an_extractor_and_without_points_there_is_none(here, extractor):
    with pytest.raises(ValueError, match="EXITS takes a finished run as 'extractor', and none is given; name one by"):
        fit.run(TINY_EXITS)
    with pytest.raises(ValueError, match=r"EXITS takes no run as 'extractor'; it takes: start$"):
        fit.run([*MAL, "--parent", f"extractor={extractor}"])
    assert [path.name for path in (here / "runs").iterdir()] == [extractor]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--data.sample.size=64"], "the extractor was trained with a size of 96, this generator has 64: its points"),
        (
            ["--model.network.patch_embed=resnet10t.c3_in1k", "--model.network.stride=8"],
            "the extractor was trained with a grid of 6, this generator has 12: its points would lie elsewhere",
        ),
        (
            ["--model.network.embed_dim=32"],
            r"run \w+ as extractor holds other weights than this MaskGenerator; nothing",
        ),
        (["--model.network.depth=3"], r"missing: backbone.blocks.2.norm1.weight"),
        (["--model.points.retrieval.layer=3"], "this ViT has layers 1 to 2, got layer 3"),
    ],
)
def test_an_extractor_that_does_not_fit_is_refused_before_a_step_is_made(here, extractor, typed, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit.run(with_extractor(extractor, *typed))
    assert not [path for path in (here / "runs").glob("*/*.pt") if extractor not in str(path)]
    assert not [*(here / "runs").glob("*/*.ckpt")]


def test_weights_of_a_teacher_without_its_student_are_refused(here, extractor, generator):
    kept = {name: value for name, value in weights_of(generator).items() if name.startswith("teacher.")}
    torch.save(kept, here / "teacher.pth")
    config = {**find_run(generator).config["config"]}
    with pytest.raises(ValueError, match=r"teacher.pth holds other weights than this MaskGenerator; nothing loaded"):
        load_model(Node("weights", config, weights=str(here / "teacher.pth")))


# -- what training depends on ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_whose_true_masks_are_their_filled_boxes_gives_the_same_weights(here, extractor, monkeypatch):
    """With points that people clicked: bit for bit, so that no mask has a say in what is learned."""
    data = compose("exits", profile="miniature")["data"]["init_args"]
    index = open_objects([{"name": "pascal/train", "limit": 12}], data["root"], data["seed"])
    clicked = [extreme_points(index.read_mask(i).mask).tolist() for i in range(len(index))]
    records = [{"object": name, "xy": xy} for name, xy in zip(index.native_id, clicked)]
    file = here / "points.json"
    file.write_text(json.dumps({"version": 1, "type": "extreme", "points": records}))
    rule = f"{{class_path: datamodules.clicks.recorded.RecordedExtremePoints, init_args: {{file: {file}}}}}"
    command = with_extractor(extractor, f"--data.sample.train_points={rule}", "--model.points.dropout=0.5")
    (whole,) = fit.run(command)
    weights = weights_of(whole["run"])

    boxed = []

    def only_boxes(*arguments):
        found = open_objects(*arguments)
        boxed.append(replace(found, mask_kind=np.full(len(found), MaskKind.BOX, np.uint8)))
        return boxed[-1]

    (find_run(whole["run"]).path / "record.json").unlink()
    (find_run(whole["run"]).path / "weights.pt").unlink()
    monkeypatch.setattr(objects, "open_objects", only_boxes)
    (weak,) = fit.run(command)
    assert boxed
    assert weak["run"] == whole["run"]
    assert_same_weights(weights_of(weak["run"]), weights)


class StopAfter(Callback):
    """Interrupts a training after a step, as Ctrl-C does, with the checkpoint of that step written."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_a_training_goes_on_to_the_same_student_teacher_and_average(here, extractor, generator, monkeypatch, step):
    whole = weights_of(generator)
    for name in ("record.json", "weights.pt"):
        (find_run(generator).path / name).unlink()
    monkeypatch.setenv("CHECKPOINT_MINUTES", "0")
    with monkeypatch.context() as patched:
        patched.setattr(training, "Progress", lambda *_: StopAfter(step))
        with pytest.raises(KeyboardInterrupt):
            fit.run(with_extractor(extractor))
    last = torch.load(find_run(generator).path / "last.ckpt", weights_only=False)
    assert (last["global_step"], int(last["state_dict"]["averaged"])) == (step, step)
    (resumed,) = fit.run(with_extractor(extractor))
    assert resumed["run"] == generator
    assert_same_weights(weights_of(generator), whole)


SGD = "--model.optimizer={class_path: torch.optim.SGD, init_args: {lr: 0.02}}"  # Adam makes steps of rounding errors
SAMPLE = [SGD, "--model.rate_of=sample"]


@pytest.mark.slow
def test_two_processes_and_two_passes_train_as_one_does(here, store, extractor, monkeypatch, tmp_path):
    """Student, teacher and rate, which is that of an object times the global batch however this is dealt out."""
    (alone,) = fit.run(with_extractor(extractor, *SAMPLE))
    weights = weights_of(alone["run"])
    (passes,) = fit.run(with_extractor(extractor, *SAMPLE, "--trainer.accumulate_grad_batches=2"))
    assert passes["said"] == alone["said"]
    assert "0.02 per object times the global batch of 4" in alone["said"]["learning_rate"]
    assert_same_weights(weights_of(passes["run"]), weights, rtol=1e-4, atol=1e-6)
    two = [*with_extractor(str(store / extractor), *SAMPLE), "--trainer.devices=2", "--trainer.strategy=ddp"]
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "two"))
    done_by(2, lambda: fit.run(two), tmp_path / "log")
    (folder,) = (path.parent for path in (tmp_path / "two").glob("*/record.json"))
    record = json.loads((folder / "record.json").read_text())
    assert record["devices"]["processes"] == 2
    assert record["said"] == alone["said"]
    assert_same_weights(torch.load(folder / "weights.pt", weights_only=True), weights, rtol=1e-4, atol=1e-6)


# -- what is done with it ----------------------------------------------------------------------------------------------


def test_a_generator_is_evaluated_by_masks_and_by_clicks(here, generator, capsys):
    evaluate.main(["--run", generator, "--data", PART])
    assert "mean_iou" in capsys.readouterr().out
    evaluate.main(["--run", generator, "--data", PART, "--protocol", "clicks", "--clicks", "5"])
    assert "4 objects" in capsys.readouterr().out
    by_clicks, by_mask = (
        [float(row[name]) for row in read_rows(path)]
        for name in ("iou_4", "iou")
        for path in (here / "runs").glob("*/rows.csv")
        if name in path.read_text().splitlines()[0].split(",")
    )
    assert by_clicks == pytest.approx(by_mask, abs=1e-6)  # the four points are the first four clicks


def test_student_teacher_or_both_of_a_training_are_evaluated_and_label(here, generator, extractor):
    """Who predicts is asked of an evaluation; a training does not read it and keeps its name."""
    (again,) = fit.run(with_extractor(extractor, "--model.shown=teacher"))
    assert again["run"] == generator
    seen, asked = {}, ["--run", generator, "--data", PART, "--threshold", "0.5"]
    for shown in ("student", "teacher", "mean"):
        evaluate.main([*asked, "--shown", shown])
        folders = {path.parent for path in (here / "runs").glob("*/rows.csv")} - set(seen)
        (folder,) = folders
        seen[folder] = [float(row["iou"]) for row in read_rows(folder / "rows.csv")]
    student, teacher, mean = seen.values()
    assert student != teacher
    assert mean not in (student, teacher)
    evaluate.main(asked)
    assert {path.parent for path in (here / "runs").glob("*/rows.csv")} == set(seen)  # the recipe's is the student
    label.main(["--run", generator, "--data", PART, "--shown", "teacher"])
    with pytest.raises(ValueError, match="without a mean field there is no teacher"):
        label.main(["--run", extractor, "--data", PART, "--shown", "teacher"])


def test_a_generator_labels_objects_from_their_points(here, generator, capsys):
    label.main(["--run", generator, "--data", PART, "--out", "labels.json"])
    tree = json.loads((here / "labels.json").read_text())
    assert len(tree["annotations"]) + len(tree.get("empty", [])) == 4
    assert tree["info"]["run"]


def test_its_quality_report_shows_the_walk_on_objects_of_every_size(here, generator, extractor):
    """Figure 6, with what is known of each object; a run that goes on keeps the pictures that it has."""
    label.main(["--run", generator, "--data", PART])
    (page,) = (here / "runs").glob("*/quality.md")
    text, pictures = page.read_text(), sorted((page.parent / "pictures").glob("*-retrieval.png"))
    assert len(pictures) == 4
    assert "## Retrieved points\n\nOf 4 objects, from left to right: the seeds (yellow)" in text
    named = re.findall(r"!\[Object (\S+): (small|medium|large), \d+ parts?, .*\]\((pictures/.*-retrieval.png)\)", text)
    assert [Path(place).name for *_, place in named] == [path.name for path in pictures]
    assert cv2.imread(str(pictures[0])).shape[1] > 1200
    before = {path.name: path.read_bytes() for path in pictures}
    for name in ("quality.md", "record.json"):
        (page.parent / name).unlink()
    label.main(["--run", generator, "--data", PART])
    assert page.read_text() == text
    assert {path.name: path.read_bytes() for path in pictures} == before
    label.main(["--run", extractor, "--data", PART])  # which walks nowhere by itself
    (other,) = (path for path in (here / "runs").glob("*/quality.md") if path != page)
    assert "Retrieved" not in other.read_text()


def test_the_predictor_takes_four_points_in_any_order_and_no_fewer(here, generator):
    image = np.full((60, 80, 3), 90, np.uint8)
    cv2.ellipse(image, (40, 30), (20, 15), 0, 0, 360, (200, 40, 40), -1)
    cv2.imwrite("ball.png", image[..., ::-1])
    points = ["20,30", "40,15", "60,30", "40,45"]
    predict.main(["ball.png", "--run", generator, "--points", *points])
    mask = cv2.imread("ball.mask.png", cv2.IMREAD_GRAYSCALE) > 0
    assert mask.shape == (60, 80)
    assert not mask[:14].any()  # nothing outside the box of the points
    assert not mask[:, 61:].any()
    predictor = predict.Predictor.from_run(generator)
    np.testing.assert_array_equal(predictor(image, [(40, 45), (60, 30), (20, 30), (40, 15)]), mask)
    with pytest.raises(ValueError, match=r"expected four points x,y .*, got 3"):
        predictor(image, [(40, 45), (60, 30), (20, 30)])


ODD = {
    "at a corner": [(0, 0), (0, 0), (11, 5), (5, 9)],
    "over the whole image": [(0, 20), (30, 0), (79, 30), (40, 59)],
    "of one pixel": [(33, 21)] * 4,
    "with two identical points": [(20, 10), (20, 10), (50, 30), (30, 40)],
    "of one row at the border": [(3, 59), (20, 59), (60, 59), (30, 59)],
}


@pytest.mark.parametrize("points", ODD.values(), ids=ODD)
def test_odd_objects_are_predicted(here, generator, points):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    mask = predict.Predictor.from_run(generator)(image, points)
    xy = np.array(points)
    (x0, y0), (x1, y1) = xy.min(0), xy.max(0)
    outside = mask.copy()
    outside[y0 : y1 + 1, x0 : x1 + 1] = False
    assert mask.shape == (60, 80)
    assert not outside.any()


def test_a_training_takes_odd_objects(here, extractor):
    """At a corner, as large as the image, of one pixel and of one row: through the loader into a step, and back."""
    objects_of = {
        "corner": square((60, 80), (0, 0), (10, 12)),
        "whole": np.ones((60, 80), np.uint8),
        "pixel": square((60, 80), (33, 21), 1),
        "row": square((60, 80), (3, 59), (1, 58)),
    }
    draw = np.random.default_rng(0)
    for folder in ("img", "gt"):
        (here / "own" / folder).mkdir(parents=True)
    for name, mask in objects_of.items():
        cv2.imwrite(f"own/img/{name}.png", draw.integers(0, 256, (60, 80, 3), np.uint8))
        cv2.imwrite(f"own/gt/{name}.png", 255 * mask)
    own = f"['folder:{here / 'own'}']"
    (record,) = fit.run(with_extractor(extractor, f"--data.train={own}", "--trainer.max_steps=2"))
    assert record["steps"] == 2
    assert all(np.isfinite(value) for value in record["metrics"].values())
    evaluate.main(["--run", record["run"], "--data", f"folder:{here / 'own'}"])


@pytest.mark.slow
def test_a_generator_is_compared_with_dextr(here, generator, finished):
    dextr = finished(TINY)["parents"]["model"]
    compare.main(["--runs", generator, dextr, "--data", PART, "--clicks", "5", "--objects", "2"])
    report = json.loads((here / "reports" / "compare" / "compare.json").read_text())
    assert [run["name"] for run in report["runs"]] == ["exits", "dextr"]
    summary = next(grid for grid in report["grids"] if grid["title"] == "Runs and data sets")
    assert len(summary["lines"]) == 2


@pytest.mark.slow
def test_a_sweep_of_points_makes_mal_too_and_says_that_it_takes_no_extractor(here, extractor, monkeypatch, capsys):
    monkeypatch.setenv("EXTRACTOR", extractor)
    small = [word for word in TINY_EXITS if not word.startswith(("--config", "--profile", "--model.points"))]
    sweep_local.main(["exits-points", "--profile=miniature", *small, "--trainer.max_steps=1"])
    said = capsys.readouterr()
    made = re.findall(r"^run .*/(\w+)$", said.out, re.MULTILINE)
    assert len(set(made)) == 3
    parents = [find_run(run).record["parents"] for run in made]
    assert parents == [{}, {"extractor": extractor}, {"extractor": extractor}]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_table_4_is_three_trainings_of_which_exits_shares_the_extractor(here):
    table = load_table("exits-4")
    cells = planned_cells(table, Conditions("miniature"), [0])
    assert [cell.problem for cell in cells] == [""] * 8
    nodes = in_order([node for cell in cells for node in cell.nodes])
    trainings = {node.hash: node for node in nodes if node.kind == "train"}
    by_row = {cell.row: cell.after[0].model for cell in cells}
    extractor = by_row["EXITS"].parents["extractor"]
    assert set(trainings) == {extractor.hash, by_row["MAL"].hash, by_row["EXITS"].hash}
    assert len(trainings) == 3
    assert by_row["MAL"].parents == extractor.parents == {}
    steps = [node.config["trainer"]["max_steps"] for node in (extractor, by_row["MAL"], by_row["EXITS"])]
    assert steps == [125, 250, 250]
    arguments = extractor.config["model"]["init_args"]
    assert arguments["points"] is arguments["mean_field"] is None
    evaluations = [node for node in nodes if node.kind == "evaluate"]
    assert len(evaluations) == 4  # two rows on two sets; the means over objects and over classes are of one
    shared = [
        {key: node.config["model"]["init_args"][key] for key in ("network", "optimizer")} for node in by_row.values()
    ]
    assert shared[0] == shared[1]


@pytest.mark.parametrize(
    ("profile", "steps", "epochs"),
    [("paper", -1, 1), ("quick", 2000, -1), ("small", 350, -1), ("miniature", 125, -1)],
)
def test_the_extractor_has_a_length_of_its_own_in_every_profile(profile, steps, epochs):
    row = {"model.points": None, "model.mean_field": None, "trained": "extractor", "trainer.max_epochs": 1}
    extractor, generator = (compose("exits", profile=profile, row=differs)["trainer"] for differs in (row, {}))
    assert (extractor["max_steps"], extractor["max_epochs"]) == (steps, epochs)
    assert generator["max_steps"] >= 2 * steps
    assert compose("exits", profile="small", overrides=["trainer.max_steps=7"])["trainer"]["max_steps"] == 7


def test_another_word_for_what_is_trained_is_refused():
    with pytest.raises(
        ValueError, match=r"trainer.max_steps is taken from a value that there is not: .*'steps.teacher'"
    ):
        compose("exits", profile="small", overrides=["trained=teacher"])


def test_table_4_says_that_its_data_are_missing_before_anything_is_made(here):
    cells = planned_cells(load_table("exits-4"), Conditions("paper", (f"data.root={Path('nowhere').resolve()}",)), [0])
    assert all("COCO" in cell.problem.upper() for cell in cells)
