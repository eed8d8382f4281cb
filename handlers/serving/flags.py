"""vLLM's flags and environment, as a pure function of settings, hardware and adapters (vLLM 0.32)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handlers.serving.config import LORA_RANKS, EngineSettings
from handlers.serving.errors import ServingError
from handlers.serving.hardware import Hardware

PACKAGE = Path(__file__).resolve().parent
PLUGINS = ("lorafleet_exaone_config", "lorafleet_cpu_lora", "lorafleet_cpu_cache")
DEFAULT_CPU_KV_CACHE_MIB = 1024


@dataclass(frozen=True)
class EngineCommand:
    arguments: tuple[str, ...]
    """what follows the name of the program"""
    environment: dict[str, str]
    """variables to set, on top of `inherited()`"""
    dtype: str
    max_live: int
    """the most adapters that may be loaded at a time (--max-cpu-loras): see Fleet.load"""


def dtype_for(settings: EngineSettings, hardware: Hardware) -> str:
    """The number format of the weights. Raises ServingError for one that the GPU does not have."""
    capability = hardware.compute_capability
    has_bfloat16 = capability is None or capability >= (8, 0)
    if settings.dtype == "bfloat16" and not has_bfloat16:
        raise ServingError(
            f"engine.dtype is bfloat16, which {hardware.name} (compute capability {capability}) does not have",
            "set engine.dtype to float16 or auto",
        )
    if settings.dtype != "auto":
        return settings.dtype
    if hardware.device == "cpu":
        return "float32"  # exact to compare, and many CPUs only emulate the 16-bit formats
    # A T4 (7.5) has no bfloat16: vLLM raises in EngineCore, and all one sees is "Engine core initialization failed".
    return "bfloat16" if has_bfloat16 else "float16"


def lora_rank_flag(rank: int) -> int:
    """vLLM takes only some values for --max-lora-rank: the next one that is large enough."""
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)


def engine_command(
    settings: EngineSettings, hardware: Hardware, *, model: Path, base_name: str, adapters: int, host: str, port: int
) -> EngineCommand:
    """The arguments and the environment for one engine that serves `adapters` versions at a time, canaries too.

    `model` is a local folder (fetched and verified), so no revision is given to vLLM and nothing is downloaded by it.
    """
    dtype = dtype_for(settings, hardware)
    # One slot more than versions: while an adapter is replaced, the old and the new one are both live, and requests in
    # flight on the old one end in peace. And one to spare, for a canary or an adapter that comes later. More live
    # versions than slots are right as well, but take turns. (The slots hold weights on the device; each costs memory.)
    slots = adapters + 2
    arguments = [
        "--model", str(model),
        "--served-model-name", base_name,
        "--host", host,
        "--port", str(port),
        "--dtype", dtype,
        "--max-num-seqs", str(settings.max_num_seqs),
        "--load-format", "safetensors",          # never a pickle
        "--enable-lora",
        "--max-loras", str(slots),
        # Adapters in host memory. One that falls out and is asked for again is read from its folder; had that gone,
        # the whole engine would die. So no more are ever live than have room here (max_live).
        "--max-cpu-loras", str(max(4 * slots, 32)),
        "--max-lora-rank", str(lora_rank_flag(settings.max_lora_rank)),
        # Public names, keys, body limit, readiness: see alias.py. Added last, so it is the outermost layer.
        "--middleware", "handlers.serving.alias.AliasMiddleware",
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",          # health checks would fill the log; the router logs the requests
    ]  # fmt: skip
    if settings.max_model_len is not None:
        arguments += ["--max-model-len", str(settings.max_model_len)]
    kv_cache_mib = settings.kv_cache_mib
    environment = {
        # The content is fetched and pinned beforehand: the engine has no reason to ask a hub.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The routes that load and unload adapters; alias.py lets only the launcher reach them.
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        # vLLM's own plugins would look up unknown adapter names in folders or on a hub.
        "VLLM_PLUGINS": ",".join(PLUGINS),
        "PYTHONPATH": os.pathsep.join([str(PACKAGE / "vllm_plugins"), str(PACKAGE.parent.parent)]),
        # Deprecations inside vLLM and torch are no news for who reads this log.
        "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning",
        "TOKENIZERS_PARALLELISM": "false",       # its threads and the forks of vLLM do not mix; also a warning less
    }  # fmt: skip
    if hardware.device == "cpu":
        kv_cache_mib = kv_cache_mib or DEFAULT_CPU_KV_CACHE_MIB  # else vLLM takes most of the machine's memory
        arguments += ["--enforce-eager"]  # with LoRA there is no compiled graph on this path; says so early
        environment["TORCH_COMPILE_DISABLE"] = "1"
        if hardware.numa_nodes == 1:
            # EngineCore does the work itself instead of starting a worker for it: one Python process with torch and
            # vLLM less, 12 of 28 s of the start on two cores. What the worker would do besides, binding threads to
            # the cores of its NUMA node and leaving one core to the API server, the next two lines do well enough.
            environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            environment["OMP_NUM_THREADS"] = str(max(1, hardware.cores - 1))
        # Threads that wait must sleep. Spinning, they take the cores from each other and from the API server: with
        # two threads on two busy cores the demo model made 10-28 tokens a second instead of 140.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    if kv_cache_mib is not None:
        arguments += ["--kv-cache-memory-bytes", str(kv_cache_mib * 1024 * 1024)]
    everything = (*arguments, *settings.extra_args)
    return EngineCommand(everything, environment, dtype, last_number(everything, "--max-cpu-loras"))


def last_number(arguments: Sequence[str], flag: str) -> int:
    """The value of a flag that is there at least once; the last one counts, given apart or after "="."""
    found = 0
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            text = value if equals else arguments[position + 1] if position + 1 < len(arguments) else ""
            if not text.isdigit():
                raise ServingError(f"engine.extraArgs gives {flag} the value {text!r}", "give a whole number")
            found = int(text)
    return found


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the launcher's environment that the engine gets: all but secrets and what would change its ways.

    Who started the launcher may have marked it with LORAFLEET_ variables, so as to find all that it leaves behind:
    those are handed on.
    """
    dropped = {"VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"}
    return {
        name: value for name, value in environment.items() if name not in dropped and not name.startswith("PULUMI_")
    }
