"""Names of images in annotation files, as exporters write them on machines that are not this one."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from datamodules.columns import Strings
from datamodules.readers.image_files import ANYWHERE, image_files
from datamodules.sets.coco import own_file

NFC, NFD = (unicodedata.normalize(form, "\u00dcbung.png") for form in ("NFC", "NFD"))


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, *names: str, folders: tuple[Path, ...] = ()) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in image_files(Strings.of(names), folders or (folder,))]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a/b.png", "a/b.png"),
        ("./a/../a/b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("C:\\Users\\ann\\a\\b.png", "a/b.png"),
        ("\\\\server\\share\\b.png", "b.png"),
        ("/home/ann/data/a/b.png", "a/b.png"),
        ("images/1/b.png", "b.png"),
        ("my%20a.png", "my a.png"),
        ("100%25.png", "100%.png"),
        ("http://here.org/data/b.png", "b.png"),
        ("file:///home/ann/my%20a.png", "my a.png"),
        ("/data/local-files/?d=mine/my%20a.png", "my a.png"),
        ("/data/upload/1/b.png?token=7", "b.png"),
        (NFC, NFD),
        ("A/B.PNG", "a/b.png"),
        ("a\\b+c.png", "a\\b+c.png"),  # unpacked where a backslash is a letter
    ],
)
def test_a_name_of_elsewhere_is_found(tmp_path, name, place):
    files(tmp_path, place)
    assert [Path(path).resolve() for path in image_files(Strings.of([name]), [tmp_path])] == [tmp_path / place]


def test_a_name_as_it_stands_comes_before_what_it_may_mean(tmp_path):
    files(tmp_path, "a%20b.png", "a b.png", "B.png", "b.png", "in/b.png")
    assert found(tmp_path, "a%20b.png", "B.png", "b.png", "in/b.png") == ["a%20b.png", "B.png", "b.png", "in/b.png"]


def test_an_absolute_name_is_that_file_unless_a_folder_was_named(tmp_path):
    files(tmp_path, "elsewhere/a.png", "near/a.png")
    name = str(tmp_path / "elsewhere/a.png")
    assert found(tmp_path, name, folders=(tmp_path / "near", ANYWHERE)) == ["elsewhere/a.png"]
    assert found(tmp_path, name, folders=(tmp_path / "near",)) == ["near/a.png"]


def test_the_folder_that_has_all_is_taken(tmp_path):
    files(tmp_path, "train/a.png", "images/a.png", "images/b.png")
    assert found(tmp_path, "a.png", "b.png", folders=(tmp_path / "train", tmp_path / "images")) == [
        "images/a.png",
        "images/b.png",
    ]


def test_what_is_missing_is_counted_where_most_is_there(tmp_path):
    files(tmp_path, "train/a.png", "train/b.png", "images/a.png")
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images are missing in .*train, the first is c\.png; fetch"):
        found(tmp_path, "a.png", "b.png", "c.png", folders=(tmp_path / "images", tmp_path / "train"))


def test_two_names_of_one_file_are_refused(tmp_path):
    files(tmp_path, "0001.png")
    with pytest.raises(ValueError, match=r"left/0001\.png and right/0001\.png would both be"):
        found(tmp_path, "left/0001.png", "right/0001.png")


def test_two_files_that_a_name_may_mean_are_none(tmp_path):
    files(tmp_path, "A.png", "a.PNG")
    with pytest.raises(FileNotFoundError, match=r"a\.png is in none of"):
        found(tmp_path, "a.png")


@pytest.mark.parametrize("place", ["images/my_part", "my_part", "images", "JPEGImages", "data", ".", "annotations"])
def test_images_lie_where_exporters_put_them(tmp_path, place):
    files(tmp_path, f"{place}/a.png")
    file, folders, _ = own_file("coco_json", f"{tmp_path}/annotations/instances_my_part.json")
    assert found(tmp_path, "a.png", folders=tuple(folders)) == [str(Path(place) / "a.png")]
    assert file == tmp_path / "annotations" / "instances_my_part.json"


@pytest.mark.parametrize("folder", ["C++", "50%25", "my images & more", "a?b", "x[y] #2"])
def test_folders_are_as_they_are_typed(tmp_path, folder):
    files(tmp_path, f"{folder}/a.json")
    for asked in (f"?images={tmp_path / folder}", f"?crowds=objects&images={tmp_path / folder}"):
        file, folders, crowds = own_file("coco_json", f"{tmp_path / folder}/a.json{asked}")
        assert (file, folders, crowds) == (tmp_path / folder / "a.json", [tmp_path / folder], "crowds" in asked)


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_file("boxes", "~/a.json?images=~/b")[:2] == (tmp_path / "a.json", [tmp_path / "b"])
