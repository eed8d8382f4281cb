"""Reads the header of a safetensors file with the standard library: names, number formats and shapes, no
weights.

Format: 8 bytes with the length of the header (little endian), the header as JSON, then the tensors without
gaps (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import files
from lorafleet.errors import Problem

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
_ALLOWED = "a complete safetensors file"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's number format, such as `F32` or `BF16`, its shape, and the byte of the file where it begins."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0


def read_header(path: Path, name: str, *, max_bytes: int = _MAX_HEADER_BYTES) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Args:
        path: the file.
        name: how errors call it.
        max_bytes: a header longer than this is refused before it is read.

    Raises:
        Problem: the file is missing, cut off or not in this format.
    """
    size = files.regular_size(path, name, allowed=_ALLOWED)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise _broken(name, _start_hint(start, size), size)
            if length > max_bytes:
                raise Problem(
                    f"{name} has a header that is too long to be true",
                    found=f"{length} bytes of names and shapes",
                    allowed=f"at most {max_bytes} bytes",
                    next_action="Save it again with save_pretrained, without metadata of your own.",
                )
            raw = file.read(length)
    except OSError as error:
        raise files.unreadable(error, path, name, allowed=_ALLOWED) from None
    header = files.parse_json(raw.rstrip(b" "), f"the header of {name}")
    header.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for tensor_name, entry in header.items():
        tensor, span = _entry(entry, name, size, 8 + length)
        tensors[tensor_name] = tensor
        spans.append(span)
    _check_spans(spans, size - 8 - length, name, size)
    return tensors


def _entry(entry: Any, name: str, size: int, data_start: int) -> tuple[Tensor, tuple[int, int]]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        fits = whole and math.prod(shape) * _BITS[dtype] == (end - begin) * 8
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise _broken(name, "a tensor whose shape, format and place do not agree", size)
    return Tensor(dtype, tuple(shape), data_start + begin), (begin, end)


def _check_spans(spans: list[tuple[int, int]], data_bytes: int, name: str, size: int) -> None:
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _broken(name, "tensors that overlap or leave a gap", size)
        position = end
    if position > data_bytes:
        raise _broken(name, f"the file ends {position - data_bytes} bytes too early", size)
    if position < data_bytes:
        raise _broken(name, f"{data_bytes - position} bytes too many at the end", size)


def _start_hint(start: bytes, size: int) -> str:
    if start.startswith(b"PK\x03\x04") or start.startswith(b"\x80"):
        return "a pickle that was given the name of a safetensors file"
    if start.startswith(b"version "):
        return "a Git LFS pointer instead of the file itself"
    return f"{size} bytes that do not start with a header's length"


def _broken(name: str, found: str, size: int) -> Problem:
    next_action = f"Copy the file again and compare its size ({size} bytes here) and its sha256sum with the original."
    if "pickle" in found:
        next_action = "Convert it: load it with peft or transformers and save_pretrained(..., safe_serialization=True)."
    elif "LFS" in found:
        next_action = "Run `git lfs pull` where the file was cloned."
    return Problem(f"{name} is cut off or damaged", found=found, allowed=_ALLOWED, next_action=next_action)


def shown_name(name: str) -> str:
    """A tensor's name, cut where it is longer than any real one."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    if not printable:
        return '"", a tensor without a name'
    return printable if len(printable) <= 120 else f"{printable[:120]}..."
