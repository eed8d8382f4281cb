"""Contract cases of this platform: its resources against a stand-in for Vertex AI. tests/contract finds them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from providers.kit.testing import Case, Place
from providers.kit.values import Sealed

from . import credentials, http
from .resources import Deployment, Endpoint, Model, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = "a-token-for-the-stand-in"
_PARENT = "projects/p-tests/locations/europe-west4"
_ENDPOINT = f"{_PARENT}/endpoints/given"
_MODEL = f"{_PARENT}/models/given"
_IMAGE = f"europe-west4-docker.pkg.dev/p-tests/images/vertex@sha256:{'0' * 64}"
_OTHER_IMAGE = f"europe-west4-docker.pkg.dev/p-tests/images/vertex@sha256:{'1' * 64}"
_PLACE = {"project": "p-tests", "location": "europe-west4"}
_KMS_KEY = "projects/p-tests/locations/europe-west4/keyRings/ring/cryptoKeys/key"
_fakes: dict[str, Any] = {}


def cases() -> list[Case]:
    return [
        _case(Model, _model, _model_changes, "vertex.Model"),
        _case(Endpoint, _endpoint, _endpoint_changes, "vertex.Endpoint"),
        _case(Endpoint, _private, _private_changes, "vertex.Endpoint that is private"),
        _case(Deployment, _deployment, _deployment_changes, "vertex.Deployment"),
        _case(Deployment, _sleeper, _sleeper_changes, "vertex.Deployment that scales to zero"),
        # Setting a split again changes nothing, so a killed create leaves nothing to take over.
        _case(Traffic, _traffic, _traffic_changes, "vertex.Traffic", has_leftovers=False),
    ]


def _case(
    resource: Any,
    inputs: Callable[[Place], Any],
    changes: Callable[[Place], Any],
    name: str,
    *,
    has_leftovers: bool = True,
) -> Case:
    return Case(resource, inputs, changes, _vanish, _platform, has_leftovers=has_leftovers, name=name)


@contextmanager
def _platform(place: Place) -> Iterator[None]:
    """The plugin, which the test starts after this, finds the stand-in by its environment."""
    from tests.fakes.vertex import running

    with running(place.port("api"), _TOKEN) as fake:
        former = {name: os.environ.get(name) for name in (http.URL_VARIABLE, credentials.TOKEN_VARIABLE)}
        os.environ.update({http.URL_VARIABLE: fake.url, credentials.TOKEN_VARIABLE: _TOKEN})
        furnish(fake)
        _fakes[str(place.folder)] = fake
        try:
            yield
        finally:
            del _fakes[str(place.folder)]
            for name, value in former.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        assert fake.violations == []


def furnish(fake: Any) -> None:
    """An endpoint and a model with two versions, and something deployed, that the cases refer to."""
    spec = {"imageUri": _IMAGE, "predictRoute": "/predict", "healthRoute": "/health"}
    version = {"name": _MODEL, "displayName": "given", "containerSpec": spec, "createTime": "2026-01-01T00:00:00Z"}
    machine = {"machineSpec": {"machineType": "n1-standard-4"}, "minReplicaCount": 1, "maxReplicaCount": 1}
    deployed = {"model": _MODEL, "modelVersionId": "1", "displayName": "given", "dedicatedResources": machine}
    cloud = fake.cloud
    # What takes time, and is not seen at once, is tested elsewhere: here a thing is made at each step.
    cloud.operations.looks, cloud.not_found_at_first = 1, 0
    cloud.models[_MODEL] = {
        "1": {**version, "versionId": "1", "versionAliases": ["default", "spec-one"]},
        "2": {**version, "versionId": "2", "versionAliases": ["spec-two"]},
    }
    for name, ids in ((_ENDPOINT, ("11", "12")), (f"{_PARENT}/endpoints/other", ("11",))):
        cloud.endpoints[name] = {
            "name": name,
            "displayName": "given",
            "deployedModels": [{**deployed, "id": each} for each in ids],
            "trafficSplit": {},
        }


def _model(place: Place) -> dict[str, Any]:
    return {
        **_PLACE,
        "image": _IMAGE,
        "env": {"HF_TASK": "custom"},
        "secretEnv": [{"name": "LORAFLEET_CONFIG", "value": Sealed('{"secret": "of the launch file"}')}],
        "sharedMemoryMb": 2048,
        "startupProbe": {"path": "/health", "failures": 90},
    }


def _model_changes(place: Place) -> dict[str, Any]:
    return {
        "displayName": "Our model",
        "description": "a description",
        "labels": {"team": "ours"},
        "image": _OTHER_IMAGE,
        "command": ["python"],
        "args": ["--verbose"],
        "env": {"HF_TASK": "text-generation"},
        "secretEnv": [{"name": "LORAFLEET_CONFIG", "value": Sealed('{"secret": "of another file"}')}],
        "port": 9000,
        "predictRoute": "/v1/chat/completions",
        "healthRoute": "/ready",
        "sharedMemoryMb": 4096,
        "deploymentTimeoutS": 3600,
        "startupProbe": {"path": "/health", "periodS": 20, "timeoutS": 5, "failures": 60, "initialDelayS": 30},
        "healthProbe": {"path": "/health", "timeoutS": 10, "periodS": 10, "failures": 3, "initialDelayS": 0},
        "livenessProbe": {"command": ["true"], "periodS": 30},
        "artifactUri": "gs://bucket/folder",
        "project": "123456789012",
        "location": "us-central1",
        "kmsKey": _KMS_KEY,
    }


def _endpoint(place: Place) -> dict[str, Any]:
    return {**_PLACE, "requestTimeoutS": 600}


def _endpoint_changes(place: Place) -> dict[str, Any]:
    return {
        "displayName": "Our endpoint",
        "description": "a description",
        "labels": {"team": "ours"},
        "requestTimeoutS": 0,
        "project": "123456789012",
        "location": "us-central1",
        "kmsKey": _KMS_KEY,
    }


def _private(place: Place) -> dict[str, Any]:
    return {**_PLACE, "exposure": "private-service-connect", "allowedProjects": ["p-clients"]}


def _private_changes(place: Place) -> dict[str, Any]:
    return {"allowedProjects": ["p-clients", "p-others"], "labels": {"team": "ours"}}


def _deployment(place: Place) -> dict[str, Any]:
    return {
        "endpoint": _ENDPOINT,
        "model": f"{_MODEL}@spec-one",
        "machineType": "g2-standard-8",
        "acceleratorType": "NVIDIA_L4",
        "acceleratorCount": 1,
        "maxReplicas": 2,
        "metrics": [{"name": "vllm-waiting", "target": 5}],
    }


def _deployment_changes(place: Place) -> dict[str, Any]:
    return {
        "model": f"{_MODEL}@spec-two",
        "machineType": "g2-standard-4",
        "spot": True,
        "minReplicas": 2,
        "maxReplicas": 3,
        "metrics": [{"name": "vllm-cache", "target": 80}, {"name": "gpu-duty-cycle", "target": 60}],
        "serviceAccount": "vertex@p-tests.iam.gserviceaccount.com",
        "accessLogging": True,
        "endpoint": f"{_PARENT}/endpoints/other",
    }


def _sleeper(place: Place) -> dict[str, Any]:
    return {**_deployment(place), "minReplicas": 0, "scaleToZero": {"idleS": 600, "leastUpS": 300}}


def _sleeper_changes(place: Place) -> dict[str, Any]:
    return {"scaleToZero": {"idleS": 1200, "leastUpS": 600}}


def _traffic(place: Place) -> dict[str, Any]:
    return {"endpoint": _ENDPOINT, "split": [{"deployedModelId": "11", "percent": 100}]}


def _traffic_changes(place: Place) -> dict[str, Any]:
    return {
        "split": [{"deployedModelId": "12", "percent": 10}, {"deployedModelId": "11", "percent": 90}],
        "endpoint": f"{_PARENT}/endpoints/other",
    }


def _vanish(place: Place, resource_id: str) -> None:
    cloud = _fakes[str(place.folder)].cloud
    with cloud.lock:
        cloud.operations.finish()
        cloud.models.pop(resource_id, None)
        cloud.endpoints.pop(resource_id, None)
        endpoint, _, deployed = resource_id.partition("/deployedModels/")
        if deployed:
            found = cloud.endpoints[endpoint]
            found["deployedModels"] = [each for each in found["deployedModels"] if each["id"] != deployed]
        if resource_id.endswith("/trafficSplit"):
            cloud.endpoints[resource_id.removesuffix("/trafficSplit")]["trafficSplit"] = {}
