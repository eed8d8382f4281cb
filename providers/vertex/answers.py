"""What Vertex AI answers, as far as this folder reads it. Unknown fields are let through: Google adds some.

Proto3 as JSON leaves out what is empty, zero or false, so nearly everything has a default.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from .http import not_understood

T = TypeVar("T")


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_alias=True, frozen=True, defer_build=True)


class OperationError(_Answer):
    """code: of gRPC (5 not found, 6 exists already, 8 quota, 9 failed precondition)."""

    code: int = 0
    message: str = ""


class Operation(_Answer):
    """A long operation. metadata and response have `@type`s."""

    name: str
    done: bool = False
    error: OperationError | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    response: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        """What it does, such as DeployModel; empty if its metadata do not say."""
        return str(self.metadata.get("@type", "")).rsplit(".", 1)[-1].removesuffix("OperationMetadata")

    @property
    def stage(self) -> str:
        """How far a deployment is, in small letters; empty for others."""
        return str(self.metadata.get("deploymentStage", "")).lower().replace("_", " ")


class Variable(_Answer):
    name: str
    value: str = ""


class Port(_Answer):
    container_port: int


class HttpGet(_Answer):
    path: str = ""
    port: int = 0


class Exec(_Answer):
    command: list[str] = Field(default_factory=list)


class Probe(_Answer):
    http_get: HttpGet | None = None
    exec: Exec | None = None
    period_seconds: int = 0
    timeout_seconds: int = 0
    failure_threshold: int = 0
    initial_delay_seconds: int = 0


class ContainerSpec(_Answer):
    """shared_memory_size_mb, deployment_timeout: as text (`2048`, `1800s`)."""

    image_uri: str
    command: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)
    env: list[Variable] = Field(default_factory=list)
    ports: list[Port] = Field(default_factory=list)
    predict_route: str = ""
    health_route: str = ""
    invoke_route_prefix: str = ""
    shared_memory_size_mb: str = ""
    deployment_timeout: str = ""
    startup_probe: Probe | None = None
    health_probe: Probe | None = None
    liveness_probe: Probe | None = None


class Encryption(_Answer):
    kms_key_name: str = ""


class Model(_Answer):
    """One version of a model."""

    name: str
    display_name: str = ""
    description: str = ""
    version_id: str = ""
    version_aliases: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    artifact_uri: str = ""
    container_spec: ContainerSpec | None = None
    encryption_spec: Encryption | None = None
    create_time: str = ""
    version_create_time: str = ""


class Metric(_Answer):
    metric_name: str
    target: int = 0


class MachineSpec(_Answer):
    machine_type: str = ""
    accelerator_type: str = ""
    accelerator_count: int = 0


class ScaleToZero(_Answer):
    """Durations as text (`300s`)."""

    min_scaleup_period: str = ""
    idle_scaledown_period: str = ""


class DedicatedResources(_Answer):
    machine_spec: MachineSpec
    min_replica_count: int = 0
    max_replica_count: int = 0
    autoscaling_metric_specs: list[Metric] = Field(default_factory=list)
    spot: bool = False
    scale_to_zero_spec: ScaleToZero | None = None


class DeployedStatus(_Answer):
    message: str = ""
    available_replica_count: int | None = None


class DeployedModel(_Answer):
    id: str
    model: str
    model_version_id: str = ""
    display_name: str = ""
    dedicated_resources: DedicatedResources | None = None
    service_account: str = ""
    enable_access_logging: bool = False
    create_time: str = ""
    status: DeployedStatus | None = None


class ConnectionConfig(_Answer):
    inference_timeout: str = ""


class PrivateServiceConnect(_Answer):
    enable_private_service_connect: bool = False
    project_allowlist: list[str] = Field(default_factory=list)


class Endpoint(_Answer):
    name: str
    display_name: str = ""
    description: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    deployed_models: list[DeployedModel] = Field(default_factory=list)
    traffic_split: dict[str, int] = Field(default_factory=dict)
    network: str = ""
    dedicated_endpoint_enabled: bool = False
    dedicated_endpoint_dns: str = ""
    private_service_connect_config: PrivateServiceConnect | None = None
    client_connection_config: ConnectionConfig | None = None
    encryption_spec: Encryption | None = None
    create_time: str = ""

    def deployed(self, deployed_id: str) -> DeployedModel | None:
        return next((each for each in self.deployed_models if each.id == deployed_id), None)


def parse(model: type[T], answer: object, what: str) -> T:
    """Raises kit.ResourceError naming the first field that is not as expected, without its value."""
    try:
        return TypeAdapter(model).validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise not_understood(f"{what}{': ' if where else ''}{where}: {first['msg']}") from None


def seconds(duration: str) -> int:
    """The whole seconds of a duration as Google writes it: `1800s`, `1800.500s`; 0 for none."""
    try:
        return int(float(duration.removesuffix("s") or 0))
    except ValueError:
        raise not_understood("a duration that is not a number of seconds") from None
