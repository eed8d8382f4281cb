"""What changed between the inputs in the state and the inputs of the program, field by field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from . import fields, values
from .fields import Inputs, Outputs
from .values import Path

Kind = Literal["add", "delete", "update"]


@dataclass(frozen=True)
class Change:
    """One leaf that differs. `replace`: it cannot be changed in place. `of_input`: an input, not an output."""

    path: Path
    kind: Kind
    replace: bool
    of_input: bool = True


def diff(
    model: type[Inputs], olds: dict[str, Any], news: dict[str, Any], *, ignore: Iterable[str] = ()
) -> list[Change]:
    """The changes from `olds` to `news` (both wire inputs, as `check` made them).

    A value that is unknown counts as changed: it may be. `ignore` holds property paths of the program's
    `ignore_changes`.
    """
    old, new = values.unseal(olds), values.unseal(news)
    ignored = set(ignore)
    changes: list[Change] = []
    declared = fields.by_alias(model)
    for wire in [*declared, *sorted((set(old) | set(new)) - set(declared))]:
        info = declared[wire][1] if wire in declared else None
        replace = info is not None and fields.has(info, fields.replaces)
        canonical = fields.normaliser(info) if info is not None else None
        before, after = old.get(wire), new.get(wire)
        both = before is not None and after is not None and after is not values.UNKNOWN
        if canonical is not None and both and canonical(before) == canonical(after):
            continue
        nested = fields.models_in(info.annotation) if info is not None else []
        changes += _compare(before, after, (wire,), replace, nested)
    return [c for c in changes if not any(_covers(entry, c.path) for entry in ignored)]


def merge(*found: list[Change]) -> list[Change]:
    """All changes, each path once."""
    return list({change.path: change for changes in reversed(found) for change in changes}.values())


def diff_truth(model: type[Outputs], state: dict[str, Any], truth: dict[str, Any]) -> list[Change]:
    """Outputs that are not as the state remembers: an update brings it, and who depends on it, up to date."""
    before, now = values.unseal(state), values.unseal(truth)
    return [
        Change((wire,), "update", replace=False, of_input=False)
        for wire in fields.by_alias(model)
        if before.get(wire) != now.get(wire)
    ]


def diff_outputs(model: type[Outputs], state: dict[str, Any]) -> list[Change]:
    """Outputs in the state that are not as they are expected to be: what `read` found to be broken."""
    plain = values.unseal(state)
    return [
        Change((wire,), "update", replace=False, of_input=False)
        for wire, (_, info) in fields.by_alias(model).items()
        if (expected := fields.expected(info)) is not None and wire in plain and plain[wire] != expected.value
    ]


def _covers(entry: str, path: Path) -> bool:
    return any(values.path_text(path[:length]) == entry for length in range(1, len(path) + 1))


def _compare(old: Any, new: Any, at: Path, replace: bool, models: list[type[BaseModel]]) -> list[Change]:
    if old == new:
        return []
    if old is None:
        return [Change(at, "add", replace)]
    if new is None:
        return [Change(at, "delete", replace)]
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(key for key in old if key not in new)]
        return [
            change
            for key in keys
            for change in _compare(old.get(key), new.get(key), (*at, key), *_inner(models, key, replace))
        ]
    if isinstance(old, list) and isinstance(new, list):
        changes: list[Change] = []
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            changes += _compare(before, after, (*at, index), replace, models)
        return changes
    return [Change(at, "update", replace)]


def _inner(models: list[type[BaseModel]], key: str, replace: bool) -> tuple[bool, list[type[BaseModel]]]:
    """Marks of the field `key` of one of `models`; a key of a plain dictionary hands its field's marks on."""
    for model in models:
        entry = fields.by_alias(model).get(key)
        if entry is not None:
            return replace or fields.has(entry[1], fields.replaces), fields.models_in(entry[1].annotation)
    return replace, models
