"""A supervised process of a resource: its run folder, its start, its end, its state.

    STATE_DIR/run/NAME/        the run folder; its path is the resource's id
        owner.json             which resource it belongs to
        config.json            what the process reads (the launch or router file)
        state.json             what the process says about itself
    STATE_DIR/logs/NAME.log    kept when the resource goes

Any step may be the last one of a killed run. So nothing is remembered elsewhere: a process carries its run folder
and the digest of its configuration in its environment, and every call looks at what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers import kit

from . import process

# What every process may need of the caller's environment. Everything else stays out, most of all Pulumi's passphrase.
_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME")
_LOG_LINES = 15
_UNNAMED = ".half-"  # a folder that a kill kept from getting its owner and its name, or from being removed
_STALE_S = 2.0


def canonical(document: Mapping[str, Any]) -> bytes:
    """A configuration as it is written: the same content, the same bytes."""
    return (json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def launch_digest(command: Sequence[str], content: bytes) -> str:
    """What a process was started with."""
    return hashlib.sha256("\0".join(command).encode() + b"\0" + content).hexdigest()


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file in one step; only the owner may read it (it may hold digests of keys, or keys)."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if the file is missing or not one."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


@dataclass(frozen=True)
class Look:
    """One search through /proc, which takes 2 ms: a preview makes as few as it can.

    leader: the supervised process, None if it does not run; state: what it says of itself, {} if nothing.
    """

    leader: process.Member | None
    state: dict[str, Any]

    @property
    def pid(self) -> int | None:
        return self.leader.identity.pid if self.leader else None


@dataclass(frozen=True)
class Daemon:
    """One run folder and its process."""

    run: Path

    @classmethod
    def at(cls, state_dir: str, name: str) -> Daemon:
        return cls(Path(state_dir) / "run" / name)

    @property
    def config_file(self) -> Path:
        return self.run / process.CONFIG_NAME

    @property
    def state_file(self) -> Path:
        return self.run / "state.json"

    @property
    def log_file(self) -> Path:
        return self.run.parent.parent / "logs" / f"{self.run.name}.log"

    # -- what there is --------------------------------------------------------------------------------------

    def owner(self) -> str:
        """URN of the resource that the folder and its processes belong to; "" if that is not known."""
        written = str(read_json(self.run / "owner.json").get("urn", ""))
        return written or next((member.urn for member in process.members(self.run)), "")

    def leader(self) -> process.Member | None:
        """The supervised process itself, if it runs."""
        return next((member for member in process.members(self.run) if member.leads), None)

    def config(self) -> dict[str, Any]:
        return read_json(self.config_file)

    def command(self) -> list[str]:
        """The command of the last start; [] if there was none."""
        command = read_json(self.run / "owner.json").get("command")
        return [str(part) for part in command] if isinstance(command, list) else []

    def state(self) -> dict[str, Any]:
        """What the process says of itself; {} if another one wrote it (its predecessor) or none did yet."""
        return self.look().state

    def look(self) -> Look:
        """The process and what it says of itself, at one moment."""
        leader, state = self.leader(), read_json(self.state_file)
        # The last word of a process that is gone counts if it failed: `start` removes the word of a predecessor.
        own = state.get("phase") == "failed" if leader is None else state.get("pid") == leader.identity.pid
        return Look(leader, state if own else {})

    def launch_digest(self) -> str:
        """What a process that was started with the configuration in the folder would carry; "" without one."""
        try:
            return launch_digest(self.command(), self.config_file.read_bytes())
        except OSError:
            return ""

    def log_tail(self) -> str:
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - 16384))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-_LOG_LINES:])

    # -- changing it ----------------------------------------------------------------------------------------

    def claim(self, urn: str, command: Sequence[str]) -> None:
        """Makes the folder and says whose it is, before anything else exists. There is none without an owner."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = canonical({"urn": urn, "command": list(command)})
        if self.run.is_dir():
            write_private(self.run / "owner.json", owner)
            return
        unnamed = Path(tempfile.mkdtemp(dir=self.run.parent, prefix=_UNNAMED))
        write_private(unnamed / "owner.json", owner)
        unnamed.rename(self.run)

    def start(self, command: Sequence[str], content: bytes, *, path: Path, passed_on: Sequence[str] = ()) -> None:
        """Writes the configuration and starts the process in a session of its own, so that it outlives the plugin.

        path: the folder that the process imports its code from. passed_on: further variables of the environment
        that it gets, besides those that every process needs.
        """
        self.state_file.unlink(missing_ok=True)
        write_private(self.config_file, content)
        environment = {key: os.environ[key] for key in (*_PASSED_ON, *passed_on) if key in os.environ}
        environment |= {
            process.RUN_VARIABLE: str(self.run),
            process.URN_VARIABLE: self.owner(),
            process.LAUNCH_VARIABLE: launch_digest(command, content),
            "PYTHONPATH": str(path),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log_file.open("ab") as log:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.run,
                env=environment,
                start_new_session=True,
                close_fds=True,
            )

    async def stop(self, ctx: kit.Context, *, drain_s: float) -> None:
        """Ends the process and its children: it may finish its requests for `drain_s`, then it is killed."""
        for waiting_for in process.end(self.run, patience_s=drain_s + 10):
            await ctx.status(waiting_for)
            await asyncio.sleep(0.1)

    async def remove(self, ctx: kit.Context, *, drain_s: float) -> None:
        """Ends the process and removes its folder; the log stays."""
        await self.stop(ctx, drain_s=drain_s)
        if self.run.is_dir():
            # In one step: a kill in the middle must not leave a folder that has lost its owner.
            unnamed = self.run.with_name(f"{_UNNAMED}{self.run.name}")
            shutil.rmtree(unnamed, ignore_errors=True)
            self.run.rename(unnamed)
            shutil.rmtree(unnamed)
        for stale in self.run.parent.glob(f"{_UNNAMED}*"):
            if time.time() - stale.stat().st_mtime > _STALE_S:
                shutil.rmtree(stale, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.run.parent.rmdir()  # only if it is empty: another resource may be making its folder

    async def wait_ready(self, ctx: kit.Context, what: str) -> Look:
        """Waits until the process says it is ready.

        Raises kit.ResourceError when it says it failed, or is gone; with the end of its log.
        """
        misses = 0
        while True:
            look = self.look()
            leader, state = look.leader, look.state
            if state.get("phase") == "ready":
                return look
            if state.get("phase") == "failed":
                error = state.get("error") or {}
                raise self._error(str(error.get("what", f"{what} failed")), str(error.get("next", "read the log")))
            # A process that was just started may not have exec'ed yet; ask three times.
            misses = misses + 1 if leader is None else 0
            if misses >= 3:
                raise self._error(f"{what} ended before it was ready", "read the log; then run `pulumi up` again")
            detail = state.get("detail") or state.get("phase") or "starting"
            await ctx.status(f"{what}: {detail}")
            await asyncio.sleep(0.2)

    def _error(self, what: str, next_action: str) -> kit.ResourceError:
        tail = self.log_tail()
        text = f"{what}\n  end of its log:\n{tail}" if tail else what
        return kit.ResourceError(text, next_action=next_action, log=str(self.log_file))


def leftovers(state_dir: str, urn: str) -> list[kit.Leftover]:
    """Run folders and processes below `state_dir` that belong to `urn`."""
    root = Path(state_dir) / "run"
    # A folder can be lost while its process lives, and a folder can be there before any process is.
    folders = {path.parent for path in root.glob("[!.]*/owner.json")} | process.run_folders(root)
    return [
        kit.Leftover(str(folder), folder.stat().st_mtime if folder.exists() else 0.0)
        for folder in folders
        if Daemon(folder).owner() == urn
    ]
