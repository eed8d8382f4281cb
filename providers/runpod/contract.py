"""Contract cases of this platform: its resources against a stand-in for RunPod's API. tests/contract finds them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from providers.kit.testing import Case, Place
from providers.kit.values import Sealed

from . import api, http
from .resources import NetworkVolume, Pod, RegistryCredential, ServerlessEndpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

_TOKEN = "rpa_a-token-for-the-stand-in"
_IMAGE = f"registry.example.com/serving@sha256:{'0' * 64}"
_OTHER_IMAGE = f"registry.example.com/serving@sha256:{'1' * 64}"
_CONTAINER: dict[str, Any] = {
    "image": _IMAGE,
    "env": {"PORT": "8000"},
    "secretEnv": [{"name": "LORAFLEET_CONFIG", "value": Sealed('{"secret": "of the launch file"}')}],
    "diskGb": 30,
    "ports": ["8000/http"],
}
_OTHER_CONTAINER: dict[str, Any] = {
    "image": _OTHER_IMAGE,
    "args": "serving --verbose",
    "env": {"PORT": "9000"},
    "secretEnv": [{"name": "LORAFLEET_CONFIG", "value": Sealed('{"secret": "of another file"}')}],
    "diskGb": 40,
    "ports": ["9000/http"],
}


def cases() -> list[Case]:
    return [
        _case(ServerlessEndpoint, _balanced, _balanced_changes, "endpoint", "runpod.ServerlessEndpoint"),
        _case(ServerlessEndpoint, _queue, _queue_changes, "endpoint", "runpod.ServerlessEndpoint of type QUEUE"),
        _case(Pod, _pod, _pod_changes, "pod", "runpod.Pod"),
        _case(NetworkVolume, _volume, _volume_changes, "volume", "runpod.NetworkVolume"),
        Case(
            RegistryCredential,
            _registry,
            _registry_changes,
            partial(_vanish, "registry"),
            _platform,
            importable=False,
            # They are removed and not taken over: nobody can see what is in them (tests/unit/test_runpod_resources.py).
            has_leftovers=False,
            name="runpod.RegistryCredential",
        ),
    ]


def _case(resource: Any, inputs: Callable[[Place], Any], changes: Callable[[Place], Any], what: str, name: str) -> Case:
    return Case(resource, inputs, changes, partial(_vanish, what), _platform, name=name)


@contextmanager
def _platform(place: Place) -> Iterator[None]:
    """The plugin, which the test starts after this, finds the stand-in by its environment."""
    from tests.fakes.runpod import running

    with running(place.port("api"), _TOKEN) as fake:
        former = {name: os.environ.get(name) for name in (http.URL_VARIABLE, http.TOKEN_VARIABLE)}
        os.environ.update({http.URL_VARIABLE: fake.url, http.TOKEN_VARIABLE: _TOKEN})
        try:
            yield
        finally:
            for name, value in former.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        assert fake.violations == []


def _balanced(place: Place) -> dict[str, Any]:
    return {
        **_CONTAINER,
        "type": "LOAD_BALANCER",
        "gpus": ["NVIDIA L4"],
        "minCudaVersion": "13.0",
        "workers": {"min": 0, "max": 2, "idleTimeout": 30},
        "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
    }


def _balanced_changes(place: Place) -> dict[str, Any]:
    return {
        **_OTHER_CONTAINER,
        "gpus": ["NVIDIA A40", "NVIDIA L4"],
        "gpuCount": 2,
        "minCudaVersion": "12.8",
        "workers": {"min": 1, "max": 5, "idleTimeout": 60},
        "scaling": {"type": "REQUEST_COUNT", "requestCount": 8},
        "timeoutMs": 100_000,
        "flashboot": "FLASHBOOT",
        "dataCenterIds": ["EU-SE-1", "EU-RO-1"],
    }


def _queue(place: Place) -> dict[str, Any]:
    return {
        **_CONTAINER,
        "type": "QUEUE",
        "gpus": ["NVIDIA GeForce RTX 4090", "NVIDIA L4"],
        "workers": {"min": 0, "max": 1},
        "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
    }


def _queue_changes(place: Place) -> dict[str, Any]:
    return {
        "type": "LOAD_BALANCER",
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4.5},
        "allowedCudaVersions": ["13.0", "12.8"],
    }


def _pod(place: Place) -> dict[str, Any]:
    return {**_CONTAINER, "gpu": "NVIDIA A40"}


def _pod_changes(place: Place) -> dict[str, Any]:
    return {
        **_OTHER_CONTAINER,
        "gpu": "NVIDIA L4",
        "gpuCount": 2,
        "minCudaVersion": "12.8",
        "allowedCudaVersions": ["12.8"],
        "cloud": "COMMUNITY",
        "dataCenterIds": ["EU-SE-1"],
        "running": False,
        "locked": True,
        "globalNetworking": True,
        "startTimeoutS": 500,
        "schedule": "00:00-24:00 Asia/Seoul",
        "scheduleDays": ["mon"],
    }


def _volume(place: Place) -> dict[str, Any]:
    return {"sizeGb": 50, "dataCenter": "EU-RO-1"}


def _volume_changes(place: Place) -> dict[str, Any]:
    return {"sizeGb": 100, "dataCenter": "US-KS-2", "type": "STANDARD"}


def _registry(place: Place) -> dict[str, Any]:
    return {"username": "robot", "password": Sealed("a-password-0123456789")}


def _registry_changes(place: Place) -> dict[str, Any]:
    return {"username": "another", "password": Sealed("another-password-0123456789")}


def _vanish(what: str, place: Place, resource_id: str) -> None:
    client = api.connect()
    delete: dict[str, Callable[[str], Awaitable[bool]]] = {
        "endpoint": client.delete_endpoint,
        "pod": client.delete_pod,
        "volume": client.delete_volume,
        "registry": client.delete_registry,
    }

    async def gone() -> None:
        await delete[what](resource_id)

    asyncio.run(gone())
