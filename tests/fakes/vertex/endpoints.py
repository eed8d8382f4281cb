"""Endpoints and what is deployed on them, as Vertex AI keeps them."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from . import models
from .operations import now
from .refusal import RefusedError

if TYPE_CHECKING:
    from .cloud import Cloud

Thing = dict[str, Any]
_CHANGEABLE = ("displayName", "description", "labels", "trafficSplit")
# Some of Google's table, on purpose not taken from the code under test.
_MACHINES = {
    ("g2-standard-4", "NVIDIA_L4"): {1},
    ("g2-standard-8", "NVIDIA_L4"): {1},
    ("g2-standard-24", "NVIDIA_L4"): {2},
    ("n1-standard-8", "NVIDIA_TESLA_T4"): {1, 2, 4},
    ("a2-highgpu-1g", "NVIDIA_TESLA_A100"): {1},
    ("n1-standard-4", ""): {0},
}
_MUTABLE = {"minReplicaCount", "maxReplicaCount", "requiredReplicaCount", "autoscalingMetricSpecs"}
_MUTABLE_BETA = {"scaleToZeroSpec", "initialReplicaCount"}


def create(cloud: Cloud, parent: str, endpoint_id: str, body: Thing, half: bool) -> Thing:
    endpoint_id = endpoint_id or str(10**8 + len(cloud.endpoints))
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}", endpoint_id):
        raise RefusedError("INVALID_ARGUMENT", f"endpoint_id {endpoint_id} is not valid")
    name = f"{parent}/endpoints/{endpoint_id}"
    if name in cloud.endpoints or cloud.operations.under_way(name):
        raise RefusedError("ALREADY_EXISTS", f"The Endpoint {name} already exists.")
    if "network" in body and "privateServiceConnectConfig" in body:
        raise RefusedError("INVALID_ARGUMENT", "network and private_service_connect_config are mutually exclusive")
    if not body.get("displayName"):
        raise RefusedError("INVALID_ARGUMENT", "display_name is required")
    _check_timeout(body)
    asked = {key: value for key, value in body.items() if not half or key not in ("labels", "clientConnectionConfig")}

    def effect() -> Thing:
        made = {**copy.deepcopy(asked), "name": name, "deployedModels": [], "trafficSplit": {}, "createTime": now()}
        if made.get("dedicatedEndpointEnabled"):
            made["dedicatedEndpointDns"] = f"{endpoint_id}.{name.split('/')[3]}-123456789012.prediction.vertexai.goog"
        cloud.endpoints[name] = made
        cloud.made(name)
        return {"@type": "type.googleapis.com/google.cloud.aiplatform.v1.Endpoint", "name": name}

    return cloud.operations.begin("CreateEndpoint", name, effect)


def _check_timeout(body: Thing) -> None:
    timeout = body.get("clientConnectionConfig", {}).get("inferenceTimeout")
    if timeout is not None and not 0 <= float(timeout[:-1]) <= 3600:
        raise RefusedError("INVALID_ARGUMENT", "inference_timeout is at most 1 hour")


def shown(endpoint: Thing, version: str) -> Thing:
    """An endpoint as a version of the API says it."""
    seen = copy.deepcopy(endpoint)
    for each in seen["deployedModels"]:
        if version == "v1":
            for key in ("scaleToZeroSpec", "initialReplicaCount"):
                each["dedicatedResources"].pop(key, None)
    return seen


def change(endpoint: Thing, body: Thing, mask: list[str], half: bool) -> Thing:
    for key in mask:
        if key not in _CHANGEABLE:
            raise RefusedError("INVALID_ARGUMENT", f"{key} cannot be changed by this method")
    if "trafficSplit" in mask:
        _check_split(endpoint, body.get("trafficSplit", {}))
    for key in mask[: len(mask) // 2] if half else mask:
        endpoint[key] = copy.deepcopy(body.get(key, {} if key in ("labels", "trafficSplit") else ""))
    return endpoint


def _check_split(endpoint: Thing, split: dict[str, int], *, without: str = "") -> None:
    ids = {each["id"] for each in endpoint["deployedModels"]} - {without}
    if set(split) - ids:
        raise RefusedError("INVALID_ARGUMENT", f"not deployed here: {sorted(set(split) - ids)}")
    if split and (sum(split.values()) != 100 or min(split.values()) < 0):
        raise RefusedError("INVALID_ARGUMENT", "traffic percentages must add up to 100")


def change_connection(cloud: Cloud, endpoint: Thing, body: Thing) -> Thing:
    if set(body) - {"name", "clientConnectionConfig"}:
        raise RefusedError("INVALID_ARGUMENT", "only client_connection_config can be changed by this method")
    cloud.operations.refuse_others(endpoint["name"])
    _check_timeout(body)

    def effect() -> Thing:
        endpoint["clientConnectionConfig"] = copy.deepcopy(body["clientConnectionConfig"])
        if float(endpoint["clientConnectionConfig"].get("inferenceTimeout", "0s")[:-1]) == 0:
            del endpoint["clientConnectionConfig"]
        return {"@type": "type.googleapis.com/google.cloud.aiplatform.v1.Endpoint", "name": endpoint["name"]}

    return cloud.operations.begin("UpdateEndpoint", endpoint["name"], effect)


def delete(cloud: Cloud, endpoint: Thing) -> Thing:
    name = endpoint["name"]
    cloud.operations.refuse_others(name)
    if endpoint["deployedModels"]:
        raise RefusedError("FAILED_PRECONDITION", f"The Endpoint {name} has deployed or being-deployed models.")

    def effect() -> Thing:
        cloud.endpoints.pop(name, None)
        return {"@type": "type.googleapis.com/google.protobuf.Empty"}

    return cloud.operations.begin("Delete", name, effect)


def deploy(cloud: Cloud, endpoint: Thing, body: Thing, version: str) -> Thing:
    name = endpoint["name"]
    deployed = copy.deepcopy(body["deployedModel"])
    cloud.operations.refuse_others(name)
    if not re.fullmatch(r"[0-9]{1,10}", deployed.get("id", "1")):
        raise RefusedError("INVALID_ARGUMENT", "the id of a deployed model has 1 to 10 digits")
    deployed.setdefault("id", str(5 * 10**9 + len(cloud.operations.begun)))
    if any(each["id"] == deployed["id"] for each in endpoint["deployedModels"]):
        raise RefusedError("ALREADY_EXISTS", f"The DeployedModel {deployed['id']} already exists.")
    model = models.version(cloud, deployed["model"])
    if model["containerSpec"].get("invokeRoutePrefix") and not endpoint.get("dedicatedEndpointEnabled"):
        raise RefusedError("INVALID_ARGUMENT", "a model with invoke_route_prefix needs a dedicated endpoint")
    resources = deployed["dedicatedResources"]
    _check_machine(resources["machineSpec"])
    _check_replicas(resources, version)
    split = body.get("trafficSplit")
    if split is not None and sum(split.values()) != 100:
        raise RefusedError("INVALID_ARGUMENT", "traffic percentages must add up to 100")

    def effect() -> Thing:
        replicas = max(1, resources.get("minReplicaCount", 0))
        running = sum(max(1, each["dedicatedResources"].get("minReplicaCount", 0)) for each in cloud.deployed())
        if running + replicas > cloud.quota:
            raise RefusedError("RESOURCE_EXHAUSTED", "The following quotas are exceeded: CustomModelServingL4GPUs")
        made = {**deployed, "model": model["name"], "modelVersionId": model["versionId"], "createTime": now()}
        made["status"] = {"availableReplicaCount": replicas}
        endpoint["deployedModels"].append(made)
        if split:
            endpoint["trafficSplit"] = {made["id"] if key == "0" else key: share for key, share in split.items()}
        return {"deployedModel": {"id": made["id"]}}

    return cloud.operations.begin("DeployModel", name, effect)


def _check_machine(spec: Thing) -> None:
    counts = _MACHINES.get((spec.get("machineType", ""), spec.get("acceleratorType", "")))
    if counts is None or spec.get("acceleratorCount", 0) not in counts:
        raise RefusedError("INVALID_ARGUMENT", f"machine_spec {spec} is not supported")


def _check_replicas(resources: Thing, version: str) -> None:
    low, high = resources.get("minReplicaCount", 0), resources.get("maxReplicaCount", 0)
    if low == 0 and not (version == "v1beta1" and "scaleToZeroSpec" in resources):
        raise RefusedError("INVALID_ARGUMENT", "min_replica_count must be at least 1")
    if low == 0 and not 0 < resources.get("initialReplicaCount", 0) <= high:
        raise RefusedError("INVALID_ARGUMENT", "initial_replica_count must be from 1 to max_replica_count")
    if high and high < low:
        raise RefusedError("INVALID_ARGUMENT", "max_replica_count is less than min_replica_count")
    if low > 0 and "scaleToZeroSpec" in resources:
        raise RefusedError("INVALID_ARGUMENT", "scale_to_zero_spec needs min_replica_count 0")
    if low > 0 and resources.get("initialReplicaCount"):
        raise RefusedError("INVALID_ARGUMENT", "initial_replica_count needs min_replica_count 0")
    for period in resources.get("scaleToZeroSpec", {}).values():
        if not 300 <= float(period[:-1]) <= 28800:
            raise RefusedError("INVALID_ARGUMENT", "periods are from 300 s to 28800 s")


def undeploy(cloud: Cloud, endpoint: Thing, body: Thing) -> Thing:
    name, deployed_id = endpoint["name"], body["deployedModelId"]
    cloud.operations.refuse_others(name)
    if all(each["id"] != deployed_id for each in endpoint["deployedModels"]):
        raise RefusedError("NOT_FOUND", f"The DeployedModel {deployed_id} does not exist.")
    last = len(endpoint["deployedModels"]) == 1
    split: dict[str, int] = body["trafficSplit"] if "trafficSplit" in body else endpoint["trafficSplit"]
    if split.get(deployed_id) and not last:
        raise RefusedError("FAILED_PRECONDITION", f"The DeployedModel {deployed_id} has traffic.")
    if "trafficSplit" in body:
        _check_split(endpoint, body["trafficSplit"], without=deployed_id)

    def effect() -> Thing:
        endpoint["deployedModels"] = [each for each in endpoint["deployedModels"] if each["id"] != deployed_id]
        endpoint["trafficSplit"] = {} if last else dict(split)
        return {}

    return cloud.operations.begin("UndeployModel", name, effect)


def mutate(cloud: Cloud, endpoint: Thing, body: Thing, version: str) -> Thing:
    asked, mask = body["deployedModel"], body["updateMask"].split(",")
    cloud.operations.refuse_others(endpoint["name"])
    found = next((each for each in endpoint["deployedModels"] if each["id"] == asked["id"]), None)
    if found is None:
        raise RefusedError("NOT_FOUND", f"The DeployedModel {asked['id']} does not exist.")
    allowed = _MUTABLE | (_MUTABLE_BETA if version == "v1beta1" else set())
    changed = copy.deepcopy(found["dedicatedResources"])
    for path in mask:
        part, _, key = path.partition(".")
        if part != "dedicatedResources" or key not in allowed:
            raise RefusedError("INVALID_ARGUMENT", f"{path} cannot be changed")
        changed.pop(key, None)
        if key in asked["dedicatedResources"]:
            changed[key] = copy.deepcopy(asked["dedicatedResources"][key])
    _check_replicas(changed, version)

    def effect() -> Thing:
        found["dedicatedResources"] = changed
        return {"deployedModel": {"id": found["id"]}}

    return cloud.operations.begin("MutateDeployedModel", endpoint["name"], effect)
