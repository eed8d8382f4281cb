"""What the store remembers of an environment's releases: its history, and the exact text of former release blocks.

`releases/<environment>/<time>-<12 hex>.json` is written by the Manifest resource. `blocks/<environment>/<64 hex: the
release's digest>/<time>-<12 hex>.yaml` is written here before a release block is replaced, so that going back gives the
same bytes, comments included.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from lorafleet.errors import LorafleetError, listed, shown
from lorafleet.release import pins
from lorafleet.values import AdapterName, Digest

from . import layout
from .parallel import run_all
from .store import NOT_THERE, Store

_SHOWN = 5
# They become parts of paths.
_VERSIONS = TypeAdapter(dict[AdapterName, Digest])


@dataclass(frozen=True, slots=True)
class Record:
    """One release that the environment was told to serve. `id` sorts by time, `digest` is the release's (hex)."""

    id: str
    at: str
    by: str | None
    release: pins.Pins
    digest: str
    manifest_digest: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": self.at,
            "by": self.by,
            "releaseDigest": self.digest,
            "manifestDigest": self.manifest_digest,
            "release": self.release,
        }


@dataclass(frozen=True, slots=True)
class History:
    """The records, newest first, and the ids of those that can't be read."""

    records: tuple[Record, ...]
    unreadable: tuple[str, ...]

    def others(self, digest: str) -> tuple[Record, ...]:
        """The newest record of each other release than the one with this digest, newest first."""
        newest: dict[str, Record] = {}
        for record in self.records:
            newest.setdefault(record.digest, record)
        return tuple(record for record in newest.values() if record.digest != digest)

    def find(self, wanted: str, where: str) -> Record:
        """The record that an id or a release's digest means, or their first characters.

        Raises:
            LorafleetError: none or several do.
        """
        exact = [record for record in self.records if record.id == wanted]
        found = exact or [each for each in self.records if each.id.startswith(wanted) or each.digest.startswith(wanted)]
        if found and wanted and len({record.digest for record in found}) == 1:
            return found[0]
        known = [record.id for record in (found or self.records)[:_SHOWN]]
        raise LorafleetError(
            "several records fit" if found else "there is no such record in the history",
            where=where,
            found=shown(wanted),
            allowed=listed(known) if known else "a record; there is none yet",
            next_action="Give all of the record's name, as `lorafleet release history` prints it.",
        )


def history(store: Store, environment: str) -> History:
    """All records of an environment. Raises StoreError."""
    folder = layout.releases(environment)
    paths = [entry.path for entry in store.list(folder) if "/" not in entry.path.removeprefix(folder)]
    blobs = run_all(store.read, paths)
    records, unreadable = [], []
    for path, blob in sorted(zip(paths, blobs, strict=True), reverse=True, key=lambda pair: pair[0]):
        name = path.removeprefix(folder).removesuffix(".json")
        record = parse(name, blob.data) if blob else None
        if record is None:
            unreadable.append(name)
        else:
            records.append(record)
    return History(tuple(records), tuple(unreadable))


def was_served(store: Store, environment: str, record: Record) -> bool:
    """Whether servers have marked every version of the release as served, canaries too, each after its probes.

    Raises StoreError.
    """
    versions = list(record.release["adapters"].items())
    versions += [(name, canary["digest"]) for name, canary in record.release.get("canaries", {}).items()]
    marks = [layout.served(environment, name, digest) for name, digest in versions]
    return all(blob is not None for blob in run_all(store.read, marks))


def save_block(store: Store, environment: str, release: Mapping[str, Any], text: str) -> None:
    """Remembers how a release stood in the stack file. Raises StoreError."""
    digest = pins.digest(release)
    if saved_block(store, environment, digest) == text:
        return
    data = text.encode()
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%Y%m%dT%H%M%S.%fZ}-{hashlib.sha256(data).hexdigest()[:12]}.yaml"
    store.write(layout.blocks(environment, digest) + name, data, expected=NOT_THERE)


def saved_block(store: Store, environment: str, digest: str) -> str | None:
    """The last text of a release's block that was remembered. Raises StoreError."""
    paths = [entry.path for entry in store.list(layout.blocks(environment, digest))]
    blob = store.read(paths[-1]) if paths else None
    try:
        return blob.data.decode() if blob else None
    except UnicodeDecodeError:
        return None


def parse(name: str, data: bytes) -> Record | None:
    """The record of this name (the object's, without its folder and `.json`); None if it can't be read."""
    try:
        document = json.loads(data)
        release = pins.normalised(document["release"])
        if not isinstance(release["baseModel"], dict):
            return None
        _VERSIONS.validate_python(release["adapters"])
        _VERSIONS.validate_python({key: canary["digest"] for key, canary in release.get("canaries", {}).items()})
        by, manifest = document.get("by"), document.get("manifestDigest")
        # Worked out anew: how the release was digested then must not decide what differs now.
        return Record(name, str(document["at"]), by and str(by), release, pins.digest(release), manifest)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
