"""`lorafleet:vertex:Traffic`: which deployed model of an endpoint gets how many of its requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import Field

from providers import kit

from . import api, credentials, fields, steps

_CHANGE = "the change of the traffic split"


class Share(kit.Model):
    """percent of the requests (1 to 100) for one deployed model."""

    deployed_model_id: fields.DeployedId
    percent: Annotated[int, Field(ge=1, le=100)]


def _by_id(split: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted((each["deployedModelId"], each["percent"]) for each in split)


class TrafficInputs(kit.Inputs):
    """endpoint: `projects/…/endpoints/…`; split: shares that add up to 100. Who is not in it gets nothing."""

    endpoint: kit.Replaced[fields.EndpointName]
    split: Annotated[list[Share], kit.Normalised(_by_id), Field(min_length=1)]


class TrafficOutputs(kit.Outputs):
    """Vertex AI has nothing to add to a split."""


class Traffic(kit.Resource[TrafficInputs, TrafficOutputs]):
    """The traffic split of an endpoint, whole: one for each endpoint. Its id is `projects/…/endpoints/…/trafficSplit`.

    It is apart from the endpoint and its deployments, so that the engine's order is the right one: a new deployment is
    up before it gets requests, and the old one goes after it has none.
    """

    delete_before_replace = True  # the new one of the same endpoint would be emptied with the old one

    async def problems(
        self, ctx: kit.Context, inputs: TrafficInputs, old: TrafficInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await credentials.warn_without(ctx)
        total = sum(each.percent for each in inputs.split)
        if total != 100:
            yield kit.Problem(("split",), f"the shares add up to {total}", "shares of 100 together", "correct them")
        seen: set[str] = set()
        for index, each in enumerate(inputs.split):
            if each.deployed_model_id in seen:
                what = f"{each.deployed_model_id} is given twice"
                yield kit.Problem(("split", index, "deployedModelId"), what, "each once", "take one away")
            seen.add(each.deployed_model_id)

    async def create(self, ctx: kit.Context, inputs: TrafficInputs) -> tuple[str, TrafficOutputs]:
        await _set(ctx, inputs.endpoint, _wanted(inputs))
        return f"{inputs.endpoint}/trafficSplit", TrafficOutputs()

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: TrafficInputs | None, outputs: TrafficOutputs | None
    ) -> kit.Reading[TrafficInputs, TrafficOutputs] | None:
        endpoint = _endpoint(resource_id)
        found = await api.connect(endpoint).get_endpoint(endpoint)
        split = {each: share for each, share in found.traffic_split.items() if share} if found else {}
        if not split:
            return None
        shares = [Share(deployed_model_id=each, percent=split[each]) for each in sorted(split)]
        if inputs is not None and _wanted(inputs) == split:
            shares = inputs.split
        return kit.Reading(TrafficInputs(endpoint=endpoint, split=shares), TrafficOutputs())

    async def update(
        self, ctx: kit.Context, resource_id: str, old: TrafficInputs | None, inputs: TrafficInputs
    ) -> TrafficOutputs:
        await _set(ctx, inputs.endpoint, _wanted(inputs))
        return TrafficOutputs()

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: TrafficInputs | None) -> None:
        """Nobody gets requests any more: deployments without traffic can be undeployed."""
        endpoint = _endpoint(resource_id)
        if await api.connect(endpoint).get_endpoint(endpoint) is not None:
            await _set(ctx, endpoint, {})


async def _set(ctx: kit.Context, endpoint: str, split: dict[str, int]) -> None:
    client = api.connect(endpoint)
    found = await steps.shown(ctx, lambda: client.get_endpoint(endpoint), endpoint)
    missing = sorted(set(split) - {each.id for each in found.deployed_models})
    if missing:
        raise kit.ResourceError(
            f"the endpoint has no deployed model {', '.join(missing)}",
            field="split",
            next_action="see whether somebody undeployed it: run `pulumi refresh`, then `pulumi up`",
        )
    if {each: share for each, share in found.traffic_split.items() if share} != split:
        change = {"trafficSplit": split}
        await steps.when_free(ctx, client, lambda: client.change_endpoint(endpoint, change), endpoint, _CHANGE)


def _wanted(inputs: TrafficInputs) -> dict[str, int]:
    return {each.deployed_model_id: each.percent for each in inputs.split}


def _endpoint(resource_id: str) -> str:
    return resource_id.removesuffix("/trafficSplit")
