"""uv, which installs the two Python environments."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.setup import certificates, locks, versions
from tools.setup.errors import SetupError
from tools.setup.paths import ROOT, cache_dir, pinned
from tools.setup.progress import Task, clock
from tools.setup.steps import apt

LOCK = ROOT / "requirements" / "uv.lock"
OLDEST: versions.Version = (0, 8)


def own_uv() -> Path:
    """Where the set-up's own uv lies, whether it is there or not."""
    return cache_dir() / "uv" / pinned("uv", LOCK) / "bin" / "uv"


def find() -> Path | None:
    """A uv that is new enough: the one on PATH, else the set-up's own; None if there is neither."""
    for candidate in (shutil.which("uv"), own_uv()):
        if candidate and versions.at_least(versions.of_command([candidate, "--version"]), OLDEST):
            return Path(candidate)
    return None


def require() -> Path:
    """The uv to use, in a step after this one."""
    found = find()
    if found is None:
        raise SetupError("uv has gone since it was installed", "run this again")
    return found


class Uv:
    """uv of the PATH if it is new enough; else the pinned one, fetched with pip, checked by hash."""

    title = "uv"

    def present(self) -> str | None:
        """The uv found."""
        found = find()
        return f"{found}" if found else None

    def needs_gib(self) -> dict[Path, float]:
        """The wheel and what it unpacks to."""
        return {own_uv(): 0.2}

    def install(self, task: Task) -> str:
        """Installs into a folder of its own under the cache; touches no other Python environment."""
        place = own_uv().parent.parent
        by_hand = "install uv from https://docs.astral.sh/uv/ so that it is on PATH, then run this again"
        with locks.held(
            cache_dir() / "uv.lock",
            lambda who, s: task.tick(f"waiting for process {who} ({clock(s)} so far)", s),
        ):
            if find():
                return str(find())
            fresh = place.with_name(f"{place.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
            fresh.parent.mkdir(parents=True, exist_ok=True)
            pip = self._pip(task, fresh.parent / "pip.new", by_hand)
            # --target: into a folder, whatever the system's rules about its own packages are.
            task.run(
                [
                    *(*pip, "install", "--target", fresh, "--require-hashes", "--no-deps"),
                    *("--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "-r", LOCK),
                ],
                f"installing uv {place.name} with pip",
                expected_s=15,
                on_failure=f"check that pip can reach its package index; or {by_hand}",
                env=dict(os.environ, **certificates.settings(), PIP_REQUIRE_VIRTUALENV="0", PIP_USER="0"),
            )
            fresh.replace(place)
            shutil.rmtree(fresh.parent / "pip.new", ignore_errors=True)
        found = find()
        if found is None:
            raise SetupError(f"the uv that pip installed does not run: {own_uv()}", by_hand, task.log)
        return str(found)

    def _pip(self, task: Task, scratch: Path, by_hand: str) -> list[str | Path]:
        """A command that runs pip: this Python's own, else one in a scratch environment."""
        own = [sys.executable, "-m", "pip"]
        if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
            return list(own)
        ensurepip = importlib.util.find_spec("ensurepip")
        if ensurepip is None or ensurepip.origin is None:
            # Debian and Ubuntu split Python: without this package there is neither pip nor a way to get it.
            apt.install(task, f"python3.{sys.version_info.minor}-venv", "Python's ensurepip")
        shutil.rmtree(scratch, ignore_errors=True)
        task.run(
            [sys.executable, "-m", "venv", scratch],
            "making a scratch environment for pip",
            expected_s=10,
            on_failure=by_hand,
        )
        return [scratch / "bin" / "python", "-m", "pip"]
