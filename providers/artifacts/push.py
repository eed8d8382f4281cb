"""`lorafleet adapter push`: fetch, check, store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorafleet.digest import digest_of_sums
from lorafleet.errors import LorafleetError, Problem, shown, shown_path
from lorafleet.manifest import served_name
from lorafleet.values import Sentence

from . import staging
from .fetch import Origin, at, fetch_adapter
from .put import put_version
from .rules import Rules, check
from .store import Progress, Store
from .versions import BaseName, FileFacts, Metadata, checked_name, now, who

Phase = Callable[[str, int], Progress]
"""Called at the begin of a phase with its name and its size in bytes (0: not known); tells of its progress."""


def no_progress(name: str, total: int) -> Progress:
    return lambda count: None


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Fields:
        metadata: of the version, as the store has it.
        made: whether this push made the version; False if it was there.
        ignored: names of files at the source that are no part of an adapter. They were not read.
        warnings: what is strange, but no mistake, in words.
    """

    metadata: Metadata
    made: bool
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def served_name(self) -> str:
        return served_name(self.metadata.name, self.metadata.digest)


def push(
    store: Store, origin: Origin, name: str, rules: Rules, *, note: str | None = None, phase: Phase = no_progress
) -> Pushed:
    """Store an adapter under a name, unless this content is there already.

    The files are copied to a private folder first: what was checked is what is stored.

    Raises:
        LorafleetError: the adapter is refused, nothing was stored.
        StoreError: the store's own errors; a repeat goes on where this ended.
    """
    checked_name("adapter", name)
    checked_sentence(note, "--note")
    with staging.folder() as folder:
        fetched = fetch_adapter(origin, folder, phase("reading", 0))
        try:
            facts, warnings = check(fetched, rules)
        except Problem as problem:
            raise at(problem, origin) from None
        metadata = Metadata(
            kind="adapter",
            name=name,
            digest=digest_of_sums({file: staged.sha256 for file, staged in fetched.files.items()}),
            files={file: FileFacts(bytes=staged.bytes, sha256=staged.sha256) for file, staged in fetched.files.items()},
            base_model=BaseName(name=facts.base_name, revision=facts.base_revision),
            rank=facts.rank,
            alpha=facts.alpha,
            target_modules=facts.modules,
            dtype=facts.dtype,
            source=shown_path(str(origin)),
            note=note,
            created_at=now(),
            created_by=who(),
        )
        there, made = put_version(store, metadata, fetched.files, phase("storing", metadata.size_bytes))
    return Pushed(there, made, fetched.ignored, tuple(warnings))


def checked_sentence(text: str | None, option: str) -> str | None:
    """A short text on one line. Raises `LorafleetError`."""
    if text is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Sentence).validate_python(text)
    except ValidationError:
        raise LorafleetError(
            "the text does not have the form that is needed",
            field=option,
            found=shown(text),
            allowed="1 to 200 characters on one line",
            next_action="Shorten it.",
        ) from None
