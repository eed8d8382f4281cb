"""Installing a package of the system, where that is allowed."""

from __future__ import annotations

import os
import shutil

from tools.setup.errors import SetupError
from tools.setup.progress import Task


def install(task: Task, package: str, why: str) -> None:
    """Installs a Debian or Ubuntu package with apt-get, if this runs as root.

    Raises:
        SetupError: not root, no apt-get, or apt-get failed; says what to type.
    """
    by_hand = f"type `sudo apt-get install {package}` (or your system's way of it), then run this again"
    if not shutil.which("apt-get"):
        raise SetupError(f"{why} is missing, and this system has no apt-get to install it with", by_hand)
    if os.geteuid() != 0:
        raise SetupError(f"{why} is missing, and installing the package {package} takes root", by_hand)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120"]
    # A fresh image has no package lists; where there are some, asking for new ones would only cost time.
    attempts = [(False, 30), (True, 60)]
    for update_first, expected_s in attempts:
        try:
            if update_first:
                task.run([*apt, "update"], "fetching the package lists", expected_s=30, on_failure=by_hand, env=env)
            task.run(
                [*apt, "install", "-y", "--no-install-recommends", package],
                f"installing the system's package {package}",
                expected_s=expected_s,
                on_failure=by_hand,
                env=env,
                keep_locks=False,
            )
            return
        except SetupError:
            if update_first:
                raise
