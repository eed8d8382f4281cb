"""The manifest as data (docs/architecture.md, "Manifest"): one place that builds it, one that takes it apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

VERSION = 1
METADATA = "lorafleet.json"
"""Written last into the folder of a version: without it, the version is not there."""


def stored_source(store: str, name: str, digest: str) -> str:
    """Where the store keeps a version of an adapter."""
    return f"{store}/adapters/{name}/{digest.replace(':', '-')}"


def served_name(name: str, digest: str) -> str:
    """The immutable name that a server knows an adapter by: `easycontract@sha256-<first 16 hex digits>`."""
    return f"{name}@sha256-{digest.removeprefix('sha256:')[:16]}"


def document(
    *,
    store: str,
    base_model: Mapping[str, Any],
    adapters: Mapping[str, str],
    canaries: Mapping[str, tuple[str, int]],
    elsewhere: Mapping[str, tuple[str, str | None]],
) -> dict[str, Any]:
    """The manifest.

    Args:
        store: URL of the store.
        base_model: `name`, `source`, `revision`, `digest`.
        adapters: {name: digest}.
        canaries: {name: (digest, weight)}; only for adapters of the store.
        elsewhere: {name: (source, revision)} of the adapters that do not come from the store.
    """
    entries: list[dict[str, Any]] = []
    for name, digest in sorted(adapters.items()):
        source, revision = elsewhere.get(name, (stored_source(store, name, digest), None))
        entry: dict[str, Any] = {"name": name, "source": source, "digest": digest}
        if revision is not None:
            entry["revision"] = revision
        if name in canaries:
            canary, weight = canaries[name]
            entry["canary"] = {"source": stored_source(store, name, canary), "digest": canary, "weight": weight}
        entries.append(entry)
    base = {key: base_model.get(key) for key in ("name", "source", "revision", "digest")}
    return {"version": VERSION, "baseModel": base, "adapters": entries}


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
