"""A store in a folder of this machine (or one that is mounted): the same rules as a bucket's, kept by the file system.

Objects are plain files at their paths, so that servers read them without this code. Names that begin with a dot are no
objects; `.store/` holds what is being written and the lock. A writer that is killed leaves nothing but a file there,
which the next writer removes.

Generations: each write, under the lock, gives its file a time that is later than that of every write before it in this
store, whatever the clock does; the generation is made of this time, the size and the inode. The inode alone would not
do: a file system gives a freed one to the next file.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .store import (
    NOT_THERE,
    Blob,
    ConflictError,
    DeniedError,
    Entry,
    Progress,
    StoreError,
    UnreachableError,
    changed_file,
    changed_object,
    check_path,
    other_content,
)

_OWN = ".store"
_CHUNK_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 60.0
# Steps of a microsecond, because not every file system keeps nanoseconds.
_STEP_NS = 1000


class FolderStore:
    """A store in `folder`, which is made by the first write. See `providers.artifacts.store.Store`."""

    def __init__(self, folder: Path) -> None:
        self._root = folder

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    def read(self, path: str) -> Blob | None:
        with self._errors(path):
            file = self._open(path)
            if file is None:
                return None
            with file:
                # The generation of what was opened, not of what may stand at the path by now.
                return Blob(file.read(), _generation(os.fstat(file.fileno())))

    def write(self, path: str, data: bytes, *, expected: str | None = None) -> str:
        with self._errors(path), self._temporary() as (temporary, file):
            file.write(data)
            return self._commit(temporary, file, path, expected)

    def upload(self, path: str, file: Path, *, sha256: str, progress: Progress | None = None) -> bool:
        with self._errors(path):
            if (there := self.sha256(path)) is not None:
                if there == sha256:
                    return False
                raise other_content(self.url, path)
            with self._temporary() as (temporary, copy):
                with file.open("rb") as source:
                    if _copy(source, copy, progress) != sha256:
                        raise changed_file(file)
                try:
                    self._commit(temporary, copy, path, NOT_THERE)
                except ConflictError:
                    if self.sha256(path) == sha256:
                        return False
                    raise other_content(self.url, path) from None
        return True

    def download(self, path: str, file: Path, *, progress: Progress | None = None) -> str | None:
        with self._errors(path):
            source = self._open(path)
            if source is None:
                return None
            with source, file.open("xb") as copy:
                return _copy(source, copy, progress)

    def sha256(self, path: str, *, progress: Progress | None = None) -> str | None:
        with self._errors(path):
            source = self._open(path)
            if source is None:
                return None
            with source:
                return _copy(source, None, progress)

    def list(self, prefix: str) -> Iterator[Entry]:
        if prefix:
            check_path(prefix.rstrip("/"))
        with self._errors(prefix):
            found = sorted(self._walk(self._root / prefix, prefix), key=lambda entry: entry.path.encode())
        return iter(found)

    def renew(self, path: str, *, expected: str) -> str:
        target = self._target(path)
        with self._errors(path), self._lock() as own:
            if expected == NOT_THERE or self._generation_at(target) != expected:
                raise changed_object(self.url, path)
            with target.open("rb") as file:
                _stamp(own / "lock", file)
                os.fsync(file.fileno())
                return _generation(os.fstat(file.fileno()))

    def delete(self, path: str, *, expected: str | None = None) -> bool:
        target = self._target(path)
        with self._errors(path):
            if not target.exists():
                return False
            with self._lock():
                there = self._generation_at(target)
                if there == NOT_THERE:
                    return False
                if expected is not None and there != expected:
                    raise changed_object(self.url, path)
                target.unlink()
                for folder in target.parents:
                    if folder == self._root:
                        break
                    try:
                        folder.rmdir()
                    except OSError:  # there is something else in it
                        break
                else:
                    folder = self._root
                _sync_folder(folder)
        return True

    def _target(self, path: str) -> Path:
        check_path(path)
        return self._root / path

    def _open(self, path: str) -> BinaryIO | None:
        """The object, open for reading; None if there is none. Links are not followed: an object is a file."""
        try:
            handle = os.open(self._target(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise StoreError(
                "this is not a file",
                where=f"{self.url}/{path}",
                found="a folder, a pipe or a device in the place of an object",
                allowed="what the store's own commands put there",
                next_action="Look who put it there, and take it away.",
            )
        return os.fdopen(handle, "rb")

    def _walk(self, folder: Path, prefix: str) -> Iterator[Entry]:
        try:
            items = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for item in items:
            if item.name.startswith("."):
                continue
            path = f"{prefix}{item.name}"
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:  # deleted meanwhile
                continue
            if stat.S_ISDIR(status.st_mode):
                yield from self._walk(folder / item.name, f"{path}/")
            elif stat.S_ISREG(status.st_mode):
                updated = datetime.datetime.fromtimestamp(status.st_mtime_ns / 1e9, datetime.UTC)
                yield Entry(path, status.st_size, _generation(status), updated)

    def _generation_at(self, target: Path) -> str:
        try:
            return _generation(target.lstat())
        except (FileNotFoundError, NotADirectoryError):
            return NOT_THERE

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file in `.store/`. It is locked while its writer lives; one without a lock is left from a kill."""
        with self._lock() as own:
            for left in own.glob("new-*"):
                # A writer removes its own file without our lock, perhaps between our look and the opening.
                with contextlib.suppress(BlockingIOError, FileNotFoundError), left.open("rb") as old:
                    fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()
            temporary = own / f"new-{secrets.token_hex(8)}"
            file = temporary.open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            with file:
                yield temporary, file
        finally:
            temporary.unlink(missing_ok=True)

    def _commit(self, temporary: Path, file: BinaryIO, path: str, expected: str | None) -> str:
        target = self._target(path)
        file.flush()
        os.fsync(file.fileno())
        with self._lock() as own:
            there = self._generation_at(target)
            if expected is not None and there != expected:
                raise changed_object(self.url, path)
            _stamp(own / "lock", file)
            for folder in _make_folders(target.parent):
                _sync_folder(folder)
            if expected == NOT_THERE:
                try:
                    os.link(temporary, target)  # fails where even someone without our lock was faster
                except FileExistsError:
                    raise changed_object(self.url, path) from None
            else:
                temporary.replace(target)
            _sync_folder(target.parent)
            return _generation(os.fstat(file.fileno()))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[Path]:
        """The folder `.store`, while no other process commits, deletes or begins a file."""
        own = self._root / _OWN
        own.mkdir(parents=True, exist_ok=True)
        with (own / "lock").open("ab") as file:
            end = time.monotonic() + _LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise UnreachableError(
                            "the store is locked by another process",
                            where=f"{self.url}/{_OWN}/lock",
                            found=f"a lock that was not given back for {_LOCK_TIMEOUT_S:.0f} s",
                            allowed="a lock that is held for moments",
                            next_action="Look for a stopped or hanging process that uses this store (fuser FILE).",
                        ) from None
                    time.sleep(0.005)
            yield own

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where, reason = f"{self.url}/{path}", error.strerror or "an error of the disk"
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise DeniedError(
                    "this user may not do that in the store's folder",
                    where=where,
                    found=reason,
                    allowed="a folder that this user can read and write",
                    next_action="Give this user the right (chgrp, chmod), or name another store.",
                ) from None
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(
                    "there is no room left for the store",
                    where=where,
                    found=reason,
                    allowed="free space on the store's disk",
                    next_action="Free some: `lorafleet adapter prune` shows what nothing refers to.",
                ) from None
            raise UnreachableError(
                "the store's folder can't be used",
                where=where,
                found=reason,
                allowed="a folder on a disk that works",
                next_action="Look at the path, and whether its disk is mounted.",
            ) from None


def _generation(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def _stamp(lock: Path, file: BinaryIO) -> None:
    """Give the file a time that no write in this store has had. The last one stands in the lock file."""
    try:
        last = int(lock.read_bytes())
    except ValueError:  # the first one, or cut off by a crash of the machine
        last = 0
    now = max(time.time_ns() // _STEP_NS, last + 1)
    handle = os.open(lock, os.O_WRONLY)
    try:
        os.pwrite(handle, b"%020d" % now, 0)
    finally:
        os.close(handle)
    os.utime(file.fileno(), ns=(now * _STEP_NS, now * _STEP_NS))
    if os.fstat(file.fileno()).st_mtime_ns != now * _STEP_NS:
        raise StoreError(
            "the file system does not keep times finely enough",
            where=str(lock.parent.parent),
            found="times in steps of more than a microsecond",
            allowed="ext4, XFS, btrfs, ZFS, tmpfs or NFS on one of these",
            next_action="Put the store on another disk, or into a bucket.",
        )


def _copy(source: BinaryIO, copy: BinaryIO | None, progress: Progress | None) -> str:
    """Copy (or only read) a file; returns the SHA-256 of what was read, in hexadecimal digits."""
    summed = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        summed.update(chunk)
        if copy is not None:
            copy.write(chunk)
        if progress is not None:
            progress(len(chunk))
    return summed.hexdigest()


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the folders that have new entries, outermost first."""
    missing = [folder]
    while not missing[-1].is_dir():
        missing.append(missing[-1].parent)
    folder.mkdir(parents=True, exist_ok=True)
    return missing[:0:-1]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
