"""Versions of adapters and models in a store: their metadata, what is there of them, and how people name them.

A version is a folder `adapters/<name>/sha256-<64 hex>/` (or `models/...`). Without `lorafleet.json`, which is written
last, it is half-done and does not exist for anybody but `verify` and `prune`.
"""

from __future__ import annotations

import datetime
import getpass
import json
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lorafleet.errors import LorafleetError, listed, nearest, shown
from lorafleet.values import AdapterName, Digest, Model, ModelName, Whole

from . import layout
from .parallel import run_all
from .store import Entry, Store

Kind = Literal["adapter", "model"]
_FOLDERS: dict[Kind, str] = {"adapter": "adapters/", "model": "models/"}
_NAMES: dict[Kind, TypeAdapter[str]] = {"adapter": TypeAdapter(AdapterName), "model": TypeAdapter(ModelName)}
_VERSION_FOLDER = re.compile(r"sha256-[0-9a-f]{64}")
_REFERENCE = re.compile(r"(?P<name>[^@]+)(?:@sha256[:-](?P<digits>[0-9a-f]{0,64}))?")


class _Document(Model):
    # Keys that a later version of this program adds must not make old ones blind.
    model_config = ConfigDict(extra="ignore")


class FileFacts(_Document):
    """One file's size in bytes and its SHA-256 in hexadecimal digits."""

    bytes: Annotated[int, Whole(0, 1 << 50)]
    sha256: str


class BaseName(_Document):
    """The base that an adapter was trained on, as its adapter_config.json names it."""

    name: str
    revision: str | None = None


class Metadata(_Document):
    """`lorafleet.json` of a version (docs/architecture.md, "Store"). What only adapters or only models have is None."""

    version: Literal[1] = 1
    kind: Kind
    name: str
    digest: Digest
    files: dict[str, FileFacts]
    base_model: BaseName | None = None
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] | None = None
    dtype: str | None = None
    revision: str | None = None
    licence: str | None = None
    purpose: str | None = None
    source: str
    note: str | None = None
    created_at: str
    created_by: str

    @property
    def size_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def document(self) -> dict[str, Any]:
        """The document as it is stored: without what belongs to the other kind."""
        other = (
            {"revision", "licence", "purpose"}
            if self.kind == "adapter"
            else {"base_model", "rank", "alpha", "target_modules"}
        )
        found = self.model_dump(by_alias=True, exclude=other)
        if isinstance(found.get("alpha"), float) and found["alpha"].is_integer():
            found["alpha"] = int(found["alpha"])
        return found

    def to_bytes(self) -> bytes:
        return (json.dumps(self.document(), ensure_ascii=False, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Version:
    """What a store has of one version: its files by name; `metadata_entry` is None while it is half-done."""

    kind: Kind
    name: str
    digest: str
    files: dict[str, Entry]
    metadata_entry: Entry | None

    @property
    def folder(self) -> str:
        return folder_of(self.kind, self.name, self.digest)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.files.values())

    @property
    def updated(self) -> datetime.datetime:
        """The last change of anything in it."""
        entries = [*self.files.values(), *([self.metadata_entry] if self.metadata_entry else [])]
        return max(entry.updated for entry in entries)

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


@dataclass(frozen=True)
class Listing:
    """All versions of a kind, and the paths that belong to none."""

    versions: list[Version] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def folder_of(kind: Kind, name: str, digest: str) -> str:
    return layout.adapter(name, digest) if kind == "adapter" else layout.model(name, digest)


def metadata_path(kind: Kind, name: str, digest: str) -> str:
    return f"{folder_of(kind, name, digest)}/{layout.METADATA}"


def list_versions(store: Store, kind: Kind, names: Iterable[str] = ()) -> Listing:
    """What is there, of these names or of all, sorted by name and then by the last change."""
    prefixes = [f"{_FOLDERS[kind]}{checked_name(kind, name)}/" for name in names] or [_FOLDERS[kind]]
    found: dict[tuple[str, str], dict[str, Entry]] = {}
    strangers: list[str] = []
    for prefix in prefixes:
        for entry in store.list(prefix):
            parts = entry.path.split("/")
            if len(parts) == 4 and _VERSION_FOLDER.fullmatch(parts[2]):
                found.setdefault((parts[1], parts[2].replace("-", ":")), {})[parts[3]] = entry
            else:
                strangers.append(entry.path)
    versions = [
        Version(kind, name, digest, files, files.pop(layout.METADATA, None)) for (name, digest), files in found.items()
    ]
    return Listing(sorted(versions, key=lambda version: (version.name, version.updated)), strangers)


def look_at(store: Store, kind: Kind, name: str, digest: str) -> Version:
    """What the store has of one version now; no files at all if it is not there."""
    folder = folder_of(kind, name, digest)
    files = {entry.path.removeprefix(f"{folder}/"): entry for entry in store.list(f"{folder}/")}
    return Version(kind, name, digest, files, files.pop(layout.METADATA, None))


def read_metadata(store: Store, kind: Kind, name: str, digest: str) -> Metadata | None:
    """The metadata of a version; None if there is none.

    Raises:
        LorafleetError: it can't be read as such. StoreError: the store's own errors.
    """
    path = metadata_path(kind, name, digest)
    blob = store.read(path)
    return None if blob is None else parse_metadata(blob.data, f"{store.url}/{path}")


def parse_metadata(data: bytes, where: str) -> Metadata:
    try:
        return Metadata.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise LorafleetError(
            "the metadata of this version can't be read",
            where=where,
            found=f"{place or 'the document'}: {first['msg'][:100]}",
            allowed="what `push` or `mirror` wrote there, version 1",
            next_action="Was it written by a newer program, or changed by hand? Remove the folder and push again.",
        ) from None


def checked_name(kind: Kind, name: str) -> str:
    """The name, if it may be one. Raises `LorafleetError`."""
    try:
        return _NAMES[kind].validate_python(name)
    except ValidationError as error:
        context = error.errors(include_url=False)[0].get("ctx", {})
        raise LorafleetError(
            f"this can't be the name of {'an adapter' if kind == 'adapter' else 'a model'}",
            found=shown(name),
            allowed=str(context.get("allowed", "")),
            next_action=str(context.get("next_action", "Choose another name.")),
        ) from None


def find(store: Store, kind: Kind, reference: str) -> tuple[Version, Metadata]:
    """The one complete version that `NAME`, `NAME@sha256:<any first digits>` or `NAME@sha256-...` means.

    Raises:
        LorafleetError: none or several do.
    """
    match = _REFERENCE.fullmatch(reference)
    form = "NAME, or NAME@sha256: and the first digits of its digest"
    if match is None:
        raise LorafleetError(
            "this does not name a version",
            found=shown(reference),
            allowed=form,
            next_action=f"`lorafleet {kind} list` shows names and digests.",
        )
    name, digits = checked_name(kind, match["name"]), match["digits"] or ""
    versions = [version for version in list_versions(store, kind, [name]).versions if version.metadata_entry]
    fitting = [version for version in versions if version.digest.startswith(f"sha256:{digits}")]
    if len(fitting) == 1:
        metadata = read_metadata(store, kind, name, fitting[0].digest)
        if metadata is not None:
            return fitting[0], metadata
        fitting = []
    if fitting:
        raise LorafleetError(
            "several versions fit",
            where=store.url,
            found=shown(reference),
            allowed=listed([f"{name}@{version.digest[:19]}" for version in fitting[-5:]]),
            next_action="Add digits until only one is meant.",
        )
    known = sorted({version.name for version in list_versions(store, kind).versions if version.metadata_entry})
    near = nearest(name, known) if not versions else None
    raise LorafleetError(
        f"the store has no such version of {name}" if versions else f"the store has no {kind} of this name",
        where=store.url,
        found=shown(reference),
        allowed=listed([f"{name}@{version.digest[:19]}" for version in versions[-5:]])
        if versions
        else (listed(known[:20]) if known else "a name that something was pushed under; the store is empty"),
        next_action=f"Did you mean {near}?" if near else f"`lorafleet {kind} list` shows what is there.",
    )


def list_metadata(store: Store, kind: Kind, names: Iterable[str]) -> list[Metadata]:
    """The metadata of every whole version of these names, or of all without names. Raises as `read_metadata`."""
    whole = [version for version in list_versions(store, kind, names).versions if version.metadata_entry]
    found = run_all(lambda version: read_metadata(store, kind, version.name, version.digest), whole)
    return [metadata for metadata in found if metadata is not None]  # None: pruned meanwhile


def who() -> str:
    """`user@host`, for metadata."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name, as in some containers
        return f"unknown@{socket.gethostname()}"


def now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
