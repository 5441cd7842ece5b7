"""labels.json of a `label` run, in COCO's format, with the annotation file's own numbers, boxes and crowds where there
is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from datamodules.coco_names import Names, write_list
from datamodules.files import whole_file
from datamodules.index import ObjectIndex
from experiments.composition.tree import Tree
from experiments.labelling.rows import LabelRow


def write_labels(file: Path, rows: Iterable[LabelRow], index: ObjectIndex, about: Tree, names: Names) -> None:
    """labels.json from rows in the order of the index, then the crowds: the file is there when it is complete.

    Images and categories are the annotation file's own entries, with all that they say (LVIS' `neg_category_ids`,
    `frequency`). One annotation per object, however many pieces its mask has; `bbox` is the annotated box, `area` that
    of the mask; `filled` is there, and true, where something stands in for what the network did not find. `empty` lists
    the objects without a mask, which are no annotations.
    """
    empty: list[int] = []

    def annotations() -> Iterator[Tree]:
        for row in rows:
            i = row["position"]
            if row["segmentation"] is None:
                empty.append(row["object_id"])
                continue
            yield {
                "id": names.annotation(i),
                "image_id": names.image(int(index.image[i])),
                "category_id": names.category(int(index.category[i])),
                "segmentation": row["segmentation"],
                "area": row["area"],
                "bbox": names.box(i),
                "iscrowd": 0,
                "score": row["score"],
                "object_id": row["object_id"],
            } | ({"filled": True} if row.get("filled") else {})

    with whole_file(file) as partial, partial.open("w") as out:
        out.write(f'{{"info": {json.dumps(about)}')
        write_list(out, "annotations", chain(annotations(), names.crowds()))
        write_list(out, "images", names.images())  # what the annotation file says of them was read with its crowds
        write_list(out, "categories", names.categories())
        write_list(out, "empty", empty)
        out.write("\n}\n")
