"""What is said of a deployment: by a program, in requests to Vertex AI and in its answers, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from providers import kit

from . import fields
from .answers import DedicatedResources, DeployedModel, seconds

_METRIC = "aiplatform.googleapis.com/prediction/online/"
# What replicas are added by: short names for Google's.
METRICS = {
    "gpu-duty-cycle": f"{_METRIC}accelerator/duty_cycle",
    "cpu": f"{_METRIC}cpu/utilization",
    "requests": f"{_METRIC}request_count",
    "gpu-utilization": "prometheus.googleapis.com/vertex_dcgm_fi_dev_gpu_util",
    "vllm-cache": "prometheus.googleapis.com/vertex_vllm_gpu_cache_usage_perc",
    "vllm-waiting": "prometheus.googleapis.com/vertex_vllm_num_requests_waiting",
}
SHORT = {name: short for short, name in METRICS.items()}


class Metric(kit.Model):
    """name: one of METRICS, or Google's own name of one; target: a percentage, or a number of requests."""

    name: Annotated[str, Field(min_length=1)]
    target: Annotated[int, Field(ge=1, le=100_000)]


class ScaleToZero(kit.Model):
    """idle_s: so long without a request until nothing runs; least_up_s: a replica runs at least so long (300 to 28800
    both). A preview of Google's."""

    idle_s: Annotated[int, Field(ge=300, le=28_800)] = 3600
    least_up_s: Annotated[int, Field(ge=300, le=28_800)] = 300


def _by_name(metrics: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted((METRICS.get(each["name"], each["name"]), each["target"]) for each in metrics)


class DeploymentInputs(kit.Inputs):
    """A deployment.

    endpoint: `projects/…/endpoints/…`; model: `projects/…/models/…@<version alias or number>`.
    machine_type, accelerator_type, accelerator_count: of a replica, as in `g2-standard-8`, `NVIDIA_L4`, 1.
    spot: on machines that Google may take away. min_replicas, max_replicas: at the same time; min_replicas 0 needs
    scale_to_zero. metrics: what replicas are added by. service_account: whom the container acts as. access_logging:
    a line in Cloud Logging for each request.
    """

    name: kit.AutoName
    endpoint: kit.Replaced[fields.EndpointName]
    model: kit.Replaced[Annotated[str, Field(pattern=r"^projects/[^/]+/locations/[^/]+/models/[^/@]+@[^/@]+$")]]
    machine_type: kit.Replaced[Annotated[str, Field(min_length=1)]]
    accelerator_type: kit.Replaced[str] = ""
    accelerator_count: kit.Replaced[Annotated[int, Field(ge=0, le=16)]] = 0
    spot: kit.Replaced[bool] = False
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    metrics: Annotated[list[Metric], kit.Normalised(_by_name)] = Field(default_factory=list)
    scale_to_zero: ScaleToZero | None = None
    service_account: kit.Replaced[Annotated[str, Field(pattern=r"^([^@\s]+@[^@\s]+)?$")]] = ""
    access_logging: kit.Replaced[bool] = False


def settings(inputs: DeploymentInputs) -> dict[str, Any]:
    """The part of `dedicatedResources` that can be changed."""
    settings: dict[str, Any] = {
        "minReplicaCount": inputs.min_replicas,
        "maxReplicaCount": inputs.max_replicas,
        "autoscalingMetricSpecs": [
            {"metricName": name, "target": target}
            for name, target in sorted((METRICS.get(each.name, each.name), each.target) for each in inputs.metrics)
        ],
    }
    if inputs.scale_to_zero is not None:
        settings["initialReplicaCount"] = 1
        settings["scaleToZeroSpec"] = {
            "idleScaledownPeriod": f"{inputs.scale_to_zero.idle_s}s",
            "minScaleupPeriod": f"{inputs.scale_to_zero.least_up_s}s",
        }
    return settings


def differing(found: DeployedModel, inputs: DeploymentInputs) -> list[str]:
    """The update mask of a change to what is wanted."""
    present = resources_of(found)
    metrics = sorted((each.metric_name, each.target) for each in present.autoscaling_metric_specs)
    wanted = sorted((METRICS.get(each.name, each.name), each.target) for each in inputs.metrics)
    mask = []
    if present.min_replica_count != inputs.min_replicas:
        mask.append("dedicatedResources.minReplicaCount")
    if present.max_replica_count != inputs.max_replicas:
        mask.append("dedicatedResources.maxReplicaCount")
    if metrics != wanted:
        mask.append("dedicatedResources.autoscalingMetricSpecs")
    if to_zero(found) != inputs.scale_to_zero:
        # What is named here and not in the request goes: the number is for what scales to zero alone.
        mask += ["dedicatedResources.scaleToZeroSpec", "dedicatedResources.initialReplicaCount"]
    return mask


def fixed(inputs: DeploymentInputs, version: str | None) -> dict[str, Any]:
    """What cannot be changed of a deployment, as its request says it."""
    machine: dict[str, Any] = {"machineType": inputs.machine_type}
    if inputs.accelerator_type:
        machine |= {"acceleratorType": inputs.accelerator_type, "acceleratorCount": inputs.accelerator_count}
    body: dict[str, Any] = {
        "model": f"{inputs.model.partition('@')[0]}@{version}",
        "dedicatedResources": {"machineSpec": machine, **({"spot": True} if inputs.spot else {})},
    }
    if inputs.service_account:
        body["serviceAccount"] = inputs.service_account
    if inputs.access_logging:
        body["enableAccessLogging"] = True
    return body


def fixed_of(found: DeployedModel) -> dict[str, Any]:
    """The same of what Vertex AI has."""
    resources = resources_of(found)
    spec = resources.machine_spec
    machine: dict[str, Any] = {"machineType": spec.machine_type}
    if spec.accelerator_type:
        machine |= {"acceleratorType": spec.accelerator_type, "acceleratorCount": spec.accelerator_count}
    body: dict[str, Any] = {
        "model": f"{found.model.partition('@')[0]}@{found.model_version_id}",
        "dedicatedResources": {"machineSpec": machine, **({"spot": True} if resources.spot else {})},
    }
    if found.service_account:
        body["serviceAccount"] = found.service_account
    if found.enable_access_logging:
        body["enableAccessLogging"] = True
    return body


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Vertex AI answers with the project's number where it was told its id."""
    return {**body, "model": body["model"].partition("/locations/")[2]}


def resources_of(found: DeployedModel) -> DedicatedResources:
    if found.dedicated_resources is None:
        raise kit.ResourceError(
            f"the deployed model {found.id} has no machines of its own",
            next_action="declare one on machines of its own; this resource has no others",
        )
    return found.dedicated_resources


def to_zero(found: DeployedModel) -> ScaleToZero | None:
    spec = resources_of(found).scale_to_zero_spec
    if spec is None:
        return None
    return ScaleToZero(idle_s=seconds(spec.idle_scaledown_period), least_up_s=seconds(spec.min_scaleup_period))


def pairs(metrics: Sequence[Metric]) -> list[tuple[str, int]]:
    return sorted((METRICS.get(each.name, each.name), each.target) for each in metrics)


def unhealthy(found: DeployedModel) -> tuple[str, ...]:
    status = found.status
    # Google leaves a count of 0 out, and the whole status where it has none: only its message tells them apart.
    if status is None or status.available_replica_count or not status.message:
        return ()
    if not resources_of(found).min_replica_count:
        return ()
    return (f"none of its replicas is up: {' '.join(status.message.split())[:300]}",)
