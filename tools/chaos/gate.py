"""Counts the calls that reach a stand-in and kills Pulumi at the wanted one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass, field

from tests.support.stack_project import descendants

from .protocol import Moment

_AIM_TIMEOUT_S = 60.0


@dataclass
class CallGate:
    """The `Gate` of one stand-in (tools/chaos/protocol.py).

    calls: the names of the calls since the last `open`; changing: the numbers of those that do not only read.
    killed: whether Pulumi was killed since then; missed: whether it should have been, and was not found.
    """

    calls: list[str] = field(default_factory=list)
    changing: set[int] = field(default_factory=set)
    killed: bool = False
    missed: bool = False
    _wanted: tuple[int, Moment] | None = None
    _root: int = 0
    _aimed: threading.Event = field(default_factory=threading.Event)
    _victims: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, wanted: tuple[int, Moment] | None = None) -> None:
        """Begins to count anew; `wanted`: the call (the first is 0) at which to kill, and when at it."""
        with self._lock:
            self.calls, self.changing, self.killed, self.missed = [], set(), False, False
            self._wanted, self._root, self._victims = wanted, 0, []
            self._aimed.clear()

    def aim(self, pid: int) -> None:
        """The process whose whole tree is to be killed; a call at which it is to be killed waits for this."""
        self._root = pid
        self._aimed.set()

    def reached(self, call: str, *, reads: bool = False) -> Moment | None:
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            if not reads:
                self.changing.add(number)
            if self._wanted is None or number != self._wanted[0]:
                return None
            # Looked up while the call waits: it takes a few milliseconds, in which an answer would be followed by
            # the next call.
            self._victims = descendants(self._root) if self._aimed.wait(_AIM_TIMEOUT_S) else []
            return self._wanted[1]

    def kill(self) -> None:
        with self._lock:
            # At first: who waits for Pulumi's end looks at it as soon as it comes.
            self.killed, self.missed = bool(self._victims), not self._victims
            # Children last: Pulumi must not see its plugin die.
            for pid in reversed(self._victims):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
