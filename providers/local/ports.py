"""TCP ports of this machine: whether one is free, and who has it."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

_LISTEN = "0A"  # state of a listening socket in /proc/net/tcp


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Connections that are only ending do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(port: int) -> int | None:
    """The pid that listens on `port` (IPv4 or IPv6); None if that cannot be seen."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for handle in (entry / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(handle.readlink()) in inodes:
                        return int(entry.name)
    return None


def describe_holder(port: int) -> str:
    """Who has the port, for an error message."""
    pid = holder(port)
    if pid is None:
        return "another process"
    name = "?"
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return f"process {pid} ({name})"
