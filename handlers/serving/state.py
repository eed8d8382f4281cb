"""The state file: what the server tells about itself, replaced as a whole so that no reader sees half of it."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handlers.serving.config import LaunchConfig
from handlers.serving.errors import ServingError

VERSION = 2
PHASES = ("starting", "fetching", "launching", "loading", "probing", "ready", "draining", "stopped", "failed")
LAST = ("stopped", "failed")


def write_json(path: Path, document: Any, mode: int = 0o644) -> None:
    """Writes through a temporary file and a rename. Raises ServingError when that is not possible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, ensure_ascii=False, indent=1)
            stream.write("\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ServingError(
            f"{path} cannot be written: {error.strerror}", "check the folder, its mode and the free disk space"
        ) from None


def blank() -> dict[str, Any]:
    """All keys of the state file, as long as nothing is known."""
    return {
        "version": VERSION,
        "phase": "starting",
        "detail": "",
        "error": None,
        "pid": None,
        "enginePid": None,
        "updatedAt": now(),
        "heartbeatS": None,
        "port": None,
        "environment": None,
        "target": None,
        "replica": None,
        "baseModel": None,
        "manifestDigest": None,
        "manifest": {"digest": None, "state": "following", "since": now(), "error": None},
        "adapters": [],
        "draining": [],
    }


def write_refusal(launch_file: Path, error: ServingError) -> None:
    """Tells in the state file, when the launch file names one, that the launch file cannot be used."""
    try:
        path = Path(json.loads(launch_file.read_text(encoding="utf-8"))["stateFile"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    if path.is_absolute():
        document = blank() | {"phase": "failed", "detail": error.what.splitlines()[0], "error": said(error)}
        with contextlib.suppress(ServingError):  # standard error has told it already
            write_json(path, document)


def said(error: ServingError) -> dict[str, Any]:
    return {"what": error.what, "next": error.next_step}


def now() -> str:
    """UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class StateFile:
    """Keeps the state file up to date, hands each new state to `publish`, and prints the phases to standard output.

    Methods may be called from any thread. After the phases `stopped` and `failed` nothing is written any more.
    """

    def __init__(self, config: LaunchConfig, heartbeat_s: int) -> None:
        self.path = config.state_file
        self.started = time.monotonic()
        self.lock = threading.RLock()
        self.publish: Callable[[dict[str, Any]], None] = lambda document: None
        self.trouble: str | None = None
        base = config.base
        self.document = blank() | {
            "pid": os.getpid(),
            "heartbeatS": heartbeat_s,
            "port": config.port,
            "environment": config.environment,
            "target": config.target,
            "replica": config.replica,
            "baseModel": {"name": base.name, "revision": base.revision, "digest": base.digest},
        }

    @property
    def phase(self) -> str:
        return str(self.document["phase"])

    def update(self, phase: str, detail: str, **fields: Any) -> None:
        """Enters `phase` (one of PHASES); `fields` are other keys of the file that change with it. Raises ServingError
        when the file cannot be written."""
        assert phase in PHASES
        with self.lock:
            if self.phase in LAST:
                return
            self.document.update(fields, phase=phase, detail=detail)
            self.say(f"{phase}: {detail}")
            self.write()

    def set(self, **fields: Any) -> None:
        """Changes keys of the file, or none (a heartbeat). A file that cannot be written is told in the log: what is
        served goes on."""
        with self.lock:
            if self.phase in LAST:
                return
            self.document.update(fields)
            try:
                self.write()
                self.trouble = None
            except ServingError as error:
                if self.trouble != error.what:
                    self.say(f"{error.what}; {error.next_step}")
                self.trouble = error.what

    def write(self) -> None:
        self.document["updatedAt"] = now()
        self.publish(dict(self.document))
        write_json(self.path, self.document)

    def fail(self, error: ServingError) -> None:
        self.update("failed", error.what.splitlines()[0], error=said(error), enginePid=None)
        self.say(f"next: {error.next_step}")

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the log may be closed; serving goes on
            sys.stdout.write(f"[{time.monotonic() - self.started:6.1f} s] {line}\n")
            sys.stdout.flush()
