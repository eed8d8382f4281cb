"""The Pulumi CLI by Pulumi's own installer, given up soon where the network does not let it through."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.setup import paths
from tools.setup.progress import Task

STALLED_AFTER_S = 20.0

PROGRAM = """
import sys, urllib.error, subprocess
from pulumi.automation import PulumiCommand
from semver import VersionInfo
try:
    PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
except urllib.error.URLError as problem:
    sys.exit(f"get.pulumi.com can't be reached: {problem.reason}")
except subprocess.CalledProcessError as problem:
    sys.exit((problem.output or b"").decode(errors="replace"))
"""


def size_of(*folders: Path) -> int:
    """The bytes of all files in folders: grows while a download gets on."""
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 (speed, and files vanish)
                except OSError:
                    continue
    return total


def install(task: Task, place: Path, version: str) -> None:
    """Installs the CLI with its language hosts into `place`/bin.

    Raises:
        SetupError: it can't be reached, failed, or did not get on for 20 seconds.
    """
    fresh = place.with_name(place.name + ".new")
    scratch = place.with_name(place.name + ".tmp")
    for folder in (fresh, scratch, place):
        shutil.rmtree(folder, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        task.run(
            [paths.DEV_ENV / "bin" / "python", "-c", PROGRAM, fresh, version],
            "trying the official installer",
            expected_s=30,
            on_failure="",
            # The installer's script downloads to a temporary folder: one that can be measured and removed.
            env=dict(os.environ, TMPDIR=str(scratch), PULUMI_SKIP_UPDATE_CHECK="true"),
            stalled_after_s=STALLED_AFTER_S,
            measure=lambda: size_of(fresh, scratch),
        )
        fresh.replace(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)
