"""Whole tables by command, on drawn data: every row runs, and the report says what the table files and records say."""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from datamodules.selection import open_objects
from experiments import report_check, reproduce, sweep_local
from experiments.composition.compose import compose
from experiments.reports.check import check_report
from experiments.reproduction.cells import main_run
from experiments.reproduction.specs import Pair
from experiments.reproduction.tables import load_table, tables
from experiments.runs.records import parents_of
from tests.experiments.tiny import CHANGED, SHRUNK, report_of

# Tables whose rows are made like those of the others; a table that is added later runs unless it stands here, too.
LIKE_OTHERS = {
    "click-peers",
    "dextr-5",
    *(f"exits-{number}" for number in (1, 2, 3, 5, 6)),  # of two recipes each: test_second_stage.py
    "fairs-2",
    "fairs-3",
    "fairs-3points",
    "fairs-4",
    "fairs-5",
    "fairs-6",
    "fairs-fig3d",
    "fairs-sfg-in-dextr",
    "iog-1",
    "iog-2",
    "iog-5",
    "iog-6",
    "itis-1-left",
    "itis-1-right",
    "itis-fig3a",
    "itis-fig3b",
    "itis-fig4",
    "itis-fig5",
}
SHRUNK_EXITS = [
    *SHRUNK[:-1],
    "--data.sample.size=64",
    "--model.network.patch_embed=patch16",
    "--model.network.stride=16",
    "--model.network.embed_dim=16",
    "--model.network.depth=2",
    "--model.network.channels=8",
    "--model.network.side=16",
]
# How long is trained, from what and with how many at a time.
OF_THE_PROFILE = ("trainer.", "model.network.pretrained", "data.batch_size")
PROFILES = Path(reproduce.__file__).parent / "configs" / "profiles"


class Made:
    """What a table's runs left in the store."""

    def __init__(self, table, report, store):
        self.table, self.store = table, store
        self.cells = {(cell["row"], cell["column"]): cell for cell in report["cells"]}

    def record(self, run):
        return json.loads((self.store / run / "record.json").read_text())

    def described(self, run):
        return yaml.safe_load((self.store / run / "config.yaml").read_text())

    def config(self, run):
        return self.described(run)["config"]

    def kind(self, run):
        return self.described(run)["kind"]

    def sides(self):
        """Each model that the table file asks for, its evaluations and the cell that shows it."""
        for row, column in self.table.to_measure:
            said, cell = row.cells[column.name], self.cells[row.label, column.name]
            if isinstance(said, Pair):
                yield said.before, cell["before_runs"], cell
            yield main_run(said), cell["runs"], cell


def made_by(name, folder, store):
    reproduce.main([name, *(SHRUNK_EXITS if name.startswith("exits-") else SHRUNK)])
    return Made(load_table(name), report_of(folder, name), store)


def of_training(spec):
    """What a table file says of a model's training, whatever it is tested on."""
    told = {
        key: value for key, value in spec.differs.items() if not key.startswith(("evaluation.", "data.sample.test"))
    }
    return repr((spec.recipe, spec.reading, spec.train, spec.start, sorted(told.items(), key=str)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [table.id for table in tables() if any(row.cells for row in table.rows) and table.id not in LIKE_OTHERS]
)
def test_every_row_of_a_table_runs_and_its_report_holds_what_the_records_say(shared_store, tmp_path, name):
    made = made_by(name, tmp_path, shared_store)
    own = {(row.label, column.name) for row, column in made.table.to_measure}
    assert {key for key, cell in made.cells.items() if cell["state"] == "reduced profile"} == own != set()
    assert {cell["state"] for key, cell in made.cells.items() if key not in own} <= {"quoted"}
    for spec, runs, cell in made.sides():
        assert_measured_as_said(made, spec, runs, cell)
    assert_trainings_are_shared(made)
    assert check_report(tmp_path / CHANGED / f"{name}.json", shared_store) == []
    markdown = (tmp_path / CHANGED / f"{name}.md").read_text()
    assert "not a reproduction" in markdown
    assert "trainer.max_steps=3" in markdown  # what was typed is said


def assert_measured_as_said(made, spec, runs, cell):
    """As many evaluations as there are values to average over, on all objects of the test set, shown by their mean."""
    assert len(runs) == len(set(runs)) == len(spec.repeated)
    config, records = made.config(runs[0]), [made.record(run) for run in runs]
    data = config["data"]["init_args"]
    (tested,) = config["evaluation"]["test"]
    part = {key: tested[key] if "${" in str(value) else value for key, value in spec.test.part.items()}
    objects = open_objects([{"name": spec.test.name, **part}], data["root"], data["seed"])
    for record in records:
        assert record["metrics"]["n"] == cell["n_objects"] > 0
    if spec.test.hard:
        (chosen,) = (made.record(run)["metrics"] for run in parents_of(records[0]) if made.kind(run) == "select")
        assert (cell["n_objects"], len(objects)) == (chosen["n"], chosen["of"])
    else:
        assert cell["n_objects"] == len(objects)
    values = [record["metrics"][spec.metric] for record in records]
    if None in values:
        assert cell["measured"] is None
        assert cell["never"].startswith(">")
        return
    mean, (least, most) = spec.scale * fmean(values), (1, 20) if cell["unit"] == "clicks" else (0, spec.scale)
    assert least <= mean <= most
    if cell["before_runs"]:
        assert mean == pytest.approx(cell["parts"][runs == cell["runs"]])
        assert cell["measured"] == pytest.approx(cell["parts"][1] - cell["parts"][0])
    else:
        assert cell["measured"] == pytest.approx(mean)


def assert_trainings_are_shared(made):
    """Rows that say the same of their training share one run; each run has the values that its row names."""
    trained = defaultdict(set)
    for spec, runs, _ in made.sides():
        for one, run in zip(spec.repeated, runs, strict=True):
            training = made.record(run)["parents"]["model"]
            trained[of_training(one)].add(training)
            assert_values_are_those_of_the_row(one, made.config(run))
            assert made.record(training)["steps"] == 3
            start = made.record(training)["initial_weights"]
            assert start.startswith("run ") if one.start else not start.startswith("run ")
    assert all(len(runs) == 1 for runs in trained.values()), trained
    assert len({run for runs in trained.values() for run in runs}) == len(trained)


def assert_values_are_those_of_the_row(spec, config):
    """What the table file says that a row changes is in what was run, but for what the profile decides."""
    profile = yaml.safe_load((PROFILES / "miniature.yaml").read_text())["values"]
    root = config["data"]["init_args"]["root"]
    said = compose(spec.recipe, reading=spec.reading, row=spec.differs, overrides=[f"data.root={root}"])
    for key in spec.differs:
        found, wanted = value_at(config, key), value_at(said, key)
        if key.startswith(OF_THE_PROFILE):
            continue
        if isinstance(wanted, dict):  # numbers of its arguments are pixels of a smaller crop
            assert found["class_path"] == wanted["class_path"]
        elif not isinstance(wanted, float):
            assert found == profile.get(str(wanted), wanted), key


def value_at(tree, key):
    """The value at a dotted key of a composed tree, in which arguments of classes lie a level deeper."""
    for part in key.split("."):
        tree = tree.get("init_args", tree)[part]
    return tree


@pytest.mark.slow
def test_a_row_without_its_data_is_reported_and_the_others_run(shared_store, tmp_path, monkeypatch):
    reproduce.main(["dextr-4", *SHRUNK, "--rows=2,3"])
    shared = [cell for cell in report_of(tmp_path, "dextr-4")["cells"] if cell["state"] == "reduced profile"]
    assert len(shared) == 2
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "nowhere"))
    reproduce.main(["dextr-4", *SHRUNK, "--rows=4", "--data.root=null"])
    (cell,) = [cell for cell in report_of(tmp_path, "dextr-4")["cells"] if "fetch" in cell["reason"]]
    assert cell["state"] == "not run"
    assert "VOC" in cell["reason"]


@pytest.mark.slow
def test_a_report_of_fewer_rows_keeps_what_is_finished_and_says_what_it_loses(shared_store, tmp_path, capsys):
    def shown(*more):
        reproduce.main(["dextr-4", *SHRUNK, *more])
        cells = report_of(tmp_path, "dextr-4")["cells"]
        return [cell["row"] for cell in cells if cell["runs"]], capsys.readouterr().out

    assert shown("--rows=2,3")[0] == ["+ PSP", "+ Extreme points"]
    rows, said = shown("--rows=3")
    assert rows == ["+ PSP", "+ Extreme points"]
    assert "less than the one before" not in said
    assert check_report(tmp_path / CHANGED / "dextr-4.json", shared_store) == []
    rows, said = shown("--rows=3", "--trainer.max_steps=2")
    assert rows == ["+ Extreme points"]
    assert "less than the one before it: + PSP" in said


@pytest.mark.slow
def test_a_sweep_file_makes_the_runs_of_its_table(shared_store, tmp_path, capsys):
    """Every model of the table is a run of the sweep, and the other way round."""
    sweep_local.main(["dextr-components", *SHRUNK])
    swept = set(re.findall(r"^run .*/(\w+)$", capsys.readouterr().out, re.MULTILINE))
    made = made_by("dextr-3", tmp_path, shared_store)
    assert swept == {made.record(run)["parents"]["model"] for _, runs, _ in made.sides() for run in runs}
    assert len(swept) == 7


@pytest.mark.slow
def test_a_hand_edited_report_fails_the_command(shared_store, tmp_path):
    reproduce.main(["dextr-4", *SHRUNK, "--rows=3"])
    path = tmp_path / CHANGED / "dextr-4.json"
    report_check.main([str(path)])
    edited = json.loads(path.read_text())
    (cell,) = [cell for cell in edited["cells"] if cell["runs"]]
    cell["measured"] += 1
    path.write_text(json.dumps(edited))
    with pytest.raises(SystemExit):
        report_check.main([str(path)])


@pytest.mark.slow
def test_points_say_more_than_a_box_for_three_seeds(here):
    """In crops of 32 px, where 120 steps of 8 objects are enough: 5.4 to 9.8 points for the seeds 0 to 3."""
    small = ["--data.sample.size=32", "--data.batch_size=8", "--trainer.max_steps=120"]
    reproduce.main(["dextr-4", "--profile=miniature", "--rows=2,3", "--seeds=3", "threads=1", *small])
    boxes, points = (cell for cell in report_of(here, "dextr-4")["cells"] if cell["runs"])
    assert (boxes["row"], points["row"]) == ("+ PSP", "+ Extreme points")

    def measured(run):
        return json.loads((here / "runs" / run / "record.json").read_text())["metrics"]["mean_iou"]

    for box_run, point_run in zip(boxes["runs"], points["runs"], strict=True):
        assert measured(point_run) > measured(box_run) + 0.02
