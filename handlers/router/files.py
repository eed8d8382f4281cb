"""The state file, and the generations of HAProxy's files in runDir."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handlers.router.errors import RouterError

CURRENT = "current"
_GENERATION = "gen-"
_MEND_RUN_DIR = "free space or mend the folder's rights"


@dataclass
class State:
    """What the router says about itself; `write` puts it on disk in one step."""

    path: Path
    phase: str = "starting"
    detail: str = ""
    error: dict[str, str] | None = None
    haproxy_pid: int | None = None
    config_digest: str | None = None
    refused_digest: str | None = None
    pid: int = field(default_factory=os.getpid)

    def set(self, phase: str, detail: str, error: RouterError | None = None) -> None:
        self.phase = phase
        self.detail = detail
        self.error = None if error is None else {"what": error.what, "next": error.next_step}
        self.write()

    def is_of_another_router(self) -> bool:
        """True when the file on disk is that of a router which still runs (one started beside it by mistake fails)."""
        try:
            other = int(json.loads(self.path.read_text())["pid"])
            command = Path(f"/proc/{other}/cmdline").read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return other != self.pid and b"handlers.router" in command

    def write(self) -> None:
        """Raises RouterError when the folder cannot be written."""
        value: dict[str, Any] = {
            "version": 1,
            "phase": self.phase,
            "detail": self.detail,
            "error": self.error,
            "pid": self.pid,
            "haproxyPid": self.haproxy_pid,
            "updatedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "configDigest": self.config_digest,
            "refusedDigest": self.refused_digest,
        }
        temporary = self.path.with_name(f".{self.path.name}.{self.pid}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
            temporary.replace(self.path)
        except OSError as error:
            raise RouterError(
                f"stateFile {self.path} cannot be written: {error.strerror}",
                "make its folder writable or name another stateFile",
            ) from None


def prepare_run_dir(run_dir: Path) -> None:
    """Makes runDir, for its owner only. Raises RouterError."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        run_dir.chmod(0o700)
    except OSError as error:
        raise RouterError(
            f"runDir {run_dir} cannot be made or used: {error.strerror}",
            "name a folder that this user may write, or mend its rights",
        ) from None


def clear_run_dir(run_dir: Path) -> None:
    """Takes away what a former run left. Only the holder of the lock may call it. Raises RouterError."""
    try:
        for path in run_dir.iterdir():
            if path.name.startswith(_GENERATION):
                shutil.rmtree(path)
            elif path.name == CURRENT or path.suffix in (".sock", ".state", ".tmp", ".bak"):
                path.unlink()
    except OSError as error:
        raise RouterError(f"runDir {run_dir} cannot be cleared: {error}", _MEND_RUN_DIR) from None


def write_generation(run_dir: Path, number: int, files: Mapping[str, str]) -> Path:
    """Writes one set of files, mode 0600, into a folder of its own. Raises RouterError, leaving nothing."""
    folder = run_dir / f"{_GENERATION}{number}"
    try:
        folder.mkdir(mode=0o700)
        for name, text in files.items():
            with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
    except OSError as error:
        remove(folder)
        raise RouterError(f"runDir {run_dir} cannot be written: {error.strerror}", _MEND_RUN_DIR) from None
    return folder


def point_current_at(run_dir: Path, folder: Path) -> None:
    """`current` becomes a link to the generation, in one step: HAProxy never sees half of two."""
    temporary = run_dir / f"{CURRENT}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.name)
        temporary.replace(run_dir / CURRENT)
    except OSError as error:
        raise RouterError(f"runDir {run_dir} cannot be written: {error.strerror}", _MEND_RUN_DIR) from None


def remove_generations_but(run_dir: Path, folder: Path) -> None:
    """HAProxy reads its files only while it starts: older ones are of no use, and may hold a former key."""
    for path in run_dir.glob(f"{_GENERATION}*"):
        if path != folder:
            remove(path)


def remove(folder: Path) -> None:
    """One generation."""
    shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """A file of runDir, mode 0600, in place of a former one. Raises RouterError."""
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise RouterError(f"{path} cannot be written: {error.strerror}", _MEND_RUN_DIR) from None
