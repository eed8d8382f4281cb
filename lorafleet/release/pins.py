"""A release as plain data, in the one form that records, digests and comparisons use.

`{"baseModel": {"revision"?: 40 hex, "digest"?: "sha256:..."}, "adapters": {name: digest}, "image"?: text,
"canaries"?: {name: {"digest": text, "weight": 1 to 99}}}`; what is not set is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorafleet.declaration import Release
from lorafleet.manifest import digest_of

Pins = dict[str, Any]


def of(release: Release) -> Pins:
    """The pins of a checked declaration."""
    return normalised(release.model_dump(mode="json", by_alias=True))


def normalised(release: Mapping[str, Any]) -> Pins:
    """The same release without what says nothing: nulls and empty canaries."""
    result = {key: _without_nulls(value) for key, value in release.items() if value is not None}
    if not result.get("canaries", True):
        del result["canaries"]
    return result


def digest(release: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 that names a release, whatever the order and the style of its block."""
    return digest_of(normalised(release))


@dataclass(frozen=True, slots=True)
class Change:
    """One pin that differs. `what` is `baseModel.digest`, `adapters.NAME`, `image` or `canaries.NAME`.

    `old` and `new` are shown as they stand in a file (a canary as `sha256:... 10 %`); None: not pinned.
    """

    what: str
    old: str | None
    new: str | None


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What is different, in the order base model, image, adapters, canaries, each by name."""
    before, after = _flat(old), _flat(new)
    names = [*before, *(name for name in after if name not in before)]
    return [
        Change(name, before.get(name), after.get(name))
        for name in sorted(names, key=_order)
        if before.get(name) != after.get(name)
    ]


def short(digest_or_image: str) -> str:
    """A digest as a table shows it: 12 of its digits."""
    head, found, digits = digest_or_image.partition("sha256:")
    return f"{head}{found}{digits[:12]}{digits[64:]}" if found else digest_or_image[:19]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def _flat(release: Mapping[str, Any]) -> dict[str, str]:
    plain = normalised(release)
    flat = {f"baseModel.{key}": str(value) for key, value in plain.get("baseModel", {}).items()}
    flat |= {f"adapters.{name}": str(value) for name, value in plain.get("adapters", {}).items()}
    if "image" in plain:
        flat["image"] = str(plain["image"])
    for name, canary in plain.get("canaries", {}).items():
        flat[f"canaries.{name}"] = f"{canary['digest']} {canary['weight']} %"
    return flat


def _order(name: str) -> tuple[int, str]:
    kinds = ("baseModel", "image", "adapters", "canaries")
    return kinds.index(name.partition(".")[0]), name
