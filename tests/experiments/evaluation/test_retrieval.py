"""Protocol `retrieval`: what share of the nodes that the walk finds is right, and of all that it should find."""

import copy
import csv
import json
from types import SimpleNamespace

import cv2
import pytest
import torch
import torch.nn.functional as F

from datamodules.batch import collate
from datamodules.samples import ObjectSamples
from datamodules.selection import open_objects
from experiments import evaluate
from experiments.composition.building import sample_recipe
from experiments.console import DASH
from experiments.evaluation import retrieval
from experiments.evaluation.retrieval import Retrieval, RetrievalSettings, Walks
from experiments.evaluation.rows import read_rows
from experiments.launching.making import execute
from experiments.runs.models import finished_training, load_model
from experiments.runs.node import Node
from lightning_modules.exits import masks_on_the_crop
from lightning_modules.point_retrieval import PointRetrieval
from lightning_modules.point_supervision import extreme_points_of
from tests.experiments.test_exits import EXTRACTOR, TINY_EXITS

PART = "{name: pascal/val, limit: 5}"
WALK = RetrievalSettings(Walks(layers=[3], alphas=[1, 2]))


def rows_file(folder, *rows):
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        written = csv.DictWriter(file, list(rows[0]))
        written.writeheader()
        written.writerows(rows)
    return path


def row(nodes=(0, 0), **counts):
    return {"position": 0, "nodes_object": nodes[0], "nodes_background": nodes[1], **counts}


def of_walk(hops, found, right):
    """Counts of object and background after so many hops."""
    return {
        f"{what}_{kind}_l3_a{hops}": number
        for what, numbers in (("found", found), ("right", right))
        for kind, number in zip(("object", "background"), numbers)
    }


@pytest.fixture
def counted(tmp_path):
    """Two objects: one of 10 nodes in a box of 16, one of 30 in 40."""
    return rows_file(
        tmp_path,
        row((10, 6), **of_walk(1, (4, 2), (4, 1)), **of_walk(2, (8, 0), (6, 0))),
        row((30, 10), **of_walk(1, (0, 8), (0, 5)), **of_walk(2, (20, 0), (15, 0))),
    )


def test_nodes_are_counted_over_all_objects_before_they_are_divided(counted):
    metrics = Retrieval().summarise(counted, WALK)
    assert metrics["n"] == 2
    assert metrics["share_of_object"] == 40 / 56
    assert (metrics["precision_object_l3_a1"], metrics["recall_object_l3_a1"]) == (1.0, 4 / 40)
    assert (metrics["precision_object_l3_a2"], metrics["recall_object_l3_a2"]) == (21 / 28, 21 / 40)
    assert (metrics["precision_background_l3_a1"], metrics["recall_background_l3_a1"]) == (0.6, 6 / 16)


def test_where_nothing_was_found_there_is_no_precision(counted):
    metrics = Retrieval().summarise(counted, WALK)
    assert metrics["precision_background_l3_a2"] is None
    assert metrics["recall_background_l3_a2"] == 0
    table = Retrieval().table(metrics, WALK)
    assert "2 objects; of the nodes in their boxes 71.4 % are object" in table
    assert "layer  3  1: 100.0 / 10.0   2: 75.0 / 52.5" in table
    assert f"layer  3  1: 60.0 / 37.5   2: {DASH} / 0.0" in table
    assert Retrieval().describe(metrics, WALK) == "precision_object_l3_a1 100.0 % over 2 objects"


def test_boxes_without_any_node_have_no_shares(tmp_path):
    metrics = Retrieval().summarise(rows_file(tmp_path, row(**of_walk(1, (0, 0), (0, 0)))), WALK)
    assert {value for name, value in metrics.items() if name != "n"} == {None}
    assert DASH in Retrieval().describe(metrics, WALK)


def test_a_report_shows_the_same_table(counted):
    metrics = Retrieval().summarise(counted, WALK)
    of_object, of_background = Retrieval().grids({"extractor": [metrics]})
    assert (of_object.title, of_object.header) == ("extractor: retrieved object", ("Layer", "1", "2"))
    assert of_object.lines == (("3", "100.0 / 10.0", "75.0 / 52.5"),)
    assert of_background.lines == (("3", "60.0 / 37.5", f"{DASH} / 0.0"),)


def test_a_walk_is_the_run_s_own_but_for_layer_and_hops_and_what_is_asked_for():
    own = PointRetrieval(rounds=7, delta=0.25, outside="half", tau_foreground=2e-3)
    walk = Walks(delta=1.0).walk(own, 0, 4)
    assert (walk.layer, walk.alpha, walk.delta) == (0, 4, 1.0)
    assert (walk.rounds, walk.outside, walk.tau_foreground) == (7, "half", 2e-3)
    assert vars(own)["delta"] == 0.25
    of_extractor = Walks().walk(None, 10, 3)
    assert (of_extractor.rounds, of_extractor.first, of_extractor.delta) == (3, "columns", 0.5)
    assert (of_extractor.tau_foreground, of_extractor.tau_background) == (1e-3, -1e-4)


# -- by command --------------------------------------------------------------------------------------------------------

# 10 x 10 nodes, some of which lie beside the box of an evaluation.
LARGER = [
    *EXTRACTOR,
    "--data.sample.size=160",
    "--evaluation.retrieval.tau_foreground=1e-7",
    "--evaluation.retrieval.tau_background=-1e-7",
    "--trainer.max_steps=3",
    "--no-test",
]


@pytest.fixture
def extractor(finished):
    return finished(LARGER)["run"]


def evaluation_of(here):
    """The folder of the only evaluation."""
    (folder,) = [path.parent for path in (here / "runs").glob("*/rows.csv")]
    return folder


def test_an_extractor_s_points_are_counted_by_every_layer_and_pictured(here, extractor, capsys):
    evaluate.main(["--run", extractor, "--data", PART, "--protocol", "retrieval"])
    said = capsys.readouterr().out
    assert "object: precision / recall in %, by hops" in said
    assert said.count("  layer ") == 2 * 2
    folder = evaluation_of(here)
    metrics = json.loads((folder / "record.json").read_text())["metrics"]
    assert metrics["n"] == 5
    assert {
        f"recall_{kind}_l{layer}_a{hops}"
        for kind in ("object", "background")
        for layer in (1, 2)
        for hops in range(1, 6)
    } <= {*metrics}
    pictures = sorted((folder / "pictures").glob("*-retrieval.png"))
    assert len(pictures) == 5
    assert cv2.imread(str(pictures[0])).std() > 5


def test_the_counts_of_a_row_are_those_of_the_walk_on_its_object(here, extractor):
    evaluate.main(["--run", extractor, "--data", PART, "--protocol", "retrieval"])
    rows = list(read_rows(evaluation_of(here) / "rows.csv"))
    training = finished_training(extractor)
    model, config = load_model(training), training.config
    data = config["data"]["init_args"]
    samples = ObjectSamples(
        open_objects([{"name": "pascal/val", "limit": 5}], data["root"], data["seed"]),
        sample_recipe(config),
        train=False,
    )
    batch = collate([samples[position] for position in range(len(rows))])
    is_object = F.adaptive_avg_pool2d(masks_on_the_crop(batch).float(), 10).flatten(1) > 0.5
    with torch.inference_mode():
        similarity = model.network.similarity(model.seen(batch.image), 2)
        walk = PointRetrieval(layer=2, alpha=1, tau_foreground=1e-7, tau_background=-1e-7)
        points = walk(similarity, extreme_points_of(batch.clicks), batch.mask)
    expected = {
        "nodes_object": points.inside & is_object,
        "nodes_background": points.inside & ~is_object,
        "found_object_l2_a1": points.foreground,
        "right_object_l2_a1": points.foreground & is_object,
        "found_background_l2_a1": points.background,
        "right_background_l2_a1": points.background & ~is_object,
    }
    for name, nodes in expected.items():
        assert [int(row[name]) for row in rows] == nodes.sum(1).tolist(), name
        assert nodes.any(), name
    assert points.outside.any(1).all()


@pytest.mark.slow
def test_a_generator_is_asked_for_its_extractor_s_points(here, extractor, finished):
    given = [word for word in LARGER if word in TINY_EXITS or word not in EXTRACTOR]
    generator = finished([*given, "--parent", f"extractor={extractor}"])["run"]
    counts = []
    for run in (extractor, generator):
        evaluate.main(["--run", run, "--data", PART, "--protocol", "retrieval"])
        for folder in (path.parent for path in (here / "runs").glob("*/rows.csv")):
            record = json.loads((folder / "record.json").read_text())
            if record["parents"]["model"] == run:
                counts.append([{**row, "seconds": 0} for row in read_rows(folder / "rows.csv")])
    assert len(counts) == 2
    assert counts[0] == counts[1]


def test_a_method_without_similarity_retrieves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(retrieval, "load_model", lambda node: torch.nn.ModuleDict({"network": torch.nn.Identity()}))
    with pytest.raises(ValueError, match="run abc has no similarity extractor and retrieves no points: take a run of"):
        Retrieval().scorer(SimpleNamespace(model=SimpleNamespace(hash="abc")), tmp_path)


def test_a_layer_that_the_network_has_not_is_refused(here, extractor):
    training = finished_training(extractor)
    config = copy.deepcopy(training.config)
    tested = [{"name": "pascal/val", "limit": 2}]
    config["evaluation"].update(protocol="retrieval", test=tested, retrieval={"layers": [1, 3]})
    with pytest.raises(
        ValueError,
        match=r"^evaluation.retrieval.layers: the network has layers 0 \(its final tokens\) to 2, got 3$",
    ):
        execute(Node("evaluate", config, {"model": training}), "layers")
