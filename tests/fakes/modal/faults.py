"""What a test lets go wrong at one call."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["unavailable", "reset_before", "reset_after", "hold_before", "hold_after", "denied", "exhausted"]


@dataclass
class Fault:
    """unavailable, denied, exhausted: that status instead of the work.

    reset_…: the connection breaks before or after the work.
    hold_…: the call waits there, `reached` is set, until `release` is.
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
        self.delay_s = 0.0
        """Added to every answer."""

    def add(self, rpc: str, kind: Kind, times: int = 1) -> Fault:
        fault = Fault(rpc, kind, times)
        with self._lock:
            self._set.append(fault)
        return fault

    def take(self, rpc: str, *kinds: str) -> Fault | None:
        """The fault that happens now, if one is set."""
        with self._lock:
            for fault in self._set:
                if fault.rpc == rpc and fault.kind in kinds and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def clear(self) -> None:
        """Takes all faults away and lets go what waits."""
        with self._lock:
            for fault in self._set:
                fault.release.set()
            self._set.clear()
            self.delay_s = 0.0
