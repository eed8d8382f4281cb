"""Puts a version into a store: the files first, `lorafleet.json` last.

What makes this right without any lock:
- Each file is created once, under the digest of the content. A repeat finds what is there and skips it.
- Without its metadata a version does not exist, so a push that ends in the middle has changed nothing.
- A prune may run at the same time. It removes each object only in the generation that it saw, the metadata first.
  A push renews (`Store.renew`) what it finds and relies on: the metadata of a version that is there, each file of one
  that is half-done. So what a prune saw before, it can't remove any more; what it removed before, the push puts back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from . import layout
from .parallel import run_all
from .staging import Staged
from .store import NOT_THERE, ConflictError, Progress, Store, StoreError, changed_object
from .versions import Metadata, folder_of, look_at, metadata_path, parse_metadata

_TRIES = 10


def put_version(
    store: Store, metadata: Metadata, files: Mapping[str, Staged], progress: Progress | None = None
) -> tuple[Metadata, bool]:
    """Make a version complete.

    Args:
        store: where.
        metadata: what is written when all files are there.
        files: the local copies by name.
        progress: told the bytes that are done, those that were there already too.

    Returns:
        The metadata that the store has now, and whether this call made the version.

    Raises:
        StoreError: the store's own errors; a file there has another content than its digest says; a local file changed.
    """
    told = _Once(progress, sum(file.bytes for file in files.values()))
    made = False
    for _ in range(_TRIES):
        there = _claim(store, metadata)
        if there is None:
            _upload(store, metadata, files, told)
            try:
                store.write(_path(metadata), metadata.to_bytes(), expected=NOT_THERE)
                made = True
            except ConflictError:  # another push of the same content, or this very write, repeated
                continue
            there = metadata
        # From here on no prune that began earlier can remove anything of it. What one removed before comes back.
        _put_back(store, metadata, files, told)
        if store.read(_path(metadata)) is not None:
            told.rest()
            return there, made
    raise changed_object(store.url, _path(metadata))


def _path(metadata: Metadata) -> str:
    return metadata_path(metadata.kind, metadata.name, metadata.digest)


def _claim(store: Store, metadata: Metadata) -> Metadata | None:
    """The metadata that is there, given a new generation; None if there is none."""
    path = _path(metadata)
    for _ in range(_TRIES):
        blob = store.read(path)
        if blob is None:
            return None
        there = parse_metadata(blob.data, f"{store.url}/{path}")
        if there.digest != metadata.digest or {name: file.sha256 for name, file in there.files.items()} != {
            name: file.sha256 for name, file in metadata.files.items()
        }:
            raise StoreError(
                "the metadata of this version belongs to another content",
                where=f"{store.url}/{path}",
                found=there.digest,
                allowed=metadata.digest,
                next_action="Somebody changed it by hand: remove it, then push again.",
            )
        try:
            store.renew(path, expected=blob.generation)
        except ConflictError:  # another push has just done the same, or a prune was faster
            continue
        return there
    raise changed_object(store.url, path)


def _upload(store: Store, metadata: Metadata, files: Mapping[str, Staged], told: _Once) -> None:
    folder = folder_of(metadata.kind, metadata.name, metadata.digest)

    def put(name: str) -> None:
        path = f"{folder}/{name}"
        for _ in range(_TRIES):
            if store.upload(path, files[name].path, sha256=files[name].sha256, progress=told.of(name)):
                return
            there = next((entry for entry in store.list(f"{folder}/") if entry.path == path), None)
            try:
                if there is not None:
                    store.renew(path, expected=there.generation)
                    return
            except ConflictError:  # another push has just done the same, or a prune was faster
                pass
        raise changed_object(store.url, path)

    run_all(put, files)


def _put_back(store: Store, metadata: Metadata, files: Mapping[str, Staged], told: _Once) -> None:
    there = look_at(store, metadata.kind, metadata.name, metadata.digest)
    for name, file in files.items():
        entry = there.files.get(name)
        if entry is None:
            store.upload(f"{there.folder}/{name}", file.path, sha256=file.sha256, progress=told.of(name))
        elif entry.size != file.bytes:
            raise StoreError(
                "a file of this version is damaged in the store",
                where=f"{store.url}/{entry.path}",
                found=f"{entry.size} bytes",
                allowed=f"{file.bytes} bytes",
                next_action="`lorafleet adapter verify` shows all faults. Remove the damaged file, then push again.",
            )
    strangers = sorted(set(there.files) - set(files) - {layout.METADATA})
    if strangers:
        raise StoreError(
            "there are files in this version that do not belong to it",
            where=f"{store.url}/{there.folder}",
            found=strangers[0],
            allowed=", ".join(sorted(files)),
            next_action="Look who put them there, and remove them.",
        )


class _Once:
    """Hands progress on, so that the sum is the size in the end, however often a file was begun."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._left, self._begun = progress, total, set[str]()
        self._lock = threading.Lock()

    def of(self, name: str) -> Progress | None:
        if name in self._begun:
            return None
        self._begun.add(name)
        return self._tell

    def _tell(self, count: int) -> None:
        with self._lock:
            count = min(count, self._left)
            self._left -= count
        if self._progress is not None and count:
            self._progress(count)

    def rest(self) -> None:
        self._tell(self._left)
