from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

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
    assert "did you mean 'pascal/val'" in capsys.readouterr().err


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


@pytest.fixture
def pairs(tmp_path):
    """Twelve images with a mask each."""
    for name in "abcdefghijkl":
        write_image(tmp_path / "mine" / "images" / f"{name}.png")
        write_gray(tmp_path / "mine" / "masks" / f"{name}.png", 255 * rectangle(1, 2, 6, 9))
    return tmp_path / "mine"


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def test_what_training_would_stop_at_is_counted_and_named(pairs, capsys):
    assert main([f"folder:{pairs}"]) == 0
    assert "12" in capsys.readouterr().out
    for name in "cdefg":
        cut(pairs / "images" / f"{name}.png")
    assert main([f"folder:{pairs}"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "damaged" in out
    assert "5 things that training would stop at: image" in out
    assert "c.png is truncated" in out
    assert "; and 2 more" in out


def test_sizes_that_differ_from_the_annotation_file_are_named(tmp_path, capsys):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [POLYGON])])
    write_image(tmp_path / "val2017" / "000000000001.jpg", size=(10, 10))
    assert main([f"coco_json:{file}"]) == 1
    assert "000000000001.jpg is (10, 10) (H, W), its annotations say (12, 16)" in capsys.readouterr().out


def test_a_part_is_read_by_default_and_all_with_deep(pairs, capsys, monkeypatch):
    monkeypatch.setattr("datamodules.stock.ASKED", 2)  # the first and the last
    cut(pairs / "images" / "f.png")
    assert main([f"folder:{pairs}"]) == 0
    out = capsys.readouterr().out
    assert "2 of 12" in out
    assert "--deep reads them all" in out
    assert main([f"folder:{pairs}", "--deep"]) == 1
    assert "f.png is truncated" in capsys.readouterr().out


def test_a_damaged_set_that_nobody_asked_for_is_an_error_too(data_root):
    write_coco(data_root / "coco200", [coco_annotation(1, 1, [POLYGON])])
    assert main([]) == 0
    cut(data_root / "coco200" / "val2017" / "000000000001.jpg")
    assert main(["--quick"]) == 0
    assert main([]) == 1


def test_pictures_that_were_turned_are_said(pairs, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(pairs / "images" / "b.png", exif=exif)
    assert main([f"folder:{pairs}"]) == 0
    assert "1 turned as their EXIF orientation says: b.png" in capsys.readouterr().out


def test_a_set_without_any_object_is_no_green_light(tmp_path, capsys):
    write_image(tmp_path / "img" / "a.png")
    write_gray(tmp_path / "gt" / "a.png", 0 * rectangle(1, 2, 6, 9))
    assert main([f"folder:{tmp_path}"]) == 1
    assert "no object is left to train on" in capsys.readouterr().out
