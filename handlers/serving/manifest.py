"""The manifest: which adapters an environment serves now. Read defensively: others write it while this server runs."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from handlers.serving import digest as digests
from handlers.serving.errors import ServingError
from handlers.serving.sections import Section, short

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
SOURCE = re.compile(r"(file://(/.+)|gs://[a-z0-9][a-z0-9._-]+(/.+)?|hf://[\w.-]+/[\w.-]+)")
REVISION = re.compile(r"[0-9a-f]{40}")
MAX_BYTES = 1024 * 1024
MAX_ADAPTERS = 1000
INVALID = "manifest_invalid"
WRITE_AGAIN = "write it again with `pulumi up`"


@dataclass(frozen=True)
class Weights:
    """Where weights come from. `digest` is None only where `revision` pins the content of an hf:// source."""

    name: str
    source: str
    revision: str | None
    digest: str | None


@dataclass(frozen=True)
class Version(Weights):
    """One version of an adapter: name and content. Its digest is always known."""

    digest: str

    @property
    def served_name(self) -> str:
        return digests.served_name(self.name, self.digest)


@dataclass(frozen=True)
class Canary:
    version: Version
    weight: int
    """percentage of the requests for the name, 1 to 99"""


@dataclass(frozen=True)
class AdapterSpec:
    main: Version
    canary: Canary | None = None

    @property
    def name(self) -> str:
        return self.main.name

    @property
    def versions(self) -> tuple[Version, ...]:
        return (self.main,) if self.canary is None else (self.main, self.canary.version)


@dataclass(frozen=True)
class Manifest:
    base: Weights
    adapters: tuple[AdapterSpec, ...]
    digest: str
    """hex SHA-256 of the manifest as canonical JSON (sorted keys, no spaces, UTF-8 as it is)"""

    @property
    def versions(self) -> tuple[Version, ...]:
        """Every version that must be loaded: of each adapter the main one, then its canary."""
        return tuple(version for adapter in self.adapters for version in adapter.versions)


def read(raw: bytes) -> Manifest:
    """The manifest in these bytes. Raises ServingError (manifest_invalid) that says what is wrong and where."""
    try:
        if len(raw) > MAX_BYTES:
            raise ServingError(f"the manifest is larger than {MAX_BYTES} bytes", WRITE_AGAIN)
        try:
            document = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
            return parse(document)
        except UnicodeDecodeError as error:
            raise ServingError(f"the manifest is not UTF-8 (byte {error.start})", WRITE_AGAIN) from None
        except (ValueError, RecursionError) as error:
            detail = "too deeply nested" if isinstance(error, RecursionError) else str(error)
            raise ServingError(f"the manifest is not JSON: {detail}", WRITE_AGAIN) from None
    except ServingError as error:
        raise error.because(INVALID) from None


def parse(value: object) -> Manifest:
    root = Section(value, "", ("version", "baseModel", "adapters"), "the manifest")
    root.version(1)
    base = weights(root.get("baseModel"), "baseModel")
    items = root.items("adapters")
    if len(items) > MAX_ADAPTERS:
        raise ServingError(f"adapters has {len(items)} entries", f"at most {MAX_ADAPTERS} are served by one fleet")
    adapters: list[AdapterSpec] = []
    names = {base.name}
    for position, item in enumerate(items):
        adapter = _adapter(item, f"adapters[{position}]")
        if adapter.name in names:
            raise ServingError(
                f"adapters[{position}].name {adapter.name} is there twice", "give each model a name of its own"
            )
        names.add(adapter.name)
        adapters.append(adapter)
    return Manifest(base, tuple(adapters), manifest_digest(value))


def weights(value: object, where: str) -> Weights:
    """A base model as it stands in a manifest or a launch file."""
    section = Section(value, where, ("name", "source", "revision", "digest"))
    return Weights(_name(section), *_content(section))


def manifest_digest(manifest: object) -> str:
    """hex SHA-256 of the manifest as canonical JSON: keys sorted, no spaces, text as UTF-8 and not escaped."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return hashlib.sha256(canonical.encode()).hexdigest()
    except UnicodeEncodeError:
        raise ServingError("the manifest holds half of a surrogate pair", WRITE_AGAIN) from None


def _adapter(value: object, where: str) -> AdapterSpec:
    section = Section(value, where, ("name", "source", "revision", "digest", "canary"))
    main = _version(section, _name(section))
    if section.values.get("canary") is None:
        return AdapterSpec(main)
    inner = Section(section.values["canary"], section.at("canary"), ("source", "revision", "digest", "weight"))
    canary = Canary(_version(inner, main.name), inner.whole("weight", 1, 99))
    if canary.version.digest == main.digest:
        raise ServingError(
            f"{inner.at('digest')} is {main.digest[:23]}…, the digest of {main.name} itself",
            "take the canary out, or give it another version",
        )
    return AdapterSpec(main, canary)


def _version(section: Section, name: str) -> Version:
    source, revision, digest = _content(section)
    if digest is None:
        raise ServingError(f"{section.at('digest')} is missing", "an adapter needs its content digest, sha256:...")
    return Version(name, source, revision, digest)


def _name(section: Section) -> str:
    return section.text("name", NAME, "up to 63 lower-case letters, digits, '.', '_', '-'")


def _content(section: Section) -> tuple[str, str | None, str | None]:
    """source, revision, digest"""
    source = section.text("source", SOURCE, "file:///abs/folder, gs://bucket/prefix or hf://owner/repo")
    revision = section.optional_text("revision", REVISION, "a commit of 40 hex digits")
    digest = section.optional_text("digest", digests.DIGEST, "sha256: and 64 hex digits")
    if source.startswith("hf://") and revision is None:
        raise ServingError(
            f"{section.at('revision')} is missing, so {source} is not pinned", "give the commit, 40 hex digits"
        )
    if not source.startswith("hf://") and digest is None:
        raise ServingError(
            f"{section.at('digest')} is missing, so {source} is not pinned", "give its content digest, sha256:..."
        )
    return source, revision, digest


def _unique(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {short(key)} is there twice in one object")
        found[key] = value
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not a JSON value")
