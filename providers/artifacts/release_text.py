"""Releases as text for people. click leaves colours and bold letters out where the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import click

from lorafleet.release import pins

from .console import printable
from .release_proposal import Proposal
from .release_records import History
from .release_state import Server
from .release_view import Checked, Version, View

_MARKS = {
    "right": click.style("ok   ", fg="green"),
    "wrong": click.style("WRONG", fg="red", bold=True),
    "unknown": click.style("?    ", fg="yellow"),
}


def proposal(change: Proposal, *, written: bool, dry_run: bool, warnings: Sequence[str] = ()) -> str:
    """What a promotion or a rollback did or would do."""
    if not change.diff:
        return f"{change.title}: {change.document.shown_path} has this release already; nothing to do\n" + _next(
            change.next_command
        )
    lines = [_coloured(change.diff).rstrip("\n"), ""]
    for error in change.overridden:
        lines.append(click.style(f"overridden: {error.what}", fg="yellow"))
    if change.overridden:
        lines.append(f"  because:  {change.force}")
    lines += [f"note: {note}" for note in change.notes]
    lines += [click.style(f"warning: {warning}", fg="yellow") for warning in warnings]
    if dry_run and not written:
        lines.append(f"{change.title}: allowed; nothing was written (--dry-run)")
    else:
        count = len(change.changes)
        pin = f"{count} pin{'s' if count != 1 else ''} changed"
        lines.append(f"{change.title}: {change.document.shown_path}, {pin if count else 'the style alone changed'}")
    return (
        "\n".join(lines)
        + "\n"
        + _next(change.next_command if written else f"{change.command} && {change.next_command}")
    )


def difference(first: str, second: str, changes: Sequence[pins.Change], next_command: str) -> str:
    """The pins that two environments do not share."""
    if not changes:
        return f"{first} and {second} have the same release\n" + _next(next_command)
    rows = [(each.what, each.old or "(not pinned)", each.new or "(not pinned)") for each in changes]
    return _table([("", first, second), *rows]) + _next(next_command)


def view(found: View, history: History) -> str:
    """`release show`."""
    fleet, release = found.fleet, found.release
    base = fleet.base_model
    pinned = " ".join(release["baseModel"].values())
    facts = [("base model", f"{base.name}  {base.source}  {pinned}")]
    if image := release.get("image"):
        facts.append(("image", image))
    facts.append(("store", found.store.url))
    facts.append(("served now", "this release" if found.is_served else _served_instead(found)))
    if history.records:
        facts.append(("last record", f"{history.records[0].id}  {history.records[0].by or ''}".rstrip()))
    heading = click.style(f"Release of {fleet.environment}  {pins.digest(release)[:12]}", bold=True)
    adapters = "\n".join(line for version in found.versions for line in _version(found, version))
    return "\n".join([heading, _table(facts), adapters, "", _servers(found.servers) + _next(found.next_command)])


def checked(result: Checked) -> str:
    """`release verify`."""
    lines = []
    for finding in result.findings:
        lines.append(f"{_MARKS[finding.state]}  {finding.subject}: {printable(finding.what)}")
        if finding.next_action:
            lines.append(f"       next: {finding.next_action}")
    wrong = sum(finding.state == "wrong" for finding in result.findings)
    environment = result.view.fleet.environment
    found = f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong" if wrong else "nothing is wrong"
    lines.append(f"{environment}: {found}")
    return "\n".join(lines) + "\n" + _next(result.view.next_command)


def history(environment: str, past: History, current: str, next_command: str) -> str:
    """`release history`: newest first, each with what it changed."""
    if not past.records and not past.unreadable:
        return f"{environment} has no history: nothing was brought to it yet\n" + _next(next_command)
    lines = []
    for record, former in zip(past.records, [*past.records[1:], None], strict=True):
        mark = "  <- the file" if record.digest == current else ""
        lines.append(f"{click.style(record.id, bold=True)}  {record.by or ''}{mark}")
        changes = pins.changes(former.release, record.release) if former else []
        lines += [f"    {each.what}: {_short(each.old)} -> {_short(each.new)}" for each in changes]
        if former is None:
            lines.append(f"    the first record: {', '.join(record.release['adapters'])}")
    lines += [f"{name}  (can't be read)" for name in past.unreadable]
    return "\n".join(lines) + "\n" + _next(next_command)


def _next(command: str) -> str:
    return f"next: {command}\n"


def _short(value: str | None) -> str:
    return pins.short(value) if value else "(not pinned)"


def _version(found: View, version: Version) -> Iterator[str]:
    metadata, facts = version.facts.metadata, version.facts
    share = f"  canary, {version.weight} % of the requests" if version.weight else ""
    yield f"{click.style(version.name, bold=True)}  {version.digest}{share}"
    if metadata:
        yield f"    made {metadata.created_at} by {printable(metadata.created_by)} from {printable(metadata.source)}"
        if metadata.note:
            yield f"    {printable(metadata.note)}"
    else:
        source = found.fleet.adapters[version.name].source
        yield f"    from {source}" if source else click.style("    NOT IN THE STORE", fg="red")
    if not facts.served:
        yield click.style("    no server has served it here, healthy", fg="yellow")
    if facts.hold:
        yield click.style(f"    held back: {printable(facts.hold)}", fg="red")


def _served_instead(found: View) -> str:
    if found.served is None:
        return "nothing"
    image_apart = {key: value for key, value in found.release.items() if key != "image"}
    changes = pins.changes(found.served.release, image_apart)
    return "another release: " + ", ".join(f"{each.what} {_short(each.old)}" for each in changes)


def _servers(servers: Iterable[Server]) -> str:
    rows = [("server", "phase", "serves", "")]
    for server in servers:
        status = server.status
        if status is None:
            rows.append((server.name, "?", "", "its status can't be read"))
            continue
        serves = [
            f"{each.name}@{pins.short(each.digest) if each.digest else 'nothing'}"
            + (f" (+{each.canary.weight} % {pins.short(each.canary.digest)})" if each.canary else "")
            for each in status.adapters
        ]
        faults = [error.what for error in (status.error, status.manifest and status.manifest.error) if error]
        faults += [f"{each.name}: {each.error.what}" for each in status.adapters if each.error]
        if status.gone:
            faults.insert(0, f"silent for {status.age_s:.0f} s")
        rows.append((server.name, status.phase, ", ".join(serves), "; ".join(faults)))
    return _table(rows) if len(rows) > 1 else "no server has said anything\n"


def _coloured(diff: str) -> str:
    colours = {"-": "red", "+": "green", "@": "cyan"}
    return "\n".join(
        click.style(line, bold=True)
        if line.startswith(("---", "+++"))
        else click.style(line, fg=colours[line[0]])
        if line[:1] in colours
        else line
        for line in diff.split("\n")
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows = [[printable(cell) for cell in row] for row in rows]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"
