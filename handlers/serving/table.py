"""What a model name stands for, as alias.py needs it for each request: the served name, or the canary's."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

BUCKETS = 10_000
SESSION_HEADER = b"x-lorafleet-session"


class Target(NamedTuple):
    served_name: str
    """what vLLM knows it as"""
    header: bytes
    """of `x-lorafleet-adapter`: name@digest, the base's name@digest or name@revision"""


class Entry(NamedTuple):
    main: Target
    canary: Target | None = None
    limit: int = 0
    """sessions whose bucket is below it get the canary"""
    prefix: bytes = b""
    """of what is hashed: public name, canary digest"""

    def choose(self, session: bytes | None) -> Target:
        """The same session always gets the same, and once it gets the canary it does so at any larger weight."""
        if self.canary is None:
            return self.main
        place = bucket(self.prefix + session) if session else random.randrange(BUCKETS)
        return self.canary if place < self.limit else self.main


def bucket(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % BUCKETS


class RouteTable:
    """The routes file (routes.py), read again when it changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp: tuple[int, int] | None = None
        self.document: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}

    def refresh(self) -> None:
        """Keeps the last good table when the file is gone or not readable."""
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self.stamp:
                return
            document = json.loads(self.path.read_text(encoding="utf-8"))
            entries = entries_of(document)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return
        self.document, self.entries, self.stamp = document, entries, stamp

    def choose(self, asked: str, session: bytes | None) -> Target | None:
        entry = self.entries.get(asked)
        return None if entry is None else entry.choose(session)


def entries_of(document: dict[str, Any]) -> dict[str, Entry]:
    base = document["base"]
    # the immutable names may be asked for as well, as with a dated model name
    immutable: dict[str, Entry] = {}
    public = {base: Entry(Target(base, tag(base, document["baseVersion"])))}
    for name, adapter in document["adapters"].items():
        main = Target(adapter["servedName"], tag(name, adapter["digest"]))
        canary, limit, prefix = None, 0, b""
        immutable[main.served_name] = Entry(main)
        if adapter["canary"] is not None:
            digest = adapter["canary"]["digest"]
            canary = Target(adapter["canary"]["servedName"], tag(name, digest))
            limit, prefix = int(adapter["canary"]["weight"]) * BUCKETS // 100, f"{name}\0{digest}\0".encode()
            immutable[canary.served_name] = Entry(canary)
        public[name] = Entry(main, canary, limit, prefix)
    return immutable | public


def tag(name: str, version: str | None) -> bytes:
    return (name if version is None else f"{name}@{version}").encode("latin-1", "replace")


class StatusFile:
    """The launcher's state file, read again when it changed."""

    def __init__(self) -> None:
        self.seen: tuple[str, int, int] | None = None
        self.document: Any = None

    def read(self, path: str | None) -> Any:
        """The state, the last good one when the file cannot be read now, None before there is one."""
        if path is None:
            return None
        try:
            status = Path(path).stat()
            stamp = (path, status.st_mtime_ns, status.st_ino)
            if stamp != self.seen:
                self.document = json.loads(Path(path).read_text(encoding="utf-8"))
                self.seen = stamp
        except (OSError, ValueError):
            pass
        return self.document
