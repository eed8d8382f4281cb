"""`lorafleet:local:RouterProcess`: HAProxy with its supervisor, as a process on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lorafleet.limits import RouterLimits
from providers import kit

from .daemon import Daemon, Look, canonical, read_json, write_private
from .supervised import ProcessInputs, ProcessOutputs, Supervised, own_python

# Requests in flight when it stops may take this long, then they are cut off.
_DRAIN_S = 30.0
# Targets are checked every second; one that is up is seen within two.
_FIRST_TARGET_S = 5.0


class RoutedModel(kit.Model):
    """A model that clients may ask for."""

    name: str


class RoutedPaths(kit.Model):
    """Where requests go instead of their own path: for whole answers, and for streams."""

    whole: str
    stream: str


class RoutedTarget(kit.Model):
    """An endpoint that requests are sent to. `key`: what it asks for as Bearer token; `headers`: what beside it.

    status_path: where it says what it serves, for the metrics; None if it must not be asked.
    """

    name: str
    kind: str
    url: str
    models: list[str]
    health_path: str | None = None
    status_path: str | None = None
    paths: RoutedPaths | None = None
    token: Literal["google"] | None = None
    max_in_flight: int
    max_queue: int
    key: kit.Secret[str] | None = None
    headers: kit.Secret[dict[str, str]] | None = None


class RouterInputs(ProcessInputs):
    """metrics_port: Prometheus metrics, same host. client_keys_sha256: digests of the keys clients may present."""

    metrics_port: int
    client_keys_sha256: list[kit.Secret[str]]
    base_model: str
    models: list[RoutedModel]
    targets: list[RoutedTarget]
    limits: RouterLimits = RouterLimits()


class RouterOutputs(ProcessOutputs):
    """endpoint: base URL for OpenAI clients, ending in `/v1`; metrics_url: what Prometheus scrapes."""

    endpoint: str
    metrics_url: str


class RouterProcess(Supervised[RouterInputs, RouterOutputs]):
    """The router on this machine: one OpenAI-compatible address in front of all targets.

    A changed configuration is taken over without losing a request.
    """

    what = "the router"

    def time_limit_s(self, inputs: RouterInputs | None) -> float:
        return 120.0 + _DRAIN_S

    def listens(self, inputs: RouterInputs) -> dict[str, int]:
        return {"port": inputs.port, "metricsPort": inputs.metrics_port}

    def preview(self) -> Mapping[str, Callable[[RouterInputs], Any]]:
        return {"endpoint": _endpoint, "metrics_url": _metrics, "status": lambda _: "ready"}

    def command(self, daemon: Daemon, inputs: RouterInputs) -> Sequence[str]:
        return [own_python(), "-m", "handlers.router", "--config", str(daemon.config_file)]

    def document(self, daemon: Daemon, inputs: RouterInputs) -> dict[str, Any]:
        return {
            "version": 1,
            "listen": {"host": inputs.host, "port": inputs.port},
            "metrics": {"host": inputs.host, "port": inputs.metrics_port},
            "clientKeysSha256": list(inputs.client_keys_sha256),
            "baseModel": inputs.base_model,
            "models": [model.model_dump(mode="json", by_alias=True) for model in inputs.models],
            "targets": [
                target.model_dump(mode="json", by_alias=True, exclude={"key", "headers"}) for target in inputs.targets
            ],
            "keysFile": str(daemon.run / _keys_name(inputs)),
            "limits": inputs.limits.model_dump(mode="json", by_alias=True),
            "runDir": str(daemon.run / "haproxy"),
            "stateFile": str(daemon.state_file),
        }

    def inputs_from(self, daemon: Daemon, document: dict[str, Any]) -> dict[str, Any]:
        keys = read_json(daemon.run / str(document["keysFile"]).rpartition("/")[2])
        same = ("clientKeysSha256", "baseModel", "models", "limits")
        return {
            **{key: document[key] for key in same},
            "host": document["listen"]["host"],
            "port": document["listen"]["port"],
            "metricsPort": document["metrics"]["port"],
            "targets": [_declared(target) | _access(keys.get(target["name"])) for target in document["targets"]],
        }

    def prepare(self, daemon: Daemon, inputs: RouterInputs) -> None:
        write_private(daemon.run / _keys_name(inputs), canonical(_keys(inputs)))

    async def converge(self, ctx: kit.Context, daemon: Daemon, inputs: RouterInputs) -> RouterOutputs:
        outputs = await super().converge(ctx, daemon, inputs)
        # Whoever asks right after `pulumi up` shall be answered: wait until the checks have seen a target.
        deadline = time.monotonic() + _FIRST_TARGET_S
        while await self._http_answers(inputs, "/health"):
            if time.monotonic() > deadline:
                await ctx.info("the router runs, but none of its targets answers yet")
                break
            await ctx.status("the router to see the first target")
            await asyncio.sleep(0.1)
        return outputs

    def runs_what_is_written(self, daemon: Daemon, look: Look) -> bool:
        # It takes over new configurations, so what it was started with does not tell.
        return look.state.get("configDigest") == _sha256(daemon.config_file)

    async def reload(self, ctx: kit.Context, daemon: Daemon, inputs: RouterInputs, content: bytes) -> bool:
        leader = daemon.leader()
        if leader is None or daemon.command() != list(self.command(daemon, inputs)):
            return False
        former, wanted = daemon.config_file.read_bytes(), hashlib.sha256(content).hexdigest()
        self.prepare(daemon, inputs)
        write_private(daemon.config_file, content)
        if daemon.state().get("configDigest") != wanted:
            leader.identity.signal(signal.SIGHUP)
        while (state := daemon.state()).get("configDigest") != wanted:
            if not leader.identity.alive():
                return False
            if state.get("refusedDigest") == wanted and state.get("error"):
                write_private(daemon.config_file, former)
                raise kit.ResourceError(
                    f"the router keeps its former configuration: {state['error'].get('what')}",
                    next_action=str(state["error"].get("next")),
                    log=str(daemon.log_file),
                )
            await ctx.status("the router to take over its new configuration")
            await asyncio.sleep(0.1)
        for old in set(daemon.run.glob("keys-*.json")) - {daemon.run / _keys_name(inputs)}:
            old.unlink(missing_ok=True)
        return not await self.answers(inputs)

    async def answers(self, inputs: RouterInputs) -> str:
        # 503 is an answer too: the router lives, and no target is up. That is for the targets to show.
        silence = await self._http_answers(inputs, "/health")
        return "" if silence.startswith("answers ") and " 503 " in silence else silence

    def outputs(self, daemon: Daemon, inputs: RouterInputs, look: Look, status: str) -> RouterOutputs:
        return RouterOutputs(
            pid=look.pid,
            status=status,
            log_file=str(daemon.log_file),
            endpoint=_endpoint(inputs),
            metrics_url=_metrics(inputs),
        )

    def drain_s(self, document: dict[str, Any]) -> float:
        return _DRAIN_S


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _endpoint(inputs: RouterInputs) -> str:
    return f"http://{inputs.host}:{inputs.port}/v1"


def _metrics(inputs: RouterInputs) -> str:
    return f"http://{inputs.host}:{inputs.metrics_port}/metrics"


def _keys(inputs: RouterInputs) -> dict[str, Any]:
    """The keys file (docs/architecture.md)."""
    return {
        target.name: {"key": target.key, "headers": target.headers} if target.headers else target.key
        for target in inputs.targets
        if target.headers or target.key is not None
    }


def _access(kept: str | dict[str, Any] | None) -> dict[str, Any]:
    """What a keys file has of one target, as inputs."""
    return _declared(kept if isinstance(kept, dict) else {"key": kept})


def _declared(value: dict[str, Any]) -> dict[str, Any]:
    """Inputs do without what is null."""
    return {key: item for key, item in value.items() if item is not None}


def _keys_name(inputs: RouterInputs) -> str:
    """Named by content, so that a changed key is a changed configuration."""
    content = json.dumps(_keys(inputs), sort_keys=True).encode()
    return f"keys-{hashlib.sha256(content).hexdigest()[:12]}.json"
