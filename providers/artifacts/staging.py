"""Private copies of what is about to be stored: what was checked is what is stored, whatever happens to the source.

The copies lie in the user's cache. A folder there is locked while its process lives; one without a lock was left by a
kill, and goes when the next one is made (a model's stays, because its download goes on where it was).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorafleet import digest_cache, disk, files
from lorafleet.errors import LorafleetError, Problem, shown_path

from .store import Progress

_CHUNK_BYTES = 1 << 20
_MARGIN_BYTES = 256 << 20


@dataclass(frozen=True)
class Staged:
    """A file of this machine that is to be stored, and the SHA-256 (hex) and size of what was read of it."""

    path: Path
    sha256: str
    bytes: int


def root() -> Path:
    return digest_cache.default_path().parent / "staging"


@contextlib.contextmanager
def folder(key: str | None = None) -> Iterator[Path]:
    """An empty folder of its own that is removed at the end.

    With a key, the same folder each time, kept when the block ends with an error; of two at once, the second one gets
    an error.
    """
    root().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root() / "lock").open("ab") as all_of_them:
        fcntl.flock(all_of_them, fcntl.LOCK_EX)
        _sweep()
        path = root() / (f"kept-{key}" if key else f"new-{secrets.token_hex(8)}")
        path.mkdir(mode=0o700, exist_ok=key is not None)
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LorafleetError(
                "another process is fetching the same model",
                where=str(path),
                found="its folder is in use",
                allowed="one at a time",
                next_action="Wait until it is done, then run the command again.",
            ) from None
    try:
        yield path
    except BaseException:
        if key is None:
            shutil.rmtree(path, ignore_errors=True)
        raise
    else:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _sweep() -> None:
    for left in root().glob("new-*"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def check_room(where: Path, needed_bytes: int) -> None:
    """Raise `LorafleetError` unless that much can be written there, with some room to spare."""
    free = disk.free_bytes(where)
    if free < needed_bytes + _MARGIN_BYTES:
        raise LorafleetError(
            "there is not enough room for the files on this machine",
            where=str(where),
            found=f"{disk.size_text(free)} free",
            allowed=f"at least {disk.size_text(needed_bytes + _MARGIN_BYTES)} free",
            next_action="Free some space, or set XDG_CACHE_HOME to a folder on another disk.",
        )


def copy_in(source: Path, name: str, into: Path, *, most_bytes: int, progress: Progress | None = None) -> Staged | None:
    """Copy one file of a folder; None if there is no such file.

    Links are followed as long as they stay in the folder. What is opened is looked at after it was opened, so that
    nothing can be put into its place in between.

    Raises:
        Problem: it is no regular file, leads out of the folder, is too large, can't be read, or changed meanwhile.
    """
    path = source / name
    try:
        # Not blocking: a pipe without a writer would hold the command for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if not path.is_symlink():
            return None
        raise Problem(
            f"{name} is a link that leads nowhere",
            found=f"a link to {shown_path(path.readlink())}",
            allowed="the file itself",
            next_action="Put the file there that belongs there.",
        ) from None
    except OSError as error:
        raise files.unreadable(error, path, name, allowed="a regular, readable file") from None
    before = os.fstat(handle)
    try:
        _check(handle, before, source, name, most_bytes)
        check_room(into, before.st_size)
    except BaseException:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        summed = hashlib.sha256()
        try:
            with (into / name).open("xb") as copy:
                while chunk := file.read(_CHUNK_BYTES):
                    summed.update(chunk)
                    copy.write(chunk)
                    if progress is not None:
                        progress(len(chunk))
                    if copy.tell() > before.st_size:
                        break  # it grows while it is read, perhaps for ever
        except OSError as error:
            raise files.unreadable(error, path, name, allowed="a regular, readable file") from None
        size = (into / name).stat().st_size
        if _state(os.fstat(handle)) != _state(before) or size != before.st_size or not _is_still(path, before):
            raise Problem(
                f"{name} changed while it was being read",
                found="another size or time than a moment ago",
                allowed="a file that nothing writes to",
                next_action="Wait until it is written (is a training still running?), then push again.",
            )
    return Staged(into / name, summed.hexdigest(), size)


def _check(handle: int, status: os.stat_result, source: Path, name: str, most_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise Problem(
            f"{name} is not a regular file",
            found=kind,
            allowed="a regular file",
            next_action="Put the file there that belongs there.",
        )
    real = Path(f"/proc/self/fd/{handle}").readlink()
    if not real.is_relative_to(source.resolve()):
        raise Problem(
            f"{name} is a link that leaves the adapter's folder",
            found=f"a link to {shown_path(real)}",
            allowed="the file itself, or a link inside the folder",
            next_action="Copy the folder with `cp -rL FOLDER NEW_FOLDER`, look at what was copied, and push the copy.",
        )
    if status.st_size == 0:
        raise Problem(
            f"{name} is empty",
            found="0 bytes",
            allowed="a complete file",
            next_action="Copy the file again; the last copy was cut off.",
        )
    if status.st_size > most_bytes:
        raise Problem(
            f"{name} is too large to be what it should be",
            found=disk.size_text(status.st_size),
            allowed=f"at most {disk.size_text(most_bytes)}",
            next_action="Look at what the file really is.",
        )


def _state(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_still(path: Path, status: os.stat_result) -> bool:
    """Whether the path still leads to the file that was read, and not to one that was renamed over it."""
    try:
        there = path.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)
