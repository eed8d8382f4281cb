"""Processes on this machine: who they are, which belong to a resource, how to end them.

A pid alone says little, since pids are used again. A process is identified by its pid and its start time (field
22 of /proc/PID/stat, in clock ticks since boot), and signalled through a pidfd, which cannot change hands.
Whose it is stands in its environment, where a child inherits it and a kill at any moment cannot remove it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

RUN_VARIABLE = "LORAFLEET_RUN"
"""Environment variable of every process of a resource: its run folder."""
LAUNCH_VARIABLE = "LORAFLEET_LAUNCH"
"""Environment variable: digest of the configuration that the process was started with."""
URN_VARIABLE = "LORAFLEET_URN"
"""Environment variable: the resource it belongs to."""

_PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """A process: pid and start time in clock ticks since boot."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Whether this very process runs (a zombie does not)."""
        return identify(self.pid) == self

    def signal(self, number: int) -> bool:
        """Sends a signal to this very process; False if it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The pidfd is fixed from here on; if the start time still fits, it is the right process.
            if identify(self.pid) != self:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)


def identify(pid: int) -> Identity | None:
    """The process that has `pid` now; None if there is none or it is a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field, the command, stands in brackets and may hold anything; what follows it is regular.
    rest = text.rpartition(")")[2].split()
    return None if rest[0] in "ZX" else Identity(pid, int(rest[19]))


@dataclass(frozen=True)
class Member:
    """A process of a run folder. `leads`: it is the one that was started, the others are its children."""

    identity: Identity
    urn: str
    launch: str
    leads: bool


def members(run: Path) -> list[Member]:
    """All processes of a run folder, leader first; those of other users cannot be seen."""
    found = sorted((member for folder, member in _marked() if folder == str(run)), key=lambda m: m.identity.started)
    # A child may lead a session of its own (HAProxy's master does); the process that was started is the oldest.
    return [replace(member, leads=member.leads and index == 0) for index, member in enumerate(found)]


def run_folders(state_dir: Path) -> set[Path]:
    """Run folders below `state_dir` that have processes, whether or not the folders are still there."""
    below = f"{state_dir}{os.sep}"
    return {Path(folder) for folder, _ in _marked() if folder.startswith(below)}


def _marked() -> Iterator[tuple[str, Member]]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes()
            if RUN_VARIABLE.encode() not in environment:
                continue
            variables = dict(item.partition(b"=")[::2] for item in environment.split(b"\0"))
            folder = variables.get(RUN_VARIABLE.encode())
            identity = identify(int(entry.name))
            if folder is None or identity is None:
                continue
            urn, launch = (os.fsdecode(variables.get(name.encode(), b"")) for name in (URN_VARIABLE, LAUNCH_VARIABLE))
            leads = os.getsid(identity.pid) == identity.pid
            yield os.fsdecode(folder), Member(identity, urn, launch, leads)


def end(run: Path, *, patience_s: float) -> Iterator[str]:
    """Ends all processes of a run folder: SIGTERM to the leader, SIGKILL to what is left after `patience_s`.

    A generator, so that the caller says what is being waited for: it yields a line every 0.1 s.
    """
    found = members(run)
    for member in found:
        if member.leads:
            member.identity.signal(signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and any(member.leads for member in members(run)):
        yield f"the process to finish its requests (at most {max(deadline - time.monotonic(), 0):.0f} s more)"
    # Children outlive their leader only if it was killed; new ones may be born while they are being ended.
    deadline = time.monotonic() + 10
    while left := members(run):
        for member in left:
            member.identity.signal(signal.SIGKILL)
        if time.monotonic() > deadline:
            pids = ", ".join(str(member.identity.pid) for member in left)
            raise TimeoutError(f"processes {pids} do not end although they were killed")
        yield "the process to end"
