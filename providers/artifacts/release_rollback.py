"""Rollback: an earlier release of an environment, from its history, stands in its file again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from lorafleet.declaration import Fleet
from lorafleet.errors import LorafleetError
from lorafleet.release import document, pins

from .release_proposal import Proposal, check_base_files, check_version, look_up
from .release_reasons import Reasons
from .release_records import Record, history, saved_block, was_served
from .store import Store, open_store


def rollback(root: Path, environment: str, *, to: str | None = None, force: str | None = None) -> Proposal:
    """Works out and checks a rollback; writes nothing.

    Args:
        root: the project's root.
        to: a record's name or a release's digest, or the first characters of one. Without it, the newest record of
            another release than the one that the file has now.
        force: a person's reason to override that a version is held back.

    Raises:
        LorafleetError: the stack file is wrong, the store does not answer, or there is no such record; RefusedError
            with every reason.
    """
    found = document.read(root, environment)
    fleet = found.fleet_without_release()
    store = open_store(fleet.store_url)
    record, skipped = _chosen(store, environment, pins.digest(found.release), to, found.shown_path)
    reasons = Reasons(force)
    try:
        fleet = found.fleet(record.release)
    except LorafleetError as error:
        reasons.add_error(_explained(error, record))
    else:
        _check(fleet.origin.environment, record, store, reasons, fleet)
    reasons.refuse(f"the rollback of {environment} to {record.id}")
    text = saved_block(store, environment, record.digest)
    data = found.with_block(text, record.release) if text is not None else None
    notes = [f"this is the release of {record.at}{f', brought by {record.by}' if record.by else ''}"]
    notes += [f"{each.id} is passed over: no server of {environment} has served it" for each in skipped]
    if data is None:
        notes.append("the text of its block was not kept: values are restored, comments stay as they are")
    if canaries := record.release.get("canaries"):
        notes.append(f"it has canaries, which start again: {', '.join(canaries)}")
    words = ["lorafleet", "release", "rollback", environment]
    words += [word for option, value in (("--to", to), ("--force", force)) if value for word in (option, value)]
    return Proposal(
        title=f"{environment} -> {record.id}",
        command=shlex.join(words),
        document=found,
        store=store,
        release=record.release,
        data=data if data is not None else found.with_release(record.release),
        overridden=tuple(reasons.overridden),
        force=force,
        notes=tuple(notes),
    )


def _chosen(
    store: Store, environment: str, current: str, to: str | None, where: str
) -> tuple[Record, tuple[Record, ...]]:
    """The record to go back to, and those passed over because they were never served (a release that failed)."""
    past = history(store, environment)
    if to is not None:
        return past.find(to, where), ()
    skipped: list[Record] = []
    for record in past.others(current):
        if was_served(store, environment, record):
            return record, tuple(skipped)
        skipped.append(record)
    unreadable = f", {len(past.unreadable)} that can't be read" if past.unreadable else ""
    never = f", {len(skipped)} that no server has served" if skipped else ""
    raise LorafleetError(
        "the history has no other release than the one in this file" if not skipped else "no other release was served",
        where=where,
        found=f"{len(past.records)} records{unreadable}{never}",
        allowed="a release that was served in this environment before",
        next_action="Look at `git log` of this file: an earlier release block can be put back by hand."
        + (" Or name a record with --to (`lorafleet release history`)." if skipped else ""),
    )


def _check(environment: str, record: Record, store: Store, reasons: Reasons, fleet: Fleet) -> None:
    adapters: Mapping[str, str] = record.release["adapters"]
    canaries = {name: canary["digest"] for name, canary in record.release.get("canaries", {}).items()}
    for key, versions in (("adapters", adapters), ("canaries", canaries)):
        for name, facts in look_up(store, environment, versions).items():
            digest = versions[name]
            get_it = (
                f"Push it again (lorafleet adapter push FOLDER --name {name} --stack {environment}), or choose another "
                f"release: `lorafleet release history {environment}`, then --to."
            )
            check_version(fleet, ("release", key, name), name, digest, facts, reasons, get_it=get_it)
    check_base_files(fleet, record.release["baseModel"].get("digest"), reasons)


def _explained(error: LorafleetError, record: Record) -> LorafleetError:
    """The declaration has changed since: say that the mistakes are about the release of then."""
    for each in error.errors:
        each.what = f"with the release {record.id}: {each.what}"
        each.next_action = (
            f"{each.next_action} The rest of the file has changed since that release: `git log` shows what it was."
        )
    return error
