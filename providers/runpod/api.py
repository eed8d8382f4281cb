"""RunPod's REST API v2, as far as this folder needs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from providers import kit

from . import http, marks
from .answers import Endpoint, GpuType, Pod, Registry, Template, Volume, parse
from .http import Http

Body = dict[str, Any]


class Named(Protocol):
    """What a listed thing is told apart by."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


class Api(Protocol):
    """The calls that the resources make. All raise kit.ResourceError with what RunPod said.

    `create_…` and `change_…` raise OutcomeUnknownError if it cannot be told whether they took effect. `delete_…` is
    False if RunPod finds nothing to delete.
    """

    async def list_endpoints(self) -> list[Endpoint]: ...
    async def get_endpoint(self, endpoint_id: str) -> Endpoint | None: ...
    async def create_endpoint(self, body: Body) -> Endpoint: ...
    async def change_endpoint(self, endpoint_id: str, body: Body) -> Endpoint: ...
    async def delete_endpoint(self, endpoint_id: str) -> bool: ...

    async def list_templates(self) -> list[Template]: ...
    async def delete_template(self, template_id: str) -> bool: ...

    async def list_volumes(self) -> list[Volume]: ...
    async def get_volume(self, volume_id: str) -> Volume | None: ...
    async def create_volume(self, body: Body) -> Volume: ...
    async def change_volume(self, volume_id: str, body: Body) -> Volume: ...
    async def delete_volume(self, volume_id: str) -> bool: ...

    async def list_registries(self) -> list[Registry]: ...
    async def get_registry(self, registry_id: str) -> Registry | None: ...
    async def create_registry(self, body: Body) -> Registry: ...
    async def delete_registry(self, registry_id: str) -> bool: ...

    async def list_pods(self) -> list[Pod]: ...
    async def get_pod(self, pod_id: str) -> Pod | None: ...
    async def create_pod(self, body: Body) -> Pod: ...
    async def change_pod(self, pod_id: str, body: Body) -> Pod: ...
    async def act_on_pod(self, pod_id: str, action: str) -> Pod: ...
    async def delete_pod(self, pod_id: str) -> bool: ...

    async def gpu_types(self) -> Sequence[GpuType]:
        """The cards that RunPod has; asked once in a run."""
        ...


class HttpApi:
    """`Api` over HTTP."""

    def __init__(self, client: Http) -> None:
        self._http = client
        self._gpu_types: Sequence[GpuType] | None = None

    async def list_endpoints(self) -> list[Endpoint]:
        return await self._list(Endpoint, "serverless", "endpoints")

    async def get_endpoint(self, endpoint_id: str) -> Endpoint | None:
        return await self._get(Endpoint, "serverless", endpoint_id)

    async def create_endpoint(self, body: Body) -> Endpoint:
        return parse(Endpoint, await self._http.post("/v2/serverless", body), "the new endpoint")

    async def change_endpoint(self, endpoint_id: str, body: Body) -> Endpoint:
        return parse(Endpoint, await self._http.patch(_path("serverless", endpoint_id), body), "the endpoint")

    async def delete_endpoint(self, endpoint_id: str) -> bool:
        return await self._http.delete(_path("serverless", endpoint_id))

    async def list_templates(self) -> list[Template]:
        return await self._list(Template, "templates", "templates")

    async def delete_template(self, template_id: str) -> bool:
        return await self._http.delete(_path("templates", template_id))

    async def list_volumes(self) -> list[Volume]:
        return await self._list(Volume, "network-volumes", "networkVolumes")

    async def get_volume(self, volume_id: str) -> Volume | None:
        return await self._get(Volume, "network-volumes", volume_id)

    async def create_volume(self, body: Body) -> Volume:
        return parse(Volume, await self._http.post("/v2/network-volumes", body), "the new volume")

    async def change_volume(self, volume_id: str, body: Body) -> Volume:
        return parse(Volume, await self._http.patch(_path("network-volumes", volume_id), body), "the volume")

    async def delete_volume(self, volume_id: str) -> bool:
        return await self._http.delete(_path("network-volumes", volume_id))

    async def list_registries(self) -> list[Registry]:
        return await self._list(Registry, "registries", "registries")

    async def get_registry(self, registry_id: str) -> Registry | None:
        return await self._get(Registry, "registries", registry_id)

    async def create_registry(self, body: Body) -> Registry:
        return parse(Registry, await self._http.post("/v2/registries", body), "the new credential")

    async def delete_registry(self, registry_id: str) -> bool:
        return await self._http.delete(_path("registries", registry_id))

    async def list_pods(self) -> list[Pod]:
        return await self._list(Pod, "pods", "pods")

    async def get_pod(self, pod_id: str) -> Pod | None:
        return await self._get(Pod, "pods", pod_id)

    async def create_pod(self, body: Body) -> Pod:
        return parse(Pod, await self._http.post("/v2/pods", body), "the new pod")

    async def change_pod(self, pod_id: str, body: Body) -> Pod:
        return parse(Pod, await self._http.patch(_path("pods", pod_id), body), "the pod")

    async def act_on_pod(self, pod_id: str, action: str) -> Pod:
        path = f"{_path('pods', pod_id)}/action"
        return parse(Pod, await self._http.post(path, {"action": action}), "the pod")

    async def delete_pod(self, pod_id: str) -> bool:
        return await self._http.delete(_path("pods", pod_id))

    async def gpu_types(self) -> Sequence[GpuType]:
        if self._gpu_types is None:
            self._gpu_types = await self._list(GpuType, "catalog/gpus", "gpus", whole=True)
        return self._gpu_types

    async def _list(self, model: type[N], folder: str, key: str, *, whole: bool = False) -> list[N]:
        """What is listed. Unless the list must be `whole`, what somebody else has made and what is not understood is
        left out: nothing of this project must fail for it."""
        answer = await self._http.get(f"/v2/{folder}")
        entries = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise http.not_understood(f"GET /v2/{folder}: a list without `{key}`")
        found = []
        for index, entry in enumerate(entries):
            try:
                found.append(parse(model, entry, f"{key}[{index}]"))
            except kit.ResourceError:
                if whole or not _is_foreign(entry):
                    raise
        return found

    async def _get(self, model: type[N], folder: str, resource_id: str) -> N | None:
        answer = await self._http.get(_path(folder, resource_id))
        return None if answer is None else parse(model, answer, f"{folder} {resource_id}")


def connect() -> Api:
    """The API, with the address and the token of this run's environment.

    Raises kit.ResourceError if the token is missing or cannot be used.
    """
    return _shared(http.connect())


@cache
def _shared(client: Http) -> Api:
    return HttpApi(client)


def _is_foreign(entry: object) -> bool:
    name = entry.get("name") if isinstance(entry, dict) else None
    return isinstance(name, str) and not marks.may_be_ours(name)


def _path(folder: str, resource_id: str) -> str:
    return f"/v2/{folder}/{quote(resource_id, safe='')}"
