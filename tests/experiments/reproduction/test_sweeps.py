"""Sweep files: every combination is a run of its own that the command line of an agent composes."""

import sys
from types import SimpleNamespace

import pytest

from experiments import fit, sweep_local
from experiments.reproduction.plan import Conditions, evaluation_node, find_spec
from experiments.reproduction.requests import FitRequest
from experiments.reproduction.sweeps import SWEEPS, assignments, command_line, load_sweep


def trainings(name):
    """The training of each combination in the profile of the drawn data, by its values."""
    sweep = load_sweep(name)
    nodes = {}
    for values in assignments(sweep, count=3):
        request = FitRequest.read([*command_line(sweep, values), "--profile=miniature"])
        nodes[" ".join(values.values())] = request.training
    return nodes


def of(node, *path):
    """A value of a training's composed model."""
    value = node.config["model"]["init_args"]
    for part in path:
        value = value["init_args"][part] if "class_path" in value else value[part]
    return value["class_path"].rpartition(".")[2] if isinstance(value, dict) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(file.stem for file in SWEEPS.glob("*.yaml")))
def test_every_combination_is_a_training_of_its_own(here, name):
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
