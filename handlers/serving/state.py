"""The state file: what the server tells about itself, replaced as a whole so that no reader sees half of it."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from handlers.serving.config import LaunchConfig
from handlers.serving.errors import ServingError

PHASES = ("starting", "fetching", "launching", "loading", "probing", "ready", "draining", "stopped", "failed")


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


def write_refusal(launch_file: Path, error: ServingError) -> None:
    """Tells in the state file, when the launch file names one, that the launch file cannot be used."""
    try:
        path = Path(json.loads(launch_file.read_text(encoding="utf-8"))["stateFile"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    if path.is_absolute():
        document = {
            "version": 1,
            "phase": "failed",
            "detail": error.what.splitlines()[0],
            "pid": None,
            "enginePid": None,
        }
        document |= {"error": {"what": error.what, "next": error.next_step}, "updatedAt": now(), "adapters": []}
        with contextlib.suppress(ServingError):  # standard error has told it already
            write_json(path, document)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class StateFile:
    """Keeps the state file up to date and prints each step to standard output."""

    def __init__(self, config: LaunchConfig) -> None:
        self.path = config.state_file
        self.started = time.monotonic()
        self.document: dict[str, Any] = {
            "version": 1,
            "phase": "starting",
            "detail": "",
            "error": None,
            "pid": os.getpid(),
            "enginePid": None,
            "updatedAt": "",
            "port": config.port,
            "baseModel": config.manifest.base.name,
            "manifestDigest": config.manifest.digest,
            "adapters": [],
        }

    @property
    def phase(self) -> str:
        return str(self.document["phase"])

    def update(self, phase: str, detail: str, **fields: Any) -> None:
        """Enters `phase` (one of PHASES); `fields` are other keys of the file that change with it."""
        assert phase in PHASES
        self.document.update(fields, phase=phase, detail=detail)
        self.document["updatedAt"] = now()
        self.say(f"{phase}: {detail}")
        write_json(self.path, self.document)

    def fail(self, error: ServingError) -> None:
        document = {"what": error.what, "next": error.next_step}
        self.update("failed", error.what.splitlines()[0], error=document, enginePid=None)
        self.say(f"next: {error.next_step}")

    def say(self, line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - self.started:6.1f} s] {line}\n")
        sys.stdout.flush()
