from __future__ import annotations

import pytest

from datamodules.catalog import catalog
from experiments.check_data import main
from tests.datamodules.layouts import coco_annotation, rectangle, write_coco, write_gray, write_image

POLYGON = [2, 3, 7, 3, 7, 7, 2, 7]


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    for data_set in catalog().values():
        monkeypatch.delenv(data_set.variable or "-", raising=False)
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path / "data"


def test_without_any_data_it_says_what_to_fetch_and_that_is_no_error(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "VOCtrainval_11-May-2012.tar" in out
    assert "PASCAL_ROOT" in out
    assert out.count("benchmark.tgz") == 1  # one paragraph for all sets that need SBD


def test_a_missing_set_that_was_asked_for_is_an_error():
    assert main(["pascal/val"]) == 1


def test_an_unknown_name_is_another_error(capsys):
    assert main(["pascal/vla"]) == 1
    assert "nearest: pascal/val" in capsys.readouterr().err


def test_too_few_frames_are_shown_against_the_official_count(data_root, capsys):
    write_image(data_root / "davis345" / "img" / "000.jpg")
    write_gray(data_root / "davis345" / "gt" / "000.png", rectangle(1, 2, 6, 9))
    assert main(["davis345"]) == 0
    out = capsys.readouterr().out
    assert "differs" in out
    assert "1 of 345" in out


def test_what_was_left_out_is_shown_and_unread_sets_stay_unread(data_root, capsys):
    annotations = [coco_annotation(1, 1, [POLYGON]), coco_annotation(2, 1, [POLYGON], iscrowd=1)]
    write_coco(data_root / "coco200", annotations)
    assert main(["--quick"]) == 0
    assert "coco200/val2017: never listed yet" in capsys.readouterr().out
    assert main(["coco200/val2017"]) == 0
    assert "coco200/val2017: left out: 1 crowd annotations" in capsys.readouterr().out


def test_a_broken_set_is_shown_with_its_sentence(data_root, capsys):
    write_coco(data_root / "coco200", []).write_text('{"images": [')
    assert main(["coco200/val2017"]) == 1
    out = capsys.readouterr().out
    assert "broken" in out
    assert "not valid JSON" in out
