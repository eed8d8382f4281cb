"""What a target says of itself (`GET statusPath`), read without trust.

The document is the one of `docs/architecture.md` ("State file of the server"). A value of a wrong type counts as
absent, so that what is right beside it is still shown; names and digests that do not look like such are left out, as
they become labels of metrics.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeGuard

MESSAGE_LENGTH = 200
MOST_ADAPTERS = 200
MOST_SERVED_NAMES = 500
UNKNOWN = "unknown"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@:-]{0,199}")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ADAPTER_STATES = frozenset({"serving", "fetching", "loading", "probing", "waiting", "failed"})
_MANIFEST_STATES = frozenset({"serving", "following", "refused", "unreachable"})


@dataclass(frozen=True)
class Fault:
    """Why something failed: `reason` is one word, `message` one line of at most MESSAGE_LENGTH characters."""

    reason: str
    message: str


@dataclass(frozen=True)
class Canary:
    digest: str
    weight: int
    """Percentage of the requests for the name, 1 to 99."""


@dataclass(frozen=True)
class Adapter:
    """One public name. `digest` answers now, `wanted` is the manifest's; each is empty when the target says none."""

    name: str
    digest: str
    wanted: str
    state: str
    since: float | None
    """Unix time at which `state` began."""
    fault: Fault | None
    canary: Canary | None

    @property
    def healthy(self) -> bool:
        """False when it failed, or what is wanted does not answer and a fault says why. On its way is healthy."""
        return self.state != "failed" and (self.fault is None or self.digest == self.wanted)


@dataclass(frozen=True)
class Manifest:
    """`digest` is that of the manifest that is served, `wanted` that of the one that was read last (hex, or empty)."""

    digest: str
    wanted: str
    state: str
    fault: Fault | None


@dataclass(frozen=True)
class Status:
    """A target's whole answer."""

    updated_at: str
    """As the target wrote it; only whether it changed is of use here, as clocks differ. Empty when it is missing."""
    manifest: Manifest
    adapters: tuple[Adapter, ...] = ()
    in_flight: dict[str, int] = field(default_factory=dict)
    """Requests by served name."""


def read(content: bytes) -> Status:
    """Raises ValueError, in words that hold nothing of the content, when it is no such document at all."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    document = _object(answer).get("status")
    if not isinstance(document, dict):
        raise ValueError('it has no object under the key "status"')
    return Status(
        updated_at=_text(document.get("updatedAt"))[:64],
        manifest=_manifest(document),
        adapters=_adapters(document.get("adapters")),
        in_flight=_in_flight(_object(answer).get("inFlight")),
    )


def _manifest(document: dict[str, Any]) -> Manifest:
    manifest = _object(document.get("manifest"))
    return Manifest(
        digest=_digest(document.get("manifestDigest")),
        wanted=_digest(manifest.get("digest")),
        state=_one_of(manifest.get("state"), _MANIFEST_STATES),
        fault=_fault(manifest.get("error")),
    )


def _adapters(value: object) -> tuple[Adapter, ...]:
    found: dict[str, Adapter] = {}
    for item in value if isinstance(value, list) else []:
        name = _text(_object(item).get("name"))
        # A name that stands twice would make the metrics' text invalid as a whole.
        if not _NAME.fullmatch(name) or name in found or len(found) == MOST_ADAPTERS:
            continue
        found[name] = Adapter(
            name=name,
            digest=_digest(item.get("digest")),
            wanted=_digest(item.get("wanted")),
            state=_one_of(item.get("state"), _ADAPTER_STATES),
            since=_time(item.get("since")),
            fault=_fault(item.get("error")),
            canary=_canary(_object(item.get("canary"))),
        )
    return tuple(found.values())


def _canary(value: dict[str, Any]) -> Canary | None:
    digest, weight = _digest(value.get("digest")), value.get("weight")
    return Canary(digest, weight) if digest and _whole(weight) and 1 <= weight <= 99 else None


def _fault(value: object) -> Fault | None:
    if value is None:
        return None
    told = _object(value)
    reason = _text(told.get("reason"))
    return Fault(reason if _WORD.fullmatch(reason) else UNKNOWN, _line(_text(told.get("what"))))


def _in_flight(value: object) -> dict[str, int]:
    names = {n: c for n, c in _object(value).items() if _NAME.fullmatch(n) and _whole(c) and 0 <= c < 2**53}
    return dict(list(names.items())[:MOST_SERVED_NAMES])


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _digest(value: object) -> str:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else ""


def _one_of(value: object, known: frozenset[str]) -> str:
    return value if isinstance(value, str) and value in known else UNKNOWN


def _line(text: str) -> str:
    """One line that can be printed; what is not (control characters, halves of characters) becomes a space."""
    cut = text[: 10 * MESSAGE_LENGTH]
    line = " ".join("".join(char if char.isprintable() else " " for char in cut).split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"


def _time(value: object) -> float | None:
    try:
        time = datetime.fromisoformat(_text(value))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return None
