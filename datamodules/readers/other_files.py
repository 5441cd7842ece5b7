"""What a file is that is no COCO file, said in a clause: compressed, XML, results, another tool's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

EXPORT = "export it in COCO's format (instance segmentation)"
PACKED = (  # how files begin
    (b"\x1f\x8b", "is compressed (gzip): unpack it first, with `gunzip`"),
    (b"PK\x03\x04", "is a zip archive: unpack it first"),
    (b"BZh", "is compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ", "is compressed (xz): unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it first"),
    (b"Rar!", "is a rar archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd): unpack it first"),
    (b"\x89PNG", "is a picture (PNG), no annotation file"),
    (b"\xff\xd8\xff", "is a picture (JPEG), no annotation file"),
    (b"\x89HDF", "is an HDF5 file: " + EXPORT),
    (b"PAR1", "is a Parquet file: " + EXPORT),
    (b"SQLite format 3", "is an SQLite database: " + EXPORT),
    (b"\x80\x04\x95", "is a pickle of Python, which is not opened: write it with json.dump"),
)
LISTS = (  # keys of the entries of a JSON list, and what it then is
    ({"image_id", "category_id", "score"}, "a list of results (image_id, category_id, score)"),
    ({"image_id", "category_id"}, "a list of annotations or results without their images"),
    ({"image_id", "caption"}, "a list of captions"),
    ({"image", "annotations"}, "CreateML's format"),
    ({"data", "annotations"}, "Label Studio's own format"),
    ({"data", "completions"}, "Label Studio's own format"),
    ({"file_name", "annotations"}, "Detectron2's list of dictionaries"),
    ({"External ID"}, "Labelbox' own format"),
    ({"filename", "ann"}, "MMDetection's own format"),
)
OBJECTS = (  # keys of a JSON object
    ({"shapes", "imagePath"}, "LabelMe's own format, a file for each image"),
    ({"_via_img_metadata"}, "a project of the VGG Image Annotator (VIA)"),
    ({"dataset", "items"}, "Datumaro's own format"),
    ({"infos", "categories", "items"}, "Datumaro's own format"),
    ({"imgHeight", "imgWidth", "objects"}, "Cityscapes' own format, a file for each image"),
    ({"objects", "size"}, "Supervisely's own format, a file for each image"),
    ({"openlabel"}, "OpenLABEL's format"),
    ({"database", "taxonomy"}, "a video data set's format"),
)


def packed(data: bytes) -> str:
    """A clause on a file that is no text, or nothing where that cannot be said."""
    if data[257:262] == b"ustar":
        return "is a tar archive: unpack it first"
    return next((clause for begins, clause in PACKED if data.startswith(begins)), "")


def what_it_is(text: str) -> str:
    """A clause on a file whose text is no COCO file, or nothing where it cannot be said what else it is."""
    head = text[:4096].lstrip()
    if not head:
        return "is empty; expected a file in COCO's format"
    if head.startswith("version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: `git lfs pull` fetches it"
    if head.lower().startswith(("<!doctype html", "<html")):
        return "is a web page (HTML), not the file that was asked for: fetch it again, signed in where that is needed"
    if head.startswith("<"):
        return f"is XML (as CVAT and PASCAL VOC write it), not COCO's JSON: {EXPORT}"
    if re.match(r"\d+([ \t]+-?[\d.]+(e-?\d+)?){4,}[ \t]*(\r?\n|$)", head):
        return f"is a text of numbers (as YOLO writes labels), not COCO's JSON: {EXPORT}"
    if re.match(r"[\[{]\s*'", head):
        return "is a dictionary as Python prints it, not JSON: write it with json.dump"
    if head[0] not in "{[":
        comma = "a table (CSV)" if "," in head.split("\n", 1)[0] else f"other text (it begins {head[:20]!r})"
        return f"is {comma}, not COCO's JSON: {EXPORT}"
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and text[error.pos] in "{["
        return f"is JSON lines, an entry on each line, not one object: {EXPORT}" if lines else ""
    except (ValueError, RecursionError):
        return ""
    return _json_in_words(content)


def _json_in_words(content: Any) -> str:
    lacks = "; expected COCO's keys 'images', 'annotations', 'categories'"
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        what = next((what for keys, what in LISTS if keys <= first.keys()), "a JSON list")
        hint = ": give the annotation file that they were made for" if "results" in what else lacks
        return f"is {what}, no COCO file with images{hint}"
    if not isinstance(content, dict):
        return f"is one JSON value{lacks}"
    if what := next((what for keys, what in OBJECTS if keys <= content.keys()), ""):
        return f"is {what}, not COCO's: {EXPORT}"
    values = list(content.values())
    if values and all(isinstance(value, Mapping) and "regions" in value for value in values):
        return f"is the VGG Image Annotator's (VIA) own format, not COCO's: {EXPORT}"
    if content.get("type") == "FeatureCollection":
        return f"is GeoJSON, not COCO's: {EXPORT}"
    if not content.get("images"):
        return f"lists no images{lacks}"
    if "annotations" not in content:
        return "lists images but has no 'annotations' (as COCO's image_info files); give one that has"
    return _annotations_in_words(content["annotations"])


def _annotations_in_words(annotations: Any) -> str:
    entries = list(annotations.values()) if isinstance(annotations, Mapping) else annotations
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    if "segments_info" in first:
        return "is COCO's panoptic format, whose masks are pictures; give the file with instances"
    if "caption" in first:
        return "has captions, no objects; give the file with instances"
    if "keypoints" in first and not first.get("segmentation"):
        return "has keypoints without masks; give a file whose annotations have a 'segmentation'"
    return ""
