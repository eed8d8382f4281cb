"""Stamps: a small file, written last, that says from which inputs a folder was made.

A step whose stamp matches has nothing to do; a step that was interrupted left no stamp, and is done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest(files: Iterable[Path], facts: object = None) -> str:
    """A SHA-256 (hex) over the names and bytes of files, and over anything else that JSON can hold.

    A file that is missing counts as such, so that adding it later changes the digest.
    """
    whole = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"
        whole.update(f"\n{file.name} {content}".encode())
    return whole.hexdigest()


def matches(stamp: Path, wanted: str) -> bool:
    """Whether the stamp file is there and holds this digest."""
    try:
        return stamp.read_text().strip() == wanted
    except OSError:
        return False


def write(stamp: Path, value: str) -> None:
    """Writes the stamp, whole or not at all."""
    fresh = stamp.with_name(stamp.name + ".new")
    fresh.write_text(value + "\n")
    fresh.replace(stamp)
