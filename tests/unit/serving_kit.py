"""Helpers for the tests of handlers.serving: a valid launch file, adapters and models of random bytes."""

import copy
import json
import struct
from pathlib import Path
from typing import Any

from handlers.serving import digest

HEX = "0123456789abcdef" * 4
BASE: dict[str, Any] = {
    "name": "exaone-3.5-2.4b",
    "source": "file:///models/base",
    "revision": None,
    "digest": f"sha256:{HEX}",
}
LAUNCH: dict[str, Any] = {
    "version": 2,
    "store": "gs://bucket/prefix",
    "environment": "local",
    "target": "server",
    "replica": "0",
    "baseModel": BASE,
    "cache": "/var/cache",
    "host": "127.0.0.1",
    "port": 8101,
    "apiKeySha256": [HEX],
    "stateFile": "/var/state.json",
    "engine": {
        "device": "auto",
        "dtype": "auto",
        "maxModelLen": 512,
        "maxNumSeqs": 32,
        "kvCacheMib": 128,
        "maxLoraRank": 16,
        "extraArgs": [],
    },
    "startTimeoutS": 900,
    "drainTimeoutS": 30,
}
MANIFEST: dict[str, Any] = {
    "version": 1,
    "baseModel": BASE,
    "adapters": [
        {
            "name": "easycontract",
            "source": "gs://bucket/adapters/easycontract",
            "digest": f"sha256:{HEX}",
            "canary": {"source": "file:///next", "digest": "sha256:" + "c" * 64, "weight": 10},
        }
    ],
}
MISSING = object()


def launch(path: str = "", value: Any = MISSING) -> dict[str, Any]:
    """A valid launch file, with the value at `path` ("engine.device") replaced, or taken out."""
    return changed(LAUNCH, path, value)


def manifest(path: str = "", value: Any = MISSING) -> dict[str, Any]:
    """A valid manifest with a canary, with the value at `path` ("adapters.0.digest") replaced, or taken out."""
    return changed(MANIFEST, path, value)


def changed(original: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(original)
    if path:
        *folders, last = path.split(".")
        place: Any = document
        for part in folders:
            place = place[int(part)] if part.isdigit() else place[part]
        if value is MISSING:
            del place[last]
        else:
            place[last] = value
    return document


def safetensors_bytes(fill: bytes = b"\x01", dtype: str = "U8") -> bytes:
    """A safetensors file with one tensor, which holds `fill` four times."""
    header = json.dumps({"x": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4 * len(fill)]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill * 4


def make_adapter(folder: Path, fill: bytes = b"\x01", **config: Any) -> str:
    """Writes an adapter into `folder` and returns its content digest."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"peft_type": "LORA", "r": 8, "modules_to_save": None, **config}
    (folder / "adapter_config.json").write_text(json.dumps(document))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(fill))
    return digest.of_adapter(folder)


def make_model(folder: Path) -> str:
    """Writes the files of a model into `folder`, and some that are not part of it; returns its content digest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "exaone"}')
    (folder / "model.safetensors").write_bytes(safetensors_bytes(b"\x02"))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not part of the model")
    (folder / "modeling_exaone.py").write_text("raise SystemExit('must never be fetched')")
    return digest.of_model(folder)
