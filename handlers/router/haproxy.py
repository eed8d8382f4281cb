"""The HAProxy program: finding it, checking a configuration, starting it, asking it."""

from __future__ import annotations

import asyncio
import csv
import ctypes
import io
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from handlers.router import names
from handlers.router.errors import RouterError
from handlers.router.render import ADMIN_SOCKET

_MIN_VERSION = (2, 6)
_CHECK_TIMEOUT_S = 20
_ANSWER_TIMEOUT_S = 2.0
_PR_SET_PDEATHSIG = 1
# HAProxy's buffers hold a whole request here, too large for its own cache; glibc would map and unmap each one.
# Keeping them took the median time that the router adds from 1.0 to 0.33 ms (bodies up to 512 KiB allowed).
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2), "MALLOC_TRIM_THRESHOLD_": str(256 * 1024**2)}
# Debian puts it where the PATH of plain users does not look.
_MORE_PLACES = "/usr/sbin:/usr/local/sbin"


def find() -> str:
    """The absolute path of a HAProxy that is new enough. Raises RouterError."""
    path = shutil.which("haproxy") or shutil.which("haproxy", path=_MORE_PLACES)
    if path is None:
        raise RouterError(
            "HAProxy is not installed: no program 'haproxy' on PATH or in " + _MORE_PLACES.replace(":", " or "),
            "apt-get install haproxy",
        )
    shown = subprocess.run([path, "-v"], capture_output=True, text=True, check=False, timeout=_CHECK_TIMEOUT_S)
    match = re.search(r"version (\d+)\.(\d+)", shown.stdout)
    if match is None or (int(match[1]), int(match[2])) < _MIN_VERSION:
        first = (shown.stdout or shown.stderr).splitlines()[:1]
        raise RouterError(
            f"{path} says {first}; the router needs HAProxy 2.6 or newer",
            "install a newer one (Debian 12 and Ubuntu 24.04 have it: apt-get install haproxy)",
        )
    return path


def problems(output: str) -> str:
    """The alerts among what HAProxy wrote, without its prefix."""
    alerts = [line.split(" : ", 1)[-1] for line in output.splitlines() if "[ALERT]" in line]
    return "; ".join(alerts[:3]) or output.strip()[-400:] or "it said nothing"


async def check(program: str, run_dir: Path, config: Path) -> None:
    """`haproxy -c`. Raises RouterError with what HAProxy says."""
    process = await asyncio.create_subprocess_exec(
        program, "-c", "-f", str(config), cwd=run_dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _CHECK_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise RouterError(
            f"HAProxy's check of its configuration took over {_CHECK_TIMEOUT_S} s",
            "see whether a name server hangs",
        ) from None
    if process.returncode != 0:
        raise RouterError(
            "HAProxy refuses the configuration made from the router file: " + problems(output.decode(errors="replace")),
            "correct what it names in the router file; if nothing there is wrong, the router is at fault",
        )


async def start(program: str, run_dir: Path, config: str) -> asyncio.subprocess.Process:
    """HAProxy's master with its worker, as a child that ends when this process ends, however that happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        # The master hands SIGTERM on to its workers. This stays set over its re-exec at a reload.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return await asyncio.create_subprocess_exec(
        program,
        *("-W", "-db", "-f", config),
        cwd=run_dir,
        env=os.environ | _MEMORY,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        limit=1024**2,
        preexec_fn=die_with_parent,
        # A Ctrl-C at a terminal is for the supervisor, which then drains.
        start_new_session=True,
    )


class Talk:
    """Several questions over one connection to the admin socket."""

    _PROMPT = b"\n> "

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, command: str) -> str:
        """Raises OSError or IncompleteReadError when the worker is gone, TimeoutError when it is silent."""
        self._writer.write(f"{command}\n".encode())
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answer = await self._reader.readuntil(self._PROMPT)
        return answer.removesuffix(self._PROMPT).decode(errors="replace")

    async def in_flight(self) -> int:
        """Requests of this worker that a target has or that wait for one; 0 when the worker is gone."""
        try:
            return in_flight(rows(await self.ask("show stat")))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return 0

    def close(self) -> None:
        self._writer.close()


class Admin:
    """HAProxy's admin socket in runDir. Each question is a connection of its own: the newest worker answers."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    async def ask(self, command: str) -> str | None:
        """The answer, or None when no worker answers now."""
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                reader, writer = await self._connect()
                try:
                    writer.write(f"{command}\n".encode())
                    answer = await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None
        return answer.decode(errors="replace") or None

    async def talk(self) -> Talk | None:
        """A connection that stays with the worker of now when that no longer listens; None if none answers."""
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                talk = Talk(*await self._connect())
                await talk.ask("prompt")
                return talk
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder = os.open(self._run_dir, os.O_PATH)
        try:
            # By the folder's descriptor: a socket's path may have about 100 characters, runDir's may have more.
            return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{ADMIN_SOCKET}")
        finally:
            os.close(folder)

    async def worker_pid(self) -> int | None:
        match = re.search(r"^Pid: (\d+)$", await self.ask("show info") or "", re.MULTILINE)
        return int(match[1]) if match else None

    async def set_in_map(self, file: str, key: str, value: str) -> bool:
        """Changes one entry of a map that the worker of now has loaded; False when it has no such entry."""
        maps = await self.ask("show map") or ""
        found = re.search(rf"^(\d+) \([^)]*{re.escape(file)}\)", maps, re.MULTILINE)
        if found is None:
            return False
        return await self.ask(f"set map #{found[1]} {key} {value}") is not None

    async def stats(self) -> list[dict[str, str]]:
        """HAProxy's `show stat`: one row for each frontend, backend and server."""
        return rows(await self.ask("show stat") or "")


def rows(stat: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(stat.lstrip().removeprefix("# "))))


def in_flight(stat: list[dict[str, str]]) -> int:
    """Requests that a target has or that wait for one."""
    return sum(
        int(row["scur"] or 0) for row in stat if row["svname"] == "BACKEND" and row["pxname"].startswith("model_")
    )


def first_checks_done(stat: list[dict[str, str]], backends: Iterable[str]) -> bool:
    """True when the health check of each of these backends' targets has had its first result."""
    seen = {row["pxname"]: row["check_status"] for row in stat if row["svname"] == "up"}
    return all(seen.get(backend, "") not in ("", "INI") for backend in backends)


def without_targets(states: str, moved: set[str]) -> str:
    """HAProxy's `show servers state` without the targets that are elsewhere now.

    It holds addresses besides health, and HAProxy would go on using the old one.
    """
    backends = {names.target_backend(name) for name in moved}
    return "".join(line for line in states.splitlines(keepends=True) if not backends.intersection(line.split()[1:2]))
