"""What targets say of themselves, as Prometheus' text format (version 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from handlers.router.status import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "lorafleet_target_up": "1 when the target's last answer said what it serves, else 0.",
    "lorafleet_target_status_age_seconds": "Seconds since the target's status was seen to be renewed.",
    "lorafleet_target_manifest_info": "Digest of the manifest that is served, and of the one that was read last.",
    "lorafleet_manifest_error_info": "Why the target cannot follow its manifest.",
    "lorafleet_adapter_info": "Digest that answers to an adapter's name, and the digest that the manifest wants.",
    "lorafleet_adapter_healthy": "0 when the adapter failed, or what is wanted of it cannot be served; else 1.",
    "lorafleet_adapter_state_since_seconds": "Unix time at which the adapter's state began.",
    "lorafleet_adapter_error_info": "Why what is wanted of an adapter is not served.",
    "lorafleet_adapter_canary_weight": "Percentage of an adapter's requests that go to its canary.",
    "lorafleet_requests_in_flight": "Requests that the target works on, by the name under which it serves them.",
}
"""What each metric is; they stand in this order. All are gauges."""


@dataclass(frozen=True)
class Seen:
    """What is known of a target: `status` is its last one unless too old, `age_s` since that one was renewed."""

    target: str
    up: bool
    age_s: float | None
    status: Status | None


def text(seen: Iterable[Seen]) -> str:
    """The whole text; targets' names must differ."""
    families = _Families()
    for one in seen:
        families.add("lorafleet_target_up", int(one.up), target=one.target)
        if one.age_s is not None:
            families.add("lorafleet_target_status_age_seconds", one.age_s, target=one.target)
        if one.status is not None:
            _add_status(families.add, one.target, one.status)
    return families.text()


class _Families:
    """Samples by the name of their metric: the format wants those of one name side by side."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {name: [] for name in _HELP}

    def add(self, name: str, value: float, **labels: str) -> None:
        shown = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels.items())
        number = str(value) if isinstance(value, int) else f"{value:.3f}"
        self._lines[name].append(f"{name}{{{shown}}} {number}\n")

    def text(self) -> str:
        heads = {name: f"# HELP {name} {told}\n# TYPE {name} gauge\n" for name, told in _HELP.items()}
        return "".join(heads[name] + "".join(lines) for name, lines in self._lines.items() if lines)


def _add_status(add: Callable[..., None], target: str, status: Status) -> None:
    manifest = status.manifest
    shown = {"digest": manifest.digest, "wanted": manifest.wanted, "state": manifest.state}
    add("lorafleet_target_manifest_info", 1, target=target, **shown)
    if manifest.fault is not None:
        told = {"reason": manifest.fault.reason, "message": manifest.fault.message}
        add("lorafleet_manifest_error_info", 1, target=target, **told)
    for adapter in status.adapters:
        named = {"target": target, "adapter": adapter.name}
        shown = {"digest": adapter.digest, "wanted": adapter.wanted, "state": adapter.state}
        add("lorafleet_adapter_info", 1, **named, **shown)
        add("lorafleet_adapter_healthy", int(adapter.healthy), **named)
        if adapter.since is not None:
            add("lorafleet_adapter_state_since_seconds", adapter.since, **named)
        if adapter.fault is not None:
            told = {"reason": adapter.fault.reason, "message": adapter.fault.message}
            add("lorafleet_adapter_error_info", 1, **named, **told)
        if adapter.canary is not None:
            add("lorafleet_adapter_canary_weight", adapter.canary.weight, **named, digest=adapter.canary.digest)
    for served_name, count in status.in_flight.items():
        add("lorafleet_requests_in_flight", count, target=target, served_name=served_name)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
