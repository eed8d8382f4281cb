"""What RunPod's API answers, as far as this folder reads it. Unknown fields are let through: RunPod adds some."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from .http import not_understood

T = TypeVar("T")

EndpointType = Literal["QUEUE", "LOAD_BALANCER"]
FlashBoot = Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]
VolumeType = Literal["STANDARD", "HIGH_PERFORMANCE"]
Cloud = Literal["SECURE", "COMMUNITY"]
PodStatus = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_alias=True, frozen=True, defer_build=True)


class EndpointGpu(_Answer):
    """pools: ids of GPU pools; excluded_types: GPU types of these pools that are not used."""

    pools: list[str]
    excluded_types: list[str] = Field(default_factory=list)
    count: int = 1
    allowed_cuda_versions: list[str]
    min_cuda_version: str | None


class Workers(_Answer):
    min: int
    max: int
    idle_timeout: int | None = None


class Scaling(_Answer):
    type: Literal["QUEUE_DELAY", "REQUEST_COUNT"]
    queue_delay: float | None = None
    request_count: int | None = None


class _Container(_Answer):
    image: str = ""
    args: str = ""
    disk: int = 0
    env: dict[str, str] = Field(default_factory=dict)
    ports: list[str] = Field(default_factory=list)
    registry: str | None = None


class Endpoint(_Container):
    """A serverless endpoint. `gpu` is None for one that runs on CPUs. timeout: milliseconds."""

    id: str
    name: str
    type: EndpointType
    request_urls: dict[str, str] = Field(default_factory=dict)
    gpu: EndpointGpu | None = None
    workers: Workers
    scaling: Scaling
    data_center_ids: list[str]
    network_volumes: list[str]
    timeout: int
    flashboot: FlashBoot
    created_at: str


class Template(_Answer):
    id: str
    name: str
    serverless: bool


class Volume(_Answer):
    """size: GB."""

    id: str
    name: str
    size: int
    data_center: str
    type: VolumeType


class Registry(_Answer):
    id: str
    name: str


class PodGpu(_Answer):
    id: str
    count: int = 1


class NetworkMount(_Answer):
    volume_id: str
    path: str


class Mounts(_Answer):
    network: list[NetworkMount] = Field(default_factory=list)
    persistent: dict[str, object] | None = None


class Networking(_Answer):
    enabled: bool


class Pod(_Container):
    """A pod. `gpu` is None for one that runs on CPUs."""

    id: str
    name: str
    status: PodStatus
    gpu: PodGpu | None = None
    cloud: Cloud
    data_center_id: str | None
    mounts: Mounts
    locked: bool
    global_networking: Networking
    created_at: str


class GpuType(_Answer):
    """A kind of card. pool: the serverless pool that it is in, None if it is in none. memory: GB."""

    id: str
    name: str
    pool: str | None
    memory: int


def parse(model: type[T], answer: object, what: str) -> T:
    """Raises kit.ResourceError naming the first field that is not as expected, without its value."""
    try:
        return TypeAdapter(model).validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise not_understood(f"{what}{': ' if where else ''}{where}: {first['msg']}") from None
