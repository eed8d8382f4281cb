"""Watches targets: each is asked by a thread of its own what it serves, so that a slow one delays no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from handlers.router import asking
from handlers.router.config import Access, Target
from handlers.router.metrics import Seen
from handlers.router.status import Status

INTERVAL_S = 2.0
FORGET_AFTER_S = 3 * INTERVAL_S + 5
_SHORTEST_PAUSE_S = 0.5


class Watch:
    """The targets of now. `say` takes a line for the log; it is called when a target begins or ends to answer."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._watchers: dict[str, _Watcher] = {}

    def follow(self, targets: tuple[Target, ...], access: Mapping[str, Access]) -> None:
        """From now on watches the `targets` with a status path; one that is asked as before keeps what is known."""
        wanted: dict[str, _Watcher] = {}
        begun: list[_Watcher] = []
        for target in targets:
            if target.status_path is None:
                continue
            new = _Watcher(target, target.status_path, access.get(target.name, Access()), self._say)
            former = self._watchers.get(target.name)
            if former is not None and former.asks_as(new):
                wanted[target.name] = former
            else:
                wanted[target.name] = new
                begun.append(new)
        for watcher in self._watchers.values():
            if watcher not in wanted.values():
                watcher.stop()
        # One step: whoever reads meanwhile sees the former targets or the new ones.
        self._watchers = wanted
        for watcher in begun:
            watcher.start()

    def stop(self) -> None:
        """Ends all questions; one that is under way is not waited for."""
        self.follow((), {})

    def seen(self) -> list[Seen]:
        """What is known now of each target that was asked at least once, in the order of the router file."""
        seen = [watcher.seen() for watcher in self._watchers.values()]
        return [one for one in seen if one is not None]


class _Watcher:
    """Asks one target. Its thread alone writes `_known`, as a whole, so readers need no lock."""

    def __init__(self, target: Target, path: str, access: Access, say: Callable[[str], None]) -> None:
        self._target = target
        self._path = path
        self._access = access
        self._say = say
        self._over = threading.Event()
        self._known: _Known | None = None

    def asks_as(self, other: _Watcher) -> bool:
        return self._way() == other._way()

    def _way(self) -> tuple[object, ...]:
        target = self._target
        return (target.name, target.url, self._path, self._access)

    def start(self) -> None:
        # A daemon: the router's end waits for no name server and no target.
        threading.Thread(target=self._run, name=f"watch {self._target.name}", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def seen(self) -> Seen | None:
        known = self._known
        if known is None:
            return None
        last, now = known.last, time.monotonic()
        if last is None:
            return Seen(self._target.name, known.up, None, None)
        return Seen(self._target.name, known.up, now - last.renewed, None if last.is_too_old(now) else last.status)

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                status, fault = asking.ask(self._target, self._path, self._access), ""
            except asking.NoAnswerError as error:
                status, fault = None, str(error)
            except Exception as error:
                # Whatever a target makes go wrong here must not end the questions.
                status, fault = None, f"its answer cannot be read: {type(error).__name__}"
            if self._over.is_set():
                return
            self._tell(status is not None, fault)
            self._known = (self._known or _Known(False)).after(status, time.monotonic())
            self._over.wait(max(_SHORTEST_PAUSE_S, INTERVAL_S - (time.monotonic() - began)))

    def _tell(self, up: bool, fault: str) -> None:
        was_up = self._known is None or self._known.up
        if was_up and not up:
            self._say(f"target {self._target.name} does not say at {self._path} what it serves: {fault}")
        elif up and not was_up:
            self._say(f"target {self._target.name} says again what it serves")


@dataclass(frozen=True)
class _Known:
    """Whether the last question was answered, and a target's last status if there ever was one."""

    up: bool
    last: _Last | None = None

    def after(self, status: Status | None, now: float) -> _Known:
        if status is None:
            return _Known(False, self.last)
        # A server that hangs may go on answering with its old document. Clocks differ, so only a change of its time
        # tells that it lives.
        last = self.last
        same = last is not None and status.updated_at != "" and status.updated_at == last.status.updated_at
        return _Known(True, _Last(status, came=now, renewed=last.renewed if last is not None and same else now))


@dataclass(frozen=True)
class _Last:
    """Times are of this machine's monotonic clock."""

    status: Status
    came: float
    renewed: float

    def is_too_old(self, now: float) -> bool:
        """A server that was silent for so long does not serve any more what it said."""
        return now - self.came > FORGET_AFTER_S
