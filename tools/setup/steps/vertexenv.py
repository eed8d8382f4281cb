"""`.lorafleet/vertex-env`: Hugging Face's server and PEFT, for the tests and the benchmark of handlers/vertex.

It lies on top of .venv-serving, whose packages it sees through a .pth file: torch is there once, and this step takes
seconds.
"""

from __future__ import annotations

import ctypes.util
from pathlib import Path

from tools.setup import paths, stamps
from tools.setup.errors import SetupError
from tools.setup.progress import Task
from tools.setup.steps import apt, uv
from tools.setup.steps.devenv import AGAIN, make_environment, python_works, uv_env

ENV = paths.LOCAL / "vertex-env"
LOCK = paths.ROOT / "requirements" / "vertex.lock"
STAMP = ENV / "lorafleet.stamp"


class VertexEnv:
    """The packages of requirements/vertex.lock by hash, beside those of .venv-serving."""

    title = "environment of the Vertex handler"

    def present(self) -> str | None:
        """Compares the stamp."""
        if python_works(ENV) and stamps.matches(STAMP, self._wanted()):
            return "as requirements/vertex.lock says"
        return None

    def needs_gib(self) -> dict[Path, float]:
        """A few small packages."""
        return {ENV: 0.05}

    def install(self, task: Task) -> str:
        """Installs them, and tries them out."""
        if ctypes.util.find_library("magic") is None:
            apt.install(task, "libmagic1", "libmagic (which Hugging Face's server loads)")
        STAMP.unlink(missing_ok=True)
        python = make_environment(task, ENV)
        task.run(
            [uv.require(), "pip", "sync", "--python", python, "--compile-bytecode", "--require-hashes", LOCK],
            "installing the packages of requirements/vertex.lock",
            expected_s=10,
            on_failure=AGAIN,
            env=uv_env(python),
        )
        below = site_packages(paths.SERVING_ENV)
        (site_packages(ENV) / "serving.pth").write_text(f"{below}\n")
        task.run([python, "-c", "import hf_serve.server, peft"], "trying it out", expected_s=20, on_failure=AGAIN)
        stamps.write(STAMP, self._wanted())
        return "as requirements/vertex.lock says"

    def _wanted(self) -> str:
        return stamps.digest([LOCK], {"root": str(paths.ROOT)})


def site_packages(environment: Path) -> Path:
    """Where the environment has its packages. Raises SetupError when it has none."""
    found = sorted(environment.glob("lib/python3*/site-packages"))
    if not found:
        raise SetupError(f"{environment} holds no packages", f"remove {environment} and run this again")
    return found[0]
