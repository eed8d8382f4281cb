"""`verify`: reads everything back and compares it with its digests."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from lorafleet.digest import ADAPTER_FILES, digest_of_sums
from lorafleet.disk import size_text
from lorafleet.errors import LorafleetError

from .parallel import run_all
from .push import Phase, no_progress
from .store import Store
from .versions import Kind, Metadata, Version, list_versions, look_at, read_metadata


@dataclass(frozen=True)
class Fault:
    """What is wrong, in one line, and where: a path in the store."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Fields:
        versions: complete ones that were read, right or wrong.
        bytes: how much was read.
        faults: what is wrong; empty when all is well.
        half_done: pushes that were ended in the middle, or are at work now; nobody sees them, a repeat finishes them.
    """

    versions: tuple[str, ...]
    bytes: int
    faults: tuple[Fault, ...]
    half_done: tuple[Version, ...]


def verify(store: Store, kind: Kind, names: Iterable[str] = (), *, phase: Phase = no_progress) -> Verified:
    """Read every file of every version of these names (of all, without names), several at once.

    Raises:
        StoreError: the store's own errors.
    """
    listing = list_versions(store, kind, names)
    complete = [version for version in listing.versions if version.metadata_entry]
    progress = phase("reading", sum(version.size_bytes for version in complete))
    read = 0
    lock = threading.Lock()

    def tell(count: int) -> None:
        nonlocal read
        with lock:
            read += count
        progress(count)

    def sum_of(path: str) -> str | None:
        return store.sha256(path, progress=tell)

    faults = [Fault(path, "this is no part of any version") for path in listing.strangers]
    paths = [f"{version.folder}/{name}" for version in complete for name in version.files]
    sums = dict(zip(paths, run_all(sum_of, paths), strict=True))
    for version, found in zip(complete, run_all(lambda one: _faults(store, one, sums), complete), strict=True):
        # A prune may have been at work: what is gone by now is not damaged.
        if found and look_at(store, kind, version.name, version.digest).metadata_entry is not None:
            faults += found
    half_done = tuple(version for version in listing.versions if version.metadata_entry is None)
    return Verified(tuple(str(version) for version in complete), read, tuple(faults), half_done)


def _faults(store: Store, version: Version, sums: dict[str, str | None]) -> list[Fault]:
    path = f"{version.folder}/lorafleet.json"
    try:
        metadata = read_metadata(store, version.kind, version.name, version.digest)
    except LorafleetError as error:
        return [Fault(path, f"{error.what}: {error.found}")]
    if metadata is None:
        return []
    faults = [Fault(path, what) for what in _wrong_metadata(version, metadata)]
    for name, facts in metadata.files.items():
        where, entry = f"{version.folder}/{name}", version.files.get(name)
        if entry is None:
            faults.append(Fault(where, "missing"))
        elif entry.size != facts.bytes:
            faults.append(Fault(where, f"{entry.size} bytes instead of {facts.bytes} ({size_text(facts.bytes)})"))
        elif sums[where] != facts.sha256:
            faults.append(Fault(where, f"SHA-256 {sums[where] or 'unknown'} instead of {facts.sha256}"))
        elif entry.sha256 not in (None, facts.sha256):
            faults.append(Fault(where, f"its custom metadata says SHA-256 {entry.sha256} instead of {facts.sha256}"))
    for name in sorted(set(version.files) - set(metadata.files)):
        faults.append(Fault(f"{version.folder}/{name}", "does not belong to this version"))
    return faults


def _wrong_metadata(version: Version, metadata: Metadata) -> list[str]:
    wrong = []
    for what, found, right in (
        ("kind", metadata.kind, version.kind),
        ("name", metadata.name, version.name),
        ("digest", metadata.digest, version.digest),
        ("sums", digest_of_sums({name: file.sha256 for name, file in metadata.files.items()}), version.digest),
    ):
        if found != right:
            wrong.append(f"its {what} say {found} instead of {right}" if what == "sums" else f"{what}: {found}")
    if version.kind == "adapter" and set(metadata.files) != set(ADAPTER_FILES):
        wrong.append("it does not list exactly the two files of an adapter")
    return wrong
