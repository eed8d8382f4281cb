"""The engine's account as what matters to a reader: one change per resource, its reasons, its properties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lorafleet.comment import values
from lorafleet.comment.engine import Diagnostic, PropertyDiff, Said, State, Step, read
from lorafleet.comment.rollouts import MANIFEST, Rollout, rollouts
from lorafleet.comment.values import MISSING

Kind = Literal["replace", "delete", "update", "create", "import"]
KINDS: tuple[Kind, ...] = ("replace", "delete", "update", "create", "import")
"""From the gravest to the lightest; also the order in which they are told."""

# Engine's operations (sdk/go/common/apitype/updates.go). Those that only read or tidy the state are no changes.
_KIND_OF: dict[str, Kind] = {
    "replace": "replace",
    "create-replacement": "replace",
    "import-replacement": "replace",
    "delete-replaced": "replace",
    "read-replacement": "replace",
    "discard-replaced": "replace",
    "delete": "delete",
    "discard": "delete",
    "update": "update",
    "create": "create",
    "import": "import",
}
# Those that show a resource before and after; the others are parts of a replacement.
_WHOLE = frozenset({"replace", "delete", "update", "create", "import"})
_STACK, _PROVIDERS = "pulumi:pulumi:Stack", "pulumi:providers:"


@dataclass(frozen=True)
class Property:
    """One property that changes. old, new: as they may be shown, None where there is none."""

    path: str
    old: str | None
    new: str | None
    replaces: bool = False


@dataclass(frozen=True)
class Change:
    """What happens to one resource.

    reasons: of a replacement, the properties that cause it. note: what else must be known, as words.
    """

    urn: str
    kind: Kind
    properties: tuple[Property, ...] = ()
    reasons: tuple[Property, ...] = ()
    note: str = ""

    @property
    def type(self) -> str:
        """The resource's own type, without its parents'."""
        return self.urn.split("::", 3)[2].rsplit("$", 1)[-1] if self.urn.count("::") >= 3 else ""

    @property
    def name(self) -> str:
        return self.urn.split("::", 3)[-1]


@dataclass(frozen=True)
class Message:
    """What the engine or a policy says. name: of the resource that it is about; empty for the program."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class ReadPlan:
    """A whole plan.

    outputs: what the stack gives out that changes; a secret that becomes another one is not seen. unchanged: resources
    that stay as they are, None where the engine did not get to count them.
    """

    changes: tuple[Change, ...]
    rollouts: tuple[Rollout, ...]
    outputs: tuple[Property, ...]
    errors: tuple[Message, ...]
    warnings: tuple[Message, ...]
    unchanged: int | None

    def of(self, kind: Kind) -> list[Change]:
        """The changes of one kind."""
        return [each for each in self.changes if each.kind == kind]


def read_plan(preview: Mapping[str, Any] | None, events: Iterable[Mapping[str, Any]] | None) -> ReadPlan:
    """Reads what the engine says.

    Raises:
        LorafleetError: it is not what the engine writes.
    """
    said = read(preview, events)
    by_urn: dict[str, list[Step]] = {}
    for step in said.shown:
        by_urn.setdefault(step.urn, []).append(step)
    # The document lacks what an earlier, interrupted replacement left to be deleted, and all of it after a crash.
    in_document = {urn for urn, steps in by_urn.items() if any(step.op in _KIND_OF for step in steps)}
    for step in said.ordered:
        if step.urn not in in_document and step.op in _KIND_OF:
            by_urn.setdefault(step.urn, []).append(step)
    orders: dict[str, list[str]] = {}
    for step in said.ordered:
        orders.setdefault(step.urn, []).append(step.op)
    changes = [each for urn, steps in by_urn.items() if (each := _change(urn, steps, orders.get(urn, []))) is not None]
    manifests = [step for steps in by_urn.values() for step in steps if step.op in _WHOLE and _type(step) == MANIFEST]
    return ReadPlan(
        changes=tuple(sorted(changes, key=lambda each: (KINDS.index(each.kind), each.type, each.name, each.urn))),
        rollouts=tuple(rollouts(manifests)),
        outputs=_outputs(said),
        errors=tuple(_errors(said)),
        warnings=tuple(_warnings(said)),
        unchanged=_unchanged(said),
    )


def _change(urn: str, steps: Sequence[Step], order: Sequence[str]) -> Change | None:
    relevant = [step for step in steps if step.op in _KIND_OF]
    if not relevant:
        return None
    kind = min((_KIND_OF[step.op] for step in relevant), key=KINDS.index)
    step = next(each for each in reversed(relevant) if _KIND_OF[each.op] == kind)
    ops = {each.op for each in steps} | set(order)
    note = ""
    if kind == "replace" and ops.isdisjoint(
        {"replace", "create-replacement", "import-replacement", "read-replacement"}
    ):
        kind, note = "delete", "left over from an earlier replacement"
    elif kind == "replace":
        note = _order(order)
    elif kind == "create" and "refresh" in ops:
        note = "it is gone: somebody or something deleted it"
    if _silent(_type(step), kind):
        return None
    properties = _properties(step) if kind != "delete" else ()
    reasons = tuple(each for each in properties if each.replaces) if kind == "replace" else ()
    return Change(urn, kind, properties, reasons or _named_reasons(step, properties, kind), note)


def _silent(own_type: str, kind: Kind) -> bool:
    """The stack itself and the providers come and go without anything to look at; a replaced one drags others along."""
    return kind in ("create", "update") and (own_type == _STACK or own_type.startswith(_PROVIDERS))


def _type(step: Step) -> str:
    return Change(step.urn, "update").type


def _order(order: Sequence[str]) -> str:
    made = next((i for i, op in enumerate(order) if op in ("create-replacement", "import-replacement")), None)
    gone = next((i for i, op in enumerate(order) if op in ("delete-replaced", "discard-replaced")), None)
    if made is None or gone is None:
        return ""
    return "the old one goes first, so it is down in between" if gone < made else "the new one is made first"


def _named_reasons(step: Step, properties: Sequence[Property], kind: Kind) -> tuple[Property, ...]:
    if kind != "replace":
        return ()
    names = step.replace_reasons or step.diff_reasons or []
    return tuple(
        next(
            (each for each in properties if each.path == values.visible(name)),
            Property(values.visible(name), None, None),
        )
        for name in names
    )


def _properties(step: Step) -> tuple[Property, ...]:
    old, new = step.old_state, step.new_state
    sides = [side for state in (old, new) if state for side in (state.inputs, state.outputs) if side]
    secrets = {path for side in sides for path in values.secret_paths(side)}
    secrets |= {(name,) for state in (old, new) if state for name in state.additional_secret_outputs or []}
    detailed = step.detailed_diff or _own_diff(step)
    found = []
    for text in sorted(detailed):
        diff, path = detailed[text], values.parse_path(text)
        before = MISSING if diff.kind.startswith("add") or old is None else _lookup(old.inputs, old.outputs, path, diff)
        after = (
            MISSING if diff.kind.startswith("delete") or new is None else _lookup(new.inputs, new.outputs, path, diff)
        )
        found.append(_property(text, path, before, after, secrets, replaces=diff.kind.endswith("replace")))
    return tuple(found)


def _lookup(
    inputs: Mapping[str, Any] | None, outputs: Mapping[str, Any] | None, path: values.Path, diff: PropertyDiff
) -> Any:
    first, second = (inputs, outputs) if diff.input_diff else (outputs, inputs)
    value = values.lookup(first, path)
    return values.lookup(second, path) if value is MISSING else value


def _property(
    text: str, path: values.Path, before: Any, after: Any, secrets: set[values.Path], *, replaces: bool
) -> Property:
    old = None if before is MISSING else values.masked(before, path, secrets)
    new = None if after is MISSING else values.masked(after, path, secrets)
    shown_old, shown_new = values.shown_pair(old, new)
    return Property(
        values.cut(values.visible(text)),
        None if before is MISSING else shown_old,
        None if after is MISSING else shown_new,
        replaces,
    )


def _own_diff(step: Step) -> dict[str, PropertyDiff]:
    """The properties at the top that differ, where the provider gives no differences (creations, components)."""
    for side, is_input in (("inputs", True), ("outputs", False)):
        old: Mapping[str, Any] = getattr(step.old_state, side, None) or {}
        new: Mapping[str, Any] = getattr(step.new_state, side, None) or {}
        if step.new_state is None or (not is_input and not new and step.op not in ("same", "update")):
            return {}
        differing = {
            name: PropertyDiff(
                kind="update" if name in old and name in new else "add" if name in new else "delete",
                input_diff=is_input,
            )
            for name in sorted({*old, *new})
            if name not in old or name not in new or old[name] != new[name]
        }
        if differing or step.old_state is None:
            return {_as_path(name): diff for name, diff in differing.items()}
    return {}


def _outputs(said: Said) -> tuple[Property, ...]:
    stacks = [step for step in said.ended if _type(step) == _STACK and step.op in ("same", "update")]
    if not stacks or stacks[-1].old_state is None or stacks[-1].new_state is None:
        return ()
    old, new = (State(outputs=side.outputs) for side in (stacks[-1].old_state, stacks[-1].new_state))
    if not old.outputs and not new.outputs:
        return ()
    bare = stacks[-1].model_copy(update={"old_state": old, "new_state": new, "detailed_diff": None})
    return _properties(bare)


def _as_path(name: str) -> str:
    plain = name and all(c not in '.[]"\\' for c in name)
    escaped = name.replace('"', '\\"')
    return name if plain else f'["{escaped}"]'


def _errors(said: Said) -> list[Message]:
    errors = [_message(each) for each in said.diagnostics if each.severity == "error"]
    # Says nothing that the other errors do not say.
    telling = [each for each in errors if each.text not in ("preview failed", "update failed")]
    broken = [each for each in said.violations if each.enforcement_level == "mandatory"]
    return [*(telling or errors), *(_violation(each.policy_name, each.message, each.resource_urn) for each in broken)]


def _warnings(said: Said) -> list[Message]:
    told = [_message(each) for each in said.diagnostics if each.severity == "warning"]
    advice = [each for each in said.violations if each.enforcement_level != "mandatory"]
    return [*told, *(_violation(each.policy_name, each.message, each.resource_urn) for each in advice)]


def _message(diagnostic: Diagnostic) -> Message:
    text = diagnostic.message.strip().removeprefix(f"{diagnostic.severity}: ")
    return Message(values.redacted(text), diagnostic.urn.split("::", 3)[-1])


def _violation(policy: str, message: str, urn: str) -> Message:
    return Message(values.redacted(f"policy {policy}: {message.strip()}"), urn.split("::", 3)[-1])


def _unchanged(said: Said) -> int | None:
    if not said.summary:
        return None
    same = said.summary.get("same", 0)
    stack_is_same = any(step.op == "same" and _type(step) == _STACK for step in (*said.shown, *said.ordered))
    return max(0, same - 1) if stack_is_same else same
