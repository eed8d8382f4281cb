"""HAProxy, which the router runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.setup import versions
from tools.setup.errors import SetupError
from tools.setup.progress import Task
from tools.setup.steps import apt

OLDEST: versions.Version = (2, 6)


def find() -> Path | None:
    """HAProxy on PATH, or where Debian and Ubuntu put it, which an ordinary user's PATH may lack."""
    where = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("haproxy", path=where)
    return Path(found) if found else None


class HAProxy:
    """HAProxy 2.6 or newer, from the system's packages."""

    title = "HAProxy"

    def present(self) -> str | None:
        """The HAProxy found and its version."""
        found = find()
        version = versions.of_command([found, "-v"]) if found else None
        return f"{found} {versions.show(version)}" if versions.at_least(version, OLDEST) else None

    def needs_gib(self) -> dict[Path, float]:
        """The system's package."""
        return {Path("/usr"): 0.1}

    def install(self, task: Task) -> str:
        """Asks the system's package manager for it."""
        apt.install(task, "haproxy", f"HAProxy {versions.show(OLDEST)} or newer")
        there = self.present()
        if there is None:
            found = find()
            what = (
                f"{found} is {versions.show(versions.of_command([found, '-v']))}" if found else "no haproxy was found"
            )
            raise SetupError(
                f"the system's package haproxy is installed, but {what}; {versions.show(OLDEST)} or newer is needed",
                "install a newer one (https://haproxy.debian.net has packages) so that it is on PATH, then run this "
                "again",
            )
        return there
