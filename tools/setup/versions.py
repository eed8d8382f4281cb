"""Reading and comparing the version numbers that tools print."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

Version = tuple[int, ...]


def parse(text: str) -> Version | None:
    """The first dotted number in a text, e.g. (3, 259, 0) of "v3.259.0-dev", (1, 26) of "go1.26 linux".

    None when there is none. Pre-release marks are left out: they do not matter for what is asked here.
    """
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found.group().split(".")) if found else None


def at_least(found: Version | None, wanted: Version) -> bool:
    """Whether `found` is `wanted` or newer; missing parts count as zero. False when `found` is None."""
    if found is None:
        return False
    width = max(len(found), len(wanted))
    return found + (0,) * (width - len(found)) >= wanted + (0,) * (width - len(wanted))


def show(version: Version | None) -> str:
    """A version for people: "3.259.0", or "unknown"."""
    return ".".join(str(part) for part in version) if version else "unknown"


def of_command(argv: Sequence[str | Path], *, env: dict[str, str] | None = None) -> Version | None:
    """The version that a command prints (on either stream) within 20 s; None if it can't be had."""
    try:
        done = subprocess.run(
            [str(part) for part in argv],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            env=env,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(done.stdout) or parse(done.stderr) if done.returncode == 0 else None
