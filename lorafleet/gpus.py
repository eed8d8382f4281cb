"""The GPUs that platforms offer: what does not change from one platform to another, as data.

Platforms call the same GPU by different names (`nvidia-l4`, `NVIDIA_L4`, `NVIDIA L4`, `L4`). Here each has one name,
the key in `GPUS`, and knows the others as `aliases`; `find` takes any of them. What a GPU costs, where, is in the price
books (`lorafleet.prices`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lorafleet.errors import Problem, listed, nearest, shown

# CUDA 13, which the serving images are built for, has dropped Maxwell, Pascal and Volta (its release notes, 13.0), so
# Turing is the oldest that they run on.
SERVING_FLOOR = (7, 5)
# CUDA programming guide, "Compute Capabilities": bfloat16 from 8.0 on. Older ones emulate it slowly, and vLLM refuses.
_BFLOAT16_FLOOR = (8, 0)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One type of GPU.

    Fields:
        name: this project's name, the key in `GPUS`.
        vram_gib: nominal memory in GiB, as sold; the driver and error correction keep some of it (an L4 of 24 shows
            about 22.5).
        compute_capability: CUDA's (major, minor), as in (8, 9).
        dtypes: number formats that it computes in hardware, of those that an engine's `dtype` may be: `float32`,
            `float16`, `bfloat16`.
        aliases: what platforms call it. No alias stands for two GPUs.
    """

    name: str
    vram_gib: int
    compute_capability: tuple[int, int]
    dtypes: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def servable(self) -> bool:
        """Whether the serving images run on it (`SERVING_FLOOR`)."""
        return self.compute_capability >= SERVING_FLOOR


# Compute capability: https://developer.nvidia.com/cuda-gpus and https://developer.nvidia.com/cuda-legacy-gpus.
# Memory and names: https://docs.runpod.io/references/gpu-types, https://modal.com/docs/guide/gpu,
# https://cloud.google.com/compute/docs/gpus and the enum AcceleratorType of Vertex AI; read 2026-11-22.
# Forms of one chip that differ in sockets and clocks (H100 PCIe, SXM) are one GPU here: they can do the same.
_TABLE: tuple[tuple[str, int, tuple[int, int], tuple[str, ...]], ...] = (
    ("P4", 8, (6, 1), ("nvidia-tesla-p4", "NVIDIA_TESLA_P4")),
    ("P100", 16, (6, 0), ("nvidia-tesla-p100", "NVIDIA_TESLA_P100")),
    ("V100", 16, (7, 0), ("nvidia-tesla-v100", "NVIDIA_TESLA_V100", "Tesla V100-SXM2-16GB", "Tesla V100-PCIE-16GB")),
    ("T4", 16, (7, 5), ("nvidia-tesla-t4", "NVIDIA_TESLA_T4")),
    ("RTX A4000", 16, (8, 6), ("NVIDIA RTX A4000",)),
    ("RTX A4500", 20, (8, 6), ("NVIDIA RTX A4500",)),
    ("RTX A5000", 24, (8, 6), ("NVIDIA RTX A5000",)),
    ("RTX 3090", 24, (8, 6), ("NVIDIA GeForce RTX 3090",)),
    ("A10", 24, (8, 6), ("NVIDIA A10",)),
    ("A10G", 24, (8, 6), ("NVIDIA A10G",)),
    ("RTX A6000", 48, (8, 6), ("NVIDIA RTX A6000", "A6000")),
    ("A40", 48, (8, 6), ("NVIDIA A40",)),
    ("A100-40GB", 40, (8, 0), ("nvidia-tesla-a100", "NVIDIA_TESLA_A100", "NVIDIA A100-SXM4-40GB", "A100 40GB PCIe")),
    (
        "A100-80GB",
        80,
        (8, 0),
        (
            "nvidia-a100-80gb",
            "NVIDIA_A100_80GB",
            "NVIDIA A100 80GB PCIe",
            "NVIDIA A100-SXM4-80GB",
            "A100 PCIe",
            "A100 SXM",
        ),
    ),
    ("RTX 2000 Ada", 16, (8, 9), ("NVIDIA RTX 2000 Ada Generation",)),
    ("RTX 4000 Ada", 20, (8, 9), ("NVIDIA RTX 4000 Ada Generation", "NVIDIA RTX 4000 SFF Ada Generation")),
    ("RTX 5000 Ada", 32, (8, 9), ("NVIDIA RTX 5000 Ada Generation",)),
    ("RTX 4090", 24, (8, 9), ("NVIDIA GeForce RTX 4090",)),
    ("L4", 24, (8, 9), ("nvidia-l4", "NVIDIA_L4")),
    ("RTX 6000 Ada", 48, (8, 9), ("NVIDIA RTX 6000 Ada Generation",)),
    ("L40", 48, (8, 9), ("NVIDIA L40",)),
    ("L40S", 48, (8, 9), ("NVIDIA L40S",)),
    (
        "H100",
        80,
        (9, 0),
        (
            "nvidia-h100-80gb",
            "NVIDIA_H100_80GB",
            "nvidia-h100-mega-80gb",
            "NVIDIA_H100_MEGA_80GB",
            "NVIDIA H100 PCIe",
            "H100 PCIe",
            "NVIDIA H100 80GB HBM3",
            "H100 SXM",
            "H100-80GB",
        ),
    ),
    ("H100 NVL", 94, (9, 0), ("NVIDIA H100 NVL",)),
    ("H200", 141, (9, 0), ("nvidia-h200-141gb", "NVIDIA_H200_141GB", "NVIDIA H200", "H200 SXM", "H200-141GB")),
    ("B200", 180, (10, 0), ("nvidia-b200", "NVIDIA_B200")),
    ("RTX 5090", 32, (12, 0), ("NVIDIA GeForce RTX 5090",)),
    (
        "RTX PRO 6000",
        96,
        (12, 0),
        (
            "nvidia-rtx-pro-6000",
            "NVIDIA_RTX_PRO_6000",
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        ),
    ),
)


def _dtypes(compute_capability: tuple[int, int]) -> tuple[str, ...]:
    return ("float32", "float16", *(("bfloat16",) if compute_capability >= _BFLOAT16_FLOOR else ()))


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {name: Gpu(name, vram, capability, _dtypes(capability), aliases) for name, vram, capability, aliases in _TABLE}
)
"""Every GPU by this project's name, the older chips first."""


def plain(name: str) -> str:
    """A name without what platforms write differently: case, spaces, hyphens, underscores."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_PLAIN = {plain(name): gpu for gpu in GPUS.values() for name in (gpu.name, *gpu.aliases)}


def find(name: str) -> Gpu:
    """The GPU that a platform, or this project, calls `name`; case, spaces, hyphens and underscores do not matter.

    Raises:
        Problem: no GPU, or more than one, is called so (`A100` has 40 or 80 GB).
    """
    gpu = _BY_PLAIN.get(plain(name))
    if gpu is not None:
        return gpu
    several = [each for each in GPUS if plain(each).startswith(plain(name)) and plain(name)]
    near = nearest(name, GPUS)
    raise Problem(
        "this name stands for several GPUs" if several else "no GPU has this name",
        found=shown(name),
        allowed=listed(several or GPUS),
        next_action="Say which." if several else f"Did you mean `{near}`?" if near else "Take one of those.",
    )
