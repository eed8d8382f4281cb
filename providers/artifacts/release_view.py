"""What `release show` and `release verify` find out about one environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lorafleet.declaration import Fleet
from lorafleet.digest import ADAPTER_FILES, digest_of_sums
from lorafleet.load import load_stack
from lorafleet.release import pins

from .parallel import run_all
from .release_base import mirror_of
from .release_proposal import check_base_files, check_version, look_up
from .release_reasons import Reasons
from .release_state import AdapterFacts, Served, Server, served_now, servers
from .store import Store, open_store
from .versions import Kind, folder_of

State = Literal["right", "wrong", "unknown"]


@dataclass(frozen=True)
class Version:
    """A version of an adapter in a release. `weight` is None unless it is a canary."""

    name: str
    digest: str
    weight: int | None
    facts: AdapterFacts

    def to_dict(self) -> dict[str, Any]:
        metadata = self.facts.metadata
        return {
            "name": self.name,
            "digest": self.digest,
            "weight": self.weight,
            "inStore": metadata is not None,
            "source": metadata.source if metadata else None,
            "createdAt": metadata.created_at if metadata else None,
            "createdBy": metadata.created_by if metadata else None,
            "note": metadata.note if metadata else None,
            "rank": metadata.rank if metadata else None,
            "served": self.facts.served,
            "hold": self.facts.hold,
        }


@dataclass(frozen=True)
class View:
    """An environment's release and what it serves."""

    fleet: Fleet
    store: Store
    release: pins.Pins
    versions: tuple[Version, ...]
    served: Served | None
    servers: tuple[Server, ...]

    @property
    def is_served(self) -> bool:
        """Whether the manifest says what the file says. The image is not in a manifest."""
        mine = {key: value for key, value in self.release.items() if key != "image"}
        return self.served is not None and self.served.release == mine

    @property
    def next_command(self) -> str:
        return f"pulumi {'preview' if self.is_served else 'up'} --stack {self.fleet.environment}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "environment": self.fleet.environment,
            "store": self.store.url,
            "release": self.release,
            "releaseDigest": pins.digest(self.release),
            "versions": [version.to_dict() for version in self.versions],
            "manifest": self.served.release if self.served else None,
            "served": self.is_served,
            "servers": [
                {
                    "name": server.name,
                    "gone": server.status.gone if server.status else None,
                    "status": server.status.model_dump(by_alias=True, mode="json") if server.status else None,
                }
                for server in self.servers
            ],
            "next": self.next_command,
        }


def view(root: Path, environment: str) -> View:
    """Reads the environment's file and store.

    Raises:
        LorafleetError: the file is wrong, or the store does not answer.
    """
    fleet = load_stack(root, environment)
    store, release = open_store(fleet.store_url), pins.of(fleet.release)
    canaries = fleet.release.canaries
    main = look_up(store, environment, fleet.release.adapters)
    tried = look_up(store, environment, {name: canary.digest for name, canary in canaries.items()})
    versions: list[Version] = []
    for name, digest in fleet.release.adapters.items():
        versions.append(Version(name, digest, None, main[name]))
        if name in canaries:
            versions.append(Version(name, canaries[name].digest, canaries[name].weight, tried[name]))
    served = served_now(store, environment)
    return View(fleet, store, release, tuple(versions), served, tuple(servers(store, environment)))


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. `what` says what was found; `next_action` is empty where nothing is to be done."""

    subject: str
    state: State
    what: str
    next_action: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"subject": self.subject, "state": self.state, "what": self.what, "next": self.next_action}


@dataclass
class Checked:
    """What `verify` found; `right` if nothing is wrong."""

    view: View
    findings: list[Finding] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return all(finding.state != "wrong" for finding in self.findings)


def verify(root: Path, environment: str) -> Checked:
    """Checks an environment's release: content, holds, ranks, the base, the image, and what its servers serve.

    Raises:
        LorafleetError: the file is wrong, or the store does not answer.
    """
    found = view(root, environment)
    checked = Checked(found)
    for findings in run_all(lambda version: list(_version(found, version)), found.versions):
        checked.findings += findings
    checked.findings += [*_base(found), _image(found), _manifest(found), *_servers(found)]
    return checked


def _version(found: View, version: Version) -> Iterator[Finding]:
    fleet, name = found.fleet, version.name
    subject = f"{name} {version.digest[:19]}…{f' (canary, {version.weight} %)' if version.weight else ''}"
    key, reasons = "canaries" if version.weight else "adapters", Reasons(can_force=False)
    get_it = f"Push it: lorafleet adapter push FOLDER --name {name} --stack {fleet.environment}"
    check_version(fleet, ("release", key, name), name, version.digest, version.facts, reasons, get_it=get_it)
    wrong = [Finding(subject, "wrong", error.what, error.next_action) for error in reasons.found]
    if fleet.adapters[name].source is None and version.facts.metadata is not None:
        real = _real_digest(found.store, "adapter", name, version.digest, ADAPTER_FILES)
        if real != version.digest:
            what = "its files are not what the digest says" if real else "its files are not all there"
            wrong.append(Finding(subject, "wrong", what, f"Look at it: lorafleet adapter verify {name}"))
    source = fleet.adapters[name].source
    if source is not None and source.scheme != "file":
        yield Finding(subject, "unknown", f"comes from {source}, which is not looked into")
    yield from wrong or [Finding(subject, "right", "is there as pinned, not held back, and fits every target")]


def _real_digest(store: Store, kind: Kind, name: str, digest: str, files: Iterable[str]) -> str | None:
    """The content digest of what the store really has; None if a file is missing."""
    sums = {file: store.sha256(f"{folder_of(kind, name, digest)}/{file}") for file in files}
    whole = {file: total for file, total in sums.items() if total is not None}
    return digest_of_sums(whole) if len(whole) == len(sums) else None


def _base(found: View) -> Iterator[Finding]:
    fleet = found.fleet
    source, pin = fleet.base_model.source, fleet.release.base_model
    subject = f"base model {fleet.base_model.name}"
    if source.scheme == "file":
        reasons = Reasons(can_force=False)
        check_base_files(fleet, pin.digest, reasons)
        wrong = [Finding(subject, "wrong", f"{e.what}: {e.found}", e.next_action) for e in reasons.found]
        yield from wrong or [Finding(subject, "right", "its folder holds what is pinned")]
        return
    if not str(source).startswith(f"{found.store.url}/models/"):
        yield Finding(subject, "unknown", f"comes from {source}, pinned by {pin.revision or pin.digest}")
        return
    metadata = mirror_of(found.store, digest=pin.digest)
    if metadata is None:
        yield Finding(
            subject, "wrong", "there is no such mirror in the store", "Mirror it again: lorafleet model mirror …"
        )
        return
    real = _real_digest(found.store, "model", metadata.name, metadata.digest, metadata.files)
    if real == pin.digest:
        yield Finding(subject, "right", "the mirror holds what is pinned")
    else:
        yield Finding(subject, "wrong", "the mirror's files are not what the digest says", "lorafleet model verify")


def _image(found: View) -> Finding:
    image = found.fleet.release.image
    # A declaration with an image by tag is refused when it is read, so there is nothing left to check.
    return Finding("image", "right", f"pinned by digest: {image}" if image else "none is pinned, none is needed")


def _manifest(found: View) -> Finding:
    up = f"pulumi up --stack {found.fleet.environment}"
    if found.served is None:
        return Finding("manifest", "wrong", "there is none that can be read: nothing is served", up)
    changes = pins.changes(found.served.release, {k: v for k, v in found.release.items() if k != "image"})
    if changes:
        what = "; ".join(
            f"{change.what} is {pins.short(change.old or 'nothing')} and not {pins.short(change.new or 'nothing')}"
            for change in changes
        )
        return Finding("manifest", "wrong", f"it says something else than the file: {what}", up)
    return Finding("manifest", "right", "it says what the file says")


def _servers(found: View) -> Iterator[Finding]:
    from .followers import Followers  # comes with Pulumi's SDK, which takes a while to load

    if found.served is None:
        return
    environment = found.fleet.environment
    verdicts = {each.server: each for each in Followers(found.store, environment, found.served.document).look()}
    for server in found.servers:
        subject, verdict, status = f"server {server.name}", verdicts.get(server.name), server.status
        if status is None:
            yield Finding(subject, "wrong", "its status can't be read", f"pulumi refresh --stack {environment}")
        elif status.gone:
            what = f"it has said nothing for {status.age_s:.0f} s, last: {status.phase}"
            yield Finding(subject, "unknown", what, f"pulumi refresh --stack {environment}")
        elif verdict is None or status.phase != "ready":
            what = " ".join(text for text in (status.phase, status.error.what if status.error else "") if text)
            yield Finding(subject, "wrong" if status.phase == "failed" else "unknown", what)
        elif verdict.state == "follows":
            yield Finding(subject, "right", "ready, and serves what the manifest says")
        else:
            yield Finding(
                subject,
                "wrong" if verdict.failed else "unknown",
                verdict.why,
                f"pulumi up --stack {environment}, or lorafleet release rollback {environment}",
            )
    if not found.servers:
        yield Finding("servers", "unknown", "none has said anything; a target without one starts from the manifest")
