from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import cache
from datamodules.catalog import DataSet, catalog, find, open_index, root_of
from tests.datamodules.layouts import (
    coco_annotation,
    rectangle,
    write_coco,
    write_gray,
    write_image,
    write_sbd,
    write_voc,
)

A, B = rectangle(1, 2, 6, 9), rectangle(8, 2, 12, 9)
POLYGON = [2, 3, 7, 3, 7, 7, 2, 7]
OWN_VARIABLES = sorted({data_set.variable for data_set in catalog().values() if data_set.variable})


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch) -> Path:
    for variable in OWN_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def davis(data_root) -> Path:
    for name in ("000", "001"):
        write_image(data_root / "davis345" / "img" / f"{name}.jpg")
        write_gray(data_root / "davis345" / "gt" / f"{name}.png", 255 * A)
    return data_root / "davis345"


@pytest.fixture
def pascal_and_sbd(data_root) -> Path:
    """VOC: train a, b; val c. SBD: train b, c, d; val e. Both sets have b and c."""
    one = (A, 8 * A)
    write_voc(data_root / "VOCdevkit" / "VOC2012", {"train": {"a": one, "b": one}, "val": {"c": one}})
    images = {"train": {name: (A + 2 * B, [8, 15]) for name in "bcd"}, "val": {"e": (A, [8])}}
    write_sbd(data_root / "benchmark_RELEASE" / "dataset", images)
    return data_root


def names(index) -> list[str]:
    return [Path(path).stem for path in index.image_paths]


def test_pascal_and_sbd_share_no_image_and_pascal_wins(pascal_and_sbd):
    index = open_index("pascal_sbd/train")
    assert names(index) == ["a", "b", "d", "e"]
    assert list(index.native_id) == ["a/1", "b/1", "d/1", "d/2", "e/1"]
    assert index.read_mask(1).void is not None  # b as PASCAL annotates it
    assert names(open_index("sbd/trainval_without_pascal_val")) == ["b", "d", "e"]
    assert names(open_index("pascal/trainval")) == ["a", "b", "c"]


def test_itis_has_the_same_images_with_the_masks_of_sbd(pascal_and_sbd):
    index, pascal = open_index("sbd_pascal/train"), open_index("pascal_sbd/train")
    assert sorted(names(index)) == sorted(names(pascal)) == ["a", "b", "d", "e"]
    (b,) = (i for i, native in enumerate(index.native_id) if native.startswith("b/") and native == "b/1")
    assert index.read_mask(b).void is None  # b as SBD annotates it
    assert [native for native in index.native_id if native.startswith("a/")] == ["a/1"]  # which PASCAL alone has


def test_an_object_has_one_id_in_every_set_that_holds_it(pascal_and_sbd):
    together = dict(zip(open_index("pascal_sbd/train").native_id, open_index("pascal_sbd/train").object_id))
    for part in ("pascal/train", "sbd/train", "sbd/val"):
        for native_id, object_id in zip(open_index(part).native_id, open_index(part).object_id):
            if native_id[0] in ("a", "d", "e"):
                assert together[native_id] == object_id


def test_minival_is_the_first_5000_ids_of_val2014_not_the_800_objects(data_root):
    numbers = list(range(9000, 3998, -1))
    images = [{"id": i, "file_name": "one.jpg", "height": 12, "width": 16} for i in numbers]
    annotations = [coco_annotation(i, i, [POLYGON]) for i in (4000, 8998, 8999, 9000)]
    write_image(data_root / "coco" / "val2014" / "one.jpg")
    file = write_coco(data_root / "coco", annotations, split="val2014")
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": images}))
    index, whole = open_index("coco_minival5k"), open_index("coco2014/val")
    assert (index.num_images, whole.num_images) == (5000, 5002)
    assert list(index.native_id) == ["4000", "8998"]
    assert index.object_id.tolist() == whole.object_id[:2].tolist()
    assert len(index.coordinates) == 2 * len(POLYGON)  # of these objects only
    assert find("coco_mval800").objects == 800


def test_an_index_is_built_once_and_outside_the_data(davis, tmp_path, capsys):
    before = sorted(davis.rglob("*"))
    open_index("davis345")
    assert "listing the objects of davis345" in capsys.readouterr().err
    assert isinstance(open_index("davis345").box, np.memmap)
    assert capsys.readouterr().err == ""
    assert sorted(davis.rglob("*")) == before
    assert (tmp_path / "cache" / "indices").is_dir()


def test_an_edited_mask_is_seen(davis):
    first = open_index("davis345")
    write_gray(davis / "gt" / "001.png", 255 * B)
    assert open_index("davis345").box.tolist() == [[1, 2, 6, 9], [8, 2, 12, 9]]
    assert first.box.tolist() == [[1, 2, 6, 9], [1, 2, 6, 9]]  # what was open stays as it was
    assert first.fingerprint() != open_index("davis345").fingerprint()


def test_an_edited_annotation_file_is_seen_and_a_joined_set_with_it(pascal_and_sbd):
    assert len(open_index("pascal_sbd/train")) == 5
    (pascal_and_sbd / "benchmark_RELEASE" / "dataset" / "val.txt").unlink()
    write_sbd(pascal_and_sbd / "benchmark_RELEASE" / "dataset", {"val": {"f": (A + 2 * B, [8, 15])}})
    assert names(open_index("pascal_sbd/train")) == ["a", "b", "d", "f"]


def test_a_killed_build_leaves_nothing_that_looks_finished(davis, tmp_path):
    script = (
        "import os, datamodules.index as index, numpy as np\n"
        "saved = np.save\n"
        "def save(path, array):\n"
        "    saved(path, array)\n"
        "    if str(path).endswith('box.npy'): os.kill(os.getpid(), 9)\n"
        "np.save = save\n"
        "from datamodules.catalog import open_index\n"
        "open_index('davis345')\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -9
    left = [path for path in (tmp_path / "cache" / "indices").iterdir() if path.is_dir()]
    assert len(left) == 1
    assert left[0].name.startswith(".")
    assert len(open_index("davis345")) == 2
    assert not left[0].exists()


def test_a_full_disk_is_said_and_leaves_nothing(davis, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match=r"cannot be kept in .*cache.* \(No space left on device\).*set CACHE_ROOT"):
            open_index("davis345")
    assert not [path for path in (tmp_path / "cache" / "indices").iterdir() if path.is_dir()]
    assert len(open_index("davis345")) == 2


def test_two_processes_build_an_index_once(davis):
    script = "from datamodules.catalog import open_index; print(len(open_index('davis345')))"
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [run.communicate() for run in runs]
    assert [out.strip() for out, _ in answers] == ["2", "2"]
    assert sum("listing the objects" in err for _, err in answers) == 1


def test_a_missing_data_set_says_what_to_fetch_and_where_to_put_it(data_root):
    with pytest.raises(FileNotFoundError) as error:
        open_index("coco_minival5k")
    sentence = str(error.value)
    assert "instances_val2014.json is missing" in sentence
    assert "https://cocodataset.org" in sentence
    assert str(data_root / "coco") in sentence
    assert "COCO_ROOT" in sentence


def test_a_misspelt_name_gets_the_nearest_ones():
    with pytest.raises(ValueError, match="no data set named 'pascal/vla'; did you mean 'pascal/val'"):
        find("pascal/vla")


def test_a_variable_of_its_own_names_another_place(davis, monkeypatch, tmp_path):
    davis.rename(tmp_path / "frames")
    monkeypatch.setenv("DAVIS345_ROOT", str(tmp_path / "frames"))
    assert len(open_index("davis345")) == 2
    assert root_of(find("davis345"), tmp_path) == tmp_path / "davis345"  # what is asked for in a call wins


def test_any_folder_of_pairs_is_a_data_set(tmp_path):
    write_image(tmp_path / "mine" / "images" / "a.jpg")
    write_gray(tmp_path / "mine" / "masks" / "a.png", A)
    index = open_index(f"folder:{tmp_path / 'mine'}")
    assert index.box.tolist() == [[1, 2, 6, 9]]
    assert index.dataset == "folder:mine"  # ids do not depend on where the folder lies


@pytest.mark.parametrize("images", ["val2017", "images", "elsewhere", "annotations"])
def test_any_coco_json_is_a_data_set_and_its_images_are_found(tmp_path, images):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [POLYGON])])
    if images != "val2017":
        (tmp_path / images).mkdir(exist_ok=True)
        next((tmp_path / "val2017").iterdir()).rename(tmp_path / images / "000000000001.jpg")
    option = f"?images={tmp_path / images}" if images == "elsewhere" else ""
    index = open_index(f"coco_json:{file}{option}")
    assert index.image_path(0).parent == tmp_path / images


@pytest.mark.parametrize("kind", ["coco_json", "boxes"])
def test_pictures_that_were_moved_or_replaced_are_seen(tmp_path, kind):
    file = write_coco(tmp_path, [coco_annotation(1, 1, [POLYGON])])
    first = open_index(f"{kind}:{file}")
    (tmp_path / "val2017").rename(tmp_path / "images")
    moved = open_index(f"{kind}:{file}")
    assert moved.image_path(0).parent == tmp_path / "images"
    assert moved.fingerprint() == first.fingerprint()  # the same pictures, wherever they lie
    write_gray(moved.image_path(0).with_suffix(".png"), 200 * A).replace(moved.image_path(0))
    assert open_index(f"{kind}:{file}").fingerprint() != first.fingerprint()


def test_pictures_of_large_sets_are_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WATCHED", 20)
    file = write_coco(tmp_path, [coco_annotation(1, 1, [POLYGON])], images=range(1, 31))
    kept = open_index(f"coco_json:{file}").fingerprint()
    for place, seen in ((1, False), (15, True)):  # two of thirty: the first and the sixteenth
        picture = Path(open_index(f"coco_json:{file}").image_paths[place])
        write_gray(picture.with_suffix(".png"), 200 * A).replace(picture)
        assert (open_index(f"coco_json:{file}").fingerprint() != kept) == seen


@pytest.mark.parametrize("name", ["coco_json:", "coco_json:/a.json?pictures=/b", "folder:"])
def test_a_malformed_specification_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        find(name)


def test_a_data_set_of_the_catalog_is_complete():
    for name, data_set in catalog().items():
        assert name == data_set.name
        assert (data_set.read is None) == bool(data_set.parts)
        if not data_set.parts:
            assert data_set.fetch
            assert data_set.layout
            assert data_set.variable
    assert isinstance(find("pascal/val"), DataSet)


def test_asking_what_is_there_does_not_import_torch():
    script = "import sys; from datamodules.catalog import catalog; catalog(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("name", ["index.json", "object_id.npy", "image_paths_offsets.npy"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_list_of_objects_is_made_again(davis, capsys, name, damage):
    before = open_index("davis345").fingerprint()
    (kept,) = (davis.parent.parent / "cache" / "indices").glob("*/index.json")
    file = kept.parent / name
    if damage is None:
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.write_bytes(damage)
    assert open_index("davis345").fingerprint() == before
    assert f"the list of objects in {kept.parent} is damaged" in capsys.readouterr().err
    capsys.readouterr()
    open_index("davis345")
    assert capsys.readouterr().err == ""
