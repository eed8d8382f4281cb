"""The running servers of an environment, by what they write to the store: do they serve what the manifest says?"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from lorafleet.manifest import digest_of
from providers import kit

from . import layout
from .store import Entry, Store, StoreError

State = Literal["follows", "pending", "failed", "silent"]

# A server that has missed three heartbeats is gone, or is cut off from the store. It gets one more to come back
# (the store itself may have been away), unless it has been silent for so long that nobody expects it.
_HEARTBEATS = 3
_LATENESS_S = 5.0
_FORGOTTEN_S = 900.0
_POLL_FOLDER_S, _POLL_BUCKET_S = 0.1, 1.0
_STARTING = ("launching", "loading", "probing")
# A server that runs but has not yet looked at the manifest does so within seconds.
_UNKNOWN = "it has not said anything about this release yet"


@dataclass(frozen=True)
class Verdict:
    """One running server: does it serve the manifest? `why` is a sentence where it does not.

    `silent`: it has not said anything for longer than it should; `patience_s` is how long that is waited for.
    `since`: when its word about the manifest last changed.
    """

    server: str
    state: State
    why: str = ""
    patience_s: float = 0.0
    since: str = ""

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    @property
    def about(self) -> str:
        return f"{self.server}: {self.why}" if self.why else self.server


class Followers:
    """The servers of one environment, compared with one manifest."""

    def __init__(self, store: Store, environment: str, manifest: Mapping[str, Any]) -> None:
        self._store, self._folder = store, layout.statuses(environment)
        self._manifest, self._digest = manifest, digest_of(manifest)
        self._poll_s = _POLL_FOLDER_S if store.url.startswith("file://") else _POLL_BUCKET_S
        self._forgiven: dict[str, str] = {}
        self._first_words: dict[str, str] = {}
        self._quiet: set[str] = set()

    def look(self) -> list[Verdict]:
        """What each running server says now. Raises StoreError."""
        entries = [
            entry
            for entry in self._store.list(self._folder)
            if entry.path.endswith(".json") and _age_s(entry) <= _FORGOTTEN_S
        ]
        with ThreadPoolExecutor(max_workers=16) as pool:
            blobs = list(pool.map(self._store.read, [entry.path for entry in entries]))
        verdicts = []
        for entry, blob in zip(entries, blobs, strict=True):
            status = _parsed(blob.data) if blob else {}
            server = entry.path.removeprefix(self._folder).removesuffix(".json")
            heartbeat_s = _heartbeat_s(status)
            if not self._is_asked(status) or heartbeat_s is None:
                continue
            if self._lives(entry, server, str(status.get("updatedAt")), heartbeat_s):
                verdicts.append(self._verdict(server, status))
            else:
                why = f"it has not reported for {_age_s(entry):.0f} s"
                verdicts.append(Verdict(server, "silent", why, heartbeat_s + _LATENESS_S))
        return verdicts

    def forgive(self, verdicts: Sequence[Verdict]) -> None:
        """These refusals are old: the servers are asked to try again, and count as pending until they say more."""
        self._forgiven = {verdict.server: verdict.since for verdict in verdicts if verdict.failed}

    def _is_asked(self, status: Mapping[str, Any]) -> bool:
        """Whether its word counts: it takes requests, or it starts with another release than this one.

        One that starts with this one is not waited for: it comes up with it, or its own resource tells why not.
        Another base means that the server is about to be restarted, by its own resource too.
        """
        if not _same_base(status, self._manifest):
            return False
        if status.get("phase") in _STARTING:
            return _mapping(status.get("manifest")).get("digest") not in (None, self._digest)
        return status.get("phase") == "ready"

    def _lives(self, entry: Entry, server: str, word: str, heartbeat_s: float) -> bool:
        """By the store's clock, not by the server's; or because it said something new while this looked on."""
        spoke = self._first_words.setdefault(server, word) != word
        age_s = _age_s(entry)
        if spoke or age_s <= heartbeat_s + _LATENESS_S:
            self._quiet.discard(server)
        else:
            self._quiet.add(server)
        return spoke or age_s <= _HEARTBEATS * heartbeat_s + _LATENESS_S

    async def settle(self, ctx: kit.Context, timeout_s: float) -> list[Verdict]:
        """Waits until every running server follows or refuses; at the time limit, those that did neither have failed.

        A store that does not answer is asked again until then. Raises kit.ResourceError if it never did.
        """
        begun = asyncio.get_running_loop().time()
        deadline = begun + timeout_s
        verdicts: Sequence[Verdict] = ()
        while True:
            error: StoreError | None = None
            try:
                verdicts = await asyncio.to_thread(self.look)
            except StoreError as unreachable:
                error = unreachable
            now = asyncio.get_running_loop().time()
            silent = [verdict for verdict in verdicts if verdict.state == "silent"]
            pending = [verdict for verdict in verdicts if verdict.state == "pending"]
            pending += [verdict for verdict in silent if now - begun < verdict.patience_s]
            if not pending and error is None:
                for gone in silent:
                    await ctx.info(f"{gone.about} and is taken for gone")
                return list(verdicts)
            if now >= deadline:
                break
            await ctx.status(
                f"{', '.join(verdict.about for verdict in pending)} to serve the new digests"
                if error is None
                else f"the store to say what the servers do: {error.what}"
            )
            await asyncio.sleep(self._poll_s)
        if error is not None:
            raise kit.ResourceError(
                f"the manifest is written, but within {timeout_s:g} s the store did not say what the servers do: "
                f"{error.what}",
                next_action=f"{error.next_action}; then run `pulumi up` again",
            )
        return [await self._too_late(ctx, each, timeout_s) if each in pending else each for each in verdicts]

    async def _too_late(self, ctx: kit.Context, verdict: Verdict, timeout_s: float) -> Verdict:
        """At the time limit: it has failed, unless it did not say a word all the while."""
        if verdict.server in self._quiet:
            await ctx.info(f"{verdict.server}: it has not said a word for {timeout_s:g} s and is taken for gone")
            return replace(verdict, state="silent")
        return replace(verdict, state="failed", why=f"not within {timeout_s:g} s: {verdict.why}")

    def _verdict(self, server: str, status: Mapping[str, Any]) -> Verdict:
        manifest = _mapping(status.get("manifest"))
        since = str(manifest.get("since"))
        if status.get("manifestDigest") == self._digest and manifest.get("digest") == self._digest:
            return Verdict(server, "follows")
        if manifest.get("digest") != self._digest:
            return Verdict(server, "pending", _fault(manifest) or _UNKNOWN)
        faults = [
            f"{adapter.get('name')} {_digest_at_fault(adapter)[:19]}…: {_fault(adapter)}"
            for adapter in map(_mapping, _list(status.get("adapters")))
            if adapter.get("state") == "failed"
        ]
        why = "; ".join(faults) or _fault(manifest)
        if manifest.get("state") == "refused":
            if self._forgiven.get(server) == since:
                return Verdict(server, "pending", f"it has not tried again yet ({why})")
            return Verdict(server, "failed", why or "it refuses the release", since=since)
        return Verdict(server, "pending", why or _steps(status))


def _heartbeat_s(status: Mapping[str, Any]) -> float | None:
    """Seconds between its reports; None if it does not say."""
    try:
        return float(status["heartbeatS"])
    except (LookupError, ValueError, TypeError):
        return None


def _age_s(entry: Entry) -> float:
    """Seconds since it was written, by the store's clock and this machine's."""
    return (datetime.datetime.now(datetime.UTC) - entry.updated).total_seconds()


def _digest_at_fault(adapter: Mapping[str, Any]) -> str:
    """The canary's, where that is what fails."""
    return str(_mapping(adapter.get("error")).get("digest") or adapter.get("wanted"))


def _same_base(status: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    own, wanted = _mapping(status.get("baseModel")), _mapping(manifest.get("baseModel"))
    return all(own.get(key) == wanted.get(key) for key in ("name", "revision", "digest"))


def _steps(status: Mapping[str, Any]) -> str:
    doing = [
        f"{adapter.get('state')} {adapter.get('name')}"
        for adapter in map(_mapping, _list(status.get("adapters")))
        if adapter.get("state") != "serving"
    ]
    return ", ".join(doing) or "it takes the release over"


def _fault(document: Mapping[str, Any]) -> str:
    error = _mapping(document.get("error"))
    return " ".join(str(error.get("what", "")).split())


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(data))
    except ValueError:
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
