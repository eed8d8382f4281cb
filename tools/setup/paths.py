"""Where the set-up finds and puts things."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

LOCAL = ROOT / ".lorafleet"
"""What this checkout keeps for itself (git ignores it): local state, logs, links to the engine."""

LOGS = LOCAL / "logs"

ENGINE_LINKS = LOCAL / "engine" / "bin"
"""Links to a Pulumi CLI that the set-up got; env.sh puts this folder on PATH. Not there if PATH has a CLI."""

DEV_ENV = ROOT / ".venv"
SERVING_ENV = ROOT / ".venv-serving"


def cache_dir() -> Path:
    """The folder for what several checkouts share: uv and the Pulumi engine.

    `LORAFLEET_CACHE_DIR`, else `lorafleet` under `XDG_CACHE_HOME`, else `~/.cache/lorafleet`.
    """
    own = os.environ.get("LORAFLEET_CACHE_DIR")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lorafleet"


def pinned(package: str, lock: Path) -> str:
    """The version that a lock file pins `package` to, such as "3.259.0".

    Raises:
        LookupError: the lock file does not pin it.
    """
    found = re.search(rf"^{re.escape(package)}==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    if not found:
        raise LookupError(f"{lock.name} does not pin {package}")
    return found.group(1)


def project_table() -> dict[str, object]:
    """The parts of pyproject.toml that decide how the project is installed (not the linters' settings)."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        "build-system": whole.get("build-system"),
        "project": whole.get("project"),
        "hatch": whole.get("tool", {}).get("hatch"),
    }
