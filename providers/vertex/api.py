"""Vertex AI's REST API, as far as this folder needs it. Resources are named as Google does: `projects/…/…`.

v1 where it says all that is needed; v1beta1 for endpoints and what is deployed on them, as only that knows of scaling
to zero and of how many replicas are up.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from . import http
from .answers import Endpoint, Model, Operation, parse
from .http import Http, RefusedError

Body = dict[str, Any]
T = TypeVar("T", Endpoint, Model, Operation)
_PAGE = "100"


class Api(Protocol):
    """The calls that the resources make. All raise kit.ResourceError with what Vertex AI said.

    What returns an Operation has only begun. POSTs raise OutcomeUnknownError if it cannot be told whether they took
    effect. `delete_…` is None if there is nothing to delete.
    """

    async def operation(self, name: str) -> Operation | None: ...
    async def operations(self, of: str) -> list[Operation]:
        """The operations of a thing, or of a whole region; none where Vertex AI does not list them."""
        ...

    async def list_models(self, parent: str) -> list[Model]: ...
    async def get_model(self, name: str) -> Model | None: ...
    async def versions(self, name: str) -> list[Model]: ...
    async def upload_model(self, parent: str, body: Body) -> Operation: ...
    async def change_model(self, name: str, body: Body) -> Model: ...
    async def merge_aliases(self, version: str, aliases: list[str]) -> Model: ...
    async def delete_model(self, name: str) -> Operation | None: ...

    async def list_endpoints(self, parent: str) -> list[Endpoint]: ...
    async def get_endpoint(self, name: str) -> Endpoint | None: ...
    async def create_endpoint(self, parent: str, endpoint_id: str, body: Body) -> Operation: ...
    async def change_endpoint(self, name: str, body: Body) -> Endpoint: ...
    async def change_connection(self, name: str, body: Body) -> Operation: ...
    async def delete_endpoint(self, name: str) -> Operation | None: ...

    async def deploy(self, endpoint: str, body: Body) -> Operation: ...
    async def mutate(self, endpoint: str, deployed: Body, mask: list[str]) -> Operation: ...
    async def undeploy(self, endpoint: str, body: Body) -> Operation: ...


class HttpApi:
    """`Api` over HTTP."""

    def __init__(self, client: Http) -> None:
        self._http = client

    async def operation(self, name: str) -> Operation | None:
        return await self._get(Operation, f"/v1/{_path(name)}")

    async def operations(self, of: str) -> list[Operation]:
        try:
            return await self._list(Operation, f"/v1/{_path(of)}/operations", "operations")
        except RefusedError as refused:
            # The general description of operations allows a service not to list them.
            if refused.reason in ("UNIMPLEMENTED", "NOT_FOUND"):
                return []
            raise

    async def list_models(self, parent: str) -> list[Model]:
        return await self._list(Model, f"/v1/{_path(parent)}/models", "models")

    async def get_model(self, name: str) -> Model | None:
        return await self._get(Model, f"/v1/{_path(name)}")

    async def versions(self, name: str) -> list[Model]:
        return await self._list(Model, f"/v1/{_path(name)}:listVersions", "models")

    async def upload_model(self, parent: str, body: Body) -> Operation:
        return _operation(await self._http.post(f"/v1/{_path(parent)}/models:upload", body))

    async def change_model(self, name: str, body: Body) -> Model:
        answer = await self._http.patch(f"/v1/{_path(name)}", body, updateMask=",".join(body))
        return parse(Model, answer, "the model")

    async def merge_aliases(self, version: str, aliases: list[str]) -> Model:
        answer = await self._http.post(f"/v1/{_path(version)}:mergeVersionAliases", {"versionAliases": aliases})
        return parse(Model, answer, "the model")

    async def delete_model(self, name: str) -> Operation | None:
        return _deletion(await self._http.delete(f"/v1/{_path(name)}"))

    async def list_endpoints(self, parent: str) -> list[Endpoint]:
        return await self._list(Endpoint, f"/v1beta1/{_path(parent)}/endpoints", "endpoints")

    async def get_endpoint(self, name: str) -> Endpoint | None:
        return await self._get(Endpoint, f"/v1beta1/{_path(name)}")

    async def create_endpoint(self, parent: str, endpoint_id: str, body: Body) -> Operation:
        return _operation(await self._http.post(f"/v1/{_path(parent)}/endpoints", body, endpointId=endpoint_id))

    async def change_endpoint(self, name: str, body: Body) -> Endpoint:
        answer = await self._http.patch(f"/v1/{_path(name)}", body, updateMask=",".join(body))
        return parse(Endpoint, answer, "the endpoint")

    async def change_connection(self, name: str, body: Body) -> Operation:
        return _operation(await self._http.post(f"/v1/{_path(name)}:update", {"endpoint": {**body, "name": name}}))

    async def delete_endpoint(self, name: str) -> Operation | None:
        return _deletion(await self._http.delete(f"/v1/{_path(name)}"))

    async def deploy(self, endpoint: str, body: Body) -> Operation:
        return _operation(await self._http.post(f"/v1beta1/{_path(endpoint)}:deployModel", body))

    async def mutate(self, endpoint: str, deployed: Body, mask: list[str]) -> Operation:
        body = {"deployedModel": deployed, "updateMask": ",".join(mask)}
        return _operation(await self._http.post(f"/v1beta1/{_path(endpoint)}:mutateDeployedModel", body))

    async def undeploy(self, endpoint: str, body: Body) -> Operation:
        return _operation(await self._http.post(f"/v1/{_path(endpoint)}:undeployModel", body))

    async def _get(self, model: type[T], path: str) -> T | None:
        answer = await self._http.get(path)
        return None if answer is None else parse(model, answer, path)

    async def _list(self, model: type[T], path: str, key: str) -> list[T]:
        found: list[T] = []
        page = ""
        while True:
            query = {"pageSize": _PAGE, **({"pageToken": page} if page else {})}
            answer = await self._http.get(path, **query)
            if answer is None:
                return found
            found += [parse(model, entry, f"{key}[{index}]") for index, entry in enumerate(answer.get(key, []))]
            page = answer.get("nextPageToken", "")
            if not page:
                return found


def connect(name: str) -> Api:
    """The API of the region that a resource name (`projects/…/locations/REGION…`) stands in.

    Raises kit.ResourceError if the address for tests cannot be used.
    """
    return _shared(http.connect(location_of(name)))


@cache
def _shared(client: Http) -> Api:
    return HttpApi(client)


def parent(project: str, location: str) -> str:
    """The resource name of a region of a project."""
    return f"projects/{project}/locations/{location}"


def parent_of(name: str) -> str:
    """The resource name of the region that a thing is in."""
    return "/".join(name.split("/")[:4])


def project_of(name: str) -> str:
    return name.split("/")[1]


def location_of(name: str) -> str:
    return name.split("/")[3]


def _path(name: str) -> str:
    return quote(name, safe="/@")


def _operation(answer: object) -> Operation:
    return parse(Operation, answer, "the operation that was begun")


def _deletion(answer: object) -> Operation | None:
    return None if answer is None else _operation(answer)
