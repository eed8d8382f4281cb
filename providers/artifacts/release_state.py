"""What an environment serves now, as the store knows it: the manifest, the servers' status, holds and marks."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, ValidationError

from lorafleet.errors import LorafleetError
from lorafleet.release import pins
from lorafleet.values import Model

from . import layout
from .holds import held
from .store import Store, StoreError
from .versions import Metadata, read_metadata

_HEARTBEATS = 3
_LATENESS_S = 5.0


class _Document(Model):
    model_config = ConfigDict(extra="ignore")


class Error(_Document):
    what: str = ""


class ManifestState(_Document):
    digest: str | None = None
    state: str = "unknown"
    error: Error | None = None


class CanaryState(_Document):
    digest: str
    weight: int


class AdapterState(_Document):
    name: str
    digest: str | None = None
    wanted: str | None = None
    canary: CanaryState | None = None
    state: str
    error: Error | None = None


class ServerStatus(_Document):
    """The parts of a server's state file that a release is about (docs/architecture.md)."""

    phase: str
    detail: str | None = None
    error: Error | None = None
    updated_at: datetime.datetime
    heartbeat_s: float
    manifest_digest: str | None = None
    manifest: ManifestState | None = None
    adapters: tuple[AdapterState, ...] = ()

    @property
    def age_s(self) -> float:
        now = datetime.datetime.now(datetime.UTC)
        written = self.updated_at
        return (now - (written if written.tzinfo else written.replace(tzinfo=datetime.UTC))).total_seconds()

    @property
    def gone(self) -> bool:
        """Whether the server has stopped to say anything."""
        return self.age_s > _HEARTBEATS * self.heartbeat_s + _LATENESS_S


@dataclass(frozen=True, slots=True)
class Server:
    """A server by `target/replica`; `status` is None where its document can't be read."""

    name: str
    status: ServerStatus | None


@dataclass(frozen=True, slots=True)
class Served:
    """The manifest, as a release. `document` is what was read."""

    release: pins.Pins
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What the store of an environment knows of one version of an adapter.

    Fields:
        metadata: None if the version is not there.
        hold: why it is held back; None if it is not.
        served: whether a server of the environment has served it, probed.
    """

    metadata: Metadata | None
    hold: str | None
    served: bool


def adapter_facts(store: Store, environment: str, name: str, digest: str) -> AdapterFacts:
    """Raises StoreError; LorafleetError if the metadata can't be read."""
    return AdapterFacts(
        metadata=read_metadata(store, "adapter", name, digest),
        hold=_hold(store, name, digest),
        served=store.read(layout.served(environment, name, digest)) is not None,
    )


def served_now(store: Store, environment: str) -> Served | None:
    """What the manifest says; None without one, or with one that can't be read. Raises StoreError."""
    blob = store.read(layout.manifest(environment))
    try:
        document = json.loads(blob.data) if blob else None
        if document is None:
            return None
        base = {key: document["baseModel"].get(key) for key in ("revision", "digest")}
        adapters = {entry["name"]: entry["digest"] for entry in document["adapters"]}
        canaries = {
            entry["name"]: {key: entry["canary"][key] for key in ("digest", "weight")}
            for entry in document["adapters"]
            if entry.get("canary")
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    release = pins.normalised({"baseModel": base, "adapters": adapters, "canaries": canaries})
    return Served(release, document)


def servers(store: Store, environment: str) -> list[Server]:
    """Every server that has left a status, by name. Raises StoreError."""
    folder, found = layout.statuses(environment), []
    for entry in store.list(folder):
        if blob := store.read(entry.path):
            try:
                status = ServerStatus.model_validate_json(blob.data)
            except ValidationError:
                status = None
            found.append(Server(entry.path.removeprefix(folder).removesuffix(".json"), status))
    return found


def _hold(store: Store, name: str, digest: str) -> str | None:
    try:
        found = held(store, name, digest)
    except StoreError:
        raise
    except LorafleetError as error:  # it counts, whatever stands in it
        return error.what
    return f"{found.why} ({found.by}, {found.at})" if found else None
