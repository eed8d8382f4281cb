"""The launch file: its shape, read and checked with the standard library alone.

Every method raises ServingError that names the field, its value and what is allowed.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from handlers.serving import digest as digests
from handlers.serving.errors import ServingError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "float16", "bfloat16")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM 0.32, vllm/config/lora.py
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
SOURCE = re.compile(r"(file://(/.+)|gs://[a-z0-9][a-z0-9._-]+(/.+)?|hf://[\w.-]+/[\w.-]+)")
REVISION = re.compile(r"[0-9a-f]{40}")
HEX64 = re.compile(r"[0-9a-f]{64}")

# Flags that the launcher sets itself, or that would put a secret on the command line.
OWN_FLAGS = {
    "--model", "--served-model-name", "--host", "--port", "--uds", "--middleware", "--api-key", "--lora-modules",
    "--enable-lora", "--trust-remote-code", "--api-server-count", "--headless", "--config", "--hf-token",
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Where weights come from. `digest` is None only where `revision` pins the content of an hf:// source."""

    name: str
    source: str
    revision: str | None
    digest: str | None


@dataclass(frozen=True)
class AdapterSpec(Weights):
    rank: int


@dataclass(frozen=True)
class Manifest:
    base: Weights
    adapters: tuple[AdapterSpec, ...]
    digest: str
    """hex SHA-256 of the manifest as canonical JSON (sorted keys, no spaces, UTF-8 as it is)"""


@dataclass(frozen=True)
class EngineSettings:
    device: str = "auto"
    dtype: str = "auto"
    max_model_len: int | None = None
    """tokens of prompt and answer together; None: what the model's config says"""
    max_num_seqs: int = 32
    kv_cache_mib: int | None = None
    """None: 1024 MiB on a CPU; on a GPU what vLLM finds free"""
    max_lora_rank: int = 16
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchConfig:
    manifest: Manifest
    store: Path
    host: str
    port: int
    api_key_sha256: tuple[str, ...]
    state_file: Path
    engine: EngineSettings
    start_timeout_s: float
    drain_timeout_s: float


class Section:
    """One JSON object of the file, with its place in it for the error texts."""

    def __init__(self, value: object, where: str, known: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            raise ServingError(
                f"{where or 'the launch file'} is {_short(value)}, not an object",
                f"give an object with {', '.join(known)}",
            )
        self.values = cast(dict[str, object], value)
        self.where = where
        for key in self.values:
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise ServingError(f"{self.at(key)} is not a known key", hint)

    def at(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str) -> object:
        if key not in self.values:
            raise ServingError(f"{self.at(key)} is missing", "see the launch file in docs/architecture.md")
        return self.values[key]

    def fail(self, key: str, allowed: str) -> ServingError:
        return ServingError(f"{self.at(key)} is {_short(self.values.get(key))}", f"give {allowed}")

    def text(self, key: str, pattern: re.Pattern[str] | None = None, allowed: str = "a text") -> str:
        value = self.get(key)
        if not isinstance(value, str) or not value or (pattern and not pattern.fullmatch(value)):
            raise self.fail(key, allowed)
        return value

    def optional_text(self, key: str, pattern: re.Pattern[str], allowed: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key, pattern, allowed + ", or null")

    def whole(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g} (seconds)")
        return float(value)

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self.get(key)
        if not isinstance(value, str) or value not in allowed:
            raise self.fail(key, "one of " + ", ".join(allowed))
        return value

    def items(self, key: str) -> list[object]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.fail(key, "a list")
        return cast(list[object], value)

    def texts(self, key: str, pattern: re.Pattern[str], allowed: str) -> tuple[str, ...]:
        found = self.items(key)
        for position, value in enumerate(found):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ServingError(f"{self.at(key)}[{position}] is {_short(value)}", f"give {allowed}")
        return tuple(cast(list[str], found))

    def absolute_path(self, key: str) -> Path:
        path = Path(self.text(key, None, "an absolute path"))
        if not path.is_absolute():
            raise self.fail(key, "an absolute path")
        return path


def load(path: Path) -> LaunchConfig:
    """Reads the launch file. Raises ServingError when it cannot be read or is not valid."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ServingError(
            f"the launch file {path} cannot be read: {error.strerror}", "check the path and its mode"
        ) from None
    except ValueError as error:
        raise ServingError(f"the launch file {path} is not JSON: {error}", "write it again") from None
    return parse(document)


def parse(document: object) -> LaunchConfig:
    known = (
        "version", "manifest", "store", "host", "port", "apiKeySha256", "stateFile", "engine", "startTimeoutS",
        "drainTimeoutS",
    )  # fmt: skip
    root = Section(document, "", known)
    _version(root)
    engine = parse_engine(root.get("engine"))
    manifest = parse_manifest(root.get("manifest"))
    for position, adapter in enumerate(manifest.adapters):
        if adapter.rank > engine.max_lora_rank:
            raise ServingError(
                f"manifest.adapters[{position}].rank of {adapter.name} is {adapter.rank}, "
                f"above engine.maxLoraRank {engine.max_lora_rank}",
                "raise engine.maxLoraRank, or train the adapter with a lower rank",
            )
    return LaunchConfig(
        manifest=manifest,
        store=root.absolute_path("store"),
        host=root.text("host"),
        port=root.whole("port", 1, 65535),
        api_key_sha256=root.texts("apiKeySha256", HEX64, "the SHA-256 of a key as 64 hex digits"),
        state_file=root.absolute_path("stateFile"),
        engine=engine,
        start_timeout_s=root.number("startTimeoutS", 1, 86400),
        drain_timeout_s=root.number("drainTimeoutS", 0, 3600),
    )


def parse_engine(value: object) -> EngineSettings:
    known = ("device", "dtype", "maxModelLen", "maxNumSeqs", "kvCacheMib", "maxLoraRank", "extraArgs")
    section = Section(value, "engine", known)
    extra = section.texts("extraArgs", re.compile(r"(?s).+"), "a flag or value of vLLM")
    for argument in extra:
        flag = argument.split("=", 1)[0].replace("_", "-")
        if flag in OWN_FLAGS:
            raise ServingError(
                f"engine.extraArgs holds {flag}, which the launcher sets itself or does not allow",
                "take it out; addresses, keys, model and adapters have fields of their own",
            )
    given = section.values
    rank = section.whole("maxLoraRank", 1, LORA_RANKS[-1])
    return EngineSettings(
        device=section.one_of("device", DEVICES),
        dtype=section.one_of("dtype", DTYPES),
        max_model_len=None if given.get("maxModelLen") is None else section.whole("maxModelLen", 16, 1 << 20),
        max_num_seqs=section.whole("maxNumSeqs", 1, 4096),
        kv_cache_mib=None if given.get("kvCacheMib") is None else section.whole("kvCacheMib", 1, 1 << 20),
        max_lora_rank=rank,
        extra_args=extra,
    )


def parse_manifest(value: object) -> Manifest:
    root = Section(value, "manifest", ("version", "baseModel", "adapters"))
    _version(root)
    known = ("name", "source", "revision", "digest")
    base = _weights(Section(root.get("baseModel"), "manifest.baseModel", known))
    adapters: list[AdapterSpec] = []
    names = {base.name}
    for position, item in enumerate(root.items("adapters")):
        section = Section(item, f"manifest.adapters[{position}]", (*known, "rank"))
        weights = _weights(section)
        if weights.name in names:
            raise ServingError(
                f"{section.at('name')} {weights.name} is there twice", "give each model a name of its own"
            )
        names.add(weights.name)
        rank = section.whole("rank", 1, LORA_RANKS[-1])
        adapters.append(AdapterSpec(weights.name, weights.source, weights.revision, weights.digest, rank))
    return Manifest(base, tuple(adapters), manifest_digest(value))


def manifest_digest(manifest: object) -> str:
    """hex SHA-256 of the manifest as canonical JSON: keys sorted, no spaces, text as UTF-8 and not escaped."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _weights(section: Section) -> Weights:
    name = section.text("name", NAME, "up to 63 lower-case letters, digits, '.', '_', '-'")
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
    return Weights(name, source, revision, digest)


def _version(section: Section) -> None:
    if section.get("version") != 1:
        raise ServingError(
            f"{section.at('version')} is {_short(section.get('version'))}",
            "this launcher reads version 1; use the launcher that fits the file",
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
