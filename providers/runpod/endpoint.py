"""`lorafleet:runpod:ServerlessEndpoint`: workers that RunPod starts and stops by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from providers import kit

from . import api, container, gpus, marks, steps
from .answers import Endpoint, EndpointType, FlashBoot
from .container import ContainerInputs, CudaVersion

# What RunPod takes when it is not told (its API's description).
_DEFAULT_IDLE_TIMEOUT_S = 10


class Workers(kit.Model):
    """min, max: workers at the same time; idle_timeout: seconds until an idle one stops (1 to 3600).

    An endpoint of type QUEUE that scales on REQUEST_COUNT has no idle_timeout. Else none means 10 s.
    """

    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=0)] = 3
    idle_timeout: Annotated[int, Field(ge=1, le=3600)] | None = None


class Scaling(kit.Model):
    """When a worker is added: QUEUE_DELAY with queue_delay (seconds of waiting, 0.5 or more), or REQUEST_COUNT with
    request_count (requests at once for each worker, 1 or more)."""

    type: Literal["QUEUE_DELAY", "REQUEST_COUNT"]
    queue_delay: Annotated[float, Field(ge=0.5)] | None = None
    request_count: Annotated[int, Field(ge=1)] | None = None


class EndpointInputs(ContainerInputs):
    """An endpoint.

    type: LOAD_BALANCER (requests go to the image's own HTTP server) or QUEUE (jobs for a worker with RunPod's SDK).
    gpus: RunPod's ids of GPU types, such as `NVIDIA L4`; a worker gets `gpu_count` of one of them.
    min_cuda_version: lowest CUDA version of the host's driver; or allowed_cuda_versions: exactly these. As in `13.0`.
    timeout_ms: longest time of a request. flashboot: OFF, FLASHBOOT or PRIORITY_FLASHBOOT.
    data_center_ids: where workers may run (none: anywhere); network_volumes: ids of volumes that they mount.
    """

    type: kit.Replaced[EndpointType]
    gpus: Annotated[list[str], kit.Normalised(sorted), Field(min_length=1)]
    gpu_count: Annotated[int, Field(ge=1)] = 1
    min_cuda_version: CudaVersion | None = None
    allowed_cuda_versions: Annotated[list[CudaVersion], kit.Normalised(sorted)] = Field(default_factory=list)
    workers: Workers = Field(default_factory=Workers)
    scaling: Scaling
    timeout_ms: Annotated[int, Field(ge=1)] = 300_000
    flashboot: FlashBoot = "OFF"
    data_center_ids: Annotated[list[str], kit.Normalised(sorted)] = Field(default_factory=list)
    network_volumes: Annotated[list[str], kit.Normalised(sorted)] = Field(default_factory=list)


class EndpointOutputs(kit.Outputs):
    """url: where requests go: the base URL of a LOAD_BALANCER, else the URL that `/run`, `/status` … stand behind."""

    url: str


class ServerlessEndpoint(kit.Resource[EndpointInputs, EndpointOutputs]):
    """A serverless endpoint on RunPod, with everything that it needs in itself: no template is referred to."""

    async def problems(
        self, ctx: kit.Context, inputs: EndpointInputs, old: EndpointInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await container.warn_without_token(ctx)
        scaling, workers = inputs.scaling, inputs.workers
        for problem in _scaling_problems(inputs.type, scaling, workers):
            yield problem
        if workers.min > workers.max:
            what = f"there would be at least {workers.min} workers and at most {workers.max}"
            yield kit.Problem(("workers", "min"), what, f"at most {workers.max}", "lower workers.min or raise max")
        if inputs.min_cuda_version is not None and inputs.allowed_cuda_versions:
            yield kit.Problem(
                ("minCudaVersion",),
                "goes not together with allowedCudaVersions",
                "one of them",
                "keep minCudaVersion for a floor, allowedCudaVersions for an exact set",
            )
        for problem in container.variable_problems(inputs):
            yield problem

    async def find(self, ctx: kit.Context, inputs: EndpointInputs) -> Sequence[kit.Leftover]:
        found = [each for each in await _marked(api.connect(), ctx) if each.type == inputs.type]
        ordered = sorted(found, key=lambda each: each.created_at)
        return [kit.Leftover(each.id, float(place)) for place, each in enumerate(ordered)]

    async def create(self, ctx: kit.Context, inputs: EndpointInputs) -> tuple[str, EndpointOutputs]:
        client = api.connect()
        wanted = await _settings(client, ctx, inputs)
        body = _creation(inputs, wanted)
        unfit = [each for each in await _marked(client, ctx) if each.type != inputs.type]
        await steps.remove_leftovers(ctx, unfit, lambda each: self.delete(ctx, each, None))
        made = await steps.create_once(
            lambda: client.create_endpoint(body), client.list_endpoints, inputs.name, ctx.urn
        )
        # At once: whatever happens from here on, the state knows what must be cleaned up.
        ctx.exists(made.id, _outputs(made))
        await steps.shown(ctx, client.get_endpoint, made.id)
        return made.id, _outputs(await _brought_to(ctx, client, made.id, wanted))

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: EndpointInputs | None, outputs: EndpointOutputs | None
    ) -> kit.Reading[EndpointInputs, EndpointOutputs] | None:
        client = api.connect()
        found = await steps.looked_up(client.get_endpoint, client.list_endpoints, resource_id)
        if found is None:
            return None
        truth = await _inputs(client, found, inputs)
        if inputs is not None:
            await _explain(ctx, inputs, truth)
        return kit.Reading(truth, _outputs(found))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: EndpointInputs | None, inputs: EndpointInputs
    ) -> EndpointOutputs:
        client = api.connect()
        return _outputs(await _brought_to(ctx, client, resource_id, await _settings(client, ctx, inputs)))

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: EndpointInputs | None) -> None:
        client = api.connect()
        found = await steps.looked_up(client.get_endpoint, client.list_endpoints, resource_id)
        names = {marks.bare(found.name)} if found else set()
        if inputs is not None:
            names.add(marks.name(inputs.name, ctx.urn))
        await steps.deleted(client.delete_endpoint, client.list_endpoints, resource_id)
        await _delete_templates(client, {name for name in names if marks.is_marked(name, ctx.urn)})


async def _marked(client: api.Api, ctx: kit.Context) -> list[Endpoint]:
    return [each for each in await client.list_endpoints() if marks.is_marked(each.name, ctx.urn)]


def _scaling_problems(kind: str, scaling: Scaling, workers: Workers) -> list[kit.Problem]:
    problems = []
    by_requests = scaling.type == "REQUEST_COUNT"
    needed, other = ("requestCount", "queueDelay") if by_requests else ("queueDelay", "requestCount")
    given = {"requestCount": scaling.request_count, "queueDelay": scaling.queue_delay}
    if given[needed] is None:
        problems.append(kit.Problem(("scaling", needed), f"is required with {scaling.type}", "", f"set '{needed}'"))
    if given[other] is not None:
        problems.append(kit.Problem(("scaling", other), f"goes not with {scaling.type}", needed, "take it away"))
    if kind == "LOAD_BALANCER" and not by_requests:
        problems.append(
            kit.Problem(
                ("scaling", "type"), "a LOAD_BALANCER has no queue", "REQUEST_COUNT", "set it, with requestCount"
            )
        )
    if kind == "QUEUE" and by_requests and workers.idle_timeout is not None:
        problems.append(
            kit.Problem(
                ("workers", "idleTimeout"),
                "RunPod refuses it for a QUEUE that scales on REQUEST_COUNT",
                "no idleTimeout, or scaling on QUEUE_DELAY",
                "take it away",
            )
        )
    return problems


async def _settings(client: api.Api, ctx: kit.Context, inputs: EndpointInputs) -> dict[str, Any]:
    """All that can be changed, as a PATCH says it."""
    pools, excluded = gpus.selection(await client.gpu_types(), inputs.gpus)
    workers: dict[str, Any] = {"min": inputs.workers.min, "max": inputs.workers.max}
    if not (inputs.type == "QUEUE" and inputs.scaling.type == "REQUEST_COUNT"):
        workers["idleTimeout"] = inputs.workers.idle_timeout or _DEFAULT_IDLE_TIMEOUT_S
    return {
        "name": marks.name(inputs.name, ctx.urn),
        **container.settings(inputs),
        "gpu": {
            "pools": pools,
            "excludedTypes": excluded,
            "count": inputs.gpu_count,
            "allowedCudaVersions": sorted(inputs.allowed_cuda_versions),
            "minCudaVersion": inputs.min_cuda_version or "",
        },
        "workers": workers,
        "scaling": inputs.scaling.model_dump(mode="json", by_alias=True, exclude_none=True),
        "timeout": inputs.timeout_ms,
        "flashboot": inputs.flashboot,
        "dataCenterIds": sorted(inputs.data_center_ids),
        "networkVolumes": sorted(inputs.network_volumes),
    }


def _settings_of(found: Endpoint, wanted_name: str) -> dict[str, Any]:
    """The same of what RunPod has."""
    gpu = _gpu(found)
    workers = {"min": found.workers.min, "max": found.workers.max, "idleTimeout": found.workers.idle_timeout}
    return {
        "name": wanted_name if marks.same(found.name, wanted_name) else found.name,
        **container.settings_of(found),
        "gpu": {
            "pools": sorted(gpu.pools),
            "excludedTypes": sorted(each.strip() for each in gpu.excluded_types),
            "count": gpu.count,
            "allowedCudaVersions": sorted(gpu.allowed_cuda_versions),
            "minCudaVersion": gpu.min_cuda_version or "",
        },
        "workers": {key: value for key, value in workers.items() if value is not None},
        "scaling": found.scaling.model_dump(mode="json", by_alias=True, exclude_none=True),
        "timeout": found.timeout,
        "flashboot": found.flashboot,
        "dataCenterIds": sorted(found.data_center_ids),
        "networkVolumes": sorted(found.network_volumes),
    }


def _creation(inputs: EndpointInputs, wanted: dict[str, Any]) -> dict[str, Any]:
    # "No floor" is said by leaving it out here, by an empty text in a PATCH.
    gpu = {key: value for key, value in wanted["gpu"].items() if value not in ("", [])}
    body = {**wanted, "type": inputs.type, "gpu": gpu}
    return {key: value for key, value in body.items() if value is not None}


async def _brought_to(ctx: kit.Context, client: api.Api, endpoint_id: str, wanted: dict[str, Any]) -> Endpoint:
    """A changed container setting, even to the same value, cycles all workers: so only what differs is sent."""

    async def look() -> Endpoint:
        found = await steps.looked_up(client.get_endpoint, client.list_endpoints, endpoint_id)
        if found is None:
            raise steps.gone(endpoint_id)
        ctx.exists(endpoint_id, _outputs(found))
        return found

    def differing(found: Endpoint) -> dict[str, Any]:
        present = _settings_of(found, wanted["name"])
        body = {key: value for key, value in wanted.items() if present[key] != value}
        if "gpu" in body and not body["gpu"]["excludedTypes"]:
            # Pools without exclusions clear them.
            body["gpu"] = {key: value for key, value in body["gpu"].items() if key != "excludedTypes"}
        return body

    return await steps.brought_to(look, differing, lambda body: client.change_endpoint(endpoint_id, body))


async def _inputs(client: api.Api, found: Endpoint, known: EndpointInputs | None) -> EndpointInputs:
    gpu = _gpu(found)
    idle_timeout = found.workers.idle_timeout
    unsaid = known is not None and known.workers.idle_timeout is None
    if unsaid and idle_timeout == _DEFAULT_IDLE_TIMEOUT_S:
        idle_timeout = None
    return EndpointInputs.model_construct(
        name=marks.plain(found.name),
        **container.inputs_of(found, known),
        type=found.type,
        gpus=_in_order(gpus.eligible(await client.gpu_types(), gpu), known.gpus if known else []),
        gpu_count=gpu.count,
        min_cuda_version=gpu.min_cuda_version or None,
        allowed_cuda_versions=_in_order(gpu.allowed_cuda_versions, known.allowed_cuda_versions if known else []),
        workers=Workers(min=found.workers.min, max=found.workers.max, idle_timeout=idle_timeout),
        scaling=Scaling(**found.scaling.model_dump()),
        timeout_ms=found.timeout,
        flashboot=found.flashboot,
        data_center_ids=_in_order(found.data_center_ids, known.data_center_ids if known else []),
        network_volumes=_in_order(found.network_volumes, known.network_volumes if known else []),
    )


async def _explain(ctx: kit.Context, known: EndpointInputs, truth: EndpointInputs) -> None:
    """Why something differs that nobody may have changed."""
    was, now = known.workers.max, truth.workers.max
    if now < was:
        await ctx.warn(
            f"workers.max is {now} and not {was}: RunPod lowers it by itself, to 2 after 3 days without a request "
            f"and to 0 after 7, and never raises it again. `pulumi up` restores it"
        )
    added = sorted(set(truth.gpus) - set(known.gpus))
    if added:
        await ctx.warn(
            f"workers may also get {', '.join(added)}: RunPod has put that into one of the pools, or somebody changed "
            "the selection. `pulumi up` leaves it out again"
        )
    lost = sorted(set(known.gpus) - set(truth.gpus))
    if lost:
        await ctx.warn(
            f"workers cannot get {', '.join(lost)} any more: RunPod has put that into another pool, or somebody "
            "changed the selection. `pulumi up` selects it again"
        )


def _in_order(found: Sequence[str], known: Sequence[str]) -> list[str]:
    """What was found in the order of the program: the order means nothing to RunPod."""
    return [each for each in known if each in found] + [each for each in found if each not in known]


def _gpu(found: Endpoint) -> Any:
    if found.gpu is None:
        raise kit.ResourceError(
            f"the endpoint {found.id} runs on CPUs", next_action="declare one with GPUs; this resource has no others"
        )
    return found.gpu


async def _delete_templates(client: api.Api, names: set[str]) -> None:
    """RunPod deletes an endpoint's hidden template with it; one that it forgot would stay for good."""
    if not names:
        return
    for template in await client.list_templates():
        if template.serverless and any(name in template.name for name in names):
            await client.delete_template(template.id)


def _outputs(found: Endpoint) -> EndpointOutputs:
    urls = found.request_urls
    return EndpointOutputs(url=urls.get("base") or urls.get("run", "").removesuffix("/run"))
