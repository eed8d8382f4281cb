"""The base toolchain, and the one setting of git that the checkout needs."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tools.setup.errors import SetupError
from tools.setup.paths import ROOT
from tools.setup.progress import Task

FILTER = "filter.lorafleet-local-salt.clean"
"""`pulumi` writes the salt of this checkout's passphrase into stacks/Pulumi.local.yaml, which is committed.
The salt belongs to this checkout alone: git leaves that line out of what it sees (.gitattributes)."""

FILTER_COMMAND = "sed '/^encryptionsalt:/d'"


class Toolchain:
    """Python is new enough (or this would not run); the system is supported; git knows the filter."""

    title = "base toolchain"

    def present(self) -> str | None:
        """Always quick to check, so nothing is stored about it."""
        if sys.platform != "linux" or (self._in_git() and not self._filter_is_set()):
            return None
        git = "git" if shutil.which("git") else "no git (fine unless you want to commit)"
        return f"Python {platform.python_version()}, {git}"

    def needs_gib(self) -> dict[Path, float]:
        """Next to nothing."""
        return {}

    def install(self, task: Task) -> str:
        """Sets git's filter in this checkout's own configuration (.git/config)."""
        if sys.platform != "linux":
            raise SetupError(
                f"this system is {sys.platform}, and only Linux (x86-64, arm64) is supported",
                "use a Debian or Ubuntu machine, virtual machine or container",
            )
        done = subprocess.run(
            ["git", "config", "--local", FILTER, FILTER_COMMAND],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["git failed"])[-1].removeprefix("fatal: ")
            task.say(f"note: git will show the local salt as a change, since its filter can't be set: {reason}")
        return self.present() or f"Python {platform.python_version()}"

    def _in_git(self) -> bool:
        return (ROOT / ".git").exists() and shutil.which("git") is not None

    def _filter_is_set(self) -> bool:
        done = subprocess.run(
            ["git", "config", "--local", "--get", FILTER],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() == FILTER_COMMAND
