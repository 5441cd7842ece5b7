"""The table files say what the papers print, and complain about anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from experiments.reproduction.planned import made_by_code
from experiments.reproduction.spec_reader import FOLDER
from experiments.reproduction.specs import Pair, RowData, RunSpec
from experiments.reproduction.table_list import print_tables, table_state
from experiments.reproduction.tables import load_table, read_table, tables

NUMBERS = [  # of the first tables; a later one need not stand here
    *(f"dextr-{name}" for name in (1, 2, 3, 4, 5, 6, 7, 8, 9, "fig4", "fig5", "fig6")),
    *(f"iog-{name}" for name in (1, 2, 3, 4, 5, 6, 7, 8, "fig6-left", "fig6-right")),
    *(f"fairs-{name}" for name in (1, 2, 3, 4, 5, 6, 7, "fig3d", "sfg-in-dextr", "refine", "3points")),
    *(f"itis-{name}" for name in ("1-left", "1-right", 2, "fig3a", "fig3b", "fig4", "fig5", "fig6")),
    *(f"exits-{name}" for name in (1, 2, 3, 4, 5, 6)),
    "click-peers",
]

PRINTED = [
    ("dextr-3", "Bounding boxes -> Extreme points", "value", 12.9),
    ("dextr-3", "Fixed points -> Distance map", "value", -1.3),
    ("dextr-4", "+ SBD data (ours)", "value", 91.5),
    ("dextr-5", "DEXTR, manual points", "value", 80.1),
    ("dextr-7", "COCO -> PASCAL", "value", 87.8),
    ("dextr-9", "GraphCut", "clicks_PASCAL_85", ">20"),
    ("iog-1", "IOG-ResNet101, 4 clicks", "grabcut_iou_4", 96.9),
    ("iog-2", "COCO -> COCO MVal", "ours", 85.2),
    ("iog-7", "Manual inside points", "r30", 92.3),
    ("iog-fig6-left", "late + iter +", "clicks_4", 94.4),
    ("fairs-1", "+ SFG", "PASCAL+SBD", 92.22),
    ("fairs-4", "DEXTR", "Berkeley_90", "4+"),
    ("fairs-refine", "gain", "value", 6.1),
    ("itis-1-left", "ITIS", "grabcut", 5.6),
    ("itis-1-right", "Graph cut", "grabcut", ">20"),
    ("itis-2", "ITIS-VOS", "click_10", 82.8),
    ("itis-fig5", "Gaussian + iterative + mask", "value", 3.7),
    ("itis-fig4", "cluster sampling", "clicks_5", None),
    ("exits-1", "EXITS, ResNet-50", "ret_val", 96.3),
    ("exits-4", "EXITS", "miou_separated_coco", 66.6),
    ("exits-6", "without point dropout", "ap75", 40.4),
    ("click-peers", "RITM HRNet18 IT-M, COCO+LVIS", "grabcut_noc90", 1.54),
]


def test_numbers_are_fixed_once_given_and_new_tables_take_the_next():
    found = [(table.number, table.id) for table in tables()]
    assert found[: len(NUMBERS)] == list(enumerate(NUMBERS, start=1))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize(("table", "row", "column", "value"), PRINTED)
def test_published_values_are_those_of_the_papers(table, row, column, value):
    assert load_table(table).row(row).published[column] == value


def test_a_number_and_an_id_call_the_same_table():
    assert load_table("4") is load_table("dextr-4")


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(ValueError, match=r"no table 'dexter-4'; did you mean 'dextr-4'"):
        load_table("dexter-4")
    last = len(tables())
    with pytest.raises(ValueError, match=f"numbers go from 1 to {last}"):
        load_table(str(last + 1))


def test_every_file_opens_with_its_command():
    for table in tables():
        head = (FOLDER / f"{table.id}.yaml").read_text().split("number:")[0]
        assert all(line.startswith("# ") for line in head.splitlines())
        assert f"make reproduce-table-{table.number} " in head
        assert f"make reproduce-table-{table.id}\n" in head


def test_every_row_says_where_its_values_were_found():
    assert all(row.source for table in tables() for row in table.rows)


def test_values_from_memory_are_known_as_such():
    grabcut = load_table("dextr-6")
    assert grabcut.row("GrabCut").unverified
    assert not grabcut.row("Ours").unverified
    peers = load_table("click-peers")
    assert peers.row("SimpleClick ViT-L, COCO+LVIS").unverified  # its NoC85
    assert not peers.row("SimpleClick ViT-B, COCO+LVIS").unverified


def test_building_performance_is_a_chain_in_which_each_row_changes_one_thing():
    runs = [row.cells["value"] for row in load_table("dextr-4").rows]
    assert [dict(run.differs) for run in runs] == [
        {"model.guidance": None, "model.network.head": "ASPP"},
        {"model.guidance": None},
        {},
        {},
    ]
    assert [run.train for run in runs] == [(RowData("pascal/train"),)] * 3 + [(RowData("pascal_sbd/train"),)]
    assert [(run.recipe, run.reading, run.test, run.metric) for run in runs] == 4 * [
        ("dextr", "code", RowData("pascal/val"), "mean_iou")
    ]


def test_component_pairs_share_the_standard_model_with_the_chain():
    pairs = {row.label: row.cells["value"] for row in load_table("dextr-3").rows}
    chain = load_table("dextr-4")
    assert all(isinstance(pair, Pair) for pair in pairs.values())
    assert pairs["Bounding boxes -> Extreme points"].after == chain.row("+ Extreme points").cells["value"]
    assert pairs["Bounding boxes -> Extreme points"].before == chain.row("+ PSP").cells["value"]
    assert pairs["ASPP -> PSP"].before == chain.row("DeepLab-v2 on boxes").cells["value"]
    (changed,) = pairs["Fixed points -> Distance map"].after.differs.items()
    assert changed == ("model.guidance", {"class_path": "DistanceMap", "init_args": {"truncate": "${px:255}"}})


def test_generalisation_starts_from_imagenet_and_splits_the_categories():
    runs = [row.cells["value"] for row in load_table("dextr-7").rows]
    assert {run.differs["model.network.pretrained"] for run in runs} == {"imagenet"}
    assert [run.test.part.get("categories", "all") for run in runs] == ["not_pascal", "pascal", *4 * ["all"]]
    assert [run.differs.get("trainer.max_epochs") for run in runs] == [None, None, None, 10, 10, None]


def test_grabcut_errors_are_scored_as_errors():
    run = load_table("dextr-6").row("Ours").cells["value"]
    assert isinstance(run, RunSpec)
    assert (run.test.name, run.protocol, run.metric, run.scale) == (
        "grabcut",
        "grabcut_error",
        "error_rate",
        100.0,
    )


def test_hard_objects_are_those_of_the_first_network():
    first, more, five, mined = (row.cells["value"] for row in load_table("dextr-8").rows)
    half_1, half_2 = (RowData("pascal/train", {"half": half}) for half in (1, 2))
    assert (first.train, first.start) == ((half_1,), None)
    assert five.train == (half_2,)
    (hard,) = mined.train
    assert more.train == (half_1, hard)
    assert (hard.name, hard.part, hard.hard.below, hard.hard.metric) == ("pascal/train", {"half": 2}, 0.8, "iou")
    assert (hard.hard.by.train, hard.hard.by.test) == (first.train, half_2)  # run on half 2, all of it
    assert [run.test == first.test for run in (more, five, mined)] == [True] * 3
    assert first.test.hard.by.test == RowData("pascal/val")
    assert [run.start is None or run.start.train == first.train for run in (first, more, five, mined)] == [True] * 4
    assert [(run.protocol, run.metric) for run in (first, more, five, mined)] == [
        ("object_iou", "mean_iou"),
        ("object_iou", "mean_iou"),
        ("clicks", "iou_5"),
        ("clicks", "iou_5"),
    ]
    assert [run.differs.get("model.corrections", 0) for run in (first, more, five, mined)] == [0, 0, 1, 1]
    corrected = [run.parents.get("corrects") for run in (first, more, five, mined)]  # whose error has the fifth point
    assert [other and other.train for other in corrected] == [None, None, (half_1,), (half_1,)]


def test_automatic_extreme_points_have_the_noise_of_the_paper():
    for table, row in (("dextr-1", "Ours, automatic points"), ("dextr-5", "DEXTR, automatic points")):
        run = load_table(table).row(row).cells["value"]
        assert run.differs["data.sample.test_points"] == {"rule": "jitter", "pixels": "${px:10}"}


def test_what_three_seeds_drew_is_the_mean_of_three():
    rows = {row.label: row.cells["clicks_5"].repeated for row in load_table("itis-fig4").rows}
    assert {label: len(runs) for label, runs in rows.items()} == {
        "largest cluster": 1,
        "cluster sampling": 3,
        "random sampling": 3,
    }
    assert len({run.differs["evaluation.clicks.seed"] for run in rows["random sampling"]}) == 3


def test_only_what_the_released_code_made_is_said_to_be_its_own():
    def said(reference: str, row: str, column: str) -> bool:
        return made_by_code(load_table(reference), row, column)

    assert said("iog-3", "R101, full, 10k", "iou")
    assert said("dextr-4", "+ SBD data (ours)", "value")
    assert said("itis-fig5", "Gaussian + iterative", "value")
    assert not said("iog-8", "(A) Crop R50", "iou")
    assert not said("click-peers", "IOG (this suite)", "grabcut_noc90")
    assert not said("iog-4", "IOG R101, PASCAL, fine-tuned", "iou")
    assert said("iog-4", "IOG R50, PASCAL, no fine-tune", "iou")
    assert not said("iog-2", "COCO -> PASCAL", "ours")
    assert not said("dextr-7", "COCO -> PASCAL", "value")
    assert not said("itis-fig5", "Gaussian tail zero (ours, not in paper)", "value")
    assert not said("dextr-8", "5 points + OHEM", "value")
    assert not said("fairs-1", "+ SFG", "PASCAL")


def specs_of(run: RunSpec) -> list[RunSpec]:
    """A run and those it builds on."""
    return [run, *(spec for parent in run.parents.values() for spec in specs_of(parent))]


def test_tables_say_what_their_numbers_hang_on():
    for table in tables():
        cells = [cell for row in table.rows for cell in row.cells.values()]
        sides = [side for c in cells for side in ((c.before, c.after) if isinstance(c, Pair) else (c,))]
        specs = [spec for side in sides for spec in specs_of(side)]
        names = {data.name for spec in specs for data in spec.data}
        notes = " ".join(table.notes)
        assert ("crowd annotations" in notes) == any(n.startswith("coco") and n != "coco_mval800" for n in names)
        assert ("--min-iou" in notes) == ("pascal/ext" in names)
        if any(spec.protocol != "focus" for spec in specs):
            assert "threshold" in notes
        if table.paper == "iog" and cells:
            assert "the best epoch is published" in notes


def test_columns_may_share_a_training_and_differ_in_what_is_shown():
    cells = load_table("dextr-9").row("Ours").cells
    assert {name: (run.test.name, run.metric, run.scale) for name, run in cells.items()} == {
        "clicks_PASCAL_85": ("pascal/val", "wholeset_integer@0.85", 1.0),
        "clicks_GrabCut_90": ("grabcut", "wholeset_integer@0.9", 1.0),
        "IoU4_PASCAL": ("pascal/val", "iou_4", 100.0),
        "IoU4_GrabCut": ("grabcut", "iou_4", 100.0),
    }
    assert all(run.train == (RowData("pascal_sbd/train"),) for run in cells.values())


def test_nothing_but_own_rows_is_to_be_measured():
    assert {column.name for _, column in load_table("iog-2").to_measure} == {"ours"}
    assert all(row.own for table in tables() for row, _ in table.to_measure)


def changed(tmp_path: Path, change) -> Path:
    tree = yaml.safe_load((FOLDER / "dextr-4.yaml").read_text())
    change(tree)
    path = tmp_path / "dextr-4.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.update(colums={}), r"no key 'colums'; did you mean 'columns'"),
        (
            lambda t: t["rows"][0].update(publishd={}),
            r"row 'DeepLab-v2 on boxes': no key 'publishd'; did you mean 'published'",
        ),
        (lambda t: t["rows"][0]["run"].update(diffres={}), r"no key 'diffres'; did you mean 'differs'"),
        (
            lambda t: t["rows"][0]["run"].update(protocol="object_iuo"),
            r"no protocol 'object_iuo'; did you mean 'object_iou'",
        ),
        (lambda t: t["rows"][0]["published"].update(valeu=1), r"no column 'valeu'; did you mean 'value'"),
        (lambda t: t["rows"][0].update(published={}), r"published lacks column 'value'"),
        (lambda t: t["rows"][1].update(label="DeepLab-v2 on boxes"), r"two rows are called 'DeepLab-v2 on boxes'"),
        (lambda t: t.pop("title"), r"title missing"),
        (lambda t: t.update(reading="both"), r"reading is 'both'; expected paper or code"),
    ],
)
def test_a_mistake_in_a_table_file_is_named(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_table(changed(tmp_path, change))


def hard(by: str) -> dict:
    return {"test": {"name": "pascal/val", "hard": {"below": 0.8, "by": by}}}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t["rows"][0]["run"].update(start="+ PSSP"), r"no row '\+ PSSP'; did you mean '\+ PSP'"),
        (lambda t: t["rows"][0]["run"].update(start=t["rows"][0]["label"]), "build on each other: DeepLab-v2 on boxes"),
        (
            lambda t: (t["rows"][1]["run"].update(start="+ Extreme points"), t["rows"][2]["run"].update(start="+ PSP")),
            r"build on each other: \+ Extreme points -> \+ PSP -> \+ Extreme points",
        ),
        (
            lambda t: (t["rows"][1].pop("run"), t["rows"][0]["run"].update(hard("+ PSP"))),
            r"row '\+ PSP' does not say what to run",
        ),
        (lambda t: t["run"].update(test={"name": "pascal/val", "haf": 1}), "no key 'haf'; did you mean 'half'"),
        (lambda t: t["run"].update(test={"name": "pascal/val", "hard": {"by": "+ PSP"}}), "hard: below missing"),
        (lambda t: t.update(columns_run={"valeu": {}}), "no column 'valeu'; did you mean 'value'"),
    ],
)
def test_a_mistake_in_what_rows_build_on_is_named(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_table(changed(tmp_path, change))


def test_a_row_may_be_tested_on_what_itself_finds_hard(tmp_path):
    table = read_table(changed(tmp_path, lambda tree: tree["rows"][1]["run"].update(hard("+ PSP"))))
    run = table.row("+ PSP").cells["value"]
    assert run.test.hard.by == replace(run, test=RowData("pascal/val"))


def test_the_most_special_part_decides(tmp_path):
    def change(tree):
        tree["columns_run"] = {"value": {"test": "berkeley", "metric": "mean_iou@0.5", "differs": {"seed": 1}}}
        tree["rows"][0]["cells"] = {"value": {"test": "davis345"}}

    rows = [row.cells["value"] for row in read_table(changed(tmp_path, change)).rows]
    assert [run.test.name for run in rows] == ["davis345", *3 * ["berkeley"]]
    assert {run.metric for run in rows} == {"mean_iou@0.5"}
    assert rows[1].differs == {"seed": 1, "model.guidance": None}


def test_two_tables_cannot_have_one_number(tmp_path):
    changed(tmp_path, lambda tree: None)
    (tmp_path / "dextr-5.yaml").write_text((FOLDER / "dextr-5.yaml").read_text().replace("number: 5", "number: 4"))
    with pytest.raises(ValueError, match="number 4 is given to dextr-4 and to dextr-5"):
        tables(tmp_path)


def test_the_list_says_how_far_a_table_is(tmp_path):
    assert table_state(load_table("dextr-4"), tmp_path) == "ready"
    assert table_state(load_table("dextr-fig6"), tmp_path) == "published values only"
    assert table_state(load_table("exits-1"), tmp_path) == "ready"
    (tmp_path / "miniature").mkdir()
    (tmp_path / "miniature/dextr-4.json").write_text(
        '{"cells": [{"state": "reduced profile"}, {"state": "not run"}, {"state": "quoted"}]}'
    )
    assert table_state(load_table("dextr-4"), tmp_path) == "miniature: 1/2 measured"


@pytest.mark.parametrize("width", [80, 130, 200])
def test_the_list_shows_every_table_on_one_line(width):
    console = Console(record=True, width=width, force_terminal=True)
    print_tables(lambda table: "ready", console)
    lines = console.export_text().splitlines()
    for table in tables():
        (line,) = [line for line in lines if f" {table.id} " in line]
        assert f" {table.number} " in line
        assert table.title[:15] in line
        assert "ready" in line
