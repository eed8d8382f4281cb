"""Brings the files of an adapter from where they are (a folder, the hub, a bucket) into a private folder."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet import adapters, files
from lorafleet.digest import ADAPTER_FILES
from lorafleet.errors import LorafleetError, Problem, listed, shown, shown_path
from lorafleet.sources import Source

from . import hub, staging
from .staging import Staged
from .store import Progress, StoreError, open_store

CONFIG, WEIGHTS = ADAPTER_FILES
ADDED_TOKENS = "added_tokens.json"
_MOST_BYTES = {CONFIG: 1 << 20, WEIGHTS: 16 << 30, ADDED_TOKENS: 1 << 20}
_REVISION = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Origin:
    """A source and, for `hf://` alone, its commit."""

    source: Source
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}" if self.revision else str(self.source)


@dataclass(frozen=True)
class Fetched:
    """The two files of an adapter, and `added_tokens.json` where there is one, in a private folder.

    `ignored`: names of what else lies at the source. Nothing of it was read.
    """

    folder: Path
    files: dict[str, Staged]
    added_tokens: Path | None
    ignored: tuple[str, ...] = field(default=())


def parse_origin(text: str, cwd: Path) -> Origin:
    """`PATH`, `file://...`, `gs://bucket/folder` or `hf://owner/repository@<40 hex>`. Raises `LorafleetError`."""
    allowed = "a folder, file://FOLDER, gs://bucket/folder or hf://owner/repository@<40 hexadecimal digits>"
    revision: str | None = None
    address = text
    if text.startswith("hf://"):
        address, _, revision = text.partition("@")
        if not _REVISION.fullmatch(revision):
            raise LorafleetError(
                "a source on the hub needs the commit that is meant",
                where=shown_path(address),
                found=f"@{revision[:60]}" if revision else "no commit",
                allowed="hf://owner/repository@ and the 40 hexadecimal digits of a commit; a branch or a tag can move",
                next_action='Copy the commit from the repository\'s page ("Files and versions", "History").',
            )
    elif "://" not in text:
        address = f"file://{text}"
    try:
        source = Source.parse(address)
    except Problem as problem:
        raise LorafleetError(
            problem.what, where=shown_path(text[:200]), allowed=allowed, next_action=problem.next_action
        ) from None
    if source.scheme == "file":
        source = Source("file", str(source.folder(cwd)))
    return Origin(source, revision or None)


def fetch_adapter(origin: Origin, into: Path, progress: Progress | None = None) -> Fetched:
    """Copy the adapter's files into the empty folder `into`.

    Raises:
        LorafleetError: a file is missing, a pickle, no regular file, or can't be had.
    """
    try:
        match origin.source.scheme:
            case "file":
                return _from_folder(Path(origin.source.address), into, progress)
            case "gs":
                return _from_bucket(str(origin.source), into, progress)
            case "hf":
                return _from_hub(origin, into, progress)
    except Problem as problem:
        raise at(problem, origin) from None


def at(problem: Problem, origin: Origin) -> LorafleetError:
    """What a reader of files found, with the source that the files came from."""
    return LorafleetError(
        problem.what,
        where=shown_path(str(origin)),
        found=problem.found,
        allowed=problem.allowed,
        next_action=problem.next_action,
    )


def _from_folder(folder: Path, into: Path, progress: Progress | None) -> Fetched:
    files.check_folder(folder, "the adapter's folder", allowed=f"a folder with {listed(ADAPTER_FILES, 'and')}")
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise files.unreadable(error, folder, "the adapter's folder", allowed="a readable folder") from None
    adapters.check_names(names)
    found: dict[str, Staged] = {}
    for name in (*ADAPTER_FILES, ADDED_TOKENS):
        staged = staging.copy_in(folder, name, into, most_bytes=_MOST_BYTES[name], progress=progress)
        if staged is not None:
            found[name] = staged
        elif name != ADDED_TOKENS:
            raise _missing(name, names)
    return _fetched(into, found, names)


def _from_bucket(url: str, into: Path, progress: Progress | None) -> Fetched:
    bucket = open_store(url)
    before = {entry.path: entry for entry in bucket.list("") if "/" not in entry.path}
    adapters.check_names(sorted(before))
    found: dict[str, Staged] = {}
    for name in (*ADAPTER_FILES, ADDED_TOKENS):
        if name not in before:
            if name == ADDED_TOKENS:
                continue
            raise _missing(name, before)
        _check_size(name, before[name].size)
        staging.check_room(into, before[name].size)
        sha256 = bucket.download(name, into / name, progress=progress)
        if sha256 is not None:
            found[name] = Staged(into / name, sha256, (into / name).stat().st_size)
    after = {entry.path: entry for entry in bucket.list("") if entry.path in found}
    if any(name not in after or after[name].generation != before[name].generation for name in found) or any(
        name not in found for name in ADAPTER_FILES
    ):
        raise StoreError(
            "the files changed while they were being read",
            where=url,
            found="another generation than a moment ago",
            allowed="a folder that nothing writes to",
            next_action="Wait until they are written, then push again.",
        )
    return _fetched(into, found, before)


def _from_hub(origin: Origin, into: Path, progress: Progress | None) -> Fetched:
    repository, revision = origin.source.address, origin.revision
    assert revision is not None  # parse_origin has seen to it
    there = {name: file for name, file in hub.list_files(repository, revision).items() if "/" not in name}
    adapters.check_names(sorted(there))
    for name in ADAPTER_FILES:
        if name not in there:
            raise _missing(name, there)
    found: dict[str, Staged] = {}
    for name in (*ADAPTER_FILES, ADDED_TOKENS):
        if name in there:
            _check_size(name, there[name].size or 0)
            staging.check_room(into, there[name].size or 0)
            found[name] = hub.fetch(repository, revision, there[name], into, progress)
    hub.forget_notes(into)
    return _fetched(into, found, there)


def _fetched(folder: Path, found: dict[str, Staged], names: Collection[str]) -> Fetched:
    added = found.pop(ADDED_TOKENS, None)
    ignored = tuple(sorted(name for name in names if name not in found and name != ADDED_TOKENS))
    return Fetched(folder, found, added.path if added else None, ignored)


def _missing(name: str, names: Collection[str]) -> Problem:
    return Problem(
        f"the adapter lacks {name}",
        found=listed([shown(other) for other in sorted(names)[:5]], "and") if names else "an empty folder",
        allowed=f"a folder with {listed(ADAPTER_FILES, 'and')}",
        next_action="Name the folder that save_pretrained wrote, not one above or below it.",
    )


def _check_size(name: str, size: int) -> None:
    if size > _MOST_BYTES[name]:
        raise Problem(
            f"{name} is too large to be what it should be",
            found=f"{size} bytes",
            allowed=f"at most {_MOST_BYTES[name]} bytes",
            next_action="Look at what the file really is.",
        )
