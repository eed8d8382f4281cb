"""Looks at a fetched adapter before vLLM does: what cannot be served is refused with a better reason than vLLM's."""

import json
import math
import struct
from pathlib import Path
from typing import Any

from handlers.serving.config import LORA_RANKS
from handlers.serving.errors import ServingError

MAX_CONFIG_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it
# The largest number that float16 holds. Weights of adapters are near 0; ones above this would be infinite on a GPU
# without bfloat16, and make NaNs of any activation.
MAX_WEIGHT = 65504.0
# bytes per element and the numpy type to read them as; BF16 is read as the upper half of a float32
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
SAVE_AGAIN = "save the adapter again with safe_serialization=True"
CHUNK_BYTES = 16 * 1024 * 1024


def check_adapter(name: str, folder: Path, max_rank: int) -> int:
    """The rank of the adapter in `folder`. Raises ServingError (adapter_invalid, rank_too_high)."""
    try:
        rank, scaling = check_config(name, folder / "adapter_config.json", max_rank)
        path = folder / "adapter_model.safetensors"
        header, start = check_safetensors(name, path)
        check_weights(name, path, header, start, MAX_WEIGHT / max(1.0, scaling))
    except OSError as error:
        raise ServingError(
            f"adapter {name}: {error.filename} cannot be read: {error.strerror}", "check the disk", "fetch_failed"
        ) from None
    except ServingError as error:
        raise error.because("adapter_invalid") from None
    return rank


def check_config(name: str, path: Path, max_rank: int) -> tuple[int, float]:
    """Rank, and the factor by which vLLM multiplies the weights."""
    where = f"adapter {name}: adapter_config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ServingError(f"{where} is larger than {MAX_CONFIG_BYTES} bytes", "save the adapter again with PEFT")
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, rank = config.get("peft_type"), config.get("r")
    except (ValueError, AttributeError, RecursionError):
        raise ServingError(f"{where} is not a JSON object", "save the adapter again with PEFT") from None
    if kind != "LORA":
        raise ServingError(f"{where} has peft_type {kind!r}", "only LORA adapters can be served")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= LORA_RANKS[-1]:
        raise ServingError(f"{where} has r = {rank!r}", f"give a rank from 1 to {LORA_RANKS[-1]}")
    if rank > max_rank:
        raise ServingError(
            f"{where} has r = {rank}, above this server's engine.maxLoraRank {max_rank}",
            "raise engine.maxLoraRank (which restarts the server), or train the adapter with a lower rank",
            "rank_too_high",
        )
    for field, why in (("modules_to_save", "whole modules of its own"), ("use_dora", "DoRA")):
        if config.get(field):
            raise ServingError(f"{where} has {field}: vLLM cannot serve {why}", f"train it without {field}")
    alpha = config.get("lora_alpha", rank)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= MAX_WEIGHT:
        raise ServingError(f"{where} has lora_alpha = {alpha!r}", f"give a number up to {MAX_WEIGHT:g}")
    return rank, abs(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def check_safetensors(name: str, path: Path) -> tuple[dict[str, Any], int]:
    """The file's header and where the data begins. Header and size must fit (8 bytes of length, JSON, data)."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(MAX_HEADER_BYTES, path.stat().st_size):
                raise ValueError
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        offsets = [entry["data_offsets"] for entry in header.values()]
        if any(not (isinstance(a, int) and isinstance(b, int) and 0 <= a <= b) for a, b in offsets):
            raise ValueError
        end = max((b for _, b in offsets), default=0)
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ServingError(f"adapter {name}: {path.name} is not a safetensors file", SAVE_AGAIN) from None
    if 8 + length + end != path.stat().st_size:
        raise ServingError(f"adapter {name}: {path.name} is cut off or has bytes too many", SAVE_AGAIN)
    return header, 8 + length


def check_weights(name: str, path: Path, header: dict[str, Any], start: int, largest: float = MAX_WEIGHT) -> None:
    """Every number must be finite and of a size that a weight can have. Other types than floats are vLLM's to judge."""
    # numpy comes with vLLM; imported here, as it takes a moment
    import numpy as np

    for tensor, entry in header.items():
        kind = FLOATS.get(str(entry.get("dtype")))
        if kind is None:
            continue
        begin, end = entry["data_offsets"]
        size = np.dtype(kind).itemsize
        if (end - begin) % size:
            raise ServingError(f"adapter {name}: {tensor[:100]} has half a number at its end", SAVE_AGAIN)
        with path.open("rb") as stream:
            stream.seek(start + begin)
            for left in range(end - begin, 0, -CHUNK_BYTES):
                values = np.frombuffer(stream.read(min(left, CHUNK_BYTES)), dtype=kind)
                if entry["dtype"] == "BF16":
                    values = (values.astype(np.uint32) << 16).view(np.float32)
                # NaN is not below or equal to anything, so this one comparison finds it as well
                if not (np.abs(values) <= largest).all():
                    raise ServingError(
                        f"adapter {name}: {tensor[:100]} has NaN, infinite or huge numbers (above {largest:g})",
                        "its training went wrong: take an earlier checkpoint, or train it again",
                    )
