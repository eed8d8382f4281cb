"""What a test lets go wrong at one call."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "unavailable",
    "denied",
    "exhausted",
    "reset_before",
    "reset_half",
    "reset_after",
    "hold_before",
    "hold_after",
    "hold_answered",
]
Moment = Literal["before", "after", "answered"]


@dataclass
class Fault:
    """unavailable, denied, exhausted: that status instead of the work.

    reset_…: the connection breaks before the work, in the middle of a stream of answers, or after the work.
    hold_…: the call waits there, `reached` is set, until `release` is. At hold_answered its answer is out, and it is
    the calls after it that wait.
    """

    rpc: str
    kind: Kind
    times: int = 1
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


class Faults:
    """The faults that are set; each happens `times` times."""

    def __init__(self) -> None:
        self._set: list[Fault] = []
        self._lock = threading.Lock()
        self._death: tuple[int, Moment] | None = None
        self.gate: Fault | None = None
        """While it holds, no call goes on."""
        self.dead = False
        """Whether the caller counts as killed: nothing that it still sends has an effect."""
        self.delay_s = 0.0
        """Added to every answer."""

    def add(self, rpc: str, kind: Kind, times: int = 1) -> Fault:
        fault = Fault(rpc, kind, times)
        with self._lock:
            self._set.append(fault)
            if kind == "hold_answered":
                self.gate = fault
        return fault

    def take(self, rpc: str, *kinds: str) -> Fault | None:
        """The fault that happens now, if one is set."""
        with self._lock:
            for fault in self._set:
                if fault.rpc == rpc and fault.kind in kinds and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def kill_caller(self, call: int, moment: Moment) -> None:
        """Its `call`-th call from now on, from 0, is the last one that counts.

        To Modal, and in no other way, this is a kill -9: before the call's work, after it and before its answer, or
        once it was answered.
        """
        with self._lock:
            self._death, self.dead = (call, moment), False

    def life(self) -> Moment | None:
        """What becomes of the call that arrives now; None: it is answered as always."""
        with self._lock:
            if self.dead:
                return "before"
            if self._death is None:
                return None
            left, moment = self._death
            self._death = (left - 1, moment)
            self.dead = left == 0
            return moment if self.dead else None

    def clear(self) -> None:
        """Takes all faults away and lets go what waits."""
        with self._lock:
            for fault in self._set:
                fault.release.set()
            self._set.clear()
            self.delay_s = 0.0
            self._death, self.dead, self.gate = None, False, None
