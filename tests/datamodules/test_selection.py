import json

import numpy as np
import pytest

from datamodules.selection import PASCAL_CLASSES_IN_COCO, Selection, open_objects
from datamodules.sets.pascal import CATEGORIES
from tests.datamodules.layouts import blank, coco_annotation, rectangle, write_coco, write_gray, write_image, write_voc

# Objects of 1, 4, 9, ... pixels on one image each.
SIDES = range(1, 9)


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    for variable in ("PASCAL_ROOT", "COCO_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "data"


@pytest.fixture
def squares(tmp_path) -> str:
    for side in SIDES:
        write_image(tmp_path / "squares" / "img" / f"{side}.png")
        mask = rectangle(2, 2, 1 + side, 1 + side, value=255)
        write_gray(tmp_path / "squares" / "gt" / f"{side}.png", mask)
    return f"folder:{tmp_path / 'squares'}"


def names(specs, **more) -> list[str]:
    return list(open_objects(specs, **more).native_id)


def test_a_name_alone_is_the_whole_data_set(squares):
    assert names([squares]) == [str(side) for side in SIDES]
    assert Selection.of(squares) == Selection(squares)


def test_small_objects_are_left_out_below_the_smallest_area(squares):
    assert names([{"name": squares, "min_area": 25}]) == ["5", "6", "7", "8"]
    assert names([{"name": squares, "min_area": 26}]) == ["6", "7", "8"]


def test_every_third_object_is_the_first_fourth_and_seventh(squares):
    assert names([{"name": squares, "every": 3}]) == ["1", "4", "7"]
    assert names([{"name": squares, "every": 3, "min_area": 4}]) == ["2", "5", "8"]


def test_a_limit_draws_by_the_seed_and_a_larger_one_only_adds(squares):
    draws = {seed: [names([{"name": squares, "limit": n}], seed=seed) for n in (2, 4, 8)] for seed in range(5)}
    for two, four, all_of_them in draws.values():
        assert len(two) == 2
        assert set(two) < set(four)
        assert four == sorted(four)  # in the order of the index
        assert all_of_them == [str(side) for side in SIDES]
    assert len({tuple(four) for _, four, _ in draws.values()}) > 1
    assert draws[3][1] == names([{"name": squares, "limit": 4}], seed=3)
    assert names([{"name": squares, "limit": 100}]) == [str(side) for side in SIDES]


def test_coco_objects_are_told_apart_by_whether_pascal_has_their_class(data_root):
    ring = [2, 3, 7, 3, 7, 7, 2, 7]
    annotations = [coco_annotation(1, 1, [ring], category_id=7), coco_annotation(2, 1, [ring], category_id=90)]
    write_coco(data_root / "coco", annotations)
    specification = f"coco_json:{data_root / 'coco' / 'annotations' / 'instances_val2017.json'}"

    def categories(**more) -> list[str]:
        index = open_objects([{"name": specification, **more}])
        return [index.categories[place] for place in index.category]

    assert categories() == ["cat", "toothbrush"]
    assert categories(categories="pascal") == ["cat"]
    assert categories(categories="not_pascal") == ["toothbrush"]
    assert categories(categories=["toothbrush"]) == categories(categories="toothbrush") == ["toothbrush"]


def test_pascal_has_twenty_classes_under_either_name(data_root):
    assert len(set(CATEGORIES)) == len(set(PASCAL_CLASSES_IN_COCO)) == 20
    objects, classes = rectangle(1, 2, 6, 9), rectangle(1, 2, 6, 9, value=17)
    write_voc(data_root / "VOCdevkit" / "VOC2012", {"val": {"a": (objects, classes)}})
    index = open_objects([{"name": "pascal/val", "categories": "sheep"}])
    assert [index.categories[place] for place in index.category] == ["sheep"]
    assert names([{"name": "pascal/val", "categories": "pascal"}]) == ["a/1"]
    with pytest.raises(ValueError, match=r"^pascal/val with categories=not_pascal leaves no object$"):
        open_objects([{"name": "pascal/val", "categories": "not_pascal"}])


def test_several_data_sets_become_one_list_and_keep_their_ids(squares, tmp_path):
    write_image(tmp_path / "more" / "img" / "x.png")
    write_gray(tmp_path / "more" / "gt" / "x.png", 255 * rectangle(0, 0, 3, 3))
    more = f"folder:{tmp_path / 'more'}"
    both = open_objects([{"name": squares, "min_area": 40}, more])
    assert list(both.native_id) == ["7", "8", "x"]
    parts = [open_objects([squares]).object_id[-2:], open_objects([more]).object_id]
    assert both.object_id.tolist() == np.concatenate(parts).tolist()
    assert both.read_mask(2).mask.sum() == 16
    assert both.image_path(2).name == "x.png"


def test_listing_a_data_set_twice_is_refused(squares):
    with pytest.raises(ValueError, match="lists 8 objects twice"):
        open_objects([squares, squares])


def test_an_unknown_key_is_refused_with_the_nearest_one(squares):
    with pytest.raises(ValueError, match="no value 'minarea'; did you mean 'min_area'"):
        open_objects([{"name": squares, "minarea": 4}])


def test_a_selection_of_nothing_is_refused(squares):
    with pytest.raises(ValueError, match=rf"^{squares} with min_area=1000, every=2 leaves no object$"):
        open_objects([{"name": squares, "min_area": 1000, "every": 2, "limit": 0}])
    with pytest.raises(ValueError, match=rf"^{squares} with min_area=1000 leaves no object$"):
        open_objects([{"name": squares, "min_area": 1000, "labelled": "labels.json"}])


def test_data_without_any_object_are_refused_by_their_name_alone(squares, monkeypatch):
    empty = open_objects([squares]).select(np.zeros(0, np.int64))
    monkeypatch.setattr("datamodules.selection.open_index", lambda *_: empty)
    with pytest.raises(ValueError, match=rf"^{squares} has no object$"):
        open_objects([squares])


def test_an_image_whose_mask_is_empty_lists_no_object(squares, tmp_path):
    write_image(tmp_path / "squares" / "img" / "empty.png")
    write_gray(tmp_path / "squares" / "gt" / "empty.png", blank())
    assert names([squares]) == [str(side) for side in SIDES]


def test_two_halves_share_no_image_and_lack_none(data_root):
    two = rectangle(1, 2, 6, 9, value=1, on=rectangle(8, 2, 12, 9, value=2))  # two objects on every image
    images = {f"{number:02d}": (two, (two > 0).astype(np.uint8)) for number in range(21)}
    write_voc(data_root / "VOCdevkit" / "VOC2012", {"val": images})

    def half(number: int, **more) -> list[str]:
        return names([{"name": "pascal/val", "half": number, **more}], seed=more.pop("seed", 0))

    first, second = half(1), half(2)
    assert (len(first), len(second)) == (22, 20)  # 11 and 10 images
    assert sorted(first + second) == names(["pascal/val"])
    assert {name[:2] for name in first}.isdisjoint(name[:2] for name in second)
    assert {name[:2] for name in first} != {f"{number:02d}" for number in range(11)}  # drawn, not the first ones
    assert names([{"name": "pascal/val", "half": 1}], seed=5) == first
    assert set(half(1, every=3)) < set(first)


def test_other_conditions_move_no_image_to_the_other_half(squares):
    assert set(names([{"name": squares, "half": 1, "min_area": 9}])) <= set(names([{"name": squares, "half": 1}]))


def test_there_is_no_third_half(squares):
    with pytest.raises(ValueError, match="half is 3; expected 1 or 2"):
        open_objects([{"name": squares, "half": 3}])


def test_a_list_keeps_the_objects_whose_ids_are_in_it(squares, tmp_path):
    ids = open_objects([squares]).object_id
    (tmp_path / "objects.txt").write_text(f"{ids[6]}\n{ids[1]}\n12345\n")
    listed = {"name": squares, "listed": str(tmp_path / "objects.txt")}
    assert names([listed]) == ["2", "7"]
    assert names([{**listed, "min_area": 9}]) == ["7"]
    drawn = names([{"name": squares, "limit": 4}])
    assert names([{**listed, "limit": 4}]) == [name for name in drawn if name in ("2", "7")]  # of the same four


def test_a_list_without_any_of_the_objects_is_refused(squares, tmp_path):
    (tmp_path / "objects.txt").write_text("")
    with pytest.raises(ValueError, match="leaves no object"):
        open_objects([{"name": squares, "listed": str(tmp_path / "objects.txt")}])


@pytest.mark.parametrize("content", [None, "bicycle\n", "1.5\n", f"{2**80}\n"])
def test_what_is_no_list_is_named(squares, tmp_path, content):
    if content is not None:
        (tmp_path / "objects.txt").write_text(content)
    with pytest.raises(ValueError, match=r"no list of objects at .*objects\.txt .*an id on each line"):
        open_objects([{"name": squares, "listed": str(tmp_path / "objects.txt")}])


def test_a_share_is_of_the_images_and_the_same_for_all_seeds(data_root):
    two = rectangle(1, 2, 6, 9, value=1, on=rectangle(8, 2, 12, 9, value=2))  # two objects on every image
    images = {f"{number:02d}": (two, (two > 0).astype(np.uint8)) for number in range(30)}
    images["99"] = (blank(), blank())  # an image without objects is no part of any share
    write_voc(data_root / "VOCdevkit" / "VOC2012", {"val": images})

    def share(of: float, **more) -> list[str]:
        return names([{"name": "pascal/val", "share": of}], **more)

    tenth, third = share(0.1), share(1 / 3)
    assert (len(tenth), len(third)) == (6, 20)  # 3 and 10 images, both objects of each
    assert set(tenth) < set(third)
    assert {name[:2] for name in third} != {f"{number:02d}" for number in range(10)}  # drawn, not the first ones
    assert share(0.1, seed=5) == tenth
    assert len(share(0.001)) == 2  # never nothing
    assert share(1) == names(["pascal/val"])
    fewer = names([{"name": "pascal/val", "share": 0.1, "every": 2}])
    assert set(fewer) < set(tenth)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, "10 %", True, float("nan")])
def test_there_is_no_such_share(squares, share):
    with pytest.raises(ValueError, match=r"share is .*; expected more than 0 and at most 1, such as"):
        Selection.of({"name": squares, "share": share})


def test_only_objects_with_recorded_points_are_kept(squares, tmp_path):
    points = [{"object": "7", "xy": [[3, 3]]}, {"object": 2, "annotator": 4, "xy": [[3, 3]]}]
    file = tmp_path / "points.json"
    file.write_text(json.dumps({"version": 1, "type": "inside", "dataset": "squares", "points": points}))
    assert names([{"name": squares, "recorded": str(file)}]) == ["2", "7"]
    assert names([{"name": squares, "recorded": str(file), "min_area": 9}]) == ["7"]
    file.write_text(json.dumps({"points": [{"xy": [[3, 3]]}]}))
    with pytest.raises(ValueError, match=r"points\.json is no file of clicked points"):
        names([{"name": squares, "recorded": str(file)}])
