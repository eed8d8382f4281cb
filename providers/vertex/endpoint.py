"""`lorafleet:vertex:Endpoint`: the address that requests go to; models are deployed on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from providers import kit

from . import api, credentials, fields, marks, steps
from .answers import Endpoint as Found
from .answers import Operation, seconds
from .fields import NamedInputs

_CREATION = "the creation of the endpoint"
_REMOVAL = "the removal of the endpoint"
_EMPTYING = "undeploying what is on the endpoint"
Exposure = Literal["dedicated", "shared", "private-service-connect", "peering"]
LONGEST_REQUEST_S = 3600


class EndpointInputs(NamedInputs):
    """An endpoint.

    exposure: `dedicated` (an address of its own: requests up to 10 MB and an hour, streaming), `shared` (1.5 MB, 60 s),
    `private-service-connect` (from the projects of `allowed_projects` alone), or `peering` (inside `network` alone).
    request_timeout_s: longest request of a dedicated one; 0 is Google's own limit.
    network: `projects/NUMBER/global/networks/NAME`. kms_key: a key of the customer's own.
    """

    exposure: kit.Replaced[Exposure] = "dedicated"
    request_timeout_s: Annotated[int, Field(ge=0, le=LONGEST_REQUEST_S)] = 0
    allowed_projects: kit.Replaced[Annotated[list[fields.Project], kit.Normalised(sorted)]] = Field(
        default_factory=list
    )
    network: kit.Replaced[
        Annotated[str, Field(pattern=r"^(projects/[0-9]+/global/networks/[a-z][a-z0-9-]{0,62})?$")]
    ] = ""
    kms_key: kit.Replaced[fields.KmsKey] = ""


class EndpointOutputs(kit.Outputs):
    """url: scheme and host of requests; empty for one that has no public address.

    raw_predict_path, stream_predict_path: where a request's body goes to the container as it is, for an answer that
        comes whole and for one that comes as a stream.
    """

    url: str
    raw_predict_path: str
    stream_predict_path: str


class Endpoint(kit.Resource[EndpointInputs, EndpointOutputs]):
    """An endpoint. It costs nothing by itself. Its id is `projects/…/endpoints/…`."""

    async def problems(
        self, ctx: kit.Context, inputs: EndpointInputs, old: EndpointInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await credentials.warn_without(ctx)
        if bool(inputs.network) != (inputs.exposure == "peering"):
            what = "is required for peering" if not inputs.network else f"goes not with {inputs.exposure}"
            yield kit.Problem(("network",), what, "network with exposure peering", "set both, or neither")
        if inputs.allowed_projects and inputs.exposure != "private-service-connect":
            yield kit.Problem(
                ("allowedProjects",),
                f"goes not with {inputs.exposure}",
                "allowedProjects with exposure private-service-connect",
                "take it away",
            )
        if inputs.request_timeout_s and inputs.exposure != "dedicated":
            yield kit.Problem(
                ("requestTimeoutS",),
                f"a request's time is Google's own limit (60 s) with exposure {inputs.exposure}",
                "requestTimeoutS with exposure dedicated",
                "take it away, or make the endpoint a dedicated one",
            )

    async def find(self, ctx: kit.Context, inputs: EndpointInputs) -> Sequence[kit.Leftover]:
        client, parent = _client(inputs)
        under_way = [each for each in await client.operations(parent) if not each.done and _makes_marked(each, ctx.urn)]
        await steps.ended(ctx, client, under_way, _CREATION)
        found = sorted(await _marked(client, ctx, inputs), key=lambda each: each.create_time)
        fit = [each for each in found if _fixed_of(each) == _fixed(inputs)]
        return [kit.Leftover(_name(inputs, each), float(place)) for place, each in enumerate(fit)]

    async def create(self, ctx: kit.Context, inputs: EndpointInputs) -> tuple[str, EndpointOutputs]:
        client, parent = _client(inputs)
        unfit = [_name(inputs, each) for each in await _marked(client, ctx, inputs)]
        await steps.remove_leftovers(ctx, unfit, lambda name: self.delete(ctx, name, None))
        name = f"{parent}/endpoints/{marks.new_id(inputs.name, ctx.urn)}"
        return name, await _brought_to(ctx, client, name, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: EndpointInputs | None, outputs: EndpointOutputs | None
    ) -> kit.Reading[EndpointInputs, EndpointOutputs] | None:
        client = api.connect(resource_id)
        await steps.after_removals(ctx, client, resource_id)
        found = await _looked_up(ctx, client, resource_id)
        if found is None:
            return None
        for each in found.deployed_models:
            # A run that was killed while it replaced a deployment, and then taken back, leaves one that no state knows.
            if marks.is_ours(each.display_name) and not found.traffic_split.get(each.id):
                await ctx.warn(
                    f"{each.display_name} ({each.id}) is deployed here and gets no requests; what runs is paid for\n"
                    "  next: if no program declares it, `gcloud ai endpoints undeploy-model "
                    f"{marks.last(resource_id)} --deployed-model-id={each.id} --region={api.location_of(resource_id)}`"
                )
        return kit.Reading(_inputs(found, resource_id, inputs), _outputs(found, resource_id))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: EndpointInputs | None, inputs: EndpointInputs
    ) -> EndpointOutputs:
        return await _brought_to(ctx, api.connect(resource_id), resource_id, inputs)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: EndpointInputs | None) -> None:
        client = api.connect(resource_id)

        async def there() -> bool:
            found = await _looked_up(ctx, client, resource_id)
            if found is None:
                return False
            await _emptied(ctx, client, resource_id, found)
            return True

        await steps.removed(ctx, client, lambda: client.delete_endpoint(resource_id), there, resource_id, _REMOVAL)


async def _emptied(ctx: kit.Context, client: api.Api, name: str, found: Found) -> None:
    """Undeploys what killed runs left on an endpoint; what others deployed there stays, and so does the endpoint."""
    foreign = [each.id for each in found.deployed_models if not marks.is_ours(each.display_name)]
    if foreign:
        raise kit.ResourceError(
            f"the endpoint {name} has models that somebody else deployed: {', '.join(sorted(foreign))}",
            next_action="undeploy them (gcloud ai endpoints undeploy-model), then run the command again",
        )
    for each in found.deployed_models:
        await ctx.info(f"undeploying {each.id}, left over from an earlier run")
        body: dict[str, Any] = {"deployedModelId": each.id}
        rest = {other: share for other, share in found.traffic_split.items() if other != each.id}
        if each.id in found.traffic_split:
            # The endpoint goes: whatever is left may have all of it, as a split has to add up.
            body["trafficSplit"] = {next(iter(rest)): 100} if rest else {}
        await steps.finished(ctx, client, await client.undeploy(name, body), _EMPTYING)
        found = found.model_copy(update={"traffic_split": body.get("trafficSplit", found.traffic_split)})


async def _brought_to(ctx: kit.Context, client: api.Api, name: str, inputs: EndpointInputs) -> EndpointOutputs:
    async def there() -> bool:
        return await client.get_endpoint(name) is not None

    body = {**fields.settings(inputs), **_fixed(inputs), **_connection(inputs)}
    await steps.begun(
        ctx,
        client,
        lambda: client.create_endpoint(api.parent_of(name), marks.last(name), body),
        there,
        name,
        _CREATION,
        accepted=lambda _: ctx.exists(name, EndpointOutputs(url="", raw_predict_path="", stream_predict_path="")),
    )
    found = await steps.shown(ctx, lambda: client.get_endpoint(name), name)
    ctx.exists(name, _outputs(found, name))
    differing = {key: value for key, value in fields.settings(inputs).items() if _settings_of(found)[key] != value}
    if differing:
        await client.change_endpoint(name, differing)
    if _timeout(found) != inputs.request_timeout_s:
        change = {"clientConnectionConfig": {"inferenceTimeout": f"{inputs.request_timeout_s}s"}}

        async def as_wanted() -> bool:
            now = await client.get_endpoint(name)
            return now is not None and _timeout(now) == inputs.request_timeout_s

        await steps.begun(
            ctx,
            client,
            lambda: client.change_connection(name, change),
            as_wanted,
            name,
            "the change of the endpoint's time limit",
        )
    return _outputs(found, name)


async def _looked_up(ctx: kit.Context, client: api.Api, name: str) -> Found | None:
    async def listed() -> list[str]:
        return [each.name for each in await client.list_endpoints(api.parent_of(name))]

    return await steps.looked_up(ctx, lambda: client.get_endpoint(name), listed, name)


def _fixed(inputs: EndpointInputs) -> dict[str, Any]:
    """What cannot be changed of an endpoint, as its creation says it."""
    body: dict[str, Any] = {}
    if inputs.exposure == "dedicated":
        body["dedicatedEndpointEnabled"] = True
    if inputs.exposure == "private-service-connect":
        body["privateServiceConnectConfig"] = {
            "enablePrivateServiceConnect": True,
            "projectAllowlist": sorted(inputs.allowed_projects),
        }
    if inputs.network:
        body["network"] = inputs.network
    if inputs.kms_key:
        body["encryptionSpec"] = {"kmsKeyName": inputs.kms_key}
    return body


def _fixed_of(found: Found) -> dict[str, Any]:
    """The same of what Vertex AI has."""
    body: dict[str, Any] = {}
    if found.dedicated_endpoint_enabled:
        body["dedicatedEndpointEnabled"] = True
    private = found.private_service_connect_config
    if private is not None and private.enable_private_service_connect:
        body["privateServiceConnectConfig"] = {
            "enablePrivateServiceConnect": True,
            "projectAllowlist": sorted(private.project_allowlist),
        }
    if found.network:
        body["network"] = found.network
    if found.encryption_spec and found.encryption_spec.kms_key_name:
        body["encryptionSpec"] = {"kmsKeyName": found.encryption_spec.kms_key_name}
    return body


def _connection(inputs: EndpointInputs) -> dict[str, Any]:
    if not inputs.request_timeout_s:
        return {}
    return {"clientConnectionConfig": {"inferenceTimeout": f"{inputs.request_timeout_s}s"}}


def _settings_of(found: Found) -> dict[str, Any]:
    return {"displayName": found.display_name, "description": found.description, "labels": found.labels}


def _timeout(found: Found) -> int:
    return seconds(found.client_connection_config.inference_timeout) if found.client_connection_config else 0


def _inputs(found: Found, name: str, known: EndpointInputs | None) -> EndpointInputs:
    given = known.name if known else marks.plain(found.display_name)
    fixed = _fixed_of(found)
    exposure: Exposure = "shared"
    if "dedicatedEndpointEnabled" in fixed:
        exposure = "dedicated"
    elif "privateServiceConnectConfig" in fixed:
        exposure = "private-service-connect"
    elif "network" in fixed:
        exposure = "peering"
    allowed: list[str] = fixed.get("privateServiceConnectConfig", {}).get("projectAllowlist", [])
    if known is not None and sorted(known.allowed_projects) == allowed:
        allowed = known.allowed_projects
    return EndpointInputs(
        name=given,
        project=api.project_of(name),
        location=api.location_of(name),
        display_name="" if found.display_name == given else found.display_name,
        description=found.description,
        labels=found.labels,
        exposure=exposure,
        request_timeout_s=_timeout(found),
        allowed_projects=allowed,
        network=found.network,
        kms_key=found.encryption_spec.kms_key_name if found.encryption_spec else "",
    )


def _outputs(found: Found, name: str) -> EndpointOutputs:
    private = found.network or found.private_service_connect_config is not None
    host = found.dedicated_endpoint_dns.removeprefix("https://")
    if not host and not private:
        host = f"{api.location_of(name)}-aiplatform.googleapis.com"
    return EndpointOutputs(
        url="" if private else f"https://{host}",
        raw_predict_path=f"/v1/{name}:rawPredict",
        stream_predict_path=f"/v1/{name}:streamRawPredict",
    )


async def _marked(client: api.Api, ctx: kit.Context, inputs: EndpointInputs) -> list[Found]:
    parent = api.parent(inputs.project, inputs.location)
    return [
        each
        for each in await client.list_endpoints(parent)
        if marks.is_marked(each.name, ctx.urn) and steps.is_free(ctx, each.name)
    ]


def _makes_marked(operation: Operation, urn: str) -> bool:
    thing, _, _ = operation.name.rpartition("/operations/")
    return "/endpoints/" in thing and operation.kind in ("CreateEndpoint", "") and marks.is_marked(thing, urn)


def _name(inputs: EndpointInputs, found: Found) -> str:
    """The resource name with the project as it is declared: Vertex AI answers with the project's number."""
    return f"{api.parent(inputs.project, inputs.location)}/endpoints/{marks.last(found.name)}"


def _client(inputs: EndpointInputs) -> tuple[api.Api, str]:
    parent = api.parent(inputs.project, inputs.location)
    return api.connect(parent), parent
