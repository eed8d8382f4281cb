"""What the state file says of the manifest, of each adapter and of what is draining."""

from collections.abc import Collection, Mapping
from typing import Any

from handlers.serving.errors import ServingError
from handlers.serving.manifest import AdapterSpec, Manifest, Version
from handlers.serving.state import StateFile, now, said

# states of an adapter
SERVING, FETCHING, LOADING, PROBING, WAITING, FAILED = (
    "serving", "fetching", "loading", "probing", "waiting", "failed",
)  # fmt: skip
# states of the manifest
FOLLOWING, REFUSED, UNREACHABLE = "following", "refused", "unreachable"


class Report:
    """Keeps these parts of the state file. Methods may be called from any thread; `since` changes with the state."""

    def __init__(self, state: StateFile) -> None:
        self.state = state
        self.served: dict[str, AdapterSpec] = {}
        self.served_digest: str | None = None
        self.wanted: dict[str, AdapterSpec] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.release: dict[str, Any] = {"digest": None, "state": FOLLOWING, "error": None}
        self.unreachable: dict[str, Any] | None = None
        self.manifest: dict[str, Any] = state.document["manifest"]
        self.leaving: list[dict[str, Any]] = []

    def follow(self, manifest: Manifest) -> None:
        """This manifest is being taken over."""
        with self.state.lock:
            self.release = {"digest": manifest.digest, "state": FOLLOWING, "error": None}
            self.wanted = {adapter.name: adapter for adapter in manifest.adapters}
            for name in self.names():
                self._row(name, SERVING if self._as_wanted(name) else WAITING)
            self._write()

    def step(self, names: Collection[str], state: str) -> None:
        """These adapters are at this step."""
        with self.state.lock:
            for name in names:
                self._row(name, state)
            self._write()

    def now_serving(self, manifest: Manifest) -> None:
        """The names stand for what this manifest says: all of it is served."""
        with self.state.lock:
            self.release = {"digest": manifest.digest, "state": SERVING, "error": None}
            self.wanted = {adapter.name: adapter for adapter in manifest.adapters}
            self.served, self.served_digest = dict(self.wanted), manifest.digest
            self.rows = {name: row for name, row in self.rows.items() if name in self.served}
            for name in self.served:
                self._row(name, SERVING)
            self._write()

    def failed(
        self,
        digest: str | None,
        error: ServingError,
        retrying: bool,
        adapters: Mapping[str, tuple[Version, ServingError]] | None = None,
    ) -> None:
        """The manifest is not taken over. `adapters`: the faults of single ones by name, with the version at fault (it
        may be the canary); else it is the whole's."""
        with self.state.lock:
            state = FOLLOWING if retrying else REFUSED
            self.release = {"digest": digest, "state": state, "error": fault(error, retrying)}
            for name in self.names():
                one = (adapters or {}).get(name)
                if one is not None:
                    self._row(name, FAILED, {**fault(one[1], retrying), "digest": one[0].digest})
                else:
                    self._row(name, SERVING if self._as_wanted(name) else WAITING)
            self._write()

    def reach(self, error: ServingError | None) -> None:
        """Whether the manifest can be read."""
        with self.state.lock:
            self.unreachable = None if error is None else fault(error, True)
            self._write()

    def draining(self, in_flight: Mapping[str, int]) -> None:
        """Versions that no name needs any more, with their requests in flight."""
        found = [{"servedName": name, "inFlight": number} for name, number in in_flight.items()]
        with self.state.lock:
            if found != self.leaving:
                self.leaving = found
                self._write()

    def names(self) -> list[str]:
        return list(dict.fromkeys([*self.served, *self.wanted]))

    def _as_wanted(self, name: str) -> bool:
        return pinned(self.served.get(name)) == pinned(self.wanted.get(name))

    def _row(self, name: str, state: str, error: dict[str, Any] | None = None) -> None:
        row = self.rows.setdefault(name, {"state": None, "since": now(), "error": None})
        if row["state"] != state:
            row.update(state=state, since=now())
        row["error"] = error

    def _write(self) -> None:
        shown = self.release
        if self.unreachable is not None:
            shown = {"digest": self.release["digest"], "state": UNREACHABLE, "error": self.unreachable}
        since = self.manifest["since"] if self.manifest["state"] == shown["state"] else now()
        self.manifest = {**shown, "since": since}
        adapters = [self._adapter(name) for name in self.names()]
        self.state.set(
            manifestDigest=self.served_digest, manifest=self.manifest, adapters=adapters, draining=self.leaving
        )

    def _adapter(self, name: str) -> dict[str, Any]:
        served, wanted = self.served.get(name), self.wanted.get(name)
        canary = served.canary if served else None
        row = self.rows[name]
        return {
            "name": name,
            "servedName": served.main.served_name if served else None,
            "digest": served.main.digest if served else None,
            "wanted": wanted.main.digest if wanted else None,
            "canary": {
                "servedName": canary.version.served_name,
                "digest": canary.version.digest,
                "weight": canary.weight,
            }
            if canary
            else None,
            "state": row["state"],
            "since": row["since"],
            "error": row["error"],
        }


def pinned(adapter: AdapterSpec | None) -> tuple[str, str | None, int] | None:
    """What requests get: digest, the canary's digest and weight."""
    if adapter is None:
        return None
    canary = adapter.canary
    return adapter.main.digest, canary.version.digest if canary else None, canary.weight if canary else 0


def fault(error: ServingError, retrying: bool) -> dict[str, Any]:
    return {**said(error), "reason": error.reason or "unexpected", "retrying": retrying}
