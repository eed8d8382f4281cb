"""`lorafleet:runpod:Pod`: one machine with GPUs that runs until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Annotated, Any

from pydantic import Field

from lorafleet import errors
from lorafleet.errors import nearest
from providers import kit

from . import answers, api, container, hours, http, marks, steps, switching
from .answers import Cloud
from .container import ContainerInputs, CudaVersion
from .hours import Day
from .http import OutcomeUnknownError

_START_TIMEOUT_S = 900


class NetworkMount(kit.Model):
    """volume_id: of a NetworkVolume in the data centre of the pod; path: where it is mounted."""

    volume_id: kit.Replaced[Annotated[str, Field(min_length=1)]]
    path: Annotated[str, Field(pattern=r"^/.+")]


class PodInputs(ContainerInputs):
    """A pod.

    gpu: RunPod's id of a GPU type, such as `NVIDIA A40`, and gpu_count of it.
    min_cuda_version: lowest CUDA version of the host's driver; or allowed_cuda_versions: exactly these.
    cloud: SECURE (RunPod's own data centres) or COMMUNITY. data_center_ids: where it may run (none: anywhere).
    running: whether it runs. What a stopped pod had on its own disk is lost; a network volume keeps it.
    schedule, schedule_days: with running, the hours in which alone it runs, as in `08:00-24:00 Asia/Seoul`, and the
    days on which they begin (none: every day). RunPod knows nothing of them: every `pulumi up` and `lorafleet runpod
    clock` start or stop it as they say.
    locked: refuses to be stopped; global_networking: a private address among the account's pods.
    start_timeout_s: longest time until it runs, in seconds.
    """

    gpu: kit.Replaced[Annotated[str, Field(min_length=1)]]
    gpu_count: kit.Replaced[Annotated[int, Field(ge=1)]] = 1
    min_cuda_version: kit.Replaced[CudaVersion | None] = None
    allowed_cuda_versions: kit.Replaced[list[CudaVersion]] = Field(default_factory=list)
    cloud: kit.Replaced[Cloud] = "SECURE"
    data_center_ids: kit.Replaced[list[str]] = Field(default_factory=list)
    network_mount: NetworkMount | None = None
    running: bool = True
    schedule: str = ""
    schedule_days: Annotated[list[Day], kit.Normalised(sorted)] = Field(default_factory=list)
    locked: bool = False
    global_networking: bool = False
    start_timeout_s: Annotated[int, Field(ge=10, le=7200)] = _START_TIMEOUT_S


class PodOutputs(kit.Outputs):
    """urls: {port: address} of its HTTP ports, open to everybody: what listens there must ask for a key.

    data_center_id: where it is; empty until RunPod has placed it. on_schedule: whether it runs, or does not, as its
    schedule says; always true without one.
    """

    urls: dict[str, str]
    data_center_id: str
    on_schedule: Annotated[bool, kit.Expected(True)] = True


class Pod(kit.Resource[PodInputs, PodOutputs]):
    """A pod on RunPod, billed while it runs."""

    def reads_before_diff(self, inputs: PodInputs) -> bool:
        """With a schedule, `pulumi up` must see what the time has made of it; a preview goes on without a token."""
        return bool(inputs.schedule) and http.token_problem() is None

    def time_limit_s(self, inputs: PodInputs | None) -> float:
        return 120.0 + (inputs.start_timeout_s if inputs else _START_TIMEOUT_S)

    async def problems(self, ctx: kit.Context, inputs: PodInputs, old: PodInputs | None) -> AsyncIterator[kit.Problem]:
        await container.warn_without_token(ctx)
        if inputs.min_cuda_version is not None and inputs.allowed_cuda_versions:
            yield kit.Problem(
                ("minCudaVersion",),
                "goes not together with allowedCudaVersions",
                "one of them",
                "keep minCudaVersion for a floor, allowedCudaVersions for an exact set",
            )
        if inputs.locked and (inputs.schedule or not inputs.running):
            what, allowed = "RunPod does not stop a locked pod", "false with a schedule or with running: false"
            yield kit.Problem(("locked",), what, allowed, "unlock it")
        if inputs.schedule:
            try:
                hours.parse(inputs.schedule)
            except errors.Problem as wrong:
                yield kit.Problem(("schedule",), wrong.what, wrong.allowed, wrong.next_action)
        if old is not None and (old.network_mount is None) != (inputs.network_mount is None):
            yield kit.Problem(
                ("networkMount",),
                "a pod keeps the kind of storage that it was made with",
                "as before",
                "rename the resource in the program: then a new pod is made and this one is deleted",
            )
        for problem in container.variable_problems(inputs):
            yield problem

    async def find(self, ctx: kit.Context, inputs: PodInputs) -> Sequence[kit.Leftover]:
        found = [each for each in await _marked(api.connect(), ctx) if _fits(each, inputs)]
        ordered = sorted(found, key=lambda each: each.created_at)
        return [kit.Leftover(each.id, float(place)) for place, each in enumerate(ordered)]

    async def create(self, ctx: kit.Context, inputs: PodInputs) -> tuple[str, PodOutputs]:
        client = api.connect()
        await _check_gpu(client, inputs)
        unfit = [each for each in await _marked(client, ctx) if not _fits(each, inputs)]
        await steps.remove_leftovers(ctx, unfit, lambda each: self.delete(ctx, each, None))
        made = await steps.create_once(
            lambda: client.create_pod(_creation(ctx, inputs)), client.list_pods, inputs.name, ctx.urn
        )
        # At once: whatever happens from here on, the state knows what must be cleaned up.
        ctx.exists(made.id, _outputs(made, inputs))
        await steps.shown(ctx, client.get_pod, made.id)
        return made.id, await self.update(ctx, made.id, None, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: PodInputs | None, outputs: PodOutputs | None
    ) -> kit.Reading[PodInputs, PodOutputs] | None:
        client = api.connect()
        found = await steps.looked_up(client.get_pod, client.list_pods, resource_id)
        if found is None or found.status == "TERMINATED":
            return None
        truth = _inputs(found, inputs)
        outputs_now = _outputs(found, truth)
        if not outputs_now.on_schedule:
            does, would = ("does not run", "start") if _wanted(truth) else ("runs", "stop")
            await ctx.warn(
                f"{found.name} {does}, against its schedule {truth.schedule}; `lorafleet runpod clock` or `pulumi up` "
                f"{would} it"
            )
        elif inputs is not None and inputs.running and not truth.running:
            await ctx.warn(f"{found.name} was stopped, or its container ended; `pulumi up` starts it again")
        broken = (f"{found.name} is in the state ERROR; `pulumi up` starts it again",)
        return kit.Reading(truth, outputs_now, broken if found.status == "ERROR" else ())

    async def update(self, ctx: kit.Context, resource_id: str, old: PodInputs | None, inputs: PodInputs) -> PodOutputs:
        client = api.connect()
        found = await _brought_to(ctx, client, resource_id, inputs)
        if found.global_networking.enabled != inputs.global_networking and found.status == "RUNNING":
            if found.locked:
                await ctx.warn(
                    f"globalNetworking takes effect when {found.name} starts anew; as it is locked, it goes on"
                )
            elif _wanted(inputs):
                await _sent(client.act_on_pod(resource_id, "restart"))
                found = await _present(ctx, client, resource_id)
        found = await switching.switched(
            ctx, client, found, lambda: _present(ctx, client, resource_id), on=_wanted(inputs)
        )
        return _outputs(found, inputs)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: PodInputs | None) -> None:
        client = api.connect()
        found = await steps.looked_up(client.get_pod, client.list_pods, resource_id)
        if found is not None and found.locked:
            await _sent(client.change_pod(resource_id, {"locked": False}))
        await steps.deleted(client.delete_pod, client.list_pods, resource_id)


async def _marked(client: api.Api, ctx: kit.Context) -> list[answers.Pod]:
    found = await client.list_pods()
    return [each for each in found if marks.is_marked(each.name, ctx.urn) and each.status != "TERMINATED"]


async def _check_gpu(client: api.Api, inputs: PodInputs) -> None:
    known = [each.id for each in await client.gpu_types()]
    if inputs.gpu not in known:
        close = nearest(inputs.gpu, known)
        raise kit.ResourceError(
            f"RunPod has no GPU type '{inputs.gpu}'",
            field="gpu",
            next_action=f"did you mean '{close}'?" if close else f"choose from {', '.join(sorted(known))}",
        )


def _settings(ctx: kit.Context, inputs: PodInputs) -> dict[str, Any]:
    """All that can be changed, as a PATCH says it."""
    wanted = {
        "name": marks.name(inputs.name, ctx.urn),
        **container.settings(inputs),
        "locked": inputs.locked,
        "globalNetworking": inputs.global_networking,
    }
    if inputs.network_mount is not None:
        mount = inputs.network_mount
        wanted["mounts"] = {"network": [{"volumeId": mount.volume_id, "path": mount.path}]}
    return wanted


def _settings_of(found: answers.Pod) -> dict[str, Any]:
    """The same of what RunPod has."""
    return {
        "name": found.name,
        **container.settings_of(found),
        "locked": found.locked,
        "globalNetworking": found.global_networking.enabled,
        "mounts": {"network": [{"volumeId": each.volume_id, "path": each.path} for each in found.mounts.network]},
    }


def _creation(ctx: kit.Context, inputs: PodInputs) -> dict[str, Any]:
    gpu: dict[str, Any] = {"id": inputs.gpu, "count": inputs.gpu_count}
    if inputs.min_cuda_version is not None:
        gpu["minCudaVersion"] = inputs.min_cuda_version
    if inputs.allowed_cuda_versions:
        gpu["allowedCudaVersions"] = list(inputs.allowed_cuda_versions)
    body = {
        **_settings(ctx, inputs),
        "gpu": gpu,
        "cloud": inputs.cloud,
        "dataCenterIds": list(inputs.data_center_ids),
    }
    # A pod is locked once it exists.
    return {key: value for key, value in body.items() if value is not None and key != "locked"}


async def _present(ctx: kit.Context, client: api.Api, pod_id: str) -> answers.Pod:
    found = await steps.looked_up(client.get_pod, client.list_pods, pod_id)
    if found is None or found.status == "TERMINATED":
        raise steps.gone(pod_id)
    ctx.exists(pod_id, _outputs(found, None))
    return found


async def _brought_to(ctx: kit.Context, client: api.Api, pod_id: str, inputs: PodInputs) -> answers.Pod:
    wanted = _settings(ctx, inputs)

    told: set[str] = set()

    def differing(found: answers.Pod) -> dict[str, Any]:
        present = _settings_of(found)
        return {key: value for key, value in wanted.items() if present[key] != value and key not in told}

    async def change(body: dict[str, Any]) -> answers.Pod:
        changed = await client.change_pod(pod_id, body)
        # By RunPod's description it takes effect at the next start, so it need not show before.
        told.update({"globalNetworking"} & set(body))
        return changed

    return await steps.brought_to(lambda: _present(ctx, client, pod_id), differing, change)


async def _sent(change: Awaitable[object]) -> None:
    """A change whose outcome is looked at afterwards in any case."""
    try:
        await change
    except OutcomeUnknownError:
        await asyncio.sleep(http.FIRST_PAUSE_S)


def _fits(found: answers.Pod, inputs: PodInputs) -> bool:
    """Whether what cannot be changed is as wanted."""
    volumes = [each.volume_id for each in found.mounts.network]
    wanted = [inputs.network_mount.volume_id] if inputs.network_mount else []
    return (
        found.gpu is not None
        and (found.gpu.id, found.gpu.count) == (inputs.gpu, inputs.gpu_count)
        and found.cloud == inputs.cloud
        and volumes == wanted
    )


def _inputs(found: answers.Pod, known: PodInputs | None) -> PodInputs:
    if found.gpu is None or found.mounts.persistent is not None:
        what = "runs on a CPU" if found.gpu is None else "has storage on its host"
        raise kit.ResourceError(
            f"the pod {found.id} {what}", next_action="declare one with a GPU and, if need be, a network volume"
        )
    mounts = found.mounts.network
    return PodInputs.model_construct(
        name=marks.plain(found.name),
        **container.inputs_of(found, known),
        gpu=found.gpu.id,
        gpu_count=found.gpu.count,
        # RunPod does not tell what was asked for, only what the host has.
        min_cuda_version=known.min_cuda_version if known else None,
        allowed_cuda_versions=known.allowed_cuda_versions if known else [],
        cloud=found.cloud,
        data_center_ids=known.data_center_ids if known else [],
        network_mount=NetworkMount(volume_id=mounts[0].volume_id, path=mounts[0].path) if mounts else None,
        running=_counts_as_running(found, known),
        schedule=known.schedule if known else "",
        schedule_days=known.schedule_days if known else [],
        locked=found.locked,
        # A private address is what RunPod shows, and it gives one at a start.
        global_networking=known.global_networking
        if known and found.status != "RUNNING"
        else found.global_networking.enabled,
        start_timeout_s=known.start_timeout_s if known else _START_TIMEOUT_S,
    )


def _wanted(inputs: PodInputs) -> bool:
    """Whether it is to run now."""
    if not (inputs.running and inputs.schedule):
        return inputs.running
    return hours.parse(inputs.schedule, inputs.schedule_days).on(hours.now())


def _counts_as_running(found: answers.Pod, known: PodInputs | None) -> bool:
    if known is not None and known.running and known.schedule:
        return True  # what it does now is told by `on_schedule`
    if found.status == "ERROR":  # told as a fault, not as a change of this setting
        return known.running if known else True
    return found.status != "EXITED"


def _on_schedule(found: answers.Pod, inputs: PodInputs) -> bool:
    if not (inputs.running and inputs.schedule) or found.status == "ERROR":
        return True
    declared, moment = hours.parse(inputs.schedule, inputs.schedule_days), hours.now()
    return declared.on(moment) == (found.status != "EXITED") or declared.switched_just_now(moment)


def _outputs(found: answers.Pod, inputs: PodInputs | None) -> PodOutputs:
    """inputs: None while it is being brought to them."""
    ports = inputs.ports if inputs else found.ports
    http_ports = [each.split("/")[0] for each in ports if each.endswith("/http")]
    return PodOutputs(
        urls={port: f"https://{found.id}-{port}.proxy.runpod.net" for port in http_ports},
        data_center_id=found.data_center_id or "",
        on_schedule=inputs is None or _on_schedule(found, inputs),
    )
