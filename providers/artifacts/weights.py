"""Reads an adapter's weights: are they numbers, and do they change anything?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lorafleet import safetensors
from lorafleet.errors import Problem

_AT_ONCE = 4 << 20
# The bits of the exponent. A number is infinite or not a number exactly when all of them are set (IEEE 754; BF16 is the
# upper half of F32). Looked at as bits, because numpy has no BF16.
_EXPONENTS = {"F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}


def check(path: Path, tensors: Mapping[str, safetensors.Tensor]) -> list[str]:
    """Look at every number of an adapter.

    Args:
        path: the safetensors file.
        tensors: what its header says; number formats F32, F16 and BF16 (`lorafleet.adapters.inspect` saw to it).

    Returns:
        What is strange, but no mistake, in words.

    Raises:
        Problem: a number is not finite.
    """
    if not tensors:
        return []
    content = np.memmap(path, dtype=np.uint8, mode="r")
    changes_something = False
    for name, tensor in tensors.items():
        kind, exponent = _EXPONENTS[tensor.dtype]
        width = int(kind[-1])
        count = int(np.prod(tensor.shape, dtype=np.int64))
        is_b = ".lora_B." in name
        for first in range(0, count, _AT_ONCE):
            start = tensor.start + first * width
            # Copied: the numbers of a file need not lie at multiples of their size.
            part = content[start : start + min(_AT_ONCE, count - first) * width].copy().view(kind)
            bad = int(np.count_nonzero((part & exponent) == exponent))
            if bad:
                raise Problem(
                    "the adapter has weights that are not finite numbers (NaN or infinity)",
                    found=f"{safetensors.shown_name(name)}: {bad} of {len(part)} numbers looked at",
                    allowed="finite numbers",
                    next_action="The training diverged or the file is damaged: take an earlier checkpoint.",
                )
            # Zero is all bits but the sign's off.
            changes_something = changes_something or bool(
                is_b and np.any(part & np.array((1 << (8 * width - 1)) - 1, dtype=kind))
            )
    return [] if changes_something else ["all of lora_B is zero, so the adapter changes nothing: was it trained?"]
