"""Holds: notes in the store that a version of an adapter must not be promoted."""

from __future__ import annotations

import json

from pydantic import ValidationError

from lorafleet.errors import LorafleetError
from lorafleet.values import Digest, Model

from . import layout
from .store import NOT_THERE, ConflictError, Store
from .versions import now, who


class Hold(Model):
    """Who held a version back, when, and why."""

    version: int = 1
    name: str
    digest: Digest
    why: str
    by: str
    at: str


def hold(store: Store, name: str, digest: str, why: str) -> tuple[Hold, bool]:
    """Hold a version back; returns the hold that is there, and whether this call made it."""
    note = Hold(name=name, digest=digest, why=why, by=who(), at=now())
    data = (json.dumps(note.model_dump(by_alias=True), ensure_ascii=False, indent=1) + "\n").encode()
    try:
        store.write(layout.hold(name, digest), data, expected=NOT_THERE)
    except ConflictError:
        return held(store, name, digest) or note, False
    return note, True


def held(store: Store, name: str, digest: str) -> Hold | None:
    """The hold on a version, or None."""
    path = layout.hold(name, digest)
    blob = store.read(path)
    if blob is None:
        return None
    try:
        return Hold.model_validate_json(blob.data)
    except ValidationError:
        raise LorafleetError(
            "the note that holds this version back can't be read",
            where=f"{store.url}/{path}",
            found="no valid hold",
            allowed="what `lorafleet adapter hold` writes",
            next_action="It counts as held back. Remove it with `lorafleet adapter unhold`, or write it again.",
        ) from None


def unhold(store: Store, name: str, digest: str) -> bool:
    """Take a hold away; False if there was none."""
    return store.delete(layout.hold(name, digest))


def held_digests(store: Store) -> set[tuple[str, str]]:
    """(name, digest) of all versions that are held back."""
    found = set()
    for entry in store.list(layout.HOLDS):
        parts = entry.path.removesuffix(".json").split("/")
        if len(parts) == 3:
            found.add((parts[1], parts[2].replace("-", ":", 1)))
    return found
