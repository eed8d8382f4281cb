"""RunPod's cards by the names that its documentation uses. What they can do is in lorafleet.gpus."""

from __future__ import annotations

from dataclasses import dataclass

from lorafleet.gpus import find


@dataclass(frozen=True)
class Card:
    """id: RunPod's id of the type; vram_gb: its memory as sold; dtypes: number formats that it computes in hardware."""

    id: str
    vram_gb: int
    dtypes: tuple[str, ...]


# https://docs.runpod.io/references/gpu-types, read 2026-11-22. Only NVIDIA, and none older than those that compute in
# bfloat16 (V100 is left out): the serving image is built for CUDA 13, and EXAONE's weights are bfloat16.
_IDS = {
    "RTX A4000": "NVIDIA RTX A4000",
    "RTX 2000 Ada": "NVIDIA RTX 2000 Ada Generation",
    "RTX 4000 Ada": "NVIDIA RTX 4000 Ada Generation",
    "RTX A4500": "NVIDIA RTX A4500",
    "RTX A5000": "NVIDIA RTX A5000",
    "RTX 3090": "NVIDIA GeForce RTX 3090",
    "RTX 4090": "NVIDIA GeForce RTX 4090",
    "L4": "NVIDIA L4",
    "RTX 5090": "NVIDIA GeForce RTX 5090",
    "A40": "NVIDIA A40",
    "RTX A6000": "NVIDIA RTX A6000",
    "RTX 6000 Ada": "NVIDIA RTX 6000 Ada Generation",
    "L40": "NVIDIA L40",
    "L40S": "NVIDIA L40S",
    "A100 PCIe": "NVIDIA A100 80GB PCIe",
    "A100 SXM": "NVIDIA A100-SXM4-80GB",
    "H100 PCIe": "NVIDIA H100 PCIe",
    "H100 SXM": "NVIDIA H100 80GB HBM3",
    "H100 NVL": "NVIDIA H100 NVL",
    "H200 SXM": "NVIDIA H200",
    "B200": "NVIDIA B200",
}


def _card(runpod_id: str) -> Card:
    # What RunPod's names lack for `find` is a fault of this file or of lorafleet.gpus; a test goes through them.
    gpu = find(runpod_id)
    return Card(runpod_id, gpu.vram_gib, gpu.dtypes)


CARDS = {name: _card(runpod_id) for name, runpod_id in _IDS.items()}
