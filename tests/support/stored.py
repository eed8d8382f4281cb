"""Puts adapters into a folder store by hand, as docs/architecture.md describes it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from lorafleet.digest import ADAPTER_FILES, content_digest


def store_adapter(store: Path, name: str, folder: Path) -> str:
    """Stores the adapter in `folder` under `name`; gives its digest."""
    digest = content_digest(folder, "adapter")
    place = store / "adapters" / name / digest.replace(":", "-")
    place.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, object]] = {}
    for file in ADAPTER_FILES:
        shutil.copyfile(folder / file, place / file)
        content = (place / file).read_bytes()
        files[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    config = json.loads((folder / ADAPTER_FILES[0]).read_text())
    metadata = {
        "version": 1,
        "kind": "adapter",
        "name": name,
        "digest": digest,
        "files": files,
        "baseModel": {"name": config["base_model_name_or_path"], "revision": None},
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "targetModules": config["target_modules"],
        "dtype": "F32",
        "source": f"file://{folder}",
        "note": None,
        "createdAt": "2026-01-01T00:00:00Z",
        "createdBy": "tests",
    }
    (place / "lorafleet.json").write_text(json.dumps(metadata))
    return digest
