"""Fetches everything that a manifest names, side by side, and checks the adapters."""

import json
import struct
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.serving import sources
from handlers.serving.config import AdapterSpec, Manifest
from handlers.serving.errors import ServingError, StopRequestedError
from handlers.serving.fleet import StoredAdapter
from handlers.serving.store import Content, Store

PARALLEL = 4
MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it


@dataclass(frozen=True)
class Fetched:
    base: Content
    adapters: tuple[StoredAdapter, ...]


def fetch_all(manifest: Manifest, store: Store, stop: threading.Event) -> Fetched:
    """The manifest's content on this machine. Raises ServingError (the first in the manifest's order) or, when `stop`
    is set meanwhile, StopRequestedError; threads may then still be at work and end with the process."""
    store.prepare()
    pool = ThreadPoolExecutor(max_workers=PARALLEL, thread_name_prefix="fetch")
    try:
        base = pool.submit(store.get, manifest.base, sources.MODEL)
        adapters = [pool.submit(fetch_adapter, spec, store) for spec in manifest.adapters]
        waiting: set[Future[Any]] = {base, *adapters}
        while waiting:
            waiting = wait(waiting, timeout=0.2).not_done
            if stop.is_set():
                raise StopRequestedError
        return Fetched(base.result(), tuple(future.result() for future in adapters))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def fetch_adapter(spec: AdapterSpec, store: Store) -> StoredAdapter:
    content = store.get(spec, sources.ADAPTER)
    check_adapter(spec, content.folder)
    return StoredAdapter(spec.name, content.digest, spec.rank, content.folder)


def check_adapter(spec: AdapterSpec, folder: Path) -> None:
    """Refuses what vLLM cannot serve, with a better reason than vLLM's. Raises ServingError."""
    where = f"adapter {spec.name}: adapter_config.json"
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind, rank = config.get("peft_type"), config.get("r")
    except (ValueError, AttributeError):
        raise ServingError(f"{where} is not a JSON object", "save the adapter again with PEFT") from None
    if kind != "LORA":
        raise ServingError(f"{where} has peft_type {kind!r}", "only LORA adapters can be served")
    if rank != spec.rank:
        raise ServingError(f"{where} has r = {rank}, but the manifest says rank {spec.rank}", "correct the manifest")
    for field, why in (("modules_to_save", "whole modules of its own"), ("use_dora", "DoRA")):
        if config.get(field):
            raise ServingError(f"{where} has {field}: vLLM cannot serve {why}", f"train it without {field}")
    check_safetensors(spec.name, folder / "adapter_model.safetensors")


def check_safetensors(name: str, path: Path) -> None:
    """The file's header must be readable and fit the file's size (format: safetensors, 8 bytes of length + JSON)."""
    step = "save the adapter again with safe_serialization=True"
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(MAX_HEADER_BYTES, path.stat().st_size):
                raise ValueError
            header = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        raise ServingError(f"adapter {name}: {path.name} is not a safetensors file", step) from None
    if 8 + length + end != path.stat().st_size:
        raise ServingError(f"adapter {name}: {path.name} is cut off or has bytes too many", step)
