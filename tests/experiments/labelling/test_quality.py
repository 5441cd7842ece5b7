"""The figures of a quality report by hand, MAL's own mIoU, and what is said when objects got no label."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from datamodules.index import MaskKind, ObjectIndex, Strings
from datamodules.masks import pieces
from experiments.labelling.quality import Quality, size_of, spread
from experiments.labelling.quality_page import in_one_line, warn, write_quality
from experiments.pictures import save_picture
from lightning_modules.metrics.masks import object_iou
from tests.conftest import GOLDEN, disc, square

SOME = {"size": [4, 4], "counts": "0"}  # a segmentation, whatever it is


def row(position: int, iou: float | None = None, **more) -> dict:
    return {"position": position, "segmentation": SOME, "iou": iou, "parts": 1, "filled": False, **more}


def counted(rows: list[dict], areas=None, category=None, classes: int = 1) -> Quality:
    count = len(rows)
    quality = Quality(np.full(count, 5000) if areas is None else np.array(areas), np.zeros(count, int), classes)
    quality.category = quality.category if category is None else np.array(category)
    assert list(quality.watch(rows)) == rows
    return quality


def test_parts_are_counted_by_eight_neighbours_and_only_from_a_twentieth_of_the_mask_on():
    mask = square((30, 40), (2, 3), 10)
    assert pieces(mask) == 1
    assert pieces(mask | square((30, 40), (12, 13), 3)) == 1  # they touch at a corner
    assert pieces(mask | square((30, 40), (20, 3), (2, 3))) == 2  # 6 of 106 pixels
    assert pieces(mask | square((30, 40), (20, 3), (1, 5))) == 1  # 5 of 105 pixels
    assert pieces(np.asfortranarray(mask | square((30, 40), (20, 20), 10))) == 2
    assert pieces(np.zeros((30, 40), np.uint8)) == 0


@given(arrays(np.uint8, (9, 11), elements=st.integers(0, 1)))
def test_a_turned_mask_has_as_many_parts(mask):
    assert pieces(mask) == pieces(mask.T) == pieces(np.ascontiguousarray(mask[::-1]))


def test_figures_of_groups_are_those_counted_by_hand():
    rows = [
        row(0, 0.9),
        row(1, 0.5, parts=2),
        row(2, 0.0, segmentation=None),
        row(3, 0.2, filled=True),
        row(4, 0.7, parts=3),
    ]
    quality = counted(rows, areas=[1023, 1024, 9215, 9216.5, 40_000], category=[0, 1, 1, 1, 0], classes=5)
    figures = quality.figures
    assert {name: group["objects"] for name, group in figures.items()} == {
        "all": 5,
        "small": 1,
        "medium": 2,
        "large": 2,
        "separated": 2,
    }
    whole = figures["all"]
    assert (whole["labels"], whole["labels_per_box"], whole["empty"], whole["filled"]) == (4, 0.8, 0.2, 0.2)
    assert whole["miou_instance"] == pytest.approx(2.3 / 5)
    assert whole["miou_class"] == pytest.approx((1.6 / 2 + 0.7 / 3) / 2)
    assert whole["classes"] == 2
    assert figures["medium"]["miou_class"] == pytest.approx(0.25)
    assert figures["separated"]["miou_instance"] == pytest.approx(0.6)
    assert figures["large"]["filled"] == 0.5
    assert quality.unknown == 0


def test_objects_without_a_class_are_a_class_of_their_own():
    figures = counted([row(0, 1.0), row(1, 0.5), row(2, 0.0)], category=[-1, 0, 0], classes=1).figures
    assert figures["all"]["classes"] == 2
    assert figures["all"]["miou_class"] == pytest.approx((1 + 0.25) / 2)


def test_rows_of_before_parts_were_counted_are_unknown_and_not_separated():
    old = {"position": 0, "segmentation": SOME, "bbox": [1, 2, 3, 4], "iou": 0.5}
    quality = counted([old, row(1, 0.5)])
    assert quality.unknown == 1
    assert quality.figures["separated"]["objects"] == 0
    assert quality.figures["all"]["filled"] == 0


def test_mean_ious_are_those_of_mals_code():
    golden = np.load(GOLDEN / "exits.npz")
    pairs = list(zip(golden["miou/pred"], golden["miou/gt"]))
    ious = [object_iou(prediction, truth) for prediction, truth in pairs]
    np.testing.assert_allclose(ious, golden["miou/iou"], atol=1e-6)
    label = golden["miou/label"]
    rows = [row(i, round(iou, 6)) for i, iou in enumerate(ious)]
    figures = counted(rows, category=label - 1, classes=int(label.max())).figures["all"]
    assert figures["miou_class"] == pytest.approx(float(golden["miou/class_mean"]), abs=1e-6)
    assert figures["miou_instance"] == pytest.approx(float(golden["miou/instance_mean"]), abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(-1, 3), st.integers(1, 3)), min_size=1, max_size=20), st.randoms()
)
def test_figures_do_not_depend_on_the_order_of_rows(objects, random):
    rows = [row(i, iou, parts=parts) for i, (iou, _, parts) in enumerate(objects)]
    category, turned = [place for _, place, _ in objects], list(rows)
    random.shuffle(turned)
    one, other = (counted(each, category=category, classes=4) for each in (rows, turned))
    assert one.shown == other.shown
    for name, group in one.figures.items():
        assert group == pytest.approx(other.figures[name])
    ious = [iou for iou, _, _ in objects]
    assert min(ious) - 1e-9 <= one.figures["all"]["miou_class"] <= max(ious) + 1e-9


def test_the_worst_and_the_best_labels_are_kept_and_no_empty_ones():
    rows = [row(i, i / 100, segmentation=None if i < 2 else SOME) for i in range(30)]
    worst, best = counted(rows).shown
    assert [each["position"] for each in worst] == [2, 3, 4, 5, 6, 7]
    assert [each["position"] for each in best] == [29, 28, 27, 26, 25, 24]
    worst, best = counted([row(i, 0.5) for i in range(8)]).shown
    assert [each["position"] for each in worst] == [0, 1, 2, 3, 4, 5]
    assert not {each["position"] for each in best} & {each["position"] for each in worst}


def test_the_console_gets_one_line():
    figures = counted([row(0, 0.75), row(1, 0.25, parts=2)], areas=[100, 20_000]).figures
    assert in_one_line(figures) == (
        "100.0 % of 2 boxes labelled; mIoU of objects 50.0, of classes 50.0; small 75.0 (1), large 25.0 (1), "
        "separated 25.0 (1)"
    )
    figures = counted([row(0, parts=None)]).figures
    assert in_one_line(figures) == "100.0 % of 1 box labelled; no true masks to compare with"


def test_objects_that_vanish_are_warned_of_with_what_to_do(capsys):
    rows = [row(i, 0.5, segmentation=None if i == 3 else SOME) for i in range(20)]
    warn(counted(rows).figures, 0.5)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("warning: 1 object has no label, 5.0 % of 20;")
    assert "lower the threshold (evaluation.threshold, --threshold; now 0.5), or let --empty box" in said


def test_less_than_nine_tenths_of_masks_found_is_warned_of_also_where_boxes_stand_in(capsys):
    warn(counted([row(i, 0.5, filled=i < 3) for i in range(20)]).figures, 0.1)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("warning: only 17 of 20 boxes, 85.0 %, have a mask that the network found (90 % should)")
    warn(counted([row(i, 0.5, filled=i < 2) for i in range(20)]).figures, 0.1)
    assert not capsys.readouterr().err


ABOUT = {"run": "abc", "method": "exits", "threshold": 0.1, "empty": "nothing", "crowds": 2}


def index_of(folder, masks: list[np.ndarray]) -> ObjectIndex:
    """Objects with these masks on one grey picture."""
    save_picture(np.full((*masks[0].shape, 3), 90, np.uint8), folder / "a.png")
    encoded = [coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks]
    ends, count = np.cumsum([len(counts) for counts in encoded]), len(masks)
    return ObjectIndex(
        dataset="drawn",
        image_paths=Strings.of([str(folder / "a.png")]),
        image_size=np.array([masks[0].shape], np.int32),
        object_id=np.arange(count),
        native_id=Strings.of(map(str, range(100, 100 + count))),
        image=np.zeros(count, np.int32),
        box=np.zeros((count, 4), np.int32),
        area=np.array([mask.sum() for mask in masks]),
        category=np.zeros(count, np.int32),
        mask_kind=np.full(count, MaskKind.RLE, np.uint8),
        categories=("dog",),
        mask_range=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
        rle=np.frombuffer(b"".join(encoded), np.uint8),
    )


def test_the_page_has_a_line_per_group_and_sheets_of_the_labels(tmp_path):
    masks = [square((60, 80), (5, 5), 20), disc((60, 80), (50, 30), 15)]
    index = index_of(tmp_path, masks)
    shown = coco_mask.encode(np.asfortranarray(masks[0]))
    rows = [row(i, 0.8 - i / 2, segmentation=shown) for i in range(2)]
    write_quality(tmp_path, counted(rows, areas=[400, 900]), index, ABOUT)
    page, tree = (tmp_path / "quality.md").read_text(), json.loads((tmp_path / "quality.json").read_text())
    assert "| small | 2 | 100.0 | 0.0 | 0.0 | 55.0 | 55.0 | 1 |" in page
    assert "| large | 0 | – | – | – | – | – | 0 |" in page  # noqa: RUF001
    assert "Crowds copied unchanged: 2." in page
    assert tree["groups"]["all"]["miou_instance"] == pytest.approx(0.55)
    assert (tree["run"], tree["threshold"], tree["true_masks"], tree["parts_unknown"]) == ("abc", 0.1, 2, 0)
    assert (tmp_path / "pictures" / "worst.png").exists()
    assert "(pictures/worst.png)" in page
    assert "pictures/best.png" not in page  # both are among the worst six


def test_without_true_masks_the_page_says_so_and_shows_none(tmp_path):
    index = replace(index_of(tmp_path, [square((60, 80), (5, 5), 20)]), mask_kind=np.full(1, MaskKind.BOX, np.uint8))
    write_quality(tmp_path, counted([row(0, parts=None)]), index, ABOUT)
    assert "no true masks" in (tmp_path / "quality.md").read_text()
    assert not (tmp_path / "pictures").exists()


# -- the objects whose walk is shown -----------------------------------------------------------------------------------


def test_the_objects_of_the_walk_s_pictures_are_of_every_size_and_some_of_several_parts(tmp_path):
    size = (200, 200)
    sides = [10] * 30 + [50] * 30 + [150] * 30
    masks = [square(size, (1, 1), side) for side in sides]
    for i in (35, 40, 41, 77):
        masks[i] = square(size, (1, 1), 8) | square(size, (sides[i] - 7, sides[i] - 7), 8)
    boxes = np.array([[1, 1, side, side] for side in sides], np.int32)
    index = replace(index_of(tmp_path, masks), box=boxes)
    chosen = spread(index)
    assert len(chosen) == len(set(chosen)) == 12
    several = [i for i in chosen if pieces(masks[i]) > 1]
    assert len(several) == 3
    whole = [size_of(sides[i] ** 2) for i in chosen if i not in several]
    assert {name: whole.count(name) for name in ("small", "medium", "large")} == {"small": 3, "medium": 3, "large": 3}
    assert chosen == sorted(chosen) == spread(index)
    assert spread(index.select(np.arange(7))) == list(range(7))


def test_of_boxes_without_masks_no_parts_are_looked_for(tmp_path):
    index = index_of(tmp_path, [square((60, 80), (5, 5), 20)] * 2)
    assert spread(replace(index, mask_kind=np.full(2, MaskKind.BOX, np.uint8))) == [0, 1]
