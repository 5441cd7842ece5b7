from pathlib import Path

import pytest

from datamodules.files import remove_partial, whole_file, whole_folder


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    file = tmp_path / "points.json"
    file.write_text("old")
    with whole_file(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path):
    file = tmp_path / "points.json"
    file.write_text("old")
    with pytest.raises(FileNotFoundError), whole_file(file) as partial:
        (partial.write_text("ne"), (tmp_path / "nowhere").read_text())
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_do_not_meet_and_the_last_one_stays(tmp_path: Path):
    file = tmp_path / "points.json"
    with whole_file(file) as first:
        first.write_text("first")
        with whole_file(file) as second:
            second.write_text("second")
        assert file.read_text() == "second"
    assert file.read_text() == "first"


def test_a_folder_replaces_the_older_one_as_a_whole(tmp_path: Path):
    folder = tmp_path / "below" / "index"
    for name in ("old", "new"):
        with whole_folder(folder) as partial:
            (partial / name).touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    with pytest.raises(FileNotFoundError), whole_folder(folder) as partial:
        ((partial / "half").touch(), (tmp_path / "nowhere").read_text())
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(folder.parent.iterdir()) == [folder]


def test_what_the_killed_left_is_found_by_the_name_of_what_they_wrote(tmp_path: Path):
    with whole_file(tmp_path / "[1].ckpt") as partial:
        partial.touch()
        left = tmp_path / partial.name.replace("partial-", "partial-older")
        left.touch()
        other = tmp_path / left.name.replace("[1]", "1")
        other.touch()
    remove_partial(tmp_path / "[1].ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, "[1].ckpt"])
