"""`.venv-runpod`: RunPod's SDK, in the versions of its image, for the tests of its worker."""

from __future__ import annotations

from pathlib import Path

from tools.setup import paths, stamps
from tools.setup.progress import Task
from tools.setup.steps import uv
from tools.setup.steps.devenv import AGAIN, make_environment, python_works, uv_env

ENVIRONMENT = paths.ROOT / ".venv-runpod"
LOCK = paths.ROOT / "images" / "runpod" / "requirements.lock"
STAMP = ENVIRONMENT / "lorafleet.stamp"


class RunpodEnv:
    """Everything of the image's lock, by hash; vLLM needs other versions (images/runpod/requirements.in)."""

    title = "environment .venv-runpod"

    def present(self) -> str | None:
        """Compares the stamp."""
        if python_works(ENVIRONMENT) and stamps.matches(STAMP, self._wanted()):
            return "as images/runpod/requirements.lock says"
        return None

    def needs_gib(self) -> dict[Path, float]:
        """The packages and uv's cache of them."""
        return {ENVIRONMENT: 0.4}

    def install(self, task: Task) -> str:
        """Brings the environment to the lock file's state."""
        STAMP.unlink(missing_ok=True)
        python = make_environment(task, ENVIRONMENT)
        task.run(
            [
                *(uv.require(), "pip", "sync", "--python", python, "--require-hashes", "--only-binary", ":all:"),
                *("--compile-bytecode", LOCK),
            ],
            "installing RunPod's SDK",
            expected_s=15,
            on_failure=AGAIN,
            env=uv_env(python),
        )
        stamps.write(STAMP, self._wanted())
        return "as images/runpod/requirements.lock says"

    def _wanted(self) -> str:
        return stamps.digest([LOCK], {"root": str(paths.ROOT)})
