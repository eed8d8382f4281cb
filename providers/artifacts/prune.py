"""`prune`: removes adapters that nothing refers to. First says what it would do, then does exactly that."""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import dataclass
from pathlib import Path

from .references import referenced
from .store import ConflictError, Store
from .versions import Version, list_versions

# A push that was ended in the middle may be repeated; one that takes longer than this is not at work any more.
HALF_DONE = datetime.timedelta(days=1)
_LOOK_AGAIN_S = 5.0


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

    Metadata goes first: from then on the version does not exist. Everything goes only in the generation that the plan
    saw, so a push of the same content at this moment is safe (`providers.artifacts.put`).
    """
    removed: list[str] = []
    spared: dict[str, str] = {}
    freed = 0
    named, looked_at = referenced(store, root), time.monotonic()
    for version in plan.remove:
        if time.monotonic() - looked_at > _LOOK_AGAIN_S:
            named, looked_at = referenced(store, root), time.monotonic()
        where = named.get(version.digest)
        if where is not None:
            spared[str(version)] = f"{where} refers to it now"
            continue
        entry = version.metadata_entry
        try:
            if entry is not None:
                store.delete(entry.path, expected=entry.generation)
            elif store.read(f"{version.folder}/lorafleet.json") is not None:
                raise ConflictError("")
        except ConflictError:
            spared[str(version)] = "it was pushed again at this moment"
            continue
        for file in version.files.values():
            # A push of the same content has taken this one: it stays.
            with contextlib.suppress(ConflictError):
                if store.delete(file.path, expected=file.generation):
                    freed += file.size
        removed.append(str(version))
    return Pruned(tuple(removed), freed, spared)
