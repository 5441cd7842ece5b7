"""The embedded data in the official layouts: which pictures each data set has, and how it annotates them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from datamodules import keys
from datamodules.drawn.coco_files import coco_tables, lvis_tables, mval_tables, write_json
from datamodules.drawn.files import write_gray, write_image, write_lines, write_mat, write_palette
from datamodules.drawn.other_domains import aerial, section, street
from datamodules.drawn.predictions import predicted
from datamodules.drawn.scenes import Scene, contour_of, moved, painted, plan_scene
from datamodules.drawn.sprites import LOOKS
from datamodules.readers.sbd import read_sbd
from datamodules.readers.voc import read_voc
from datamodules.sets import cityscapes
from datamodules.sets.pascal import CATEGORIES

EVERYTHING = tuple(LOOKS)

PASCAL = {"airplane": 1, "boat": 4, "bottle": 5, "car": 7, "dog": 12, "person": 15, "sheep": 17, "tv": 20}

VOC_IMAGES = {"train": range(66), "val": range(66, 98)}

SBD_IMAGES = [i for i in range(220) if i >= 98 or i % 3]  # two thirds of VOC's, both splits, and many more

TEST_DEV_IMAGES = range(165, 177)
COCO_IMAGES = {"train2017": range(130), "val2017": range(130, 165), "train2014": range(110), "val2014": range(110, 165)}

VIDEO_FRAMES = 6

VIDEOS = {"train": ("cross", "drift", "ferry", "glide"), "val": ("march", "parade", "ramble", "stroll")}

VOID = 255


def generator(seed: int, name: str) -> Generator:
    """The generator of everything drawn under this name."""
    return keys.rng(seed, zlib.crc32(name.encode()))


def scene(seed: int, name: str, classes: Sequence[str] = EVERYTHING, places: int | None = None, **how: Any) -> Scene:
    """The picture of this name; one without any object only when no place is asked for."""
    rng = generator(seed, name)
    drawn = painted(*plan_scene(rng, classes, places, **how))
    while not drawn.objects and places != 0:
        drawn = painted(*plan_scene(rng, classes, places, **how))
    return drawn


# ------------------------------------------------------------------------------------------- PASCAL VOC and SBD


def pascal_scene(seed: int, i: int) -> tuple[str, Scene]:
    """Name and picture `i` of the PASCAL world, which VOC and SBD annotate each in its own way."""
    return f"2008_{i:06d}", scene(seed, f"pascal/{i}", tuple(PASCAL))


def draw_voc(root: Path, seed: int) -> None:
    """PASCAL VOC 2012: palette PNGs of objects and classes, with a void contour around every object."""
    voc = root / "VOCdevkit" / "VOC2012"
    names: dict[str, list[str]] = {}
    for split, images in VOC_IMAGES.items():
        for i in images:
            name, drawn = pascal_scene(seed, i)
            names.setdefault(split, []).append(name)
            classes = np.array([0, *(PASCAL[category] for category in drawn.categories)], np.uint8)[drawn.labels]
            contour = contour_of(drawn.labels)
            write_image(voc / "JPEGImages" / f"{name}.jpg", drawn.image)
            write_palette(voc / "SegmentationObject" / f"{name}.png", np.where(contour, VOID, drawn.labels))
            write_palette(voc / "SegmentationClass" / f"{name}.png", np.where(contour, VOID, classes))
    for split, listed in {**names, "trainval": sorted(names["train"] + names["val"])}.items():
        write_lines(voc / "ImageSets" / "Segmentation" / f"{split}.txt", listed)


def draw_sbd(root: Path, seed: int) -> None:
    """SBD: a .mat per image with its instances, no void; partly the images of VOC, of train and val alike."""
    sbd = root / "benchmark_RELEASE" / "dataset"
    names: dict[str, list[str]] = {"train": [], "val": []}
    for i in SBD_IMAGES:
        name, drawn = pascal_scene(seed, i)
        names["train" if i % 4 else "val"].append(name)
        categories = np.array([[PASCAL[category]] for category in drawn.categories], np.uint8)
        write_image(sbd / "img" / f"{name}.jpg", drawn.image)
        write_mat(sbd / "inst" / f"{name}.mat", {"GTinst": {"Segmentation": drawn.labels, "Categories": categories}})
    for split, listed in names.items():
        write_lines(sbd / f"{split}.txt", listed)


# ------------------------------------------------------------------------------------------- COCO and LVIS


def coco_scene(seed: int, i: int) -> Scene:
    """Picture `i` of the COCO world: every 20th with a crowd, every 45th without any object."""
    return scene(seed, f"coco/{i}", places=0 if i % 45 == 7 else None, crowd=i % 20 == 5)


def draw_coco(root: Path, seed: int) -> None:
    """COCO 2014 and 2017, two ways to split the same images, and LVIS v1, which annotates those of 2017 its own way.

    Of test-dev, other images, there is a list without annotations.
    """
    scenes = [coco_scene(seed, i) for i in range(max(map(max, COCO_IMAGES.values())) + 1)]
    for split, images in COCO_IMAGES.items():
        tables = coco_tables({i: scenes[i] for i in images}, split)
        write_json(root / "coco" / "annotations" / f"instances_{split}.json", tables)
        for i, listed in zip(images, tables["images"]):
            write_image(root / "coco" / split / listed["file_name"], scenes[i].image)
    held = coco_tables({i: coco_scene(seed, i) for i in TEST_DEV_IMAGES}, "test2017")
    for i, listed in zip(TEST_DEV_IMAGES, held["images"]):
        write_image(root / "coco" / "test2017" / listed["file_name"], coco_scene(seed, i).image)
    del held["annotations"]
    write_json(root / "coco" / "annotations" / "image_info_test-dev2017.json", held)
    borrowed = range(120, 130)  # LVIS validates on some training images of COCO
    home = {i: split for split in ("train2017", "val2017") for i in COCO_IMAGES[split]}
    for split, listed in {"train": range(120), "val": (*borrowed, *COCO_IMAGES["val2017"])}.items():
        tables = lvis_tables({i: (home[i], scenes[i]) for i in listed})
        write_json(root / "lvis" / f"lvis_v1_{split}.json", tables)


def draw_mval(root: Path, seed: int, per_category: int = 4) -> None:
    """COCO MVal of the click benchmarks: a few objects of every category, one per image."""
    drawn = {}
    for i in range(per_category * len(EVERYTHING)):
        category = EVERYTHING[i // per_category]
        others = tuple(generator(seed, f"mval/{i}/others").choice(EVERYTHING, 2))
        attempt = 0
        while category not in (picture := scene(seed, f"mval/{i}/{attempt}", (category, *others))).categories:
            attempt += 1
        drawn[i] = picture, picture.categories.index(category) + 1
    tables = mval_tables(drawn)
    write_json(root / "coco_mval" / "instances_mval.json", tables)
    for (picture, _), listed in zip(drawn.values(), tables["images"]):
        write_image(root / "coco_mval" / "images" / listed["file_name"], picture.image)


# ------------------------------------------------------------------------------------------- one object per image


def benchmark_scene(
    seed: int, name: str, classes: Sequence[str] = EVERYTHING, **how: Any
) -> tuple[Scene, Sequence[int]]:
    """A picture of one or two places and its objects in the order in which a benchmark would take them."""
    drawn = scene(seed, name, classes, 1 + int(generator(seed, f"{name}/places").integers(2)), scale=1.15, **how)
    return drawn, [int(i) for i in generator(seed, f"{name}/chosen").permutation(drawn.objects)]


def draw_grabcut(root: Path, seed: int, images: int = 40) -> None:
    """GrabCut: 0, 128 (unknown, along the contour) and 255, and a generous rectangle as 128 in a map of its own."""
    for i in range(images):
        name, ending = f"{i:06d}", (".jpg", ".bmp", ".JPG")[i % 3]
        drawn, objects = benchmark_scene(seed, f"grabcut/{i}")
        mask = (drawn.labels == objects[0]).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        rectangle = np.full(drawn.size, 64, np.uint8)
        rectangle[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4] = 128
        write_image(root / "GrabCut" / "data_GT" / f"{name}{ending}", drawn.image)
        write_gray(root / "GrabCut" / "boundary_GT" / f"{name}.bmp", np.where(contour_of(mask), 128, mask * 255))
        write_gray(root / "GrabCut" / "boundary_GT_rect" / f"{name}.bmp", rectangle)


def draw_berkeley(root: Path, seed: int, images: int = 38) -> None:
    """Berkeley: a mask per object; two objects of one image are told apart by a letter behind its name."""
    for i in range(images):
        two = i % 19 == 3
        drawn, objects = benchmark_scene(seed, f"berkeley/{i}", paired=1.0 if two else 0.7)
        write_image(root / "Berkeley" / "images" / f"{i:06d}.jpg", drawn.image)
        for letter, label in zip("ab" if two else [""], objects):
            write_gray(root / "Berkeley" / "masks" / f"{i:06d}{letter}.png", (drawn.labels == label) * 255)


def draw_pairs(root: Path, seed: int) -> None:
    """Pairs img/NNN.jpg and gt/NNN.png with one object each: the frames of davis345, and cars for KITTI's."""
    for folder, classes, paired, images in (("davis345", EVERYTHING, 0.7, 40), ("kitti_cars", ("car",), 0.0, 40)):
        for i in range(images):
            drawn, objects = benchmark_scene(seed, f"{folder}/{i}", classes, paired=paired)
            write_image(root / folder / "img" / f"{i:03d}.jpg", drawn.image)
            write_gray(root / folder / "gt" / f"{i:03d}.png", (drawn.labels == objects[0]) * 255)


def draw_videos(root: Path, seed: int) -> None:
    """DAVIS 2016: short sequences of a picture whose objects move together, one of them annotated in every frame."""
    davis = root / "DAVIS"
    for split, sequences in VIDEOS.items():
        lines = []
        for sequence in sequences:
            for frame, (image, mask) in enumerate(_frames(generator(seed, f"davis/{sequence}"))):
                paths = f"JPEGImages/480p/{sequence}/{frame:05d}.jpg", f"Annotations/480p/{sequence}/{frame:05d}.png"
                write_image(davis / paths[0], image)
                write_gray(davis / paths[1], mask * 255)
                lines.append(f"/{paths[0]} /{paths[1]}")
        write_lines(davis / "ImageSets" / "480p" / f"{split}.txt", lines)


def _frames(rng: Generator) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Frames and masks of a video whose object never leaves the picture nor changes its number."""
    while True:
        background, layers = plan_scene(rng, EVERYTHING, 1, paired=1.0)
        speed = rng.uniform(-6, 6, 2)
        scenes = [painted(background, moved(layers, *(speed * (t - VIDEO_FRAMES / 2)))) for t in range(VIDEO_FRAMES)]
        if all(len(drawn.categories) == 2 for drawn in scenes):
            label = int(rng.integers(1, 3))
            return [(drawn.image, drawn.labels == label) for drawn in scenes]


def draw_osvos(root: Path, seed: int) -> None:
    """The results of OSVOS on DAVIS 2016 val, `osvos/<sequence>/<frame>.png` of 0 and 255: the truth with errors.

    Nearly right on the first frame, whose mask it is given, and in no order worse on the others, down to an IoU around
    0.5 on the worst, as on the real ones.
    """
    for sequence in VIDEOS["val"]:
        rng = generator(seed, f"osvos/{sequence}")
        ious = [0.97, *rng.permutation(np.linspace(rng.uniform(0.42, 0.62), 0.9, VIDEO_FRAMES - 1))]
        for frame, (_, mask) in enumerate(_frames(generator(seed, f"davis/{sequence}"))):
            write_gray(root / "osvos" / sequence / f"{frame:05d}.png", predicted(rng, mask, ious[frame]) * 255)


# ------------------------------------------------------------------------------------------- other domains


def draw_cityscapes(root: Path, seed: int) -> None:
    """Cityscapes: fine annotations of streets; the own car below, the rest of the street unlabelled."""
    numbers = {name: number for number, name in cityscapes.CLASSES.items()}
    for split, (city, images) in {"train": ("aachen", 10), "val": ("frankfurt", 8)}.items():
        for i in range(images):
            drawn = street(generator(seed, f"cityscapes/{split}/{i}"), crowd=i % 4 == 3)
            values = np.zeros(len(drawn.categories) + 1, np.uint16)
            for k in drawn.objects:
                values[k] = numbers[drawn.categories[k - 1]] * cityscapes.NUMBERED + k - 1
            values[drawn.crowd] = numbers["person"] if drawn.crowd else cityscapes.UNLABELLED
            labels = values[drawn.labels]
            labels[-3:][labels[-3:] == 0] = 1  # the own car
            frame = f"{city}_{i:06d}_000019"
            write_image(root / "cityscapes/leftImg8bit" / split / city / f"{frame}_leftImg8bit.png", drawn.image)
            write_gray(root / "cityscapes/gtFine" / split / city / f"{frame}_gtFine_instanceIds.png", labels)


def draw_rooftop(root: Path, seed: int) -> None:
    """Rooftop: aerial images, each with the cell `gt` of its roofs' outlines in a .mat."""
    for split, images in {"train": 7, "test": 7}.items():
        for i in range(images):
            drawn = aerial(generator(seed, f"rooftop/{split}/{i}"))
            outlines = np.empty((1, len(drawn.roofs)), object)
            outlines[0] = [ring.round(2) for ring in drawn.roofs]
            write_image(root / "Rooftop" / split / f"{i:03d}.jpg", drawn.image)
            write_mat(root / "Rooftop" / split / f"{i:03d}.mat", {"gt": outlines})


def draw_sstem(root: Path, seed: int, sections: int = 8) -> None:
    """ssTEM: gray sections and binary maps of their mitochondria."""
    for i in range(sections):
        image, mitochondria = section(generator(seed, f"sstem/{i}"))
        write_gray(root / "ssTEM/stack1/raw" / f"{i:02d}.tif", image)
        write_gray(root / "ssTEM/stack1/mitochondria" / f"{i:02d}.png", mitochondria)


# ------------------------------------------------------------------------------------------- what people clicked


def draw_points(root: Path, seed: int) -> None:
    """Clicks of people who do not exist: PASCAL_EXT's on SBD val, and five annotators' inside points on VOC val.

    `pascal_ext/points.json` and `human_points/pascal_val_inside.json`; the images must be drawn.
    """
    from datamodules.clicks.recorded import write_points  # these import torch, which drawing the rest does without
    from datamodules.human_points import simulated

    source = "simulated by datamodules.miniature"
    sbd = read_sbd(root / "benchmark_RELEASE" / "dataset", "val", "sbd/val", CATEGORIES)
    write_points(root / "pascal_ext" / "points.json", "extreme", simulated(sbd, "extreme", seed=seed), source=source)
    voc = read_voc(root / "VOCdevkit" / "VOC2012", "val", "pascal/val", CATEGORIES)
    five = simulated(voc, "inside", annotators=5, seed=seed)
    write_points(root / "human_points" / "pascal_val_inside.json", "inside", five, source=source)


LAYOUTS = (
    draw_voc,
    draw_sbd,
    draw_coco,
    draw_mval,
    draw_grabcut,
    draw_berkeley,
    draw_pairs,
    draw_videos,
    draw_osvos,
    draw_cityscapes,
    draw_rooftop,
    draw_sstem,
    draw_points,
)
