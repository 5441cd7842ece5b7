"""Files that are whole or not there, and what they are known by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from datamodules.files import whole_file


def digest(content: Any) -> str:
    """Hash of a tree of plain values; the order of keys does not matter."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def file_digest(path: str | Path) -> str:
    """Hash of a file's content. Raises ValueError when it is not there."""
    if not Path(path).is_file():
        raise ValueError(f"no file at {path}; give the path of a weights file")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def sha256_of(path: Path) -> str:
    """What records and reports know a file by. A quarter of a second for 250 MB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is either the old one or the new one, whatever happens meanwhile."""
    with whole_file(path) as partial:
        partial.write_text(text)
