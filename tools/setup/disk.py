"""Is there room? Asked before anything is fetched, so that nothing ends half made for want of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.setup.errors import SetupError

GIB = 1024**3


def existing_parent(path: Path) -> Path:
    """The nearest folder at or above `path` that is there."""
    while not path.exists():
        path = path.parent
    return path


def require(needs_gib: dict[Path, float]) -> None:
    """Checks that each place has room, adding up the needs of places on the same file system.

    Raises:
        SetupError: a file system has too little room; says how much is free and how much is needed.
    """
    by_device: dict[int, tuple[Path, float]] = {}
    for place, gib in needs_gib.items():
        folder = existing_parent(place)
        device = folder.stat().st_dev
        first, total = by_device.get(device, (folder, 0.0))
        by_device[device] = (first, total + gib)
    for folder, gib in by_device.values():
        free_gib = shutil.disk_usage(folder).free / GIB
        if free_gib < gib:
            raise SetupError(
                f"the disk of {folder} has {free_gib:.1f} GiB free, and what is missing needs {gib:.1f} GiB",
                "make room there (or set LORAFLEET_CACHE_DIR to a folder on another disk) and run this again",
            )
