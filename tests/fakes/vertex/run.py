"""One resource of Vertex AI in one run of the plugin, without the engine, against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from providers import kit
from providers.kit.check import load
from providers.kit.lifecycle import Lifecycle, Ownership
from providers.vertex import credentials, http, steps
from providers.vertex.resources import Deployment, Endpoint, Model, Traffic
from tests.support.ports import free_port

from .server import Fake, running

TOKEN = "ya29.a-secret-token-of-the-tests"
PARENT = "projects/p-tests/locations/europe-west4"
IMAGE = f"europe-west4-docker.pkg.dev/p-tests/images/vertex@sha256:{'0' * 64}"
OTHER_IMAGE = f"europe-west4-docker.pkg.dev/p-tests/images/vertex@sha256:{'1' * 64}"
MODEL: dict[str, Any] = {
    "name": "handler-12345678",
    "project": "p-tests",
    "location": "europe-west4",
    "labels": {"team": "ours"},
    "image": IMAGE,
    "env": {"HF_TASK": "custom"},
    "secretEnv": [{"name": "LORAFLEET_CONFIG", "value": "{secret launch file}"}],
}
ENDPOINT: dict[str, Any] = {
    "name": "address-12345678",
    "project": "p-tests",
    "location": "europe-west4",
    "labels": {"team": "ours"},
    "requestTimeoutS": 600,
}
MACHINE: dict[str, Any] = {
    "machineType": "g2-standard-8",
    "acceleratorType": "NVIDIA_L4",
    "acceleratorCount": 1,
    "maxReplicas": 2,
    "metrics": [{"name": "vllm-waiting", "target": 5}],
}


@contextmanager
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with running(free_port(), TOKEN) as server:
        monkeypatch.setenv(http.URL_VARIABLE, server.url)
        monkeypatch.setenv(credentials.TOKEN_VARIABLE, TOKEN)
        monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
        monkeypatch.setattr(steps, "_SHOWS_WITHIN_S", 3.0)
        yield server
        assert server.violations == []


class Run:
    """What one run of the plugin does with one resource."""

    def __init__(self, resource: type[kit.Resource[Any, Any]], name: str = "thing") -> None:
        self.type, self.said = resource, list[str]()
        self.urn = f"urn:pulumi:test::serving::lorafleet:vertex:{resource.__name__}::{name}"
        self.life = Lifecycle(f"lorafleet:vertex:{resource.__name__}", resource(), Ownership())

    def context(self) -> kit.Context:
        async def say(message: str, severity: str) -> None:
            self.said.append(message)

        return kit.Context(urn=self.urn, name="thing", owned=self.life.owned_ids(), say=say)

    def load(self, inputs: dict[str, Any]) -> Any:
        return load(self.type.inputs_model(), inputs)

    async def create(self, inputs: dict[str, Any], limit_s: float = 60) -> str:
        made, _ = await self.life.create(self.context(), self.load(inputs), limit_s)
        return made

    async def update(
        self, resource_id: str, old: dict[str, Any], new: dict[str, Any], last: kit.Outputs | None = None
    ) -> Any:
        return await self.life.update(self.context(), resource_id, self.load(old), self.load(new), last, 60)

    async def read(
        self, resource_id: str, inputs: dict[str, Any] | None = None, outputs: kit.Outputs | None = None
    ) -> kit.Reading[Any, Any] | None:
        known = None if inputs is None else self.load(inputs)
        return await self.life.read(self.context(), resource_id, known, outputs)

    async def delete(self, resource_id: str, inputs: dict[str, Any]) -> None:
        await self.life.delete(self.context(), resource_id, self.load(inputs), 60)


async def furnished(fake: Fake) -> tuple[str, dict[str, Any]]:
    """(the endpoint's id, inputs of a deployment on it), of an endpoint and a model made for it."""
    endpoint = await Run(Endpoint).create(ENDPOINT)
    model = await Run(Model).create(MODEL)
    [version] = fake.cloud.models[model].values()
    alias = next(each for each in version["versionAliases"] if each != "default")
    return endpoint, {"name": "main-12345678", "endpoint": endpoint, "model": f"{model}@{alias}", **MACHINE}


__all__ = ["ENDPOINT", "MODEL", "Deployment", "Endpoint", "Model", "Run", "Traffic", "furnished", "started"]
