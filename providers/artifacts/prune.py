"""`prune`: removes adapters that nothing refers to. First says what it would do, then does exactly that."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .references import referenced
from .store import NOT_THERE, ConflictError, Store, StoreError
from .versions import Version, list_versions, look_at, metadata_path

# A push that was ended in the middle may be repeated; one that takes longer than this is not at work any more.
HALF_DONE = datetime.timedelta(days=1)
# Versions that lack their metadata for a moment, while all that may name them is read.
_AT_ONCE = 20
_PUSHED = "it was pushed again at this moment"
_GONE = ", but another prune has removed files of it: push it again"


@dataclass(frozen=True)
class Plan:
    """What a prune would do.

    Fields:
        remove: complete versions that nothing refers to, and half-done ones that are old.
        keep: {digest: where it is named}, of the versions that would be old enough to go.
        young: complete versions that nothing refers to, but that are too young.
    """

    remove: tuple[Version, ...]
    keep: dict[str, str]
    young: tuple[Version, ...]

    @property
    def size_bytes(self) -> int:
        return sum(version.size_bytes for version in self.remove)


@dataclass(frozen=True)
class Pruned:
    """What a prune did: removed versions, the bytes that are free now, and {version: why it was spared at last}."""

    removed: tuple[str, ...]
    freed_bytes: int
    spared: dict[str, str]


def plan_prune(
    store: Store, root: Path, *, older_than: datetime.timedelta, now: datetime.datetime | None = None
) -> Plan:
    """Look at what could go. Nothing is changed.

    Args:
        store: the store.
        root: the project's root; its stack files say what is in use.
        older_than: versions that were pushed (also again) later than this ago stay.
        now: for tests.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    versions = list_versions(store, "adapter").versions
    # Asked after the listing, so that what is released in between counts.
    named = referenced(store, root)
    remove: list[Version] = []
    young: list[Version] = []
    for version in versions:
        if version.digest in named:
            continue
        if version.updated > now - (older_than if version.metadata_entry else max(older_than, HALF_DONE)):
            if version.metadata_entry:
                young.append(version)
            continue
        remove.append(version)
    kept = {version.digest: named[version.digest] for version in versions if version.digest in named}
    return Plan(tuple(remove), kept, tuple(young))


def prune(store: Store, root: Path, plan: Plan) -> Pruned:
    """Do what a plan says, except for what was pushed again or came into use meanwhile.

    Metadata goes first: from then on the version does not exist. Then everything that may name it is read once more,
    and only what is still not named loses its files; the rest gets its metadata back. Whoever names a version looks
    afterwards whether its metadata is there. So either this sees the name, or he sees that the version is gone.

    Everything goes only in the generation that the plan saw, so a push of the same content at this moment is safe
    (`providers.artifacts.put`).
    """
    removed: list[str] = []
    spared: dict[str, str] = {}
    freed = 0
    for first in range(0, len(plan.remove), _AT_ONCE):
        batch = plan.remove[first : first + _AT_ONCE]
        hidden, kept = _hide(store, root, batch)
        spared |= kept
        for version in hidden:
            for file in version.files.values():
                # A push of the same content has taken this one: it stays.
                with contextlib.suppress(ConflictError):
                    if store.delete(file.path, expected=file.generation):
                        freed += file.size
            removed.append(str(version))
    return Pruned(tuple(removed), freed, spared)


def _hide(store: Store, root: Path, batch: Iterable[Version]) -> tuple[list[Version], dict[str, str]]:
    """Removes the metadata of versions; returns those that may lose their files, and {version: why it is spared}."""
    named = referenced(store, root)
    spared = {str(version): _in_use(named[version.digest]) for version in batch if version.digest in named}
    hidden: list[tuple[Version, bytes | None]] = []
    try:
        for version in batch:
            if str(version) in spared:
                continue
            entry, blob = version.metadata_entry, store.read(metadata_path(version.kind, version.name, version.digest))
            if (blob.generation if blob else None) != (entry.generation if entry else None):
                spared[str(version)] = _PUSHED
                continue
            # Before it is removed: if this is interrupted in the middle of the removal, it is written back.
            hidden.append((version, blob.data if blob else None))
            if blob is not None and entry is not None:
                try:
                    store.delete(entry.path, expected=entry.generation)
                except ConflictError:
                    hidden.pop()
                    spared[str(version)] = _PUSHED
        named = referenced(store, root)
    except BaseException:
        # A store that does not answer now has nothing to be told; what went wrong first is what people have to know.
        with contextlib.suppress(StoreError):
            for version, metadata in hidden:
                _show(store, version, metadata)
        raise
    for version, metadata in hidden:
        if version.digest in named:
            whole = _show(store, version, metadata)
            spared[str(version)] = _in_use(named[version.digest]) + ("" if whole else _GONE)
    return [version for version, _ in hidden if str(version) not in spared], spared


def _show(store: Store, version: Version, metadata: bytes | None) -> bool:
    """Writes the metadata of a version back; False if files of it are gone. `metadata`: None if it was half-done."""
    if metadata is None:
        return True
    # Another prune may have planned to remove them as files of a half-done version: now it can't any more.
    for file in version.files.values():
        with contextlib.suppress(ConflictError):  # gone, or a push has just done the same
            store.renew(file.path, expected=file.generation)
    if not version.files.keys() <= look_at(store, version.kind, version.name, version.digest).files.keys():
        return False
    with contextlib.suppress(ConflictError):  # a push has made it anew, or it was never removed
        store.write(metadata_path(version.kind, version.name, version.digest), metadata, expected=NOT_THERE)
    return True


def _in_use(where: str) -> str:
    return f"{where} refers to it now"
