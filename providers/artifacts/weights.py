"""Reads an adapter's weights: are they numbers, of a size that servers take, and do they change anything?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lorafleet import files, safetensors
from lorafleet.adapters import CONFIG
from lorafleet.errors import Problem

_AT_ONCE = 4 << 20
# The bits of the exponent. A number is infinite or not a number exactly when all of them are set (IEEE 754; BF16 is the
# upper half of F32). Looked at as bits, because numpy has no BF16.
_EXPONENTS = {"F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
# What every server refuses (handlers/serving/check.py has the same number): float16 holds none that is larger. Servers
# multiply the weights by alpha / rank, so that counts too.
MAX_WEIGHT = 65504.0


def check(path: Path, tensors: Mapping[str, safetensors.Tensor]) -> list[str]:
    """Look at every number of an adapter.

    Args:
        path: the safetensors file; adapter_config.json lies beside it and was looked at, too.
        tensors: what its header says; number formats F32, F16 and BF16 (`lorafleet.adapters.inspect` saw to it).

    Returns:
        What is strange, but no mistake, in words.

    Raises:
        Problem: a number is not finite, or it is one that every server refuses, or alpha is.
    """
    if not tensors:
        return []
    largest = MAX_WEIGHT / max(1.0, _scaling(files.read_json(path.parent / CONFIG, CONFIG)))
    content = np.memmap(path, dtype=np.uint8, mode="r")
    changes_something = False
    for name, tensor in tensors.items():
        kind, exponent = _EXPONENTS[tensor.dtype]
        width = int(kind[-1])
        count = int(np.prod(tensor.shape, dtype=np.int64))
        is_b = ".lora_B." in name
        magnitude = np.array((1 << (8 * width - 1)) - 1, dtype=kind)  # all bits but the sign's
        limit = _bits(largest, tensor.dtype)
        for first in range(0, count, _AT_ONCE):
            start = tensor.start + first * width
            # Copied: the numbers of a file need not lie at multiples of their size.
            part = content[start : start + min(_AT_ONCE, count - first) * width].copy().view(kind)
            part &= magnitude
            # Without their signs, floating-point numbers are in the order of their bits; infinity and NaN are last.
            if bool(np.any(part > limit)):
                bad = int(np.count_nonzero(part >= exponent))
                if not bad:
                    raise _huge(name, int(np.count_nonzero(part > limit)), len(part), largest)
                raise Problem(
                    "the adapter has weights that are not finite numbers (NaN or infinity)",
                    found=f"{safetensors.shown_name(name)}: {bad} of {len(part)} numbers looked at",
                    allowed="finite numbers",
                    next_action="The training diverged or the file is damaged: take an earlier checkpoint.",
                )
            changes_something = changes_something or bool(is_b and np.any(part))
    return [] if changes_something else ["all of lora_B is zero, so the adapter changes nothing: was it trained?"]


def _scaling(config: Mapping[str, Any]) -> float:
    """By what servers multiply the weights. `config`: as `lorafleet.adapters.inspect` lets it pass."""
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    if alpha > MAX_WEIGHT:
        raise Problem(
            "the adapter's alpha is larger than servers take",
            found=f"lora_alpha: {alpha:g}",
            allowed=f"a positive number up to {MAX_WEIGHT:g}",
            next_action="Train it with a lora_alpha near its rank.",
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _bits(number: float, dtype: str) -> int:
    """The bits of a positive number, rounded as a server rounds it to compare. BF16: as F32, cut in half."""
    if dtype == "F16":
        return int(np.float16(number).view(np.uint16))
    bits = int(np.float32(number).view(np.uint32))
    return bits >> 16 if dtype == "BF16" else bits


def _huge(name: str, bad: int, count: int, largest: float) -> Problem:
    return Problem(
        "the adapter has weights that are too large to be right, and servers refuse them",
        found=f"{safetensors.shown_name(name)}: {bad} of {count} numbers looked at",
        allowed=f"numbers up to {largest:g} ({MAX_WEIGHT:g}, over the scale that alpha gives, if above 1)",
        next_action="The training diverged: take an earlier checkpoint, or train it again.",
    )
