"""The comment itself: what happens to what in one sentence, the grave things first, the rest folded, within limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lorafleet.comment.markdown import block, code, counted, details, listed, quoted
from lorafleet.comment.plan import Change, Message, Property, ReadPlan, read_plan
from lorafleet.comment.values import redacted
from lorafleet.errors import LorafleetError

LIMIT_BYTES = 65_536
"""GitHub takes comments of up to 65,536 characters; bytes are never fewer than characters."""

_STACK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_NAMED = 3
_ROLLOUTS_SHOWN = 20
_PROPERTIES_SHOWN = 40
_ERROR_LINES, _ERRORS_SHOWN, _WARNINGS_SHOWN = 40, 10, 10
_ERROR_LINE = 500
_VERBS = {
    "replace": "**replaces**",
    "delete": "**deletes**",
    "update": "updates",
    "create": "creates",
    "import": "imports",
}
_DONE = {"replace": "replaced", "delete": "deleted", "update": "updated", "create": "created", "import": "imported"}

# What to do about failures that a newcomer meets, by a part of the engine's message.
_HINTS = (
    (r"no stack named|no stack selected", "make the stack with `pulumi stack init` on its backend: docs/ci.md"),
    (r"passphrase", "make the stack with a KMS key, or add the secret `PULUMI_CONFIG_PASSPHRASE`: docs/ci.md"),
    (r"default credentials|oauth2|PERMISSION_DENIED|403", "look at the workflow's service account: docs/ci.md"),
    (r"could not import|No module named", "add the module to pyproject.toml and requirements.lock"),
    (r"marked for protection", "take `protect` off in a change of its own first, if the resource may really go"),
    (r"the stack is currently locked", "wait for the other run; if it was killed, `pulumi cancel` ends its lock"),
)


@dataclass(frozen=True)
class Links:
    """Where more is to be read. run: URL of the workflow's run; commit: what was previewed, in hexadecimal digits."""

    run: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        if self.run is not None and not re.fullmatch(r"https?://[A-Za-z0-9._:/-]+", self.run):
            raise LorafleetError("this is no URL of a run", allowed="https://host/owner/repository/actions/runs/number")
        if self.commit is not None and not re.fullmatch(r"[0-9a-f]{7,64}", self.commit):
            raise LorafleetError("this is no commit", allowed="hexadecimal digits")


@dataclass(frozen=True)
class _Level:
    """How much is told.

    values: old and new ones. properties: which ones change. names: of what is not replaced or deleted. reasons: of
    replacements.
    """

    values: bool
    properties: bool
    names: bool
    reasons: Literal["with values", "names", "none"]


_LEVELS = (
    _Level(values=True, properties=True, names=True, reasons="with values"),
    _Level(values=False, properties=True, names=True, reasons="with values"),
    _Level(values=False, properties=False, names=True, reasons="with values"),
    _Level(values=False, properties=False, names=False, reasons="with values"),
    _Level(values=False, properties=False, names=False, reasons="names"),
    _Level(values=False, properties=False, names=False, reasons="none"),
)


def marker(stack: str, page: int = 1) -> str:
    """The hidden first line by which a page is found again."""
    if not _STACK_NAME.fullmatch(stack):
        raise LorafleetError(
            "this is no name of a stack",
            allowed="letters, digits, `.`, `_` and `-`",
            next_action="give the name as it stands in stacks/Pulumi.<name>.yaml",
        )
    return f"<!-- lorafleet:preview:{stack} -->" if page == 1 else f"<!-- lorafleet:preview:{stack}:{page} -->"


def pages(
    stack: str,
    preview: Mapping[str, Any] | None,
    events: Iterable[Mapping[str, Any]] | None,
    exit_status: int,
    links: Links | None = None,
    *,
    said: str = "",
    limit_bytes: int = LIMIT_BYTES,
) -> list[str]:
    """The comment on one stack's preview, as Markdown. Usually one page.

    Args:
        stack: the stack's name.
        preview: what `pulumi preview --json` printed, parsed; None if that was no JSON.
        events: the lines of its `--event-log`, parsed; None without one.
        exit_status: of the command: 0, 7 for changes where none were expected, else it failed.
        links: where more is to be read.
        said: what the command wrote to its standard error; used if a failure is not explained otherwise.
        limit_bytes: of one page, at least 2,000. Details are left out first, then names of what is created or updated;
            every replacement and deletion stays, on further pages if need be.

    Raises:
        LorafleetError: the stack's name or the engine's account is not in its form.
    """
    plan = read_plan(preview, events)
    failed = exit_status not in (0, 7)
    footer = _footer(links or Links())
    first = marker(stack)
    if not failed and not plan.changes and not plan.outputs:
        stay = f": {_stay(plan.unchanged)}" if plan.unchanged else ""
        closing = f" · {footer}" if footer else ""
        lines = [f"**{code(stack)}: nothing changes**{stay}{closing}", "", *_warnings(plan)]
        return [_fitted(first, lines, limit_bytes)]
    top = [f"### {_headline(stack, plan, failed)}", ""]
    if failed:
        top += _failure(plan, said)
    top += _rollouts(plan)
    for level in _LEVELS:
        body = [*top, *_grave(plan, _grave_lines(plan, level)), *_rest(plan, level, links or Links()), footer]
        text = _joined(first, body)
        if len(text.encode()) <= limit_bytes:
            return [text]
    return _split(stack, plan, top, footer, limit_bytes)


def _headline(stack: str, plan: ReadPlan, failed: bool) -> str:
    if failed:
        return f"{code(stack)}: the preview **failed**, so nothing can be deployed as it is"
    parts = []
    rolled = list(dict.fromkeys(each.name for each in plan.rollouts if not each.gone))
    gone = [each.name for each in plan.rollouts if each.gone]
    for kind, verb in _VERBS.items():
        changes = [each for each in plan.changes if each.kind == kind and not (plan.rollouts and _only_rolls_out(each))]
        if changes:
            parts.append(f"{verb} {_names([each.name for each in changes], 'resource', 'resources')}")
    told = [f"rolls out {_names(rolled, 'adapter', 'adapters')}"] if rolled else []
    told += [f"takes {_names(gone, 'adapter', 'adapters')} away"] if gone else []
    if not parts and not told:
        given = _names([each.path for each in plan.outputs], "output", "outputs")
        parts.append(f"only changes what the stack gives out: {given}")
    at = sum(part.startswith("**") for part in parts)
    only = "; nothing else changes" if told and not parts else ""
    parts[at:at] = told
    stay = f"; {_stay(plan.unchanged)}" if plan.unchanged and not only else ""
    return f"{code(stack)}: `pulumi up` {listed(parts)}{only}{stay}"


def _only_rolls_out(change: Change) -> bool:
    touched = (re.split(r"[.\[]", each.path)[0] for each in change.properties)
    return change.type.endswith(":Manifest") and change.kind == "update" and set(touched) <= {"adapters", "canaries"}


def _names(names: list[str], one: str, many: str) -> str:
    return listed([code(name, 60) for name in names]) if len(names) <= _NAMED else counted(len(names), one, many)


def _stay(unchanged: int) -> str:
    return "1 resource stays as it is" if unchanged == 1 else f"{unchanged} resources stay as they are"


def _failure(plan: ReadPlan, said: str) -> list[str]:
    errors = plan.errors or ((Message(redacted(said.strip())),) if said.strip() else ())
    if not errors:
        return ["The engine did not say why. Read the run's log; `pulumi preview` on this branch shows the same.", ""]
    lines: list[str] = []
    for error in errors[:_ERRORS_SHOWN]:
        about = f"At {code(error.name)}:" if error.name else "The program:"
        lines += [about, "", *_excerpt(error.text), ""]
        hint = next((hint for pattern, hint in _HINTS if re.search(pattern, error.text, re.IGNORECASE)), None)
        if hint:
            lines += [f"What to do: {hint}.", ""]
    if len(errors) > _ERRORS_SHOWN:
        lines += [f"… and {counted(len(errors) - _ERRORS_SHOWN, 'more error', 'more errors')} in the log.", ""]
    if plan.changes:
        lines += ["What the engine had found until then:", ""]
    return lines


def _excerpt(text: str) -> list[str]:
    lines = [line if len(line) <= _ERROR_LINE else f"{line[:_ERROR_LINE]}…" for line in text.splitlines()]
    if len(lines) > _ERROR_LINES:
        # The last lines of a traceback say what happened.
        half = _ERROR_LINES // 2
        lines = [*lines[:half], f"… ({len(lines) - 2 * half} lines)", *lines[-half:]]
    return block(lines)


def _rollouts(plan: ReadPlan) -> list[str]:
    if not plan.rollouts:
        return []
    lines = [f"- {code(each.what)}{' ' + each.then if each.then else ''}" for each in plan.rollouts[:_ROLLOUTS_SHOWN]]
    left = len(plan.rollouts) - _ROLLOUTS_SHOWN
    return [*lines, *([f"- … and {counted(left, 'more change', 'more changes')} of adapters"] if left > 0 else []), ""]


def _grave(plan: ReadPlan, lines: list[str]) -> list[str]:
    if not lines:
        return []
    counts = [
        f"{counted(len(changes), 'resource is', 'resources are')} {word}"
        for kind, word in (("replace", "replaced"), ("delete", "deleted"))
        if (changes := [each for each in plan.changes if each.kind == kind])
    ]
    return [*quoted(["[!CAUTION]", f"**{listed(counts)}**", "", *lines]), ""]


def _grave_lines(plan: ReadPlan, level: _Level) -> list[str]:
    lines = []
    for change in (*plan.of("replace"), *plan.of("delete")):
        line = f"- **{_DONE[change.kind]}** {_who(change)}"
        if level.reasons != "none" and change.reasons:
            line += f" because of {listed([_reason(each, level) for each in change.reasons[:_NAMED]])}"
            left = len(change.reasons) - _NAMED
            line += f" and {counted(left, 'more property', 'more properties')}" if left > 0 else ""
        lines.append(f"{line}: {change.note}" if change.note else line)
    return lines


def _reason(reason: Property, level: _Level) -> str:
    if level.reasons == "names" or (reason.old is None and reason.new is None):
        return code(reason.path)
    old, new = (value if value is not None else "(not set)" for value in (reason.old, reason.new))
    return f"{code(reason.path)} ({code(f'{old} -> {new}', 200)})"


def _who(change: Change) -> str:
    return f"{code(change.name)} ({code(change.type)})"


def _rest(plan: ReadPlan, level: _Level, links: Links) -> list[str]:
    lines: list[str] = []
    for kind in ("replace", "update", "create", "import"):
        changes = [each for each in plan.changes if each.kind == kind]
        if not changes or (kind == "replace" and not level.properties):
            continue
        title = f"{counted(len(changes), 'resource', 'resources')} {_DONE[kind]}"
        if not level.names:
            lines += [f"{title}.", ""]
            continue
        title += ", property by property" if level.values else ""
        lines += details(title, [line for each in changes for line in _about(each, level)])
    if plan.outputs and level.values:
        title = counted(len(plan.outputs), "output of the stack changes", "outputs of the stack change")
        lines += details(title, [*_diff_block(plan.outputs), ""])
    if not level.values:
        where = f" [The run]({links.run}) has it all." if links.run else ""
        lines += [f"_Parts of this plan are left out here, because a comment has a limit._{where}", ""]
    return [*lines, *_warnings(plan)]


def _about(change: Change, level: _Level) -> list[str]:
    note = f" ({change.note})" if change.note and change.kind != "replace" else ""
    if not level.properties:
        return [f"- {_who(change)}{note}"]
    if not level.values:
        names = ", ".join(code(each.path) for each in change.properties[:_PROPERTIES_SHOWN])
        return [f"- {_who(change)}{note}{': ' + names if names else ''}"]
    if not change.properties:
        return [f"{_who(change)}{note}", ""]
    return [f"{_who(change)}{note}", "", *_diff_block(change.properties), ""]


def _diff_block(properties: Sequence[Property]) -> list[str]:
    shown = properties[:_PROPERTIES_SHOWN]
    lines = [line for each in shown for line in _property_lines(each)]
    if len(properties) > len(shown):
        lines.append(f"# … and {len(properties) - len(shown)} more")
    return block(lines, "diff")


def _property_lines(change: Property) -> list[str]:
    lines = []
    if change.old is not None:
        lines.append(f"- {change.path}: {change.old}")
    if change.new is not None:
        another = " (another value)" if change.new == change.old else ""
        lines.append(f"+ {change.path}: {change.new}{another}")
    return lines


def _warnings(plan: ReadPlan) -> list[str]:
    if not plan.warnings:
        return []
    body: list[str] = []
    for warning in plan.warnings[:_WARNINGS_SHOWN]:
        body += [f"At {code(warning.name)}:" if warning.name else "The program:", "", *_excerpt(warning.text), ""]
    return details(counted(len(plan.warnings), "warning", "warnings"), body)


def _footer(links: Links) -> str:
    parts = [f"commit {code(links.commit[:12])}"] if links.commit else []
    parts += [f"[the run]({links.run})"] if links.run else []
    return " · ".join(parts)


def _joined(first: str, lines: Iterable[str]) -> str:
    return re.sub(r"\n{3,}(?=\S)", "\n\n", f"{first}\n" + "\n".join(lines)).rstrip() + "\n"


def _fitted(first: str, lines: list[str], limit_bytes: int) -> str:
    text = _joined(first, lines)
    return text if len(text.encode()) <= limit_bytes else _joined(first, lines[:1])


def _split(stack: str, plan: ReadPlan, top: list[str], footer: str, limit_bytes: int) -> list[str]:
    """More replacements and deletions than a comment holds: their names on as many pages as they need."""
    level = _LEVELS[-1]
    room = limit_bytes - 400  # for the marker and the page's own heading
    closing = [*_rest(plan, level, Links()), footer]
    if len(_joined("", [*top, *closing]).encode()) > room // 2:
        top = [*top[:2], "The errors are too long for a comment: read them in the run's log.", ""]
        closing = [footer]
    chunks: list[list[str]] = [[]]
    used = len(_joined("", [*top, *closing]).encode())
    for line in _grave_lines(plan, level):
        size = len(line.encode()) + len("> \n")
        if used + size > room:
            chunks.append([])
            used = 0
        chunks[-1].append(line)
        used += size
    texts = []
    for number, chunk in enumerate(chunks, start=1):
        heading = f"{code(stack)}: replaced and deleted, page {number} of {len(chunks)}"
        body = [*top, *_grave(plan, chunk), *closing] if number == 1 else [heading, "", *quoted(chunk)]
        texts.append(_joined(marker(stack, number), body))
    return texts
