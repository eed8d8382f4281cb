"""Processes on this machine: who they are, which belong to a resource, how to end them.

A pid alone says little, since pids are used again. A process is identified by its pid and its start time (field
22 of /proc/PID/stat, in clock ticks since boot), and signalled through a pidfd, which cannot change hands.
Whose it is stands in its environment, where a child inherits it and a kill at any moment cannot remove it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN_VARIABLE = "LORAFLEET_RUN"
"""Environment variable of every process of a resource: its run folder."""
LAUNCH_VARIABLE = "LORAFLEET_LAUNCH"
"""Environment variable: digest of the configuration that the process was started with."""
URN_VARIABLE = "LORAFLEET_URN"
"""Environment variable: the resource it belongs to."""
CONFIG_NAME = "config.json"
"""Name of the configuration in a run folder."""

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
    """A process of a run folder. `leads`: it is the one that was started, the others are its children.

    The one that was started has the folder's configuration as its last argument. (Sessions do not tell: HAProxy and
    vLLM lead some of their own, and live for a moment when their launcher was killed.)
    """

    identity: Identity
    urn: str
    launch: str
    leads: bool


def members(run: Path) -> list[Member]:
    """All processes of a run folder, leader first; those of other users cannot be seen."""
    return sorted((member for folder, member in _marked() if folder == str(run)), key=lambda m: not m.leads)


def run_of(pid: int) -> tuple[Path, str] | None:
    """(run folder, URN) that a process is marked with; None if it has no mark that can be seen."""
    variables = _variables(pid)
    folder = variables.get(RUN_VARIABLE)
    return (Path(folder), variables.get(URN_VARIABLE, "")) if folder else None


def run_folders(state_dir: Path) -> set[Path]:
    """Run folders below `state_dir` that have processes, whether or not the folders are still there."""
    below = f"{state_dir}{os.sep}"
    return {Path(folder) for folder, _ in _marked() if folder.startswith(below)}


def _marked() -> Iterator[tuple[str, Member]]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        variables, identity = _variables(int(entry.name)), identify(int(entry.name))
        folder = variables.get(RUN_VARIABLE)
        if folder is None or identity is None:
            continue
        leads = _last_argument(identity.pid) == f"{folder}{os.sep}{CONFIG_NAME}"
        yield folder, Member(identity, variables.get(URN_VARIABLE, ""), variables.get(LAUNCH_VARIABLE, ""), leads)


def _variables(pid: int) -> dict[str, str]:
    """The marks in a process's environment; {} if it cannot be read."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    if RUN_VARIABLE.encode() not in environment:
        return {}
    pairs = (os.fsdecode(item).partition("=") for item in environment.split(b"\0"))
    return {name: value for name, _, value in pairs if name in (RUN_VARIABLE, LAUNCH_VARIABLE, URN_VARIABLE)}


def _last_argument(pid: int) -> str:
    try:
        arguments = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return os.fsdecode(arguments.rstrip(b"\0").rpartition(b"\0")[2])


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
