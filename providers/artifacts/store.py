"""A store of objects: a bucket of Google Cloud Storage or a folder of this machine, with the same layout and rules.

Paths are relative to the store's root, with `/` between parts (docs/architecture.md, "Store").
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lorafleet.errors import LorafleetError, shown

NOT_THERE = ""
"""The generation of an object that does not exist: `write(..., expected=NOT_THERE)` creates and never replaces."""

Progress = Callable[[int], None]
"""Called with the number of bytes that were just moved."""


class StoreError(LorafleetError):
    """The store could not do it; says what, where and what to do. Would trying again help? See the subclasses."""


class ConflictError(StoreError):
    """The object is not in the generation that was expected: somebody else was faster."""


class UnreachableError(StoreError):
    """The store does not answer (network, server errors, time-outs); trying again may help."""


class DeniedError(StoreError):
    """No credentials, or they may not do this."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `generation` changes with each write; `sha256` (hex) is None where the store does not know it."""

    path: str
    size: int
    generation: str
    updated: datetime.datetime
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """The content of a small object and the generation that it was read in."""

    data: bytes
    generation: str


class Store(Protocol):
    """What both kinds of store can do. Every method may raise StoreError or one of its subclasses."""

    @property
    def url(self) -> str:
        """`gs://bucket[/prefix]` or `file:///abs/folder`, without a slash at the end."""

    def read(self, path: str) -> Blob | None:
        """A small object; None if it does not exist (also when the whole folder does not)."""

    def write(self, path: str, data: bytes, *, expected: str | None = None) -> str:
        """Writes a small object in one step and returns its generation.

        expected: NOT_THERE: it must not exist; a generation: it must be in it; None: whatever is there is replaced.
        Raises ConflictError if that is not so.
        """

    def upload(self, path: str, file: Path, *, sha256: str, progress: Progress | None = None) -> bool:
        """Writes a large object that must not exist, in one step, resumed after short failures.

        Returns False if it was there already with the content `sha256` (hex). Raises ConflictError if it is there
        with another content, StoreError if the file does not have this sum (it changed meanwhile).
        """

    def download(self, path: str, file: Path, *, progress: Progress | None = None) -> str | None:
        """Writes the object to a new local file, which must not exist; returns its SHA-256 (hex).

        None if the object does not exist.
        """

    def sha256(self, path: str, *, progress: Progress | None = None) -> str | None:
        """Reads the whole object; the SHA-256 (hex) of its real content, None if it does not exist."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Everything below `prefix` (a folder, ends with `/`, or empty), sorted by path. Nothing if it is not there."""

    def renew(self, path: str, *, expected: str) -> str:
        """Gives an object another generation and leaves its content; returns the generation.

        Whoever saw the object before can't delete or replace it by what he saw. Raises ConflictError if it is not in
        the generation `expected`, or gone.
        """

    def delete(self, path: str, *, expected: str | None = None) -> bool:
        """Removes an object; False if it is not there. Raises ConflictError if it is not in this generation."""


def check_path(path: str) -> None:
    """Raise StoreError unless this can be an object's path, the same in a folder and a bucket."""
    parts = path.split("/")
    if len(path) > 900 or not all(re.fullmatch(r"[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]{0,200}", part) for part in parts):
        raise StoreError(
            "this can't be the path of an object in a store",
            found=shown(path),
            allowed="parts of letters, digits and _ . @ + -, none of which begins with a dot, with / between them",
            next_action="Mend the name.",
        )


def changed_object(url: str, path: str) -> ConflictError:
    return ConflictError(
        "the object was made, replaced or removed by somebody else at the same moment",
        where=f"{url}/{path}",
        found="another generation than the one that was read before",
        allowed="nobody else at work on it",
        next_action="Look at what is there now, and run the command again.",
    )


def other_content(url: str, path: str) -> ConflictError:
    return ConflictError(
        "the store has another content at this place",
        where=f"{url}/{path}",
        found="a file that does not have the sum its place says",
        allowed="what was pushed there, unchanged",
        next_action="`lorafleet adapter verify` says more. Remove the damaged file, then push again.",
    )


def changed_file(file: Path) -> StoreError:
    return StoreError(
        "the file changed while it was being stored",
        where=str(file),
        found="another content than a moment ago",
        allowed="a file that nothing writes to",
        next_action="Wait until it is written (is a training still running?), then push again.",
    )


def open_store(url: str, *, retry_s: float = 60.0) -> Store:
    """The store at a URL. Does not ask it anything yet.

    Raises:
        StoreError: this is no URL of a store.
    """
    scheme, separator, rest = url.rstrip("/").partition("://")
    if scheme == "gs" and re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^/\s]+)*", rest):
        from .gcs_store import GcsStore  # its client takes half a second to import

        bucket, _, prefix = rest.partition("/")
        return GcsStore(bucket, prefix, retry_s=retry_s)
    if scheme == "file" and Path(rest).is_absolute():
        from .folder_store import FolderStore

        return FolderStore(Path(rest))
    raise StoreError(
        "this is not the URL of a store",
        found=f"{scheme}{separator}..." if separator else "no scheme",
        allowed="gs://bucket, gs://bucket/prefix or file:///absolute/folder",
        next_action="Mend the key `store` of the declaration, or the option --store.",
    )
