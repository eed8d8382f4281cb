"""`lorafleet:vertex:Deployment`: a model's version on machines of its own, behind an endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from providers import kit

from . import api, credentials, deployed, machine_rules, machines, marks, steps
from .answers import DeployedModel, Operation
from .answers import Endpoint as FoundEndpoint
from .deployed import DeploymentInputs

_DEPLOYING = "deploying the model"
_UNDEPLOYING = "undeploying the model"


class DeploymentOutputs(kit.Outputs):
    """deployed_model_id: what a traffic split names it by; model_version_id: the version's number.

    operation: the name of the operation that deploys it while that is not known to have ended, else empty.
    """

    deployed_model_id: str
    model_version_id: str
    operation: str


class Deployment(kit.Resource[DeploymentInputs, DeploymentOutputs]):
    """A deployed model. It is paid for while replicas run; it gets no request until a Traffic gives it some.

    Its id is `projects/…/endpoints/…/deployedModels/…`.
    """

    def time_limit_s(self, inputs: DeploymentInputs | None) -> float:
        return 7200.0  # Vertex AI's longest deployment timeout

    async def problems(
        self, ctx: kit.Context, inputs: DeploymentInputs, old: DeploymentInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await credentials.warn_without(ctx)
        for problem in machine_rules.problems(inputs.machine_type, inputs.accelerator_type, inputs.accelerator_count):
            yield problem
        if inputs.min_replicas > inputs.max_replicas:
            what = f"there would be at least {inputs.min_replicas} replicas and at most {inputs.max_replicas}"
            yield kit.Problem(("minReplicas",), what, f"at most {inputs.max_replicas}", "lower it or raise maxReplicas")
        if (inputs.scale_to_zero is None) == (inputs.min_replicas == 0):
            yield kit.Problem(
                ("scaleToZero",),
                "is required with minReplicas 0" if inputs.min_replicas == 0 else "goes with minReplicas 0 alone",
                "scaleToZero with minReplicas 0, or neither",
                "set both: Vertex AI silently runs one replica otherwise",
            )
        seen = set()
        for index, metric in enumerate(inputs.metrics):
            full = deployed.METRICS.get(metric.name, metric.name)
            if full not in deployed.SHORT:
                yield kit.Problem(
                    ("metrics", index, "name"),
                    f"Vertex AI scales on no metric '{metric.name}'",
                    ", ".join(deployed.METRICS),
                    machines.did_you_mean(metric.name, deployed.METRICS),
                )
            if full in seen:
                yield kit.Problem(("metrics", index, "name"), "is given twice", "each once", "take one away")
            seen.add(full)
            if "gpu" in metric.name and not inputs.accelerator_type:
                yield kit.Problem(
                    ("metrics", index, "name"), "the machine has no GPU", "cpu or requests", "take another metric"
                )
        model, endpoint = inputs.model, inputs.endpoint
        if api.location_of(model) != api.location_of(endpoint):
            yield kit.Problem(
                ("model",),
                f"the model lies in {api.location_of(model)}, the endpoint in {api.location_of(endpoint)}",
                f"a model of {api.location_of(endpoint)}",
                "upload it there",
            )

    async def find(self, ctx: kit.Context, inputs: DeploymentInputs) -> Sequence[kit.Leftover]:
        client = api.connect(inputs.endpoint)
        # In whichever way a killed run's deployment ends, it shows on the endpoint then.
        await steps.settled(ctx, client, inputs.endpoint, _DEPLOYING)
        endpoint = await client.get_endpoint(inputs.endpoint)
        wanted = deployed.comparable(deployed.fixed(inputs, await _version_id(client, inputs.model)))
        found = [each for each in _marked(endpoint, ctx) if deployed.comparable(deployed.fixed_of(each)) == wanted]
        found.sort(key=lambda each: each.create_time)
        return [kit.Leftover(_name(inputs.endpoint, each.id), float(place)) for place, each in enumerate(found)]

    async def create(self, ctx: kit.Context, inputs: DeploymentInputs) -> tuple[str, DeploymentOutputs]:
        client = api.connect(inputs.endpoint)
        endpoint = await client.get_endpoint(inputs.endpoint)
        unfit = [_name(inputs.endpoint, each.id) for each in _marked(endpoint, ctx)]
        await steps.remove_leftovers(ctx, unfit, lambda name: self.delete(ctx, name, None))
        name = _name(inputs.endpoint, marks.deployed_id(inputs.name, ctx.urn))
        return name, await _brought_to(ctx, client, name, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: DeploymentInputs | None, outputs: DeploymentOutputs | None
    ) -> kit.Reading[DeploymentInputs, DeploymentOutputs] | None:
        client, endpoint_name = api.connect(resource_id), _endpoint(resource_id)
        await steps.after_removals(ctx, client, endpoint_name)
        endpoint = await client.get_endpoint(endpoint_name)
        found = endpoint.deployed(marks.last(resource_id)) if endpoint else None
        if found is not None:
            truth = await _inputs(client, found, endpoint_name, inputs)
            return kit.Reading(truth, _outputs(found), deployed.unhealthy(found))
        if inputs is None or outputs is None or not await _under_way(client, outputs.operation):
            return None
        return kit.Reading(inputs, outputs, ("it is still being deployed; `pulumi up` waits for it",))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: DeploymentInputs | None, inputs: DeploymentInputs
    ) -> DeploymentOutputs:
        return await _brought_to(ctx, api.connect(resource_id), resource_id, inputs)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: DeploymentInputs | None) -> None:
        client, endpoint, deployed_id = api.connect(resource_id), _endpoint(resource_id), marks.last(resource_id)
        body: dict[str, Any] = {"deployedModelId": deployed_id}

        async def there() -> bool:
            found = await client.get_endpoint(endpoint)
            if found is None or found.deployed(deployed_id) is None:
                return False
            body.pop("trafficSplit", None)
            if deployed_id in found.traffic_split:
                body["trafficSplit"] = without(found.traffic_split, deployed_id)
            return True

        await steps.removed(ctx, client, lambda: client.undeploy(endpoint, body), there, endpoint, _UNDEPLOYING)


def without(split: dict[str, int], deployed_id: str) -> dict[str, int]:
    """A traffic split in which one has nothing: its share goes to the one that has most already."""
    rest = {each: share for each, share in split.items() if each != deployed_id and share > 0}
    if rest:
        rest[max(rest, key=lambda each: rest[each])] += split.get(deployed_id, 0)
    return rest


async def _brought_to(ctx: kit.Context, client: api.Api, name: str, inputs: DeploymentInputs) -> DeploymentOutputs:
    deployed_id = marks.last(name)
    version = await _version_id(client, inputs.model)
    if version is None:
        raise kit.ResourceError(
            f"there is no model {inputs.model}",
            field="model",
            next_action="see whether somebody deleted that version: run `pulumi refresh`, then `pulumi up`",
        )
    body = {
        "deployedModel": {
            "id": deployed_id,
            "displayName": marks.deployed_name(inputs.name, ctx.urn),
            **deployed.fixed(inputs, version),
            "dedicatedResources": {
                **deployed.fixed(inputs, version)["dedicatedResources"],
                **deployed.settings(inputs),
            },
        }
    }

    async def look() -> DeployedModel | None:
        endpoint = await client.get_endpoint(inputs.endpoint)
        if endpoint is None:
            raise steps.gone(inputs.endpoint)
        return endpoint.deployed(deployed_id)

    async def there() -> bool:
        return await look() is not None

    def accepted(operation: Operation) -> None:
        outputs = DeploymentOutputs(
            deployed_model_id=deployed_id, model_version_id=version or "", operation=operation.name
        )
        ctx.exists(name, outputs)

    if isinstance(before := ctx.made[1] if ctx.made else None, DeploymentOutputs) and before.operation:
        # Begun by an earlier run, which then gave up waiting: its name stands in the state.
        operation = await client.operation(before.operation)
        if operation is not None:
            await steps.ended(ctx, client, [operation], _DEPLOYING)
    await steps.begun(
        ctx, client, lambda: client.deploy(inputs.endpoint, body), there, inputs.endpoint, _DEPLOYING, accepted=accepted
    )
    found = await steps.shown(ctx, look, name)
    ctx.exists(name, _outputs(found))
    wanted = {"id": deployed_id, "dedicatedResources": deployed.settings(inputs)}
    mask = deployed.differing(found, inputs)

    async def as_wanted() -> bool:
        mask[:] = deployed.differing(await steps.shown(ctx, look, name), inputs)
        return not mask

    if mask:
        change = "changing the deployment"
        await steps.begun(
            ctx, client, lambda: client.mutate(inputs.endpoint, wanted, mask), as_wanted, inputs.endpoint, change
        )
    return _outputs(found)


async def _inputs(
    client: api.Api, found: DeployedModel, endpoint: str, known: DeploymentInputs | None
) -> DeploymentInputs:
    resources = deployed.resources_of(found)
    metrics = [
        deployed.Metric(name=deployed.SHORT.get(each.metric_name, each.metric_name), target=each.target)
        for each in resources.autoscaling_metric_specs
    ]
    if known is not None and deployed.pairs(known.metrics) == deployed.pairs(metrics):
        metrics = known.metrics
    return DeploymentInputs(
        name=known.name if known else marks.plain(found.display_name),
        endpoint=endpoint,
        model=await _model(client, found, endpoint, known),
        machine_type=resources.machine_spec.machine_type,
        accelerator_type=resources.machine_spec.accelerator_type,
        accelerator_count=resources.machine_spec.accelerator_count,
        spot=resources.spot,
        min_replicas=resources.min_replica_count,
        max_replicas=resources.max_replica_count,
        metrics=metrics,
        scale_to_zero=deployed.to_zero(found),
        service_account=found.service_account,
        access_logging=found.enable_access_logging,
    )


async def _model(client: api.Api, found: DeployedModel, endpoint: str, known: DeploymentInputs | None) -> str:
    """The model as a program names it: by the alias that it was declared with, where that is still the same version."""
    model, _, told = found.model.partition("@")
    version = found.model_version_id or told
    name = f"{api.parent_of(endpoint)}/models/{marks.last(model)}"
    if known is not None and api.parent_of(known.model) == api.parent_of(name):
        alias = known.model.partition("@")[2]
        if known.model.partition("@")[0] == name and (
            alias == version or await _version_id(client, known.model) == version
        ):
            return known.model
    model_found = await client.get_model(f"{name}@{version}")
    aliases = model_found.version_aliases if model_found else []
    return f"{name}@{next((each for each in aliases if each.startswith('spec-')), version)}"


async def _version_id(client: api.Api, model: str) -> str | None:
    found = await client.get_model(model)
    return found.version_id if found else None


def _marked(endpoint: FoundEndpoint | None, ctx: kit.Context) -> list[DeployedModel]:
    models = endpoint.deployed_models if endpoint else []
    return [
        each for each in models if marks.is_deployed_for(each.display_name, ctx.urn) and steps.is_free(ctx, each.id)
    ]


async def _under_way(client: api.Api, operation: str) -> bool:
    if not operation:
        return False
    found = await client.operation(operation)
    return found is not None and not found.done


def _outputs(found: DeployedModel) -> DeploymentOutputs:
    return DeploymentOutputs(deployed_model_id=found.id, model_version_id=found.model_version_id, operation="")


def _name(endpoint: str, deployed_id: str) -> str:
    return f"{endpoint}/deployedModels/{deployed_id}"


def _endpoint(name: str) -> str:
    return name.partition("/deployedModels/")[0]
