"""`lorafleet:modal:App`: an app with one server, deployed under a name of a Modal environment.

Its id is `environment/name`, not Modal's `ap-…`: an app that was stopped never comes back, the next deployment of the
name makes another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar

from providers import kit

from . import api, deployment, marks
from .fields import SERVER, AppInputs, AppOutputs

# Modal pulls the image, 9 GB of it, when it sees the digest for the first time.
_DEPLOY_LIMIT_S = 3600.0


class App(kit.Resource[AppInputs, AppOutputs]):
    """A server on Modal that runs our image as it is, from no container up to a declared number."""

    # A name has one deployment: two at once are one.
    delete_before_replace: ClassVar[bool] = True

    def time_limit_s(self, inputs: AppInputs | None) -> float:
        return _DEPLOY_LIMIT_S

    async def problems(self, ctx: kit.Context, inputs: AppInputs, old: AppInputs | None) -> AsyncIterator[kit.Problem]:
        missing = api.missing_token()
        if missing is not None:
            # A preview may go without: nothing that it shows depends on it.
            await ctx.warn(f"`pulumi up` will need it: {missing}")
        if inputs.max_containers < max(inputs.min_containers, 1):
            yield kit.Problem(
                ("maxContainers",), f"is {inputs.max_containers}", "at least 1, and at least minContainers"
            )
        if not 2 <= inputs.scaledown_window_s <= 3600:
            yield kit.Problem(("scaledownWindowS",), f"is {inputs.scaledown_window_s}", "2 to 3600 (seconds)")
        if not 1 <= inputs.exit_grace_period_s <= 3600:
            yield kit.Problem(("exitGracePeriodS",), f"is {inputs.exit_grace_period_s}", "1 to 3600 (seconds)")
        if inputs.startup_timeout_s < 1:
            yield kit.Problem(("startupTimeoutS",), "is 0", "1 second or more; a model takes minutes to load")
        if inputs.max_concurrency is not None and inputs.max_concurrency < max(inputs.target_concurrency, 1):
            yield kit.Problem(
                ("maxConcurrency",), f"is {inputs.max_concurrency}", "at least targetConcurrency, or none"
            )

        mounted = [mount.volume for mount in inputs.volumes.values()]
        for path, mount in inputs.volumes.items():
            if mounted.count(mount.volume) > 1:
                yield kit.Problem(
                    ("volumes", path), f"mounts the volume {mount.volume}, and so does another path", "each volume once"
                )
        for path in sorted(inputs.volumes.keys() & inputs.buckets.keys()):
            yield kit.Problem(("buckets", path), "a volume is mounted there too", "one of the two at each path")

    def preview(self) -> Mapping[str, Callable[[AppInputs], Any]]:
        return {"status": lambda _: "deployed"}

    async def find(self, ctx: kit.Context, inputs: AppInputs) -> Sequence[kit.Leftover]:
        async with api.connect() as modal:
            there = await modal.deployed(inputs.environment, inputs.name)
            if there is None or there.state == "stopping":
                return ()
            tags = await modal.tags(there.app_id)
            return [kit.Leftover(_id(inputs))] if tags.get(marks.OWNER) == marks.owner(ctx.urn) else ()

    async def create(self, ctx: kit.Context, inputs: AppInputs) -> tuple[str, AppOutputs]:
        async with api.connect() as modal:
            there = await modal.deployed(inputs.environment, inputs.name)
            if there is not None and there.state == "stopping":
                await ctx.status(f"the former {inputs.name} to stop")
                await modal.stopped(inputs.environment, inputs.name, there.app_id)
            elif there is not None and _id(inputs) not in ctx.owned:
                raise kit.ResourceError(
                    f"there is an app '{inputs.name}' in Modal's environment '{inputs.environment}' that this stack "
                    "did not make",
                    field="name",
                    next_action="choose another name, stop that app (`modal app stop`), or take it into the stack: "
                    f"pulumi import lorafleet:modal:App {ctx.name} {_id(inputs)}",
                )
            return _id(inputs), await self._deploy(modal, ctx, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: AppInputs | None, outputs: AppOutputs | None
    ) -> kit.Reading[AppInputs, AppOutputs] | None:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            there = await modal.deployed(environment, name)
            if there is None or there.state == "stopping":
                return None
            server = await modal.server(environment, name, SERVER)
            if server is None:
                return _replaced(resource_id, there, inputs, outputs)
            tags = await modal.tags(there.app_id)
            state = (inputs, outputs) if inputs is not None and outputs is not None else None
            truth = await deployment.read_inputs(modal, environment, name, server, tags, state)
            unhealthy = []
            if there.state != "deployed":
                unhealthy.append(f"Modal has disabled the app {name}; see the workspace's budget and notices")
            if outputs is not None and there.version != outputs.version:
                by = f", by {there.deployed_by}" if there.deployed_by else ""
                unhealthy.append(
                    f"version {there.version} of the app {name} is live{by}, and the state knows version "
                    f"{outputs.version}: somebody deployed it from elsewhere, or a run was killed; "
                    "`pulumi up` deploys what is declared"
                )
            return kit.Reading(truth, _outputs(there, server), tuple(unhealthy))

    async def update(self, ctx: kit.Context, resource_id: str, old: AppInputs | None, inputs: AppInputs) -> AppOutputs:
        async with api.connect() as modal:
            outputs = await self._deploy(modal, ctx, inputs)
            await deployment.restore_scaling(modal, inputs.environment, inputs)
            return outputs

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: AppInputs | None) -> None:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            # First, as nobody looks again once the app is gone: a refresh takes it out of the state.
            await self._clear(modal, ctx, environment, name)
            there = await modal.deployed(environment, name)
            if there is not None:
                await modal.stop(there.app_id)
                await ctx.status(f"{name} to stop")
                await modal.stopped(environment, name, there.app_id)

    async def _deploy(self, modal: api.Modal, ctx: kit.Context, inputs: AppInputs) -> AppOutputs:
        await ctx.status(f"Modal to deploy {inputs.name} (a new image is pulled first, which takes minutes)")
        await deployment.deploy(modal, ctx.urn, inputs)
        there = await modal.deployed(inputs.environment, inputs.name)
        server = await modal.server(inputs.environment, inputs.name, SERVER)
        if there is None or server is None:
            raise kit.ResourceError(
                f"{inputs.name} is gone right after it was deployed: somebody stopped or replaced it",
                next_action="see `modal app history`, then run `pulumi up` again",
            )
        outputs = _outputs(there, server)
        ctx.exists(_id(inputs), outputs)
        await self._clear(modal, ctx, inputs.environment, inputs.name)
        return outputs

    @staticmethod
    async def _clear(modal: api.Modal, ctx: kit.Context, environment: str, name: str) -> None:
        """Ends deployments that a killed run, or a call whose answer was lost, began. Nothing runs in them, but they
        stand in the list of apps."""
        for app_id in await modal.unfinished(environment, name):
            if (await modal.tags(app_id)).get(marks.OWNER) == marks.owner(ctx.urn):
                await modal.stop(app_id)


def _id(inputs: AppInputs) -> str:
    return f"{inputs.environment}/{inputs.name}"


def _outputs(there: api.Deployed, server: Any) -> AppOutputs:
    urls = list(server.function.flash_service_urls) or list(server.handle_metadata._experimental_flash_urls)
    return AppOutputs(
        app_id=there.app_id,
        url=urls[0].rstrip("/") if urls else "",
        version=there.version,
        image_id=server.function.ranked_functions[0].function.image_id,
        status=there.state,
    )


def _replaced(
    resource_id: str, there: api.Deployed, inputs: AppInputs | None, outputs: AppOutputs | None
) -> kit.Reading[AppInputs, AppOutputs]:
    """Somebody deployed another app under our name."""
    if inputs is None or outputs is None:
        raise kit.ResourceError(
            f"the app {resource_id} has no server named '{SERVER}', so this project did not deploy it",
            next_action="choose another name for the target's app",
        )
    reason = (
        f"version {there.version} of the app {inputs.name}, by {there.deployed_by or 'somebody'}, has no server "
        f"'{SERVER}': another app was deployed under its name; `pulumi up` deploys ours again, in place of it"
    )
    kept = outputs.model_copy(update={"app_id": there.app_id, "version": there.version, "status": "replaced"})
    return kit.Reading(inputs, kept, (reason,))
