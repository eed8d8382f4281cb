"""The cards that the stand-in has. The pools are those of docs.runpod.io in November 2026."""

from __future__ import annotations

from typing import Any

# (id, name, pool, GB, USD per hour in the secure cloud)
_CARDS: list[tuple[str, str, str | None, int, float]] = [
    ("NVIDIA RTX A4000", "RTX A4000", "AMPERE_16", 16, 0.25),
    ("NVIDIA RTX A5000", "RTX A5000", "AMPERE_24", 24, 0.27),
    ("NVIDIA GeForce RTX 3090", "RTX 3090", "AMPERE_24", 24, 0.46),
    ("NVIDIA L4", "L4", "ADA_24", 24, 0.39),
    ("NVIDIA GeForce RTX 4090", "RTX 4090", "ADA_24", 24, 0.59),
    ("NVIDIA A40", "A40", "AMPERE_48", 48, 0.40),
    ("NVIDIA RTX A6000", "RTX A6000", "AMPERE_48", 48, 0.49),
    ("NVIDIA L40S", "L40S", "ADA_48_PRO", 48, 0.86),
    ("NVIDIA A100 80GB PCIe", "A100 PCIe", "AMPERE_80", 80, 1.39),
    ("Tesla V100-PCIE-16GB", "V100", None, 16, 0.19),
]


def gpus() -> list[dict[str, Any]]:
    return [
        {
            "id": gpu_id,
            "name": name,
            "pool": pool,
            "manufacturer": "NVIDIA",
            "memory": memory,
            "secure": True,
            "community": False,
            "price": {"secure": price, "community": price},
            "maxCount": {"secure": 8, "community": 0},
        }
        for gpu_id, name, pool, memory, price in _CARDS
    ]
