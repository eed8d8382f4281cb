"""What the engine says, as far as it is used: the JSON of `pulumi preview --json` and the lines of `--event-log`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from lorafleet.errors import LorafleetError


class _Said(BaseModel):
    # Each new version of the engine says more.
    model_config = ConfigDict(
        extra="ignore", alias_generator=to_camel, validate_by_name=True, hide_input_in_errors=True
    )


class State(_Said):
    """A resource before or after; values that the engine knows to be secret are marked (lorafleet.comment.values)."""

    inputs: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None
    additional_secret_outputs: list[str] | None = None


class PropertyDiff(_Said):
    """One changed property. kind: add, delete or update, each also with `-replace`."""

    kind: str = ""
    input_diff: bool = False


class Step(_Said):
    """One operation that the engine would do."""

    op: str
    urn: str
    old_state: State | None = None
    new_state: State | None = None
    diff_reasons: list[str] | None = None
    replace_reasons: list[str] | None = None
    detailed_diff: dict[str, PropertyDiff] | None = None


class Diagnostic(_Said):
    """A message. severity: info, info#err, warning, error or debug."""

    severity: str
    message: str
    urn: str = ""
    ephemeral: bool = False


class Preview(_Said):
    """The document that `pulumi preview --json` prints."""

    steps: list[Step] | None = None
    diagnostics: list[Diagnostic] | None = None
    change_summary: dict[str, int] | None = None


class _EventDiff(_Said):
    diff_kind: str = ""
    input_diff: bool = False


class _EventStep(_Said):
    op: str
    urn: str
    old: State | None = None
    new: State | None = None
    keys: list[str] | None = None
    diffs: list[str] | None = None
    detailed_diff: dict[str, _EventDiff] | None = None

    def as_step(self) -> Step:
        detailed = {
            path: PropertyDiff(kind=diff.diff_kind, input_diff=diff.input_diff)
            for path, diff in (self.detailed_diff or {}).items()
        }
        return Step(
            op=self.op,
            urn=self.urn,
            old_state=self.old,
            new_state=self.new,
            diff_reasons=self.diffs,
            replace_reasons=self.keys,
            detailed_diff=detailed or None,
        )


class _ResourceEvent(_Said):
    metadata: _EventStep


class PolicyViolation(_Said):
    """A policy that the plan goes against. enforcementLevel: mandatory stops an update, others only tell."""

    message: str
    policy_name: str = ""
    enforcement_level: str = ""
    resource_urn: str = Field(default="", alias="resourceUrn")


class _Summary(_Said):
    resource_changes: dict[str, int] | None = None


class Event(_Said):
    """One line of the event log; at most one of the fields is there."""

    resource_pre_event: _ResourceEvent | None = None
    res_outputs_event: _ResourceEvent | None = None
    diagnostic_event: Diagnostic | None = None
    policy_event: PolicyViolation | None = None
    summary_event: _Summary | None = None


class Said(BaseModel):
    """Both sources together."""

    shown: list[Step] = []
    """Steps as the document has them: a replacement is one step."""
    ordered: list[Step] = []
    """Steps as they happen, from the events: a replacement has its creation and its deletion, in their order."""
    ended: list[Step] = []
    """The same with the outputs that they would have. The stack comes twice, the second time with its outputs."""
    diagnostics: list[Diagnostic] = []
    violations: list[PolicyViolation] = []
    summary: dict[str, int] = {}


def read(preview: Mapping[str, Any] | None, events: Iterable[Mapping[str, Any]] | None) -> Said:
    """Puts both together; what only one of them has is taken from that one.

    Raises:
        LorafleetError: one of them is not what the engine writes.
    """
    try:
        document = Preview.model_validate(preview or {})
        stream = [Event.model_validate(each) for each in events or ()]
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise LorafleetError(
            f"this is not the engine's account of a preview: {first['msg']}",
            field=".".join(str(part) for part in first["loc"]),
            allowed="what `pulumi preview --json` prints, and the lines of its `--event-log`",
            next_action="give the files as `python -m tools.ci preview` writes them",
        ) from None
    ordered = [each.resource_pre_event.metadata.as_step() for each in stream if each.resource_pre_event]
    told = [each.diagnostic_event for each in stream if each.diagnostic_event]
    counted = [each.summary_event.resource_changes or {} for each in stream if each.summary_event]
    return Said(
        shown=document.steps or [],
        ordered=ordered,
        ended=[each.res_outputs_event.metadata.as_step() for each in stream if each.res_outputs_event],
        diagnostics=_once(document.diagnostics or told),
        violations=[each.policy_event for each in stream if each.policy_event],
        summary=document.change_summary or (counted[-1] if counted else {}),
    )


def _once(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    found: dict[tuple[str, str, str], Diagnostic] = {}
    for each in diagnostics:
        if not each.ephemeral and each.message.strip():
            found.setdefault((each.severity, each.urn, each.message), each)
    return list(found.values())
