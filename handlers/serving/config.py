"""The launch file: its shape, read and checked with the standard library alone.

Every method raises ServingError that names the field, its value and what is allowed.
"""

import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from handlers.serving import manifest
from handlers.serving.errors import ServingError
from handlers.serving.manifest import Weights
from handlers.serving.sections import Section

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "float16", "bfloat16")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM 0.32, vllm/config/lora.py
HEX64 = re.compile(r"[0-9a-f]{64}")
STORE = re.compile(r"file:///.*[^/]|gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[^/]+)*")
PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""environment, target and replica are parts of paths in the store"""
PLACE_ALLOWED = "up to 128 letters, digits, '.', '_', '-'"

# Flags that the launcher sets itself, or that would put a secret on the command line.
OWN_FLAGS = {
    "--model", "--served-model-name", "--host", "--port", "--uds", "--middleware", "--api-key", "--lora-modules",
    "--enable-lora", "--trust-remote-code", "--api-server-count", "--headless", "--config", "--hf-token",
}  # fmt: skip


@dataclass(frozen=True)
class EngineSettings:
    device: str = "auto"
    dtype: str = "auto"
    max_model_len: int | None = None
    """tokens of prompt and answer together; None: what the model's config says"""
    max_num_seqs: int = 32
    kv_cache_mib: int | None = None
    """None: 1024 MiB on a CPU; on a GPU what vLLM finds free"""
    max_lora_rank: int = 16
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchConfig:
    store: str
    """file:///abs/folder or gs://bucket[/prefix], without a slash at its end"""
    environment: str
    target: str
    replica: str
    base: Weights
    cache: Path
    host: str
    port: int
    api_key_sha256: tuple[str, ...]
    state_file: Path
    engine: EngineSettings
    start_timeout_s: float
    drain_timeout_s: float


def load(path: Path) -> LaunchConfig:
    """Reads the launch file. Raises ServingError when it cannot be read or is not valid."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ServingError(
            f"the launch file {path} cannot be read: {error.strerror}", "check the path and its mode"
        ) from None
    except ValueError as error:
        raise ServingError(f"the launch file {path} is not JSON: {error}", "write it again") from None
    return parse(document)


def parse(document: object) -> LaunchConfig:
    known = (
        "version", "store", "environment", "target", "replica", "baseModel", "cache", "host", "port", "apiKeySha256",
        "stateFile", "engine", "startTimeoutS", "drainTimeoutS",
    )  # fmt: skip
    root = Section(document, "", known)
    root.version(2)
    return LaunchConfig(
        store=root.text("store", STORE, "file:///abs/folder, gs://bucket or gs://bucket/prefix, no slash at the end"),
        environment=root.text("environment", PLACE, PLACE_ALLOWED),
        target=root.text("target", PLACE, PLACE_ALLOWED),
        replica=replica(root),
        base=manifest.weights(root.get("baseModel"), "baseModel"),
        cache=root.absolute_path("cache"),
        host=root.text("host"),
        port=root.whole("port", 1, 65535),
        api_key_sha256=root.texts("apiKeySha256", HEX64, "the SHA-256 of a key as 64 hex digits"),
        state_file=root.absolute_path("stateFile"),
        engine=parse_engine(root.get("engine")),
        start_timeout_s=root.number("startTimeoutS", 1, 86400),
        drain_timeout_s=root.number("drainTimeoutS", 0, 3600),
    )


def replica(root: Section) -> str:
    """As given; null is the machine's host name, which tells replicas of one target apart."""
    given = root.get("replica")
    if given is not None:
        return root.text("replica", PLACE, PLACE_ALLOWED + ", or null")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip(".-_")[:128]
    return name or "unnamed"


def parse_engine(value: object) -> EngineSettings:
    known = ("device", "dtype", "maxModelLen", "maxNumSeqs", "kvCacheMib", "maxLoraRank", "extraArgs")
    section = Section(value, "engine", known)
    extra = section.texts("extraArgs", re.compile(r"(?s).+"), "a flag or value of vLLM")
    for argument in extra:
        flag = argument.split("=", 1)[0].replace("_", "-")
        if flag in OWN_FLAGS:
            raise ServingError(
                f"engine.extraArgs holds {flag}, which the launcher sets itself or does not allow",
                "take it out; addresses, keys, model and adapters have fields of their own",
            )
    given = section.values
    rank = section.whole("maxLoraRank", 1, LORA_RANKS[-1])
    return EngineSettings(
        device=section.one_of("device", DEVICES),
        dtype=section.one_of("dtype", DTYPES),
        max_model_len=None if given.get("maxModelLen") is None else section.whole("maxModelLen", 16, 1 << 20),
        max_num_seqs=section.whole("maxNumSeqs", 1, 4096),
        kv_cache_mib=None if given.get("kvCacheMib") is None else section.whole("kvCacheMib", 1, 1 << 20),
        max_lora_rank=rank,
        extra_args=extra,
    )
