"""Hard objects: which rows are chosen, how runs on them are named before any is made, what an empty list leads to."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch

from datamodules.selection import open_objects, read_list
from experiments import fit, reproduce, select
from experiments.evaluation.clicks import Clicks
from experiments.evaluation.objects import ObjectIoU
from experiments.evaluation.selecting import Selecting
from experiments.launching import fitting, slurm
from experiments.launching.making import execute
from experiments.reports.check import check_report
from experiments.reproduction.plan import Conditions, built_on, evaluation_node, find_spec
from experiments.reproduction.requests import FitRequest
from experiments.runs.naming import LIST
from experiments.runs.node import Node, in_order
from experiments.runs.reading import load_node
from tests.experiments.tiny import CHANGED, SHRUNK, TINY, report_of

CONDITIONS = Conditions("miniature", tuple(SHRUNK[1:]))


def chain() -> Node:
    """The evaluation of a tiny training that has not been made."""
    config = FitRequest.read(TINY).config
    (evaluation,) = FitRequest(config).evaluations(Node("train", config))
    return evaluation


def scored(evaluation: Node, ious: list[float | str], metric: str = "iou") -> Node:
    """The same as if it had been made, with these values of its objects."""
    evaluation.folder.prepare(evaluation.describe())
    with open(evaluation.folder.path / "rows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["position", "object_id", metric])
        writer.writerows([i, 100 + i, iou] for i, iou in enumerate(ious))
    evaluation.folder.finish(kind="evaluate", metrics={"n": len(ious)}, parents={})
    return evaluation


def below(bound: float, evaluation: Node, metric: str = "iou") -> Node:
    return Node("select", evaluation.config, {"evaluation": evaluation}, rule={"metric": metric, "below": bound})


def test_objects_below_the_bound_are_listed_and_those_at_it_are_not(store):
    node = below(0.8, scored(chain(), [0.1, 0.8, 0.799, 0.95]))
    record = execute(node)
    assert read_list(node.folder.path / LIST).tolist() == [100, 102]
    assert record["metrics"] == {"n": 2, "of": 4}
    assert record["parents"] == {"evaluation": node.parents["evaluation"].hash}
    assert execute(node) == record  # and not made again


def test_a_list_is_named_after_its_rule_and_its_evaluation(store):
    evaluation = chain()
    names = {below(bound, evaluation, metric).hash for bound in (0.7, 0.8) for metric in ("iou", "iou_5")}
    assert len(names) == 4
    again = load_node(prepared(below(0.8, evaluation)))
    assert again.hash == below(0.8, evaluation).hash
    assert again.rule == {"metric": "iou", "below": 0.8}


def prepared(node: Node):
    for run in node.with_ancestors():
        run.folder.prepare(run.describe())
    return node.folder


def test_no_hard_object_is_one_sentence(store):
    with pytest.raises(ValueError, match=r"no object of pascal/val \(limit 11\) has iou below 0\.5: all 2 reach it"):
        execute(below(0.5, scored(chain(), [0.5, 0.9])))


def test_rows_without_the_value_are_named(store):
    with pytest.raises(ValueError, match=r"no 'iou_5' of its objects; it has position, object_id, iou"):
        execute(below(0.5, scored(chain(), [0.4]), "iou_5"))


def test_the_command_lists_the_objects_of_a_finished_evaluation_only(store, capsys):
    evaluation = scored(chain(), [0.4, 0.6])
    prepared(evaluation)
    select.main(["--run", evaluation.hash, "--below", "0.5"])
    (path,) = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("list: ")]
    assert read_list(path).tolist() == [100]
    with pytest.raises(ValueError, match="no finished evaluation"):
        select.main(["--run", evaluation.model.hash, "--below", "0.5"])


def test_runs_on_hard_objects_have_names_before_anything_is_run(store):
    node = evaluation_node(find_spec("dextr-8/5-points-ohem"), CONDITIONS, 0)
    kinds = [run.kind for run in in_order([node])]
    assert kinds == ["train", "evaluate", "select", "train", "evaluate", "select", "evaluate"]
    assert not store.exists()
    training = node.model
    assert training.start is not None
    assert training.start.start is None
    for run, roles in ((training, {"start", "corrects"}), (node, {"model"})):
        assert {role: parent.kind for role, parent in run.parents.items()} == dict.fromkeys(roles, "train")
        assert [listing.kind for listing in run.lists] == ["select"]
    (spec,) = training.config["data"]["init_args"]["train"]
    assert spec == {"name": "pascal/train", "half": 2, "listed": training.lists[0].hash}
    assert training.config["model"]["init_args"]["network"]["init_args"]["pretrained"] is False
    again = load_node(prepared(node))
    assert again.hash == node.hash
    assert again.model.start.hash == training.start.hash
    assert again.manifest == node.manifest
    assert again.model.manifest == training.manifest


def test_arms_differ_by_their_start_and_by_their_list(store):
    five, mined = (find_spec(f"dextr-8/{name}") for name in ("5-points", "5-points-ohem"))
    first, second = (evaluation_node(spec, CONDITIONS, 0).model for spec in (five, mined))
    assert first.hash != second.hash
    assert replace(first, parents={"corrects": first.start}).hash != first.hash
    assert first.start.hash == second.start.hash
    assert evaluation_node(five, CONDITIONS, 1).model.start.hash != first.start.hash  # a seed of its own all along


def test_what_a_test_clicks_names_no_training(store):
    five = find_spec("dextr-8/5-points")
    changed = Conditions("miniature", (*SHRUNK[1:], "evaluation.clicks.rule=ritm"))
    one, other = evaluation_node(five, CONDITIONS, 0), evaluation_node(five, changed, 0)
    assert one.model.hash == other.model.hash
    assert one.hash != other.hash


def test_a_list_is_opened_where_its_run_lies(store):
    node = evaluation_node(find_spec("dextr-8/5-points-ohem"), CONDITIONS, 0)
    training, name = node.model, node.model.hash
    (chosen,) = training.lists
    listing = chosen.folder.path / LIST
    specs, root = training.config["data"]["init_args"]["train"], training.config["data"]["init_args"]["root"]
    whole = open_objects([{"name": "pascal/train", "half": 2}], root)
    listing.parent.mkdir(parents=True)
    listing.write_text(f"{whole.object_id[3]}\n")
    opened = training.opened["data"]["init_args"]["train"]
    assert opened == [{**specs[0], "listed": str(listing)}]
    assert list(open_objects(opened, root).object_id) == [whole.object_id[3]]
    assert training.hash == name
    assert training.config["data"]["init_args"]["train"] == specs


def test_a_typed_data_set_takes_the_place_of_the_list(store):
    typed = Conditions("miniature", (*SHRUNK[1:], "data.train=[{name: pascal/train, half: 2}]"))
    training = evaluation_node(find_spec("dextr-8/5-points-ohem"), typed, 0).model
    assert (list(training.parents), training.lists) == (["start", "corrects"], ())


def test_a_typed_test_set_is_not_what_objects_are_hard_on(store):
    typed = Conditions("miniature", (*SHRUNK[1:], "evaluation.test=[berkeley]"))
    node = evaluation_node(find_spec("dextr-8/5-points-ohem"), typed, 0)
    assert (list(node.parents), node.lists) == (["model"], ())
    assert node.model.hash == evaluation_node(find_spec("dextr-8/5-points-ohem"), CONDITIONS, 0).model.hash


def test_released_weights_stand_in_for_the_network_that_finds_hard_objects(store, tmp_path):
    (tmp_path / "file.pth").write_bytes(b"weights")
    conditions = Conditions("miniature", tuple(SHRUNK[1:]), str(tmp_path / "file.pth"), any_row=True)
    node = evaluation_node(find_spec("dextr-8/4-points"), conditions, 0)
    assert [run.kind for run in in_order([node])] == ["weights", "evaluate", "select", "evaluate"]


def test_without_data_a_row_that_needs_a_list_says_so_and_is_not_run(here, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(here / "nowhere"))
    reproduce.main(["dextr-8", "--profile=miniature", "--threads=1", "--data.root=null"])
    cells = json.loads((here / "reports/miniature/dextr-8.json").read_text())["cells"]
    (reason,) = {cell["reason"] for cell in cells}
    assert "pascal/" in reason
    assert "fetch" in reason


def test_a_command_makes_what_a_row_builds_on_first(here, monkeypatch):
    made = {}
    monkeypatch.setattr(fitting, "execute", lambda node, title: made.update({node.hash: node.kind}) or {"metrics": {}})
    monkeypatch.setattr(fitting, "report_to_wandb", lambda records: None)
    monkeypatch.setattr(ObjectIoU, "describe", lambda *arguments: "")
    monkeypatch.setattr(Clicks, "describe", lambda *arguments: "")
    fit.run(["--row=dextr-8/5-points-ohem", *SHRUNK])
    assert list(made.values()) == ["train", "evaluate", "select", "train", "evaluate", "select", "evaluate"]
    assert (
        FitRequest.read(["--row=dextr-8/5-points-ohem", *SHRUNK]).training.hash
        == evaluation_node(find_spec("dextr-8/5-points-ohem"), CONDITIONS, 0).model.hash
    )


def test_jobs_wait_for_the_start_and_for_the_list(store, monkeypatch):
    class Executor:
        def update_parameters(self, **parameters):
            self.asked = parameters["slurm_additional_parameters"].get("dependency")

        def submit(self, job):
            waits.append(self.asked)
            return type("Submitted", (), {"job_id": str(len(waits))})

    waits = []
    monkeypatch.setattr(slurm, "states_of_jobs", dict)
    cluster = slurm.Slurm(1, Executor())
    for node in in_order([evaluation_node(find_spec("dextr-8/5-points-ohem"), CONDITIONS, 0)]):
        cluster.launch(node, node.kind)
    assert waits == [
        None,
        "afterok:1",
        "afterok:2",
        "afterok:1:1:3",
        "afterok:1",
        "afterok:5",
        "afterok:4:6",
    ]


@pytest.mark.slow
def test_a_table_trains_goes_on_and_scores_on_hard_objects(here):
    reproduce.main(["dextr-8", *SHRUNK])
    report = report_of(here, "dextr-8")
    assert {cell["state"] for cell in report["cells"]} == {"reduced profile"}
    assert len({cell["n_objects"] for cell in report["cells"]}) == 1
    assert check_report(here / CHANGED / "dextr-8.json", here / "runs") == []
    spec = find_spec("dextr-8/5-points-ohem")
    training = evaluation_node(spec, CONDITIONS, 0).model
    record = json.loads((here / "runs" / training.hash / "record.json").read_text())
    assert record["initial_weights"] == f"run {training.start.hash}"
    first = training.start.hash  # which the fifth point corrects, too
    lists = [run.hash for run in training.lists]
    assert record["parents"] == {"start": first, "corrects": first, "lists": lists}


@pytest.mark.slow
def test_a_training_without_a_step_keeps_the_weights_it_starts_from(store):
    config = FitRequest.read(TINY).config
    start = Node("train", config)
    execute(start)
    still = FitRequest.read([*TINY, "--model.optimizer.lr=0.0", "--model.network.bn_statistics=frozen"]).config
    goes_on = Node("train", still, {"start": start})
    execute(goes_on)
    weights = [torch.load(node.folder.path / "weights.pt", weights_only=True) for node in (start, goes_on)]
    trained = [name for name in weights[0] if "num_batches" not in name and "running" not in name]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in trained)


@pytest.mark.slow
def test_an_empty_list_ends_its_rows_and_no_others(here, monkeypatch):
    made = Selecting.make

    def nothing_hard_in_training(self, node, folder, title):
        if "half" in node.config["evaluation"]["test"][0]:
            raise ValueError("no object of pascal/train, half 2 has iou below 0.8: all 9 reach it")
        return made(self, node, folder, title)

    monkeypatch.setattr(Selecting, "make", nothing_hard_in_training)
    with pytest.raises(SystemExit):
        reproduce.main(["dextr-8", *SHRUNK])
    cells = report_of(here, "dextr-8")["cells"]
    assert [cell["state"] for cell in cells] == ["reduced profile", "not run", "reduced profile", "not run"]
    assert cells[1]["reason"] == "failed: no object of pascal/train, half 2 has iou below 0.8: all 9 reach it"


def test_built_on_says_nothing_of_a_row_that_needs_no_other(store):
    base = built_on(find_spec("dextr-4/psp"), CONDITIONS, 0)
    assert not base.parents
    assert not any(base.lists)
    assert base.listing(["pascal/val"]) == ()
