"""What ITIS refines: the frame of every DAVIS sequence on which OSVOS is worst, and its mask as the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.catalog import open_index
from datamodules.sets.davis import region_similarity
from experiments.check_data import main as check_data
from tests.datamodules.layouts import blank, rectangle, write_gray, write_image, write_palette

TRUTH = rectangle(2, 2, 9, 9)  # 8 x 8
HALF = rectangle(2, 2, 9, 5)  # IoU 1/2
QUARTER = rectangle(2, 2, 9, 3)  # IoU 1/4
NOTHING = blank()


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch) -> Path:
    for variable in ("DAVIS_ROOT", "OSVOS_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    return tmp_path / "data"


def write_davis(root: Path, truths: dict[str, NDArray]) -> None:
    """DAVIS 2016 with these truths of 0 and 1 by `sequence/frame`."""
    lines = []
    for frame, truth in truths.items():
        write_image(root / "DAVIS" / "JPEGImages" / "480p" / f"{frame}.jpg")
        write_gray(root / "DAVIS" / "Annotations" / "480p" / f"{frame}.png", 255 * truth)
        lines.append(f"/JPEGImages/480p/{frame}.jpg /Annotations/480p/{frame}.png\n")
    (root / "DAVIS" / "ImageSets" / "480p").mkdir(parents=True, exist_ok=True)
    (root / "DAVIS" / "ImageSets" / "480p" / "val.txt").write_text("".join(lines))


def write_results(root: Path, results: dict[str, NDArray], scale: int = 255) -> None:
    for frame, mask in results.items():
        write_gray(root / "osvos" / f"{frame}.png", scale * mask)


@pytest.fixture
def dog_and_camel(data_root) -> None:
    """OSVOS is worst on dog/00001 and, with nothing found, on camel/00002."""
    frames = [f"{sequence}/{frame:05d}" for sequence in ("dog", "camel") for frame in range(3)]
    write_davis(data_root, dict.fromkeys(frames, TRUTH))
    write_results(data_root, dict(zip(frames, (TRUTH, QUARTER, HALF, TRUTH, QUARTER, NOTHING))))


@pytest.mark.usefixtures("dog_and_camel")
def test_of_each_sequence_the_frame_with_the_lowest_iou_starts_from_its_mask():
    index = open_index("davis2016/osvos_worst")
    assert list(index.native_id) == ["dog/00001", "camel/00002"]
    assert np.array_equal(index.start_mask(0), QUARTER)
    assert np.array_equal(index.start_mask(1), NOTHING)
    assert np.array_equal(index.read_mask(0).mask, TRUTH)
    assert index.image_path(1).parent.name == "camel"
    assert (index.num_images, index.left_out) == (2, ())


@pytest.mark.usefixtures("dog_and_camel")
def test_a_frame_has_one_id_refined_or_not():
    frames, worst = open_index("davis2016/val"), open_index("davis2016/osvos_worst")
    ids = dict(zip(frames.native_id, frames.object_id))
    assert [ids[frame] for frame in worst.native_id] == worst.object_id.tolist()
    assert frames.start_mask(0) is None


@pytest.mark.parametrize("worst", [0, 2])
def test_the_first_and_the_last_frame_count_although_davis_skips_them(data_root, worst):
    frames = [f"dog/{frame:05d}" for frame in range(3)]
    write_davis(data_root, dict.fromkeys(frames, TRUTH))
    write_results(data_root, {frame: QUARTER if i == worst else HALF for i, frame in enumerate(frames)})
    assert list(open_index("davis2016/osvos_worst").native_id) == [frames[worst]]


def test_among_equals_the_first_frame_is_the_worst(data_root):
    frames = [f"dog/{frame:05d}" for frame in range(4)]
    write_davis(data_root, dict.fromkeys(frames, TRUTH))
    lower_half = rectangle(2, 6, 9, 9)
    write_results(data_root, dict(zip(frames, (TRUTH, lower_half, HALF, HALF))))
    assert list(open_index("davis2016/osvos_worst").native_id) == ["dog/00001"]


def test_a_frame_without_an_object_is_never_the_worst(data_root):
    write_davis(data_root, {"dog/00000": TRUTH, "dog/00001": NOTHING})
    write_results(data_root, {"dog/00000": HALF, "dog/00001": QUARTER})
    assert list(open_index("davis2016/osvos_worst").native_id) == ["dog/00000"]


@pytest.mark.parametrize("scale", [1, 128, 255])
def test_results_of_0_and_1_mean_the_same_as_0_and_255(data_root, scale):
    write_davis(data_root, {"dog/00000": TRUTH})
    write_results(data_root, {"dog/00000": HALF}, scale)
    assert np.array_equal(open_index("davis2016/osvos_worst").start_mask(0), HALF)


def test_a_soft_result_counts_from_128_and_a_palette_by_its_indices(data_root):
    write_davis(data_root, {"dog/00000": TRUTH, "camel/00000": TRUTH})
    write_gray(data_root / "osvos" / "dog" / "00000.png", np.where(QUARTER, 128, 127 * HALF))
    write_palette(data_root / "osvos" / "camel" / "00000.png", HALF)
    index = open_index("davis2016/osvos_worst")
    assert np.array_equal(index.start_mask(0), QUARTER)
    assert np.array_equal(index.start_mask(1), HALF)


def test_a_result_that_is_no_mask_is_refused_by_name(data_root):
    write_davis(data_root, {"dog/00000": TRUTH})
    write_results(data_root, {"dog/00000": HALF}, scale=38)
    with pytest.raises(ValueError, match=r"dog/00000\.png has values up to 38; expected a mask of 0 and 255, or of 0"):
        open_index("davis2016/osvos_worst")


def test_a_result_of_another_size_than_its_frame_is_refused_by_name(data_root):
    write_davis(data_root, {"dog/00000": TRUTH})
    write_results(data_root, {"dog/00000": np.ones((24, 32), np.uint8)})
    expected = r"start mask .*osvos/dog/00000\.png is \(24, 32\), its image .*00000\.jpg is \(12, 16\) \(H, W\)"
    with pytest.raises(ValueError, match=expected):
        open_index("davis2016/osvos_worst")


def test_sequences_without_results_are_left_out_in_one_sentence(data_root):
    write_davis(data_root, {f"{sequence}/00000": TRUTH for sequence in ("dog", "camel", "swan")})
    write_results(data_root, {"camel/00000": HALF, "surf/00000": HALF})  # surf is of another split
    index = open_index("davis2016/osvos_worst")
    assert list(index.native_id) == ["camel/00000"]
    assert index.left_out == ("2 sequences without a result of OSVOS, the first is dog",)


def test_results_under_other_names_are_not_taken_for_none(data_root):
    write_davis(data_root, {"dog/00000": TRUTH})
    write_results(data_root, {"dog/frame1": HALF})
    with pytest.raises(ValueError, match=r"no result of OSVOS belongs to a frame .*frame1\.png; .*dog/00000\.png"):
        open_index("davis2016/osvos_worst")


def test_an_edited_result_is_seen_and_is_another_data_set(data_root):
    write_davis(data_root, {"dog/00000": TRUTH})
    write_results(data_root, {"dog/00000": HALF})
    before = open_index("davis2016/osvos_worst").fingerprint()
    write_results(data_root, {"dog/00000": QUARTER})
    index = open_index("davis2016/osvos_worst")
    assert np.array_equal(index.start_mask(0), QUARTER)
    assert index.fingerprint() != before
    write_results(data_root, {"dog/00000": HALF})
    assert open_index("davis2016/osvos_worst").fingerprint() == before


def test_a_folder_of_its_own_may_hold_the_results(data_root, tmp_path, monkeypatch):
    write_davis(data_root, {"dog/00000": TRUTH})
    write_results(tmp_path / "elsewhere", {"dog/00000": HALF})
    monkeypatch.setenv("OSVOS_ROOT", str(tmp_path / "elsewhere" / "osvos"))
    assert np.array_equal(open_index("davis2016/osvos_worst").start_mask(0), HALF)


def test_what_is_missing_is_said_of_both_places(data_root, capsys):
    assert check_data(["davis2016/osvos_worst"]) == 1
    said = capsys.readouterr().out
    assert "DAVIS-data.zip (DAVIS 2016, 480p) from https://davischallenge.org/davis2016/code.html" in said
    assert f"in {data_root / 'osvos'} (that is osvos below DATA_ROOT; or set OSVOS_ROOT to another folder)" in said
    assert "<sequence>/<frame>.png" in said
    write_davis(data_root, {"dog/00000": TRUTH})
    with pytest.raises(FileNotFoundError, match=r"fetch the precomputed results of OSVOS .*set OSVOS_ROOT"):
        open_index("davis2016/osvos_worst")
    (data_root / "osvos").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no results in .*osvos; expected <sequence>/<frame>\.png"):
        open_index("davis2016/osvos_worst")


@pytest.mark.parametrize(
    ("prediction", "iou"),
    [(HALF, 0.5), (TRUTH, 1.0), (NOTHING, 0.0), (1 - TRUTH, 0.0), (rectangle(2, 2, 9, 13 - 2), 0.8)],
)
def test_region_similarity_is_the_iou(prediction, iou):
    assert region_similarity(prediction, TRUTH) == iou
    assert region_similarity(255 * prediction, TRUTH > 0) == iou


def test_two_empty_masks_agree():
    assert region_similarity(NOTHING, NOTHING) == 1
