"""The benchmarks of click methods: GrabCut, Berkeley, 345 DAVIS frames, 800 objects of COCO MVal, cars of KITTI.

What lies on disk is said by each reader here and, shorter, by the `layout` of its set, which
`python -m experiments.check_data` prints. DAVIS' videos and the frames that ITIS refines are in datamodules/davis.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.catalog import DataSet, register
from datamodules.index import ObjectIndex
from datamodules.masks import read_label_map
from datamodules.readers.coco import read_coco
from datamodules.readers.folders import files_by_name, read_pairs
from datamodules.sets.folders import LAYOUT, image_folder, mask_folder

VOID, OBJECT = 128, 129  # of GrabCut's trimaps: 0 background, 128 nobody knows, 255 object


def read_grabcut(root: Path) -> ObjectIndex:
    """GrabCut: 50 images in `data_GT` (.jpg, .JPG and .bmp), one trimap each in `boundary_GT/*.bmp`.

    `box` is the one that the benchmark gives (Lempitsky et al.), in which its error rate is counted, where
    `boundary_GT_rect` is there, else the object's own. Crops and points always come from the object.
    """
    index = read_pairs(root / "data_GT", root / "boundary_GT", "grabcut", threshold=OBJECT, void_value=VOID)
    if not (root / "boundary_GT_rect").is_dir():
        return index
    given, boxes = grabcut_boxes(root), np.array(index.box)
    for i in range(len(index)):
        boxes[i] = given.get(index.image_path(i).stem, tuple(boxes[i]))
    return replace(index, box=boxes)


def grabcut_boxes(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """The boxes that GrabCut gives the user, inclusive xyxy by image name, from `boundary_GT_rect/*.bmp`.

    They are drawn as filled rectangles on a darker ground: the box is that of the pixels from 128 on. Raises
    ValueError for a file without such pixels.
    """
    boxes = {}
    for name, path in files_by_name(root / "boundary_GT_rect").items():
        ys, xs = np.nonzero(read_label_map(path) >= VOID)
        if not len(xs):
            raise ValueError(f"{path} has no pixel of 128 or more; expected a filled rectangle")
        boxes[name] = (int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max()))
    return boxes


def read_berkeley(root: Path) -> ObjectIndex:
    """Berkeley: 96 images in `images`, 100 masks in `masks`; a letter behind a name counts the objects of an image."""
    images = files_by_name(root / "images")

    def image_of(mask: str) -> str:
        return mask[:-1] if mask[:-1] in images and mask[-1].isalpha() else mask

    return read_pairs(root / "images", root / "masks", "berkeley", threshold=OBJECT, void_value=VOID, image_of=image_of)


def read_davis345(root: Path) -> ObjectIndex:
    """The 345 DAVIS frames on which click methods report: `img/NNN.jpg`, `gt/NNN.png`; one object per frame."""
    return read_pairs(root / "img", root / "gt", "davis345")


def read_mval800(root: Path) -> ObjectIndex:
    """The 800 objects, ten per category, of the click benchmarks' COCO MVal, in either of its two layouts.

    Not DEXTR's mini-val, which is `coco_minival5k`. As pairs of files it has no categories, and ids of its own.
    """
    if (file := root / "instances_mval.json").exists():
        return read_coco(file, [root / "images"], "coco_mval800")
    return read_pairs(image_folder(root), mask_folder(root), "coco_mval800", ids_of="coco_mval800/pairs")


def read_kitti_cars(root: Path) -> ObjectIndex:
    """The cars of KITTI, 741 masks: `img/NAME.png`, the whole image, and `gt/NAME.png` with one car, 8-bit 0 and 255.

    0 and 1 mean the same, any nonzero pixel is the car. As a mask has the name of its image, an image with several cars
    is there once per car (a link will do). No box and no void: ITIS (Fig. 6) clicks in the whole image.
    """
    return read_pairs(image_folder(root), mask_folder(root), "kitti_cars")


def _mval800_sources(root: Path) -> list[Path]:
    file = root / "instances_mval.json"
    pairs = [image_folder(root), mask_folder(root)]
    return pairs if not file.exists() and mask_folder(root).exists() else [file]


register(
    DataSet(
        "grabcut",
        read=read_grabcut,
        folder="GrabCut",
        variable="GRABCUT_ROOT",
        sources=lambda root: [root / "data_GT", root / "boundary_GT", *root.glob("boundary_GT_rect")],
        layout="data_GT/*.{jpg,JPG,bmp}, boundary_GT/*.bmp (and boundary_GT_rect/*.bmp for its boxes)",
        fetch="the GrabCut image segmentation database of Microsoft Research Cambridge",
        images=50,
        objects=50,
    ),
    DataSet(
        "berkeley",
        read=read_berkeley,
        folder="Berkeley",
        variable="BERKELEY_ROOT",
        sources=lambda root: [root / "images", root / "masks"],
        layout="images/*.jpg, masks/*.png (189011a.png and 189011b.png are two objects of 189011.jpg)",
        fetch="the Berkeley interactive segmentation set of McGuinness and O'Connor (96 images, 100 objects)",
        images=96,
        objects=100,
    ),
    DataSet(
        "davis345",
        read=read_davis345,
        folder="davis345",
        variable="DAVIS345_ROOT",
        sources=lambda root: [root / "img", root / "gt"],
        layout="img/NNN.jpg, gt/NNN.png",
        fetch="the 345 DAVIS frames of the click benchmarks (RITM and its successors share them)",
        images=345,
        objects=345,
    ),
    DataSet(
        "coco_mval800",
        read=read_mval800,
        folder="coco_mval",
        variable="COCO_MVAL_ROOT",
        sources=_mval800_sources,
        layout=f"instances_mval.json, images/*.jpg; or {LAYOUT}",
        fetch="the 800-object COCO_MVal of the click benchmarks (RITM and its successors share it)",
        objects=800,
    ),
    DataSet(
        "kitti_cars",
        read=read_kitti_cars,
        folder="kitti_cars",
        variable="KITTI_CARS_ROOT",
        sources=lambda root: [image_folder(root), mask_folder(root)],
        layout=f"{LAYOUT}; masks of 0 and 255 (or of 0 and 1); an image with several cars is there once per car",
        fetch="the 741 car masks of Chen et al. (CVPR 2014) for KITTI, as Polygon-RNN uses them, and their images",
        objects=741,
    ),
)
