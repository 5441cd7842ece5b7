"""What a recipe may compute: pixels scaled with the crop, input channels, places of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datamodules import miniature
from datamodules.cache import cache_folder
from datamodules.catalog import DataSet, find, root_of
from datamodules.image_index import category_names
from datamodules.recipe import views_of
from datamodules.selection import Selection
from experiments.composition.classes import import_class

PUBLISHED_CROP = 512


def _scaled(value: float | int, published: float | int = PUBLISHED_CROP, *, _root_: Any) -> float:
    """${px:10}: ten pixels of the published crop of 512, in pixels of this run's crop; ${px:10,350}: of one of 350.

    The training view says which side follows the crop: of windows of a scaled image it is the image's shorter one.
    """
    sample = _root_.data.init_args.sample
    view, _ = views_of(sample)
    return float(value) * view.pixel_side(sample.size) / float(published)


def _whole(value: float | int, published: float | int = PUBLISHED_CROP, *, _root_: Any) -> int:
    """${whole_px:40,350}: the same, rounded."""
    return round(_scaled(value, published, _root_=_root_))


def _input_channels(*maps: str, _root_: Any) -> int:
    """${input_channels:model.guidance,model.mask_channel}: RGB and the maps of these encoders, where they are used."""
    channels = 3
    for name in maps:
        node = _root_
        for part in name.split("."):
            node = node.init_args[part] if "class_path" in node else node[part]
        if isinstance(node, str):
            raise ValueError(
                f"{name} is {node!r}, but the recipe has no class there to look beside; write {{class_path: ...}}"
            )
        channels += 0 if node is None else int(import_class(node.class_path).channels)
    return channels


def _drawn_data(seed: int) -> str:
    """${drawn_data:0}: the folder of the embedded data, drawn now if it is not there."""
    return str(miniature.draw(cache_folder().parent / "miniature" / str(seed), seed))


def _data_file(name: str, data_set: str = "", *, _root_: Any) -> str:
    """${data_file:points.json,pascal/ext}: a file in the folder of a data set; without one, in that of all data."""
    place = find(data_set) if data_set else DataSet("all data")
    return str(root_of(place, _root_.data.init_args.root) / name)


def _share(part: float, *, _root_: Any) -> float:
    """${share:0.1}: a tenth of a data set; all of a drawn one, which is that small already."""
    return 1.0 if _root_.profile == "miniature" else float(part)


def _num_classes(*, _root_: Any) -> int:
    """${num_classes:}: how many categories the training data have, officially where these are not there to be asked."""
    data = _root_.data.init_args
    specs = [_plain_spec(spec) for spec in data.train]
    try:
        return len(category_names(specs, data.root))
    except (OSError, ValueError):  # what is wrong with them is said when a run gets its name
        official = {find(Selection.of(spec).name).classes for spec in specs}
        return (official.pop() if len(official) == 1 else None) or 1


def _plain_spec(spec: Any) -> Any:
    """A data set of an OmegaConf tree, without the labels of a run that may not be made yet."""
    return spec if isinstance(spec, str) else {key: spec[key] for key in spec if key != "labelled"}


def _passes(at_once: int, *, _root_: Any) -> int:
    """${passes:2}: how many passes a process accumulates so that none holds more than two units of the global batch.

    1 where the batch does not split over the processes: the data say so, and what does split.
    """
    trainer, batch = _root_.trainer, int(_root_.data.init_args.batch_size)
    import torch  # reading a recipe does without

    devices = int(trainer.devices) if str(trainer.devices).isdigit() else max(1, torch.cuda.device_count())  # auto, -1
    processes = devices * trainer.num_nodes
    possible = [n for n in range(1, batch + 1) if batch % (processes * n) == 0]
    return next((n for n in possible if batch // (processes * n) <= at_once), 1)


RESOLVERS: dict[str, Callable[..., Any]] = {
    "px": _scaled,
    "whole_px": _whole,
    "input_channels": _input_channels,
    "drawn_data": _drawn_data,
    "data_file": _data_file,
    "share": _share,
    "num_classes": _num_classes,
    "passes": _passes,
}
