"""What the stand-in can be told to do wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "delay",  # `seconds` before it is looked at
    "error before",  # `status` without any effect
    "error after",  # `status`, though it was carried out
    "reset before",  # the connection breaks without any effect
    "reset after",  # the connection breaks, though it was carried out
    "rate limit",  # 429 with Retry-After `seconds`, without any effect
    "half done",  # `status`, though a part of it was carried out
    "quietly half done",  # a good answer, though only a part was carried out
    "call before",  # `hook` runs, then all is well
    "call after",  # it was carried out, `hook` runs, then the answer goes out
    "call answered",  # the answer has gone out, then `hook` runs
]


@dataclass
class Fault:
    """One thing that goes wrong at requests of `method` whose path matches `path` as a whole.

    skip: so many such requests are good first; times: so many have it then.
    """

    kind: Kind
    method: str
    path: str = r".*"
    skip: int = 0
    times: int = 1
    status: int = 502
    seconds: float = 0.5
    hook: Callable[[], object] = lambda: None
    happened: int = 0


@dataclass
class Faults:
    """The faults to come. Safe to be changed while the server runs."""

    pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self.pending.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self.pending.clear()

    def next(self, method: str, path: str) -> Fault | None:
        """The fault of this request, if it has one."""
        with self._lock:
            for fault in self.pending:
                if fault.method != method or not re.fullmatch(fault.path, path):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.happened < fault.times:
                    fault.happened += 1
                    return fault
        return None
