"""`lorafleet:local:ModelServer`: vLLM with its launcher, as a process on this machine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorafleet.engine import EngineSettings
from providers import kit

from .daemon import Daemon, Look
from .supervised import ProcessInputs, ProcessOutputs, Supervised


class BaseModel(kit.Model):
    """The base model: served name, source URI, and what pins its content."""

    name: str
    source: str
    revision: str | None = None
    digest: str | None = None


class ServerInputs(ProcessInputs):
    """python: interpreter of the serving environment. Times are in seconds.

    store, environment: where the manifest lies that it serves and follows; target: its name in the stack.
    """

    python: str
    store: str
    environment: str
    target: str
    base_model: BaseModel
    engine: EngineSettings
    api_key_sha256: list[kit.Secret[str]]
    start_timeout_s: int = 900
    drain_timeout_s: int = 30


class ServerOutputs(ProcessOutputs):
    """url: base URL without `/v1`."""

    url: str


class ModelServer(Supervised[ServerInputs, ServerOutputs]):
    """A vLLM server on this machine that serves the base model and the adapters of a manifest, which it follows.

    It outlives the plugin. Its log stays when it goes.
    """

    what = "the model server"
    passed_on = (
        *("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
        *("HF_HOME", "HF_ENDPOINT", "HF_TOKEN"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "SSL_CERT_FILE"),
        *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    )

    def time_limit_s(self, inputs: ServerInputs | None) -> float:
        return 120.0 + (inputs.start_timeout_s + inputs.drain_timeout_s if inputs else 900)

    async def problems(
        self, ctx: kit.Context, inputs: ServerInputs, old: ServerInputs | None
    ) -> AsyncIterator[kit.Problem]:
        async for problem in super().problems(ctx, inputs, old):
            yield problem
        if not Path(inputs.python).is_file() or not os.access(inputs.python, os.X_OK):
            yield kit.Problem(
                ("python",),
                f"there is no interpreter at {inputs.python} that can be run",
                "the Python of the serving environment",
                "run `make setup`, which makes it",
            )

    def preview(self) -> Mapping[str, Callable[[ServerInputs], Any]]:
        return {"url": _url, "status": lambda _: "ready"}

    def command(self, daemon: Daemon, inputs: ServerInputs) -> Sequence[str]:
        return [inputs.python, "-m", "handlers.serving", "--config", str(daemon.config_file)]

    def document(self, daemon: Daemon, inputs: ServerInputs) -> dict[str, Any]:
        return {
            "version": 2,
            "store": inputs.store,
            "environment": inputs.environment,
            "target": inputs.target,
            "replica": "0",
            "baseModel": inputs.base_model.model_dump(mode="json", by_alias=True),
            "cache": str(daemon.run / "cache"),
            "host": inputs.host,
            "port": inputs.port,
            "apiKeySha256": list(inputs.api_key_sha256),
            "stateFile": str(daemon.state_file),
            "engine": inputs.engine.launch(),
            "startTimeoutS": inputs.start_timeout_s,
            "drainTimeoutS": inputs.drain_timeout_s,
        }

    def inputs_from(self, daemon: Daemon, document: dict[str, Any]) -> dict[str, Any]:
        same = (
            *("store", "environment", "target", "baseModel", "host", "port", "apiKeySha256"),
            *("startTimeoutS", "drainTimeoutS"),
        )
        engine = {key: value for key, value in document["engine"].items() if key != "extraArgs"}
        return {
            **{key: document[key] for key in same},
            "engine": engine,
            "python": next(iter(daemon.command()), ""),
        }

    def outputs(self, daemon: Daemon, inputs: ServerInputs, look: Look, status: str) -> ServerOutputs:
        return ServerOutputs(pid=look.pid, status=status, log_file=str(daemon.log_file), url=_url(inputs))

    def drain_s(self, document: dict[str, Any]) -> float:
        return float(document.get("drainTimeoutS", 30))


def _url(inputs: ServerInputs) -> str:
    return f"http://{inputs.host}:{inputs.port}"
