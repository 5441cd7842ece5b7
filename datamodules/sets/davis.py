"""DAVIS 2016: videos with one mask per frame, all moving objects together; read frame by frame. And OSVOS on them.

What lies on disk: `ImageSets/480p/val.txt` lists image and mask of every frame, in one line
`/JPEGImages/480p/<sequence>/NNNNN.jpg /Annotations/480p/<sequence>/NNNNN.png`; masks are 8-bit PNGs of 0 and 255. The
results of OSVOS (Caelles et al., CVPR 2017), which the DAVIS site offers beside those of other methods, lie in a folder
of their own as `<sequence>/NNNNN.png`, of the size of the frames: 0 and 255 (the object from 128 on) or 0 and 1.

`davis2016/osvos_worst` is what ITIS refines (Sec. 4.6, Table 2): of each sequence the frame on which OSVOS is worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.catalog import DataSet, register
from datamodules.index import MaskKind, ObjectIndex, predicted_from
from datamodules.mask_pictures import read_strength
from datamodules.readers.mask_files import Annotation, index_label_maps, with_progress


def read_davis2016(root: Path, split: str) -> ObjectIndex:
    """The frames of a DAVIS 2016 split as objects, in the order of its list; native ids are `sequence/frame`.

    `root` is the folder with JPEGImages, Annotations and ImageSets. Raises FileNotFoundError and ValueError naming the
    file that is missing or not as it should be.
    """
    pairs = _frames(root, split)
    name = f"davis2016/{split}"
    annotations = (Annotation(image, mask, [_frame(mask)], [1], [-1]) for image, mask in with_progress(pairs, name))
    return index_label_maps([image for image, _ in pairs], annotations, name, kind=MaskKind.FOREGROUND)


def _frame(path: Path | str) -> str:
    """`sequence/frame` of a file in the folder of its sequence."""
    path = Path(path)
    return f"{path.parent.name}/{path.stem}"


def _frames(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Image and mask of every frame; a line of the list holds both, as paths below `root` that begin with a slash."""
    path = _list(root, split)
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if not lines or any(len(line) != 2 for line in lines):
        raise ValueError(f"{path} must have an image and a mask per line: /JPEGImages/480p/... /Annotations/480p/...")
    return [(root / image.lstrip("/"), root / mask.lstrip("/")) for image, mask in lines]


def _list(root: Path, split: str) -> Path:
    return root / "ImageSets" / "480p" / f"{split}.txt"


def _sources(root: Path, split: str) -> list[Path]:
    path = _list(root, split)
    if not path.exists():
        return [path]
    return [path, *sorted({mask.parent for _, mask in _frames(root, split)})]


# ------------------------------------------------------------------------------------------- what OSVOS predicted


def read_osvos(root: Path) -> ObjectIndex:
    """The masks that OSVOS predicted, every file a picture with itself as its object; native ids are `sequence/frame`.

    A part of `davis2016/osvos_worst` and nothing to train on. Empty predictions are pictures without an object. Raises
    FileNotFoundError where there is no result, ValueError naming a file that is no mask.
    """
    results = _results(root)
    if not results:
        raise FileNotFoundError(f"no results in {root}; expected {OSVOS_LAYOUT}; set OSVOS_ROOT to their folder")

    def annotation(path: Path) -> Annotation:
        return Annotation(path, path, [_frame(path)], [predicted_from(read_strength(path), path)], [-1])

    steps = (annotation(path) for path in with_progress(results, "davis2016/osvos"))
    return index_label_maps(results, steps, "davis2016/osvos", kind=MaskKind.FOREGROUND)


def _results(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*.png") if not path.name.startswith("."))  # macOS leaves ._copies


def worst_frames(parts: Sequence[ObjectIndex]) -> ObjectIndex:
    """Of each sequence of DAVIS 2016 val the frame with the lowest IoU of OSVOS, its mask as the start of refinement.

    ITIS, Sec. 4.6: 20 frames, on which OSVOS has a mean IoU of 50.4 %. Candidates are all annotated frames that have a
    result, first and last included: the paper says no more than "worst", though DAVIS itself skips those two. Among
    equals the first frame is taken. Objects keep their ids of `davis2016/val`.

    Args:
        parts: the indices of `davis2016/val` and `davis2016/osvos`.
    Raises ValueError where no result belongs to any frame, or naming one that is not of the size of its frame.
    """
    frames, results = parts
    places = {_frame(path): place for place, path in enumerate(results.image_paths)}
    start_file = np.array([places.get(frame, -1) for frame in frames.native_id], np.int32)
    started = replace(frames, dataset=OSVOS_WORST, start_files=results.image_paths, start_file=start_file)
    worst: dict[str, tuple[float, int]] = {}
    for i in with_progress(range(len(started)), OSVOS_WORST):
        if (start := started.start_mask(i)) is not None:
            sequence, iou = _sequence(started, i), region_similarity(start, started.read_mask(i).mask)
            worst[sequence] = min(worst.get(sequence, (iou, i)), (iou, i))
    if not worst:
        raise ValueError(
            f"no result of OSVOS belongs to a frame of DAVIS 2016 val, the first is {results.image_paths[0]}; expected "
            f"{OSVOS_LAYOUT}, such as {frames.native_id[0]}.png"
        )
    sequences = dict.fromkeys(_sequence(frames, i) for i in range(len(frames)))
    bare = [sequence for sequence in sequences if sequence not in worst]
    chosen = started.select(np.sort([i for _, i in worst.values()]))
    return replace(
        chosen.select_images(np.isin(np.arange(chosen.num_images), chosen.image)),
        left_out=(f"{len(bare)} sequences without a result of OSVOS, the first is {bare[0]}",) if bare else (),
        content="+".join(part.content for part in parts),
    )


def _sequence(index: ObjectIndex, i: int) -> str:
    return index.native_id[i].split("/")[0]


def region_similarity(prediction: NDArray, truth: NDArray) -> float:
    """DAVIS' J: the IoU of two masks of one size, (H, W) of 0 and 1; 1 where both are empty."""
    union = np.count_nonzero((prediction > 0) | (truth > 0))
    return float(np.count_nonzero((prediction > 0) & (truth > 0)) / union) if union else 1.0


OSVOS_WORST = "davis2016/osvos_worst"

OSVOS_LAYOUT = "<sequence>/<frame>.png as DAVIS names them, masks of 0 and 255 (or of 0 and 1)"


def _split(split: str, images: int | None) -> DataSet:
    return DataSet(
        f"davis2016/{split}",
        read=lambda root: read_davis2016(root, split),
        folder="DAVIS",
        variable="DAVIS_ROOT",
        sources=lambda root: _sources(root, split),
        layout="JPEGImages/480p, Annotations/480p, ImageSets/480p/{train,val}.txt",
        fetch="DAVIS-data.zip (DAVIS 2016, 480p) from https://davischallenge.org/davis2016/code.html",
        images=images,
    )


register(
    _split("train", None),
    _split("val", 1_376),
    DataSet(
        "davis2016/osvos",
        read=read_osvos,
        folder="osvos",
        variable="OSVOS_ROOT",
        sources=lambda root: sorted({path.parent for path in _results(root)}) or [root],
        layout=OSVOS_LAYOUT,
        fetch="the precomputed results of OSVOS on DAVIS 2016 from https://davischallenge.org/davis2016/soa_compare.html",
    ),
    DataSet(OSVOS_WORST, parts=("davis2016/val", "davis2016/osvos"), combine=worst_frames, images=20, objects=20),
)
