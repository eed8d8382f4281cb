"""Is there room for a fleet's files where a target keeps them?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lorafleet.errors import Problem

# Room for logs, the state file and whatever else a server writes beside the weights.
MARGIN_BYTES = 64 << 20


def free_bytes(folder: Path) -> int:
    """What this user may still write on the disk of `folder`, which need not exist yet."""
    for existing in (folder, *folder.parents):
        if existing.is_dir():
            return shutil.disk_usage(existing).free
    return 0


def used_bytes(folder: Path) -> int:
    """The bytes of all regular files below `folder`; 0 when there is none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total


def check_room(folder: Path, content_bytes: int | None, *, name: str, free: Callable[[Path], int] = free_bytes) -> None:
    """Raise `Problem` unless the content still fits on the disk of `folder`.

    Args:
        folder: the target's state folder; what lies there already is not counted a second time.
        content_bytes: size of the model and the adapters, or None when it is not known yet: then only the
            margin.
        name: how the error names the folder.
        free: how free space is found out.
    """
    try:
        missing = max(0, (content_bytes or 0) - used_bytes(folder)) + MARGIN_BYTES
        left = free(folder)
    except OSError as error:
        raise Problem(
            f"the free space of {name} can't be found out",
            found=error.strerror or "an error of the disk",
            allowed="a folder on a disk that can be written",
            next_action="Name another folder as `stateDir`.",
        ) from None
    if left < missing:
        raise Problem(
            f"there is not enough room on the disk of {name}",
            found=f"{size_text(left)} free",
            allowed=f"at least {size_text(missing)} free",
            next_action="Free some space, or name a folder on another disk as `stateDir`.",
        )


def size_text(size_bytes: int) -> str:
    """`215.7 KiB`, `12.3 MiB` or `4.5 GiB`."""
    unit, shift = ("KiB", 10) if size_bytes < 1 << 20 else ("MiB", 20) if size_bytes < 1 << 30 else ("GiB", 30)
    return f"{size_bytes / (1 << shift):.1f} {unit}"
