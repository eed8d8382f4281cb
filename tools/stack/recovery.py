"""What a killed `pulumi` leaves behind in the local backend, and whether it may be put right.

Of a run that was killed outright (kill -9, power) the stack stays locked, and the operation that it was in the
middle of stays pending. Both are safe to clear only if that run is really over: a lock file names the process
that made it (its pid, host and time), so that can be known on this host, and is never guessed.
"""

from __future__ import annotations

import enum
import json
import os
import socket
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

CLOCK_SLACK_S = 2.0
"""How much later than its lock a process may seem to have started: /proc counts from the boot, whose own time is
known to the second."""


class Verdict(enum.Enum):
    """What a lock means."""

    ALIVE = "the process that made it is still there"
    DEAD = "the process that made it is gone"
    UNKNOWN = "it was made on another host, or can't be read"


@dataclass(frozen=True)
class StackLock:
    """A lock file of Pulumi's file backend.

    Attributes:
        file: where it lies.
        pid: the process that made it.
        host: the host it ran on.
        user: who ran it.
        made_at: when, in seconds since 1970.
    """

    file: Path
    pid: int
    host: str
    user: str
    made_at: float

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.made_at).astimezone().isoformat(sep=" ", timespec="seconds")
        return f"process {self.pid} of {self.user}@{self.host} since {when}"


def read_lock(file: Path) -> StackLock | None:
    """Reads a lock file; None if it is not one that is understood."""
    try:
        content: Any = json.loads(file.read_text())
        # Go writes nanoseconds, of which Python reads microseconds at most.
        stamp = str(content["timestamp"])
        head, dot, rest = stamp.partition(".")
        digits = len(rest) - len(rest.lstrip("0123456789"))
        moment = datetime.fromisoformat(f"{head}{dot}{rest[: min(digits, 6)]}{rest[digits:]}")
        return StackLock(
            file=file,
            pid=int(content["pid"]),
            host=str(content["hostname"]),
            user=str(content["username"]),
            made_at=moment.timestamp(),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def started_at(pid: int, proc: Path = Path("/proc")) -> float | None:
    """When a process started, in seconds since 1970; None if there is none (a zombie counts as none)."""
    try:
        # The command's name, in parentheses, may hold spaces: what matters comes after the last one.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        booted = next(
            float(line.split()[1]) for line in (proc / "stat").read_text().splitlines() if line.startswith("btime ")
        )
    except (OSError, StopIteration, IndexError):
        return None
    if fields[0] in ("Z", "X"):
        return None
    return booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def judge(lock: StackLock | None, host: str, process_started_at: float | None) -> Verdict:
    """Whether the run that made a lock is over.

    Args:
        lock: the lock as read; None if it can't be read.
        host: this host's name.
        process_started_at: when the process that has the lock's pid now was started; None if there is none.
    """
    if lock is None or lock.host != host:
        return Verdict.UNKNOWN
    if process_started_at is None:
        return Verdict.DEAD
    # The pid was given to another process since: it started after the lock was made.
    return Verdict.DEAD if process_started_at > lock.made_at + CLOCK_SLACK_S else Verdict.ALIVE


def locks_of(backend: Path, project: str, stack: str) -> list[tuple[Path, StackLock | None, Verdict]]:
    """Every lock on a stack of a file backend, with what it means."""
    folder = backend / ".pulumi" / "locks" / "organization" / project / stack
    found = []
    for file in sorted(folder.glob("*.json")):
        lock = read_lock(file)
        running = started_at(lock.pid) if lock else None
        found.append((file, lock, judge(lock, socket.gethostname(), running)))
    return found


def pending_operations(exported: str) -> list[str]:
    """The operations that a killed run left pending, e.g. "creating urn:...", from `pulumi stack export`."""
    deployment: Any = json.loads(exported).get("deployment") or {}
    return [
        f"{operation.get('type', 'changing')} {operation.get('resource', {}).get('urn', 'a resource')}"
        for operation in deployment.get("pending_operations") or []
    ]


def wait_until_over(backend: Path, project: str, stack: str, patience_s: float) -> None:
    """Waits while a lock's process is just ending (a run that was interrupted finishes what it is doing)."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if not any(verdict is Verdict.ALIVE for _, _, verdict in locks_of(backend, project, stack)):
            return
        time.sleep(0.2)
