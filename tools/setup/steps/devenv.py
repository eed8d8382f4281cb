"""`.venv`: Pulumi's SDK, the linters, the tests' tools and the project itself."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tools.setup import certificates, paths, stamps
from tools.setup.progress import Task
from tools.setup.steps import uv

LOCK = paths.ROOT / "requirements.lock"
STAMP = paths.DEV_ENV / "lorafleet.stamp"
AGAIN = "check that the package index can be reached, then run this again"


def uv_env(python: Path) -> dict[str, str]:
    """The environment for uv: the caller's, without what would lead it to another Python environment."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "CONDA_PREFIX")}
    env.update(certificates.settings())
    env["VIRTUAL_ENV"] = str(python.parent.parent)
    env.setdefault("UV_NO_PROGRESS", "1")
    return env


def python_works(environment: Path) -> bool:
    """Whether the environment's interpreter is still there (it is a link to the system's)."""
    return (environment / "bin" / "python").exists()


def make_environment(task: Task, environment: Path) -> Path:
    """Makes the environment if it is missing or its interpreter is gone; gives its interpreter's path."""
    if not python_works(environment):
        shutil.rmtree(environment, ignore_errors=True)
        task.run(
            [uv.require(), "venv", "--python", sys.executable, environment],
            f"making the environment {environment.name}",
            expected_s=2,
            on_failure=f"remove {environment} and run this again",
            env=uv_env(environment / "bin" / "python"),
        )
    return environment / "bin" / "python"


class DevEnv:
    """Everything of requirements.lock, exactly, by hash; and the project, editable."""

    title = "environment .venv"

    def present(self) -> str | None:
        """Compares the stamp: costs a few milliseconds."""
        if python_works(paths.DEV_ENV) and stamps.matches(STAMP, self._wanted()):
            return "as requirements.lock says"
        return None

    def needs_gib(self) -> dict[Path, float]:
        """The packages and uv's cache of them."""
        return {paths.DEV_ENV: 0.5}

    def install(self, task: Task) -> str:
        """Brings the environment to the lock file's state, .pyc files included."""
        STAMP.unlink(missing_ok=True)
        python = make_environment(task, paths.DEV_ENV)
        env = uv_env(python)
        pip: list[str | Path] = [uv.require(), "pip"]
        task.run(
            [*pip, "sync", "--python", python, "--require-hashes", "--compile-bytecode", LOCK],
            "installing the packages of requirements.lock",
            expected_s=30,
            on_failure=AGAIN,
            env=env,
        )
        task.run(
            [*pip, "install", "--python", python, "--no-deps", "--no-build-isolation", "-e", paths.ROOT],
            "installing the project itself (editable)",
            expected_s=3,
            on_failure="put right what the log says about the project, then run this again",
            env=env,
        )
        stamps.write(STAMP, self._wanted())
        return "as requirements.lock says"

    def _wanted(self) -> str:
        # The folder counts: an environment does not work any more where its checkout was moved or copied to.
        return stamps.digest([LOCK], {"root": str(paths.ROOT), "project": paths.project_table()})
