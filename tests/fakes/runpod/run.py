"""One resource of RunPod in one run of the plugin, without the engine, against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from providers import kit
from providers.kit.check import load
from providers.kit.lifecycle import Lifecycle, Ownership
from providers.runpod import http, steps
from providers.runpod.resources import NetworkVolume, Pod, RegistryCredential, ServerlessEndpoint
from tests.support.ports import free_port

from .server import Fake, running

TOKEN = "rpa_secret-token-of-the-tests"
IMAGE = f"registry.example.com/serving@sha256:{'0' * 64}"
ENDPOINT: dict[str, Any] = {
    "name": "burst-12345678",
    "type": "LOAD_BALANCER",
    "image": IMAGE,
    "env": {"PORT": "8000"},
    "secretEnv": [{"name": "LORAFLEET_CONFIG", "value": "{launch file}"}],
    "gpus": ["NVIDIA L4"],
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
}
POD: dict[str, Any] = {"name": "always-12345678", "image": IMAGE, "gpu": "NVIDIA A40", "ports": ["8000/http"]}
VOLUME: dict[str, Any] = {"name": "weights-12345678", "sizeGb": 50, "dataCenter": "EU-RO-1"}
REGISTRY: dict[str, Any] = {"name": "images-12345678", "username": "robot", "password": "a-password-0123456789"}
ALL: list[tuple[type[kit.Resource[Any, Any]], dict[str, Any], str]] = [
    (ServerlessEndpoint, ENDPOINT, "serverless"),
    (Pod, POD, "pods"),
    (NetworkVolume, VOLUME, "network-volumes"),
    (RegistryCredential, REGISTRY, "registries"),
]


@contextmanager
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with running(free_port(), TOKEN) as server:
        monkeypatch.setenv(http.URL_VARIABLE, server.url)
        monkeypatch.setenv(http.TOKEN_VARIABLE, TOKEN)
        monkeypatch.setattr(http, "_quota", http._Quota())
        monkeypatch.setattr(steps, "_SOUGHT_FOR_S", 0.3)
        monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.02)
        yield server
        assert server.violations == []


class Run:
    """What one run of the plugin does with one resource."""

    def __init__(self, resource: type[kit.Resource[Any, Any]]) -> None:
        self.type, self.said = resource, list[str]()
        self.urn = f"urn:pulumi:test::serving::lorafleet:runpod:{resource.__name__}::thing"
        self.life = Lifecycle(f"lorafleet:runpod:{resource.__name__}", resource(), Ownership())

    def context(self) -> kit.Context:
        async def say(message: str, severity: str) -> None:
            if severity != "status":
                self.said.append(message)

        return kit.Context(urn=self.urn, name="thing", owned=self.life.owned_ids(), say=say)

    def load(self, inputs: dict[str, Any]) -> Any:
        return load(self.type.inputs_model(), inputs)

    async def create(self, inputs: dict[str, Any]) -> str:
        made, _ = await self.life.create(self.context(), self.load(inputs), 60)
        return made

    async def update(self, resource_id: str, old: dict[str, Any], new: dict[str, Any]) -> Any:
        return await self.life.update(self.context(), resource_id, self.load(old), self.load(new), None, 60)

    async def read(self, resource_id: str, inputs: dict[str, Any] | None = None) -> kit.Reading[Any, Any] | None:
        known = None if inputs is None else self.load(inputs)
        return await self.life.read(self.context(), resource_id, known, None)

    async def delete(self, resource_id: str, inputs: dict[str, Any]) -> None:
        await self.life.delete(self.context(), resource_id, self.load(inputs), 60)
