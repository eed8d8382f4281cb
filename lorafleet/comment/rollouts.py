"""What a plan does to adapters: which digest a name serves now and then, which canaries begin, grow and end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lorafleet.comment import values
from lorafleet.comment.engine import State, Step

MANIFEST = "lorafleet:artifacts:Manifest"
"""Type of the resource whose inputs say it: `adapters` {name: digest}, `canaries` {name: {digest, weight}}."""

_DIGEST_SHOWN = len("sha256:") + 12


@dataclass(frozen=True)
class Rollout:
    """One adapter. what: the change as code, such as `easycontract: sha256:aa… -> sha256:bb…`; then: further words.

    gone: whether the name is not served any more.
    """

    name: str
    what: str
    then: str = ""
    gone: bool = False


def rollouts(manifests: Iterable[Step]) -> list[Rollout]:
    """The adapters that the steps of manifests change, by name."""
    found: list[Rollout] = []
    for step in manifests:
        old, new = _inputs(step.old_state), _inputs(step.new_state)
        before, after = _adapters(old), _adapters(new)
        canaries_before, canaries_after = _canaries(old), _canaries(new)
        for name in sorted({*before, *after}):
            found += _adapter(name, before.get(name), after.get(name), canaries_before.get(name))
        for name in sorted({*canaries_before, *canaries_after}):
            found += _canary(
                name, canaries_before.get(name), canaries_after.get(name), before.get(name), after.get(name)
            )
    return list(dict.fromkeys(found))


def _adapter(name: str, old: str | None, new: str | None, canary: tuple[str, str] | None) -> list[Rollout]:
    if old == new:
        return []
    if old is None:
        return [Rollout(name, f"{name}: {new}", "is new")]
    if new is None:
        return [Rollout(name, f"{name}: {old}", "is not served any more", gone=True)]
    return [Rollout(name, f"{name}: {old} -> {new}", "was its canary" if canary and canary[0] == new else "")]


def _canary(
    name: str, old: tuple[str, str] | None, new: tuple[str, str] | None, before: str | None, after: str | None
) -> list[Rollout]:
    if old == new:
        return []
    if new is None:
        assert old is not None
        # Promoted: the line of the adapter says so.
        return [] if after == old[0] != before else [Rollout(name, f"{name}: canary {old[0]}", "ends")]
    if old is not None and old[0] == new[0]:
        return [Rollout(name, f"{name}: canary {new[0]}", f"gets {new[1]} % of the requests instead of {old[1]} %")]
    return [Rollout(name, f"{name}: canary {new[0]}", f"gets {new[1]} % of the requests")]


def _inputs(state: State | None) -> Mapping[str, Any]:
    return (state.inputs if state else None) or {}


def _adapters(inputs: Mapping[str, Any]) -> dict[str, str]:
    adapters = inputs.get("adapters")
    return {name: _digest(each) for name, each in adapters.items()} if isinstance(adapters, Mapping) else {}


def _canaries(inputs: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    canaries = inputs.get("canaries")
    if not isinstance(canaries, Mapping):
        return {}
    return {
        name: (_digest(each.get("digest")), _weight(each.get("weight")))
        for name, each in canaries.items()
        if isinstance(each, Mapping)
    }


def _digest(value: Any) -> str:
    text = _text(value)
    return f"{text[:_DIGEST_SHOWN]}…" if text.startswith("sha256:") and len(text) > _DIGEST_SHOWN else text


def _weight(value: Any) -> str:
    # It stands outside of code, where a text would be Markdown.
    return f"{value:g}" if isinstance(value, int | float) else "an unknown number of"


def _text(value: Any) -> str:
    masked = values.masked(value, (), set())
    return values.cut(values.visible(masked) if isinstance(masked, str) else values.shown(masked))
