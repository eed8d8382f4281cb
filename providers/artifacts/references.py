"""What must stay in a store: every digest that a stack's file, a manifest, a server's report or a release names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lorafleet.errors import LorafleetError

from . import layout
from .release_records import parse, was_served
from .store import Store

# Read as text, and not as what they mean: a file that another version of this program wrote, or one with a mistake in
# it, must not lead to a loss. Too much is kept that way, never too little.
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})(?![0-9a-f])")
# The current release and the one before it, which a rollback restores: of those that were served.
_RELEASES = 2


def referenced(store: Store, root: Path) -> dict[str, str]:
    """{digest: where it is named first}, over all environments.

    Args:
        store: the store that is to be pruned.
        root: the project's root. All its stacks count, whichever store they declare.

    Raises:
        LorafleetError: a stack's file can't be read. StoreError: the store's own errors.
    """
    found: dict[str, str] = {}
    for where, text in (*_stack_files(root), *_documents(store), *_releases(store)):
        for match in _DIGEST.finditer(text):
            found.setdefault(f"sha256:{match[1]}", where)
    return found


def _stack_files(root: Path) -> Iterator[tuple[str, str]]:
    paths = sorted((root / "stacks").glob("Pulumi.*.yaml"))
    if not paths:
        raise LorafleetError(
            "there are no stack files, so nobody could say what is in use",
            where=str(root / "stacks"),
            found="no Pulumi.<environment>.yaml",
            allowed="the project whose environments use this store",
            next_action="Run the command in the project's folder.",
        )
    for path in paths:
        try:
            yield str(path.relative_to(root)), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LorafleetError(
                "the stack's file can't be read, so nobody can say what it refers to",
                where=str(path.relative_to(root)),
                found=type(error).__name__,
                allowed="readable files for all stacks",
                next_action="Mend the file, then run the command again.",
            ) from None


def _documents(store: Store) -> Iterator[tuple[str, str]]:
    for prefix in (layout.MANIFESTS, layout.STATUSES):
        for entry in store.list(prefix):
            yield entry.path, _text(store, entry.path)


def _releases(store: Store) -> Iterator[tuple[str, str]]:
    environments: dict[str, list[str]] = {}
    for entry in store.list(layout.RELEASES):
        parts = entry.path.split("/")
        if len(parts) == 3:
            environments.setdefault(parts[1], []).append(entry.path)
        else:  # nothing that this program writes
            yield entry.path, _text(store, entry.path)
    for environment, paths in environments.items():
        yield from _releases_of(store, environment, sorted(paths, reverse=True))


def _releases_of(store: Store, environment: str, paths: list[str]) -> Iterator[tuple[str, str]]:
    """The records (newest first) down to the second release that was served, whatever stands between them.

    A record is written before the manifest, so a release that failed has one too. A rollback passes over it, and so it
    must not take the place of one that a rollback goes to.
    """
    served: set[str] = set()
    for path in paths:
        text = _text(store, path)
        name = path.removeprefix(layout.releases(environment)).removesuffix(".json")
        record = parse(name, text.encode())
        # What can't be read keeps what it names, and counts as nothing to go back to.
        if record is not None and record.digest not in served and was_served(store, environment, record):
            if len(served) == _RELEASES:
                return
            served.add(record.digest)
        yield path, text


def _text(store: Store, path: str) -> str:
    blob = store.read(path)
    return blob.data.decode("utf-8", errors="replace") if blob else ""
