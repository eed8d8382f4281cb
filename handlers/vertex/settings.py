"""What the handler is told: the launch file, the engine, and how many requests it may hold.

| variable | what |
|---|---|
| LORAFLEET_CONFIG | the launch file (docs/architecture.md) as JSON text or as an absolute path; else `launch.json` in the model's folder |
| LORAFLEET_ENGINE | `vllm`, `peft`, or `auto` (vLLM where it is installed) |
| LORAFLEET_MAX_QUEUE | requests that may wait beyond the `maxNumSeqs` at work, 0 to 10000; more get 429 (64) |
| LORAFLEET_MAX_TOKENS | the most tokens that one answer may have, 1 to 1048576 (4096): peft refuses more, vllm cuts there |
| AIP_HTTP_PORT, PORT | the port on which the container listens; takes the place of the one in the launch file |
"""  # noqa: E501

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from handlers.serving import config
from handlers.serving.config import LaunchConfig
from handlers.serving.errors import ServingError

ENGINES = ("auto", "vllm", "peft")
CONFIG, ENGINE, QUEUE, TOKENS = "LORAFLEET_CONFIG", "LORAFLEET_ENGINE", "LORAFLEET_MAX_QUEUE", "LORAFLEET_MAX_TOKENS"
DEFAULT_QUEUE, DEFAULT_TOKENS = 64, 4096


@dataclass(frozen=True)
class Settings:
    launch: LaunchConfig
    engine: str
    """"vllm" or "peft\""""
    max_queue: int
    max_tokens: int
    predict_routes: frozenset[str]
    """paths at which Vertex's `instances` are taken, and raw requests in OpenAI's shape"""
    health_routes: frozenset[str]
    """paths that answer as /ready does"""

    @property
    def most_in_flight(self) -> int:
        return self.launch.engine.max_num_seqs + self.max_queue


def load(model_dir: str, environ: Mapping[str, str]) -> Settings:
    """Reads all of it. Raises ServingError."""
    launch = config.parse(document(model_dir, environ))
    return Settings(
        launch=launch,
        engine=engine(environ.get(ENGINE, "auto")),
        max_queue=whole(environ, QUEUE, 0, 10_000, DEFAULT_QUEUE),
        max_tokens=whole(environ, TOKENS, 1, 1 << 20, DEFAULT_TOKENS),
        predict_routes=frozenset({"/", "/predict", route(environ, "AIP_PREDICT_ROUTE", "/predict")}),
        health_routes=frozenset({"/", "/ready", route(environ, "AIP_HEALTH_ROUTE", "/ready")}),
    )


def document(model_dir: str, environ: Mapping[str, str]) -> dict[str, object]:
    """The launch file as it stands, with the platform's port."""
    given = environ.get(CONFIG, "").strip()
    where, text = CONFIG, given
    if not given.startswith("{"):
        path = Path(given) if given else Path(model_dir) / "launch.json"
        where = str(path)
        if not path.is_absolute():
            raise ServingError(f"{CONFIG} is neither a JSON object nor an absolute path", "give it {...} or a path")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ServingError(
                f"the launch file {path} cannot be read: {reason}",
                f"give the variable {CONFIG} the launch file's text, or put launch.json into the model's folder",
            ) from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # its text may be of use to nobody but the owner: only the place is told
        raise ServingError(f"{where} is not JSON", "see the launch file in docs/architecture.md") from None
    if not isinstance(found, dict):
        raise ServingError(f"{where} is not a JSON object", "see the launch file in docs/architecture.md")
    port = environ.get("AIP_HTTP_PORT") or environ.get("PORT")
    if port:
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ServingError(f"the port {port[:20]!r} is none", "AIP_HTTP_PORT and PORT are numbers, 1 to 65535")
        found["port"] = int(port)
    return found


def engine(wanted: str) -> str:
    if wanted not in ENGINES:
        raise ServingError(f"{ENGINE} is {wanted[:40]!r}", f"give one of {', '.join(ENGINES)}")
    has_vllm = find_spec("vllm") is not None
    if wanted == "vllm" and not has_vllm:
        raise ServingError(
            f"{ENGINE} is vllm, but this image's Python has no vLLM",
            f"use the image `vertex` (images/), or set {ENGINE} to peft or auto",
        )
    if wanted == "peft" or not has_vllm:
        for package in ("torch", "transformers", "peft"):
            if find_spec(package) is None:
                raise ServingError(
                    f"this image's Python has no {package}, which the engine peft needs",
                    "install it: requirements.txt in the model's folder (python -m handlers.vertex.bundle writes it)",
                )
        return "peft"
    return "vllm"


def whole(environ: Mapping[str, str], name: str, low: int, high: int, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ServingError(f"{name} is {text[:20]!r}", f"give a whole number from {low} to {high}, or leave it out")
    return int(text)


def route(environ: Mapping[str, str], name: str, default: str) -> str:
    value = environ.get(name) or default
    if not value.startswith("/"):
        raise ServingError(f"{name} is {value[:80]!r}", "give a path that begins with a slash, such as /predict")
    return value
