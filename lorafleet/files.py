"""Reading files that may be anything: missing, a folder, a pipe, a loop of links, cut off, not JSON.

Everything here raises `Problem` with a message for the person who declared the path.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from lorafleet.errors import Problem, shown_path

_MAX_JSON_BYTES = 64 << 20
_REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "lies below something that is not a folder",
    errno.ELOOP: "is a symbolic link that leads to itself",
    errno.EACCES: "can't be read by this user",
    errno.EPERM: "can't be read by this user",
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.EIO: "can't be read: the disk reports an error",
}
_NEXT_STEPS = {
    errno.ENOENT: "Look at the path; `ls -l` shows whether a link leads nowhere.",
    errno.ELOOP: "Remove the link and put the files there.",
    errno.EACCES: "Give this user the right to read it (chmod, chown).",
}


def unreadable(error: OSError, path: Path, name: str, *, allowed: str) -> Problem:
    """What an `OSError` means for the thing at `path`, which errors call `name`."""
    code = error.errno or 0
    reason = _REASONS.get(code, f"can't be read: {error.strerror or 'unknown reason'}")
    return Problem(
        f"{name} {reason}",
        found=_shown(path),
        allowed=allowed,
        next_action=_NEXT_STEPS.get(code, "Look at the path."),
    )


def _shown(path: Path) -> str:
    text = shown_path(path)
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_folder(path: Path, name: str, *, allowed: str) -> None:
    """Raise `Problem` unless `path` is a folder that can be listed."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise Problem(
                f"{name} is not a folder",
                found=f"{_shown(path)}, a file",
                allowed=allowed,
                next_action="Name the folder that the file lies in.",
            )
        with os.scandir(path):
            pass
    except OSError as error:
        raise unreadable(error, path, name, allowed=allowed) from None


def regular_size(path: Path, name: str, *, allowed: str) -> int:
    """The size of a regular, readable, not empty file, in bytes."""
    try:
        status = path.stat()
        # Checked before opening: opening a pipe would wait for a writer for ever.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise Problem(
                f"{name} is {kind}",
                found=kind,
                allowed=allowed,
                next_action="Put the file there that belongs there.",
            )
        with path.open("rb"):
            pass
    except OSError as error:
        raise unreadable(error, path, name, allowed=allowed) from None
    if status.st_size == 0:
        raise Problem(
            f"{name} is empty",
            found=f"{_shown(path)}, 0 bytes",
            allowed=allowed,
            next_action="Copy the file again; the last copy was cut off.",
        )
    return status.st_size


def read_json(path: Path, name: str, *, allowed: str = "a JSON object") -> dict[str, Any]:
    """The JSON object in a file."""
    size = regular_size(path, name, allowed=allowed)
    if size > _MAX_JSON_BYTES:
        raise Problem(
            f"{name} is too large to be what it should be",
            found=f"{size} bytes",
            allowed=f"{allowed} of at most {_MAX_JSON_BYTES} bytes",
            next_action="Look at what the file really is.",
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable(error, path, name, allowed=allowed) from None
    return parse_json(raw, name, allowed=allowed)


def parse_json(raw: bytes, name: str, *, allowed: str = "a JSON object") -> dict[str, Any]:
    """The JSON object in `raw`. A key that stands twice is refused: readers disagree on which one counts."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        found = "bytes that are not UTF-8 text"
    except _DuplicateKeyError as error:
        found = str(error)
    except (ValueError, RecursionError) as error:
        found = f"an error on line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "an unreadable value"
    else:
        if isinstance(value, dict):
            return value
        found = "JSON, but not an object"
    raise Problem(
        f"{name} is not valid JSON",
        found=found,
        allowed=allowed,
        next_action="Copy the file again from where the model was trained or published.",
    )


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError("a key that stands twice")
    return result
