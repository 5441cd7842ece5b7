import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules import files
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


def test_what_dead_writers_left_goes_and_what_live_ones_write_stays(tmp_path: Path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    name = f".rows.csv.partial-{platform.node()}-{{}}-0a1b"
    left, live = (tmp_path / name.format(pid) for pid in (dead.stdout.strip(), os.getpid()))
    elsewhere = tmp_path / ".rows.csv.partial-node7-7-0a1b"
    for file in (left, live, elsewhere):
        file.touch()
    with whole_file(tmp_path / "rows.csv") as partial:
        partial.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", live.name, elsewhere.name}


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch):
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(files, "on_disk", lambda path: synced.append((path.name, (tmp_path / "record.json").exists())))
    with whole_file(tmp_path / "record.json") as partial:
        partial.touch()
    with whole_folder(tmp_path / "index") as building:
        (building / "a.npy").touch()
    assert synced[:2] == [(partial.name, False), (tmp_path.name, True)]
    assert [name for name, _ in synced[2:]] == ["a.npy", building.name, tmp_path.name]
