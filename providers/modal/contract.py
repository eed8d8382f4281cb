"""Contract cases of this platform, against the stand-in for Modal's control plane."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from providers.kit.testing import Case, Place
from providers.kit.values import Sealed

from . import marks
from .resources import App, Secret, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.modal import FakeModal

_running: dict[int, FakeModal] = {}


def cases() -> list[Case]:
    return [
        Case(App, lambda _: dict(INPUTS), lambda _: CHANGES, _stop, _platform, name="modal.App"),
        Case(Secret, _secret, _secret_changes, _remove, _platform, importable=False, name="modal.Secret"),
        Case(Volume, _volume, lambda _: {"environment": "other"}, _remove, _platform, name="modal.Volume"),
    ]


@contextmanager
def _platform(place: Place) -> Iterator[None]:
    """The plugin, which the test starts after this, finds the stand-in by its environment."""
    from tests.fakes.modal import serving

    with serving() as modal:
        former = {name: os.environ.get(name) for name in modal.environ()}
        os.environ.update(modal.environ())
        furnish(modal)
        _running[id(place)] = modal
        try:
            yield
        finally:
            del _running[id(place)]
            for name, value in former.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def furnish(modal: FakeModal) -> None:
    """Puts there what INPUTS and CHANGES refer to."""
    modal.cloud.environments.add("other")
    for environment in ("main", "other"):
        for name in ("hub", "more", "registry"):
            modal.put_secret(environment, name, SERVICE_ACCOUNT_JSON="{}")
    modal.put_secret("main", "hmac", GOOGLE_ACCESS_KEY_ID="GOOG1E", GOOGLE_ACCESS_KEY_SECRET="0123456789")
    modal.put_volume("main", "weights")


INPUTS: dict[str, Any] = {
    "environment": "main",
    "name": "lorafleet-test-spill",
    "image": f"registry.example.com:5000/team/serving@sha256:{'0' * 64}",
    "secrets": ["hub"],
    "gpus": ["L4"],
}
"""The least that an app needs."""
CHANGES: dict[str, Any] = {
    "environment": "other",
    "name": "lorafleet-test-burst",
    "image": f"registry.example.com/serving@sha256:{'1' * 64}",
    "registrySecret": "registry",
    "secrets": ["more", "hub"],
    "gpus": ["L4", "A10"],
    "cpu": 4,
    "memoryMib": 16384,
    "minContainers": 1,
    "maxContainers": 4,
    "bufferContainers": 1,
    "scaledownWindowS": 60,
    "targetConcurrency": 16,
    "maxConcurrency": 64,
    "port": 8080,
    "routingRegion": "eu-west",
    "computeRegions": ["eu-west", "us-east"],
    "cloud": "gcp",
    "nonpreemptible": True,
    "proxyAuth": False,
    "startupTimeoutS": 1200,
    "exitGracePeriodS": 60,
    "gpuSnapshot": True,
    "volumes": {"/mnt/weights": {"volume": "weights", "readOnly": True, "subPath": "v1"}},
    "buckets": {
        "/mnt/store": {
            "bucket": "a-bucket",
            "endpoint": "https://storage.googleapis.com",
            "prefix": "fleet/",
            "secret": "hmac",
        }
    },
}
"""For each input of an app, another value; each may be set alone."""


def _secret(place: Place) -> dict[str, Any]:
    return {"environment": "main", "values": Sealed({"HF_TOKEN": "hf-secret-0123456789"})}


def _secret_changes(place: Place) -> dict[str, Any]:
    return {"environment": "other", "values": Sealed({"HF_TOKEN": "hf-secret-0123456789", "MORE": "secret-9876543210"})}


def _volume(place: Place) -> dict[str, Any]:
    return {"environment": "main"}


def _stop(place: Place, resource_id: str) -> None:
    modal = _running[id(place)]
    app = modal.cloud.deployed(*marks.parse_id(resource_id))
    assert app is not None
    modal.cloud.stop(app)


def _remove(place: Place, resource_id: str) -> None:
    modal, key = _running[id(place)], marks.parse_id(resource_id)
    modal.cloud.secrets.pop(key, None) or modal.cloud.volumes.pop(key)
