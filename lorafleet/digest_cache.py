"""Remembers the SHA-256 of big files, so that a preview does not read 5 GB each time.

A sum counts only while the file's size, times, inode and device are what they were. The file may be deleted
at any time. Several processes may write it at once: each reads, merges and renames under a lock. Whatever is
wrong with the file (cut off, not JSON, not writable) only means that sums are worked out anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any

# Hashing less than this takes about as long as reading the cache.
BIG_BYTES = 16 << 20
# A file that changed a moment ago can change again within the clock's step, without a new time.
_SETTLED_NS = 2_000_000_000
_MOST_ENTRIES = 500
_VERSION = 1

Stamp = tuple[int, int, int, int, int]


def default_path() -> Path:
    """`~/.cache/lorafleet/digests.json`, or below `$XDG_CACHE_HOME` when that is set."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return Path(cache if cache and Path(cache).is_absolute() else Path.home() / ".cache", "lorafleet", "digests.json")


def stamp_of(path: Path) -> Stamp:
    """What tells one state of a file from another."""
    status = path.stat()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


class Cache:
    """The sums of one cache file. Read at once, written by `save`."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self._entries: dict[str, dict[str, Any]] | None = None
        self._new: dict[str, dict[str, Any]] = {}

    def get(self, path: Path) -> str | None:
        """The SHA-256 of a file in hexadecimal digits, or None when it must be worked out."""
        stamp = stamp_of(path)
        if stamp[0] < BIG_BYTES:
            return None
        if self._entries is None:
            self._entries = _read(self._path)
        entry = self._entries.get(str(path.absolute()))
        return str(entry["sha256"]) if entry and entry["stamp"] == list(stamp) else None

    def put(self, path: Path, stamp: Stamp, sha256: str) -> None:
        """Remember a sum, unless the file changed since `stamp` was taken, which was before it was read."""
        changed = time.time_ns() - max(stamp[1], stamp[2]) < _SETTLED_NS
        if stamp[0] >= BIG_BYTES and not changed and stamp_of(path) == stamp:
            self._new[str(path.absolute())] = {
                "stamp": list(stamp),
                "sha256": sha256,
                "usedAt": int(time.time()),
            }

    def save(self) -> None:
        """Add what is new to what other processes wrote meanwhile. Being unable to write is no error."""
        if not self._new:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                entries = {**_read(self._path), **self._new}
                kept = sorted(entries.items(), key=lambda item: int(item[1]["usedAt"]))[-_MOST_ENTRIES:]
                _write(self._path, {"version": _VERSION, "files": dict(kept)})
            self._entries = None
            self._new = {}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
        files = content["files"] if content["version"] == _VERSION else {}
        return {str(name): entry for name, entry in files.items() if _is_entry(entry)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("stamp"), list)
        and isinstance(entry.get("usedAt"), int)
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is not None
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    import tempfile  # several milliseconds, and most previews write nothing

    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
