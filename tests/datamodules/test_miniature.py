"""The drawn data sets: fixed by their seed, read by the official readers, and worth more than a box."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from datamodules import miniature
from datamodules.catalog import open_index
from datamodules.clicks.recorded import RecordedPoints
from datamodules.drawn import layouts, other_domains
from datamodules.drawn.coco_files import COCO_IDS, image_id
from datamodules.drawn.files import write_gray
from datamodules.drawn.predictions import predicted
from datamodules.drawn.scenes import Scene, contour_of
from datamodules.images import read_image
from datamodules.index import MaskKind, ObjectIndex
from datamodules.sets.benchmarks import grabcut_boxes
from datamodules.sets.davis import region_similarity


@pytest.fixture(scope="module")
def root(drawn: Path) -> Path:
    return drawn / "miniature" / "0"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def one_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single mask is drawn: enough to see when and how drawing happens."""

    def draw_mask(root: Path, seed: int) -> None:
        write_gray(root / "masks" / "0.png", np.full((2, 2), seed))

    monkeypatch.setattr(miniature, "LAYOUTS", (draw_mask,))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def masks_of(index: ObjectIndex) -> list[tuple[str, NDArray[np.uint8]]]:
    return [(index.native_id[i], index.read_mask(i).mask) for i in range(len(index))]


def box_iou(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    filled = []
    for mask in (first, second):
        x, y, w, h = cv2.boundingRect(mask)
        filled.append(np.zeros(mask.shape, bool))
        filled[-1][y : y + h, x : x + w] = True
    return float((filled[0] & filled[1]).sum() / (filled[0] | filled[1]).sum())


pascal_scene, coco_scene = lru_cache(1000)(layouts.pascal_scene), lru_cache(1000)(layouts.coco_scene)


def pascal_scenes(images: range | list[int]) -> dict[str, Scene]:
    return dict(pascal_scene(0, i) for i in images)


# ---------------------------------------------------------------------------------------------------- drawing


@pytest.mark.slow
def test_seed_fixes_every_byte_whatever_is_drawn_before(root: Path, tmp_path: Path):
    everything = contents(root)
    layouts.draw_berkeley(tmp_path, 0)
    layouts.draw_grabcut(tmp_path, 0)
    layouts.draw_videos(tmp_path, 0)
    layouts.draw_sbd(tmp_path, 0)
    again = contents(tmp_path)
    assert len(again) > 400
    assert all(everything[name] == content for name, content in again.items())


def test_another_seed_draws_other_pictures():
    assert not np.array_equal(layouts.scene(0, "x").image[:50, :50], layouts.scene(1, "x").image[:50, :50])


def test_a_second_call_draws_nothing(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(miniature, "LAYOUTS", (lambda *_: pytest.fail("drew again"),))
    assert miniature.draw(root) == root


@pytest.mark.usefixtures("one_mask")
def test_a_killed_drawing_leaves_no_folder_and_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(building: Path, seed: int) -> None:
        (building / "half_a_data_set").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(miniature, "LAYOUTS", (killed,))
        with pytest.raises(KeyboardInterrupt):
            miniature.draw(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert contents(miniature.draw(tmp_path / "data")).keys() == {"masks/0.png", "miniature.json"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


def test_asked_for_several_times_at_once_it_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawings = []

    def draw_slowly(root: Path, seed: int) -> None:
        drawings.append(seed)
        time.sleep(0.2)
        write_gray(root / "masks" / "0.png", np.zeros((2, 2)))

    monkeypatch.setattr(miniature, "LAYOUTS", (draw_slowly,))
    with ThreadPoolExecutor(4) as threads:
        roots = list(threads.map(miniature.draw, [tmp_path / "data"] * 4))
    assert drawings == [0]
    assert roots == [tmp_path / "data"] * 4


@pytest.mark.usefixtures("one_mask")
def test_an_older_drawing_is_replaced_but_other_files_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = miniature.draw(tmp_path / "data")
    before = contents(data)
    monkeypatch.setattr(miniature, "VERSION", miniature.VERSION + 1)
    after = contents(miniature.draw(data))
    assert after.keys() == before.keys()
    assert after["miniature.json"] != before["miniature.json"]
    (data / "my_own_photos").mkdir()
    with pytest.raises(FileExistsError, match="my_own_photos"):
        miniature.draw(data, seed=3)
    assert contents(data) == after


# ---------------------------------------------------------------------------------------------------- PASCAL and SBD


@pytest.mark.parametrize("split", ["train", "val"])
def test_voc_holds_the_drawn_objects_less_their_void_contour(root: Path, split: str):
    index = open_index(f"pascal/{split}", root)
    scenes = pascal_scenes(layouts.VOC_IMAGES[split])
    assert index.num_images == len(scenes)
    assert len(index) == sum(len(scene.objects) for scene in scenes.values())
    for i in range(len(index)):
        name, label = index.native_id[i].split("/")
        scene, (mask, void) = scenes[name], index.read_mask(i)
        contour = contour_of(scene.labels)
        assert np.array_equal(mask, (scene.labels == int(label)) & ~contour)
        assert void is not None
        assert np.array_equal(void, contour)
        drawn_category = layouts.PASCAL[scene.categories[int(label) - 1]]
        assert int(index.category[i]) == drawn_category - 1


def test_voc_uses_the_official_palette(root: Path):
    path = next((root / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))
    with Image.open(path) as image:
        assert image.mode == "P"
        palette = image.getpalette() or []
    assert palette[3 * 1 : 3 * 1 + 3] == [128, 0, 0]  # aeroplane
    assert palette[3 * 15 : 3 * 15 + 3] == [192, 128, 128]  # person
    assert palette[3 * 255 : 3 * 255 + 3] == [224, 224, 192]  # void


@pytest.mark.slow
def test_sbd_holds_the_drawn_objects_without_void(root: Path):
    scenes, objects = pascal_scenes(layouts.SBD_IMAGES), 0
    for split in ("train", "val"):
        index = open_index(f"sbd/{split}", root)
        for i in range(len(index)):
            name, label = index.native_id[i].split("/")
            mask, void = index.read_mask(i)
            assert np.array_equal(mask, scenes[name].labels == int(label))
            assert void is None
        objects += len(index)
    assert objects == sum(len(scene.objects) for scene in scenes.values())


def test_pascal_with_sbd_is_two_to_four_times_pascal_and_never_sees_val(root: Path):
    train, val, union = (open_index(name, root) for name in ("pascal/train", "pascal/val", "pascal_sbd/train"))
    assert 2 * len(train) <= len(union) <= 4 * len(train)
    names = [Path(path).stem for path in union.image_paths]
    assert len(set(names)) == len(names)
    assert not set(names) & {Path(path).stem for path in val.image_paths}
    in_both = {f"2008_{i:06d}" for i in layouts.VOC_IMAGES["val"]} & set(pascal_scenes(layouts.SBD_IMAGES))
    assert in_both  # so the rule had something to remove


@pytest.mark.parametrize("split", ["train", "val"])
def test_at_least_half_of_the_objects_share_their_box_with_another(root: Path, split: str):
    index = open_index(f"pascal/{split}", root)
    masks = [index.read_mask(i).mask for i in range(len(index))]
    shares = [
        any(box_iou(masks[i], masks[j]) > 0.8 for j in np.flatnonzero(index.image == index.image[i]) if i != j)
        for i in range(len(index))
    ]
    assert np.mean(shares) >= 0.5


def test_objects_have_parts_and_holes(root: Path):
    masks = [mask for _, mask in masks_of(open_index("pascal/train", root))]
    parts = [cv2.connectedComponents(mask)[0] - 1 for mask in masks]
    assert np.mean(np.array(parts) > 1) > 0.1
    holes = [cv2.connectedComponents(1 - np.pad(mask, 1), connectivity=4)[0] > 2 for mask in masks]
    assert np.mean(holes) > 0.03


# ---------------------------------------------------------------------------------------------------- COCO and LVIS


@pytest.mark.slow
def test_of_coco_test_dev_there_are_images_without_annotations(root: Path):
    index = open_index("coco2017/test-dev", root)
    assert (index.num_images, len(index)) == (len(layouts.TEST_DEV_IMAGES), 0)
    assert index.categories == open_index("coco2017/val", root).categories
    assert all(Path(path).is_file() for path in index.image_paths)


@pytest.mark.parametrize("split", list(layouts.COCO_IMAGES))
def test_coco_holds_exactly_the_drawn_objects_and_leaves_crowds_out(root: Path, split: str):
    images = layouts.COCO_IMAGES[split]
    scenes = {i: coco_scene(0, i) for i in images}
    index = open_index(f"coco{split[-4:]}/{split[:-4]}", root)
    assert len(index) == sum(len(scene.objects) for scene in scenes.values())
    for native_id, mask in masks_of(index):
        i, label = divmod(int(native_id) - 1, 1000)
        assert np.array_equal(mask, scenes[i].labels == label)
    crowds = sum(scene.crowd > 0 for scene in scenes.values())
    assert crowds
    assert index.left_out == (f"{crowds} crowd annotations",)
    assert set(index.mask_kind) == {MaskKind.POLYGONS, MaskKind.RLE}
    assert any(not scene.categories for scene in scenes.values())
    assert index.num_images == len(scenes)


def test_coco_file_has_sparse_ids_every_kind_of_mask_and_the_images_of_both_years(root: Path):
    tables = json.loads((root / "coco/annotations/instances_train2014.json").read_text())
    numbers = [category["id"] for category in tables["categories"]]
    assert max(numbers) > len(numbers) + 50
    assert {"zebra", "banana"} < {category["name"] for category in tables["categories"]}
    masks = [annotation["segmentation"] for annotation in tables["annotations"] if not annotation["iscrowd"]]
    assert {type(mask["counts"]) for mask in masks if isinstance(mask, dict)} == {str, list}
    assert max(len(mask) for mask in masks if isinstance(mask, list)) > 1
    shared = image_id(0)
    old = root / f"coco/train2014/COCO_train2014_{shared:012d}.jpg"
    assert old.read_bytes() == (root / f"coco/train2017/{shared:012d}.jpg").read_bytes()


@pytest.mark.parametrize("split", ["train", "val"])
def test_lvis_holds_drawn_objects_and_finds_their_images_in_cocos_folders(root: Path, split: str):
    index = open_index(f"lvis/{split}", root)
    scenes = {f"{image_id(i):012d}": coco_scene(0, i) for i in range(165)}
    for i in range(len(index)):
        scene, mask = scenes[index.image_path(i).stem], index.read_mask(i).mask
        assert any(np.array_equal(mask, scene.labels == label) for label in scene.objects)
    folders = {Path(path).parent.name for path in index.image_paths}
    assert folders == ({"train2017"} if split == "train" else {"train2017", "val2017"})
    tables = json.loads((root / f"lvis/lvis_v1_{split}.json").read_text())
    assert {category["frequency"] for category in tables["categories"]} == set("rcf")
    assert any(image["neg_category_ids"] for image in tables["images"])
    assert any(image["not_exhaustive_category_ids"] for image in tables["images"])


def test_mval_has_as_many_objects_of_every_category(root: Path):
    index = open_index("coco_mval800", root)
    assert np.bincount(index.category).tolist() == [4] * len(COCO_IDS)
    assert index.num_images == len(index)


# ---------------------------------------------------------------------------------------------------- benchmarks


@pytest.mark.parametrize(
    ("name", "images", "objects"),
    [("grabcut", 40, 40), ("berkeley", 38, 40), ("davis345", 40, 40), ("kitti_cars", 40, 40)],
)
def test_benchmarks_are_read(root: Path, name: str, images: int, objects: int):
    index = open_index(name, root)
    assert (index.num_images, len(index)) == (images, objects)
    for i in range(len(index)):
        size = read_image(index.image_path(i)).shape[:2]
        mask, void = index.read_mask(i)
        assert mask.shape == size
        assert mask.any()
        assert (void is not None and void.any()) == (name == "grabcut")


def test_grabcut_mixes_formats_and_gives_generous_boxes(root: Path):
    index = open_index("grabcut", root)
    assert {Path(path).suffix for path in index.image_paths} == {".jpg", ".JPG", ".bmp"}
    boxes = grabcut_boxes(root / "GrabCut")
    for i in range(len(index)):
        given, own = boxes[index.native_id[i]], index.box[i]
        assert (given[0] <= own[0], given[1] <= own[1], given[2] >= own[2], given[3] >= own[3]) == (True,) * 4


def test_videos_stand_in(root: Path):
    davis = root / "DAVIS"
    for split, sequences in layouts.VIDEOS.items():
        lines = (davis / "ImageSets/480p" / f"{split}.txt").read_text().splitlines()
        assert len(lines) == len(sequences) * layouts.VIDEO_FRAMES
        for line in lines:
            image, annotation = (davis / path.lstrip("/") for path in line.split())
            mask = cv2.imread(str(annotation), cv2.IMREAD_UNCHANGED)
            assert mask.shape == read_image(image).shape[:2]
            assert set(np.unique(mask)) == {0, 255}


def test_the_worst_predictions_in_videos_are_half_right_and_the_first_nearly_so(root: Path):
    worst, frames = open_index("davis2016/osvos_worst", root), open_index("davis2016/val", root)
    assert [name.split("/")[0] for name in worst.native_id] == list(layouts.VIDEOS["val"])
    assert worst.left_out == ()
    ious = []
    for i in range(len(worst)):
        start = worst.start_mask(i)
        assert start is not None
        ious.append(region_similarity(start, worst.read_mask(i).mask))
    assert 0.4 < np.mean(ious) < 0.6  # 50.4 % on the real ones
    for i in np.flatnonzero([name.endswith("/00000") for name in frames.native_id]):
        first = cv2.imread(str(root / "osvos" / f"{frames.native_id[i]}.png"), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(first)) == {0, 255}
        assert region_similarity(first, frames.read_mask(i).mask) > 0.9


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("side", [6, 30])
def test_a_drawn_prediction_misses_and_invents_about_as_much_as_asked_for(iou: float, side: int):
    truth = np.zeros((60, 80), bool)
    truth[20 : 20 + side, 30 : 30 + side] = True
    first, again = (predicted(layouts.generator(0, f"prediction/{side}"), truth, iou) for _ in range(2))
    assert np.array_equal(first, again)
    assert iou - 0.15 < region_similarity(first, truth) <= iou
    if iou < 0.6:
        assert (truth & ~first).any()
        assert (first & ~truth).any()
    other = predicted(layouts.generator(1, f"prediction/{side}"), truth, iou)
    assert np.array_equal(first, other) == (iou == 1.0)


# ---------------------------------------------------------------------------------------------------- other domains


@pytest.mark.parametrize("name", ["cityscapes/train", "cityscapes/val", "rooftop/train", "rooftop/test", "sstem"])
def test_other_domains_hold_some_dozens_of_objects_that_fit_their_pictures(root: Path, name: str):
    index = open_index(name, root)
    assert 20 <= len(index) <= 60
    for i in range(len(index)):
        mask, _ = index.read_mask(i)
        assert mask.sum() == index.area[i] >= 10
        assert read_image(index.image_path(i)).shape[:2] == mask.shape


def test_streets_have_every_kind_of_pixel_that_cityscapes_has(root: Path):
    train = open_index("cityscapes/train", root)
    assert set(train.category.tolist()) == set(range(8))
    assert "groups" in train.left_out[0]
    mask, void = train.read_mask(0)
    assert void is not None
    assert 0 < void.sum() < void.size
    assert not (mask & void).any()


def test_sections_are_read_as_drawn(root: Path):
    index = open_index("sstem", root)
    for number, path in enumerate(index.image_paths):
        image, mitochondria = other_domains.section(layouts.generator(0, f"sstem/{number}"))
        masks = [index.read_mask(int(i)).mask for i in np.flatnonzero(index.image == number)]
        assert np.array_equal(np.sum(masks, axis=0), mitochondria > 0)
        assert np.array_equal(read_image(path)[..., 0], image)


def test_no_pixel_belongs_to_two_roofs(root: Path):
    index = open_index("rooftop/test", root)
    total = np.zeros((index.num_images, 120, 160), int)
    for i in range(len(index)):
        total[index.image[i]] += index.read_mask(i).mask
    assert total.max() == 1


# ---------------------------------------------------------------------------------------------------- clicked points


def test_five_annotators_clicked_inside_of_every_object_of_pascal_val(root: Path):
    index = open_index("pascal/val", root)
    points = RecordedPoints.read(root / "human_points" / "pascal_val_inside.json", "inside")
    points.check(index)
    assert len(points) == 5 * len(index)
    for i in range(len(index)):
        clicked = np.array([points.of(index.native_id[i], annotator)[0] for annotator in range(5)]).astype(int)
        assert index.read_mask(i).mask[clicked[:, 1], clicked[:, 0]].all()


def test_pascal_ext_has_an_annotators_extreme_points_of_each_object(root: Path):
    index = open_index("pascal/ext", root)
    points = RecordedPoints.read(root / "pascal_ext" / "points.json", "extreme")
    points.check(index)
    assert len(points) == len(index) > 100
    gaps = []
    for i in range(len(index)):
        xy = points.of(index.native_id[i])
        gaps.append(np.abs(np.concatenate([xy.min(0), xy.max(0)]) - index.box[i]).max())
    assert 0.5 < np.mean(gaps) < 8  # careless, yet the object's
