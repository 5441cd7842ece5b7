"""Sweep files: every combination is a run of its own that the command line of an agent composes."""

import re
import sys
from types import SimpleNamespace

import pytest

from experiments import fit, sweep_local
from experiments.composition.compose import compose
from experiments.console import say_once
from experiments.reproduction.plan import Conditions, evaluation_node, find_spec
from experiments.reproduction.requests import FitRequest
from experiments.reproduction.sweeps import SWEEPS, assignments, command_line, load_sweep
from experiments.runs.node import Node


def trainings(name):
    """The training of each combination in the profile of the drawn data, by its values."""
    sweep = load_sweep(name)
    nodes = {}
    for values in assignments(sweep, count=3):
        request = FitRequest.read([*command_line(sweep, values), "--profile=miniature"])
        nodes[" ".join(map(str, values.values()))] = request.training
    return nodes


def of(node, *path):
    """A value of a training's composed model."""
    value = node.config["model"]["init_args"]
    for part in path:
        value = value["init_args"][part] if "class_path" in value else value[part]
    return value["class_path"].rpartition(".")[2] if isinstance(value, dict) else value


@pytest.fixture
def extractor(here, monkeypatch):
    """The name of a finished training of EXITS' extractor, as the variable of the environment has it."""
    config = compose("exits", profile="miniature", overrides=["model.points=null", "model.mean_field=null"])
    node = Node("train", config)
    node.folder.prepare(node.describe())
    node.folder.finish(kind="train", metrics={}, seed=0, seconds=1.0, steps=1, parents={})
    monkeypatch.setenv("EXTRACTOR", node.hash)
    return node.hash


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(file.stem for file in SWEEPS.glob("*.yaml")))
def test_every_combination_is_a_training_of_its_own(extractor, name):
    nodes = trainings(name)
    assert len(nodes) > 1
    assert len({node.hash for node in nodes.values()}) == len(nodes)


def test_the_ablation_of_itis_is_that_of_its_figure(here):
    nodes = trainings("itis-ablation")
    seen = [(of(n, "guidance"), of(n, "iteration"), of(n, "mask_channel")) for n in nodes.values()]
    assert seen == [
        ("SignedDistances", "FreshClicks", None),
        ("SignedGaussians", "FreshClicks", None),
        ("SignedDistances", "EpochMemory", None),
        ("SignedGaussians", "EpochMemory", None),
        ("SignedGaussians", "EpochMemory", "MaskDistance"),
    ]
    kept = [of(n, "iteration", "masks") for n in nodes.values() if of(n, "iteration") == "EpochMemory"]
    assert kept == [False, False, True]  # a mask channel reads what the memory keeps
    assert [of(n, "network", "in_channels") for n in nodes.values()] == [5, 5, 5, 5, 6]
    for row, node in nodes.items():
        assert evaluation_node(find_spec(row), Conditions("miniature"), seed=0).model.hash == node.hash


def test_the_components_of_fairs_are_those_of_its_table_and_one_more(here):
    nodes = list(trainings("fairs-components").values())
    assert [(of(n, "network", "head"), of(n, "guidance")) for n in nodes] == [
        ("PSP", "GaussianMap"),
        ("PSP", "SoftFocus"),
        ("DualAttention", "GaussianMap"),
        ("DualAttention", "SoftFocus"),
    ]
    published = [
        evaluation_node(find_spec(f"fairs-1/{row}"), Conditions("miniature"), seed=0).model.hash
        for row in ("base-model", "dual-attention", "sfg")
    ]
    assert [nodes[number].hash for number in (0, 2, 3)] == published


def test_the_sweep_over_iterations_changes_nothing_else(here):
    nodes = list(trainings("itis-iteration").values())
    assert [of(n, "iteration") for n in nodes] == ["EpochMemory", "EpochMemory", "WithinBatch"]
    assert [of(n, "iteration", "coin") for n in nodes[:2]] == ["each_epoch", "once"]
    assert of(nodes[2], "iteration", "seed") == nodes[2].config["seed"]
    for node in nodes:
        node.config["model"]["init_args"].pop("iteration")
    assert nodes[0].config == nodes[1].config == nodes[2].config


def test_the_points_of_exits_are_none_which_is_mal_the_initial_and_the_propagated_ones(extractor, capsys):
    say_once.cache_clear()
    mal, initial, propagated = trainings("exits-points").values()
    assert (of(mal, "points"), of(initial, "points", "taught"), of(propagated, "points", "taught")) == (
        None,
        "initial",
        "propagated",
    )
    assert [node.parent_hashes for node in (mal, initial, propagated)] == [{}, *2 * [{"extractor": extractor}]]
    assert f"takes no run as 'extractor': it is made without {extractor}" in capsys.readouterr().err
    published = evaluation_node(find_spec("exits-4/mal"), Conditions("miniature", ("data.train=[coco2017/train]",)), 0)
    assert published.model.config["model"] == mal.config["model"]


def test_a_sweep_over_what_exits_leaves_open_changes_one_value_at_a_time(extractor):
    recipe, *others = trainings("exits-unknowns").values()
    assert recipe.config["model"] == compose("exits", profile="miniature")["model"]

    def values(tree, path=()):
        if not isinstance(tree, dict):
            return {path: str(tree)}
        return {key: value for name, part in tree.items() for key, value in values(part, (*path, name)).items()}

    own = values(recipe.config["model"])
    changed = [dict(values(node.config["model"]).items() - own.items()) for node in others]
    assert [len(change) for change in changed] == [1] * len(others)
    named = [(path[-1], value) for change in changed for path, value in change.items()]
    delta = of(recipe, "points", "retrieval", "delta")
    assert [value for name, value in named if name == "delta"] == [str(delta * factor) for factor in (0.0, 0.5, 2.0)]
    assert [value for name, value in named if name == "rounds"] == ["1", "10", "100"]
    assert [value for name, value in named if name == "alpha"] == ["1", "2", "4", "5"]
    assert ("weight", "1.0") in named


def test_point_dropout_is_swept_over_none_half_and_the_published_share(extractor):
    nodes = trainings("exits-dropout").values()
    assert [of(node, "points", "dropout") for node in nodes] == [0.0, 0.5, 0.9]
    assert {node.parents["extractor"].hash for node in nodes} == {extractor}


def test_a_sweep_whose_variable_is_not_set_says_which(here, monkeypatch):
    monkeypatch.delenv("EXTRACTOR", raising=False)
    with pytest.raises(ValueError, match="reads EXTRACTOR of the environment, which is not set; its file says what"):
        sweep_local.main(["exits-dropout", "--profile=miniature"])


@pytest.mark.parametrize(
    ("offered", "sentence"),
    [
        (["extractor"], "--offer is written ROLE=RUN, e.g. start=3f2a, got 'extractor'"),
        (["extractor=none"], "no run begins with 'none'"),
        (["extractor={}", "extractor={}"], "--offer extractor=... is given twice"),
    ],
)
def test_what_cannot_be_offered_is_refused(extractor, offered, sentence):
    options = [word for text in offered for word in ("--offer", text.format(extractor))]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        FitRequest.read(["--config=exits", "--profile=miniature", *options])


def test_a_sweep_shows_the_metric_that_it_is_about(monkeypatch, capsys):
    record = {"run": "abc", "metrics": {"mean_iou": 0.9, "noc@0.85": 4.25}}
    monkeypatch.setattr(sweep_local, "fitted", lambda request: [record])
    sweep_local.main(["itis-iteration", "--profile=miniature"])
    assert capsys.readouterr().out.count("4.2500") == 3


def test_an_agent_runs_the_profile_of_its_environment(here, monkeypatch):
    monkeypatch.setenv("PROFILE", "miniature")
    line = command_line(load_sweep("dextr-components"), {"row": "dextr-3/aspp"})
    assert FitRequest.read(line).config["profile"] == "paper"  # not of everybody's environment
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert FitRequest.read(line).config["profile"] == "miniature"
    assert FitRequest.read([*line, "--profile=quick"]).config["profile"] == "quick"


def test_a_run_that_an_agent_is_refused_is_a_failed_one_that_says_why(here, monkeypatch):
    told = SimpleNamespace(summary={}, finish=lambda exit_code: told.summary.update(code=exit_code))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None, init=lambda **_: told))
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("AGENT_FAILURES", str(here / "failures"))
    with pytest.raises(ValueError, match="no row"):
        fit.main(["--row=dextr-3/asp"])
    assert told.summary["code"] == 1
    assert "did you mean 'dextr-3/aspp'" in told.summary["error"]
    assert (here / "failures").read_text() == told.summary["error"] + "\n"
