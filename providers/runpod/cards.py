"""RunPod's cards: what does not change of them, as data. On its own, so that a declaration loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """id: RunPod's id of the type; vram_gb: its memory; dtypes: number formats that it computes in hardware."""

    id: str
    vram_gb: int
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")


# https://docs.runpod.io/references/gpu-types, read 2026-11-22. Only NVIDIA: the serving image is built for CUDA 13.
# bfloat16 in hardware: compute capability 8.0 and newer (CUDA programming guide); every card here has it, older ones
# (V100, T4) are left out.
CARDS = {
    "RTX A4000": Card("NVIDIA RTX A4000", 16),
    "RTX 2000 Ada": Card("NVIDIA RTX 2000 Ada Generation", 16),
    "RTX 4000 Ada": Card("NVIDIA RTX 4000 Ada Generation", 20),
    "RTX A4500": Card("NVIDIA RTX A4500", 20),
    "RTX A5000": Card("NVIDIA RTX A5000", 24),
    "RTX 3090": Card("NVIDIA GeForce RTX 3090", 24),
    "RTX 4090": Card("NVIDIA GeForce RTX 4090", 24),
    "L4": Card("NVIDIA L4", 24),
    "RTX 5090": Card("NVIDIA GeForce RTX 5090", 32),
    "A40": Card("NVIDIA A40", 48),
    "RTX A6000": Card("NVIDIA RTX A6000", 48),
    "RTX 6000 Ada": Card("NVIDIA RTX 6000 Ada Generation", 48),
    "L40": Card("NVIDIA L40", 48),
    "L40S": Card("NVIDIA L40S", 48),
    "A100 PCIe": Card("NVIDIA A100 80GB PCIe", 80),
    "A100 SXM": Card("NVIDIA A100-SXM4-80GB", 80),
    "H100 PCIe": Card("NVIDIA H100 PCIe", 80),
    "H100 SXM": Card("NVIDIA H100 80GB HBM3", 80),
    "H100 NVL": Card("NVIDIA H100 NVL", 94),
    "H200 SXM": Card("NVIDIA H200", 141),
    "B200": Card("NVIDIA B200", 180),
}
