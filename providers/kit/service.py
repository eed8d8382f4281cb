"""The provider protocol (provider.proto of Pulumi) over the kit's lifecycle.

`pulumi.provider.experimental` is not used: it loses unknown values, old inputs and detailed diffs, and shows
exceptions by their class (docs/engine.md lists what was found).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from . import registry, values
from .check import PartlyKnown, check, dump, load
from .diff import diff, diff_outputs, diff_truth, merge
from .engine_log import EngineLog
from .errors import NotKnownYetError, Problem
from .fields import Inputs, Outputs, secret_paths
from .lifecycle import AnyResource, InitFailedError, Lifecycle, Ownership, describe, state_of
from .protocol import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2
from .resource import Context, Severity

M = TypeVar("M", bound=Message)
Grpc = grpc.aio.ServicerContext[Any, Any]

_KINDS = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


class ProviderService(provider_pb2_grpc.ResourceProviderServicer):
    """One plugin process: it serves one engine, and ends with it."""

    def __init__(self, version: str, log: EngineLog) -> None:
        self._version, self._log = version, log
        self._ownership = Ownership()
        self._running: set[asyncio.Task[Any]] = set()

    # -- what the plugin is ---------------------------------------------------------------------------------

    async def Handshake(self, request: Any, context: Grpc) -> provider_pb2.ProviderHandshakeResponse:  # noqa: N802
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_resources=False, accept_outputs=False)

    async def GetPluginInfo(self, request: Any, context: Grpc) -> plugin_pb2.PluginInfo:  # noqa: N802
        return plugin_pb2.PluginInfo(version=self._version)

    async def GetSchema(self, request: Any, context: Grpc) -> provider_pb2.GetSchemaResponse:  # noqa: N802
        from .schema import package_schema

        return provider_pb2.GetSchemaResponse(schema=json.dumps(package_schema(self._version)))

    async def Attach(self, request: Any, context: Grpc) -> empty_pb2.Empty:  # noqa: N802
        self._log.attach(request.address)
        return empty_pb2.Empty()

    async def CheckConfig(  # noqa: N802
        self, request: provider_pb2.CheckRequest, context: Grpc
    ) -> provider_pb2.CheckResponse:
        news = values.decode(request.news)
        failures = [
            provider_pb2.CheckFailure(
                reason=f"the provider has no setting '{key}'; it needs none: remove it from the configuration"
            )
            for key in news
            if key not in {"version", "pluginDownloadURL", "__internal"}
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    async def DiffConfig(  # noqa: N802
        self, request: provider_pb2.DiffRequest, context: Grpc
    ) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(  # noqa: N802
        self, request: provider_pb2.ConfigureRequest, context: Grpc
    ) -> provider_pb2.ConfigureResponse:
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, acceptResources=False, acceptOutputs=False
        )

    # -- resources ------------------------------------------------------------------------------------------

    async def Check(  # noqa: N802
        self, request: provider_pb2.CheckRequest, context: Grpc
    ) -> provider_pb2.CheckResponse:
        return await self._answer(context, self._check(request), request)

    async def _check(self, request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
        resource, lifecycle = self._resource(request.urn, request.type)
        model = resource.inputs_model()
        news, olds = values.decode(request.news), values.decode(request.olds)
        result = check(model, news, olds or None, name=_name(request), seed=request.randomSeed)
        if not result.problems:
            # Where something is unknown yet, the checks that do not need it are made all the same.
            known: Any = result.model or PartlyKnown(model, result.inputs)
            with contextlib.suppress(NotKnownYetError):
                async for problem in resource.problems(
                    self._context(request, lifecycle), known, _load_old(model, olds)
                ):
                    result.problems.append(problem)
        hidden = values.sealed_paths(news) | secret_paths(model, values.unseal(result.inputs))
        redact = values.redactor(result.inputs, news)
        return provider_pb2.CheckResponse(
            inputs=values.encode(result.inputs),
            failures=[_failure(problem, hidden, redact) for problem in result.problems],
        )

    async def Diff(  # noqa: N802
        self, request: provider_pb2.DiffRequest, context: Grpc
    ) -> provider_pb2.DiffResponse:
        return await self._answer(context, self._diff(request), request)

    async def _diff(self, request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
        resource, lifecycle = self._resource(request.urn, request.type)
        lifecycle.owned(request.id)
        old_inputs, state, news = (values.decode(each) for each in (request.old_inputs, request.olds, request.news))
        model, outputs = resource.inputs_model(), resource.outputs_model()
        changes = diff(model, old_inputs, news, ignore=request.ignoreChanges)
        old = _load_old(model, old_inputs)
        if resource.reads_at_diff if old is None else resource.reads_before_diff(old):
            true_inputs, truth = await self._truth(request, resource, lifecycle, old_inputs, state)
            changes = merge(
                changes,
                diff(model, true_inputs, news, ignore=request.ignoreChanges),
                diff_truth(outputs, state, truth),
                diff_outputs(outputs, truth),
            )
        else:
            changes += diff_outputs(outputs, state)
        replaced = sorted({str(change.path[0]) for change in changes if change.replace})
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changes else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({str(change.path[0]) for change in changes}),
            replaces=replaced,
            deleteBeforeReplace=bool(replaced) and resource.delete_before_replace,
            detailedDiff={
                values.path_text(change.path): provider_pb2.PropertyDiff(
                    kind=_KINDS[change.kind, change.replace], inputDiff=change.of_input
                )
                for change in changes
            },
            hasDetailedDiff=True,
        )

    async def _truth(
        self,
        request: provider_pb2.DiffRequest,
        resource: AnyResource,
        lifecycle: Lifecycle,
        inputs: dict[str, Any],
        state: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and outputs as they are now, not as the state remembers them."""
        old = _load_old(resource.inputs_model(), inputs)
        ctx = self._context(request, lifecycle)
        reading = await lifecycle.read(ctx, request.id, old, _load_outputs(resource, state))
        if reading is None:
            await ctx.warn("it is gone; `pulumi up` makes it again")
            return inputs, dict.fromkeys(state)
        for reason in reading.unhealthy:
            await ctx.warn(reason)
        return dump(reading.inputs), dump(reading.outputs)

    async def Create(  # noqa: N802
        self, request: provider_pb2.CreateRequest, context: Grpc
    ) -> provider_pb2.CreateResponse:
        return await self._answer(context, self._create(request), request)

    async def _create(self, request: provider_pb2.CreateRequest) -> provider_pb2.CreateResponse:
        resource, lifecycle = self._resource(request.urn, request.type)
        checked = values.decode(request.properties)
        if request.preview:
            outputs = lifecycle.preview(checked)
            return provider_pb2.CreateResponse(properties=values.encode(outputs))
        ctx = self._context(request, lifecycle)
        inputs = load(resource.inputs_model(), checked)
        with _state_kept(checked):
            made, outputs_model = await lifecycle.create(ctx, inputs, request.timeout)
        return provider_pb2.CreateResponse(
            id=made,
            properties=_properties(checked, outputs_model),
        )

    async def Update(  # noqa: N802
        self, request: provider_pb2.UpdateRequest, context: Grpc
    ) -> provider_pb2.UpdateResponse:
        return await self._answer(context, self._update(request), request)

    async def _update(self, request: provider_pb2.UpdateRequest) -> provider_pb2.UpdateResponse:
        resource, lifecycle = self._resource(request.urn, request.type)
        checked, state = values.decode(request.news), values.decode(request.olds)
        if request.preview:
            outputs = lifecycle.preview(checked)
            return provider_pb2.UpdateResponse(properties=values.encode(outputs))
        ctx = self._context(request, lifecycle)
        model = resource.inputs_model()
        old = _load_old(model, values.decode(request.old_inputs))
        inputs = load(model, checked)
        with _state_kept(checked):
            outputs_model = await lifecycle.update(
                ctx, request.id, old or inputs, inputs, _load_outputs(resource, state), request.timeout
            )
        return provider_pb2.UpdateResponse(
            properties=_properties(checked, outputs_model),
        )

    async def Read(  # noqa: N802
        self, request: provider_pb2.ReadRequest, context: Grpc
    ) -> provider_pb2.ReadResponse:
        return await self._answer(context, self._read(request), request)

    async def _read(self, request: provider_pb2.ReadRequest) -> provider_pb2.ReadResponse:
        resource, lifecycle = self._resource(request.urn, request.type)
        before = values.decode(request.inputs)
        ctx = self._context(request, lifecycle)
        old = _load_old(resource.inputs_model(), before)
        last = _load_outputs(resource, values.decode(request.properties))
        reading = await lifecycle.read(ctx, request.id, old, last)
        if reading is None:
            return provider_pb2.ReadResponse()
        inputs = dump(reading.inputs)
        sealed = values.sealed_paths(before) | secret_paths(resource.inputs_model(), inputs)
        checked = values.reseal(inputs, sealed)
        if reading.unhealthy:
            failed = InitFailedError(request.id, reading.outputs, list(reading.unhealthy))
            raise _WithStateError(failed, checked, checked)
        return provider_pb2.ReadResponse(
            id=request.id,
            properties=_properties(checked, reading.outputs),
            inputs=values.encode(checked),
        )

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Grpc) -> empty_pb2.Empty:  # noqa: N802
        return await self._answer(context, self._delete(request), request)

    async def _delete(self, request: provider_pb2.DeleteRequest) -> empty_pb2.Empty:
        resource, lifecycle = self._resource(request.urn, request.type)
        old = _load_old(resource.inputs_model(), values.decode(request.old_inputs))
        ctx = self._context(request, lifecycle)
        await lifecycle.delete(ctx, request.id, old, request.timeout)
        return empty_pb2.Empty()

    async def Cancel(self, request: Any, context: Grpc) -> empty_pb2.Empty:  # noqa: N802
        """What is under way ends soon, keeping what it made."""
        for task in list(self._running):
            task.cancel()
        return empty_pb2.Empty()

    # -- shared ---------------------------------------------------------------------------------------------

    def _resource(self, urn: str, token: str) -> tuple[AnyResource, Lifecycle]:
        token = token or urn.split("::")[2]
        resource = registry.find(token)()
        return resource, Lifecycle(registry.token_of(type(resource)), resource, self._ownership)

    def _context(self, request: Any, lifecycle: Lifecycle) -> Context:
        async def say(message: str, severity: Severity) -> None:
            await self._log.say(request.urn, _redactor(request)(message), severity)

        return Context(urn=request.urn, name=_name(request), owned=lifecycle.owned_ids(), say=say)

    async def _answer(self, context: Grpc, work: Awaitable[M], request: Any) -> M:
        """Runs one call; whatever goes wrong reaches the engine as one clear message without secrets."""
        redact = _redactor(request)
        task: asyncio.Task[M] = asyncio.ensure_future(work)
        self._running.add(task)
        try:
            return await task
        except _WithStateError as failure:
            await _abort_keeping_state(context, failure, redact)
        except asyncio.CancelledError:
            await context.abort(grpc.StatusCode.CANCELLED, "was cancelled; run it again to go on")
        except Exception as error:
            await context.abort(grpc.StatusCode.UNKNOWN, redact(describe(error)))
        finally:
            self._running.discard(task)
        raise AssertionError("abort() always raises")


class _WithStateError(Exception):
    """InitFailedError together with the properties that the state shall keep."""

    def __init__(self, failed: InitFailedError, checked: dict[str, Any], inputs: dict[str, Any] | None) -> None:
        super().__init__(str(failed))
        self.failed, self.checked, self.inputs = failed, checked, inputs


@contextlib.contextmanager
def _state_kept(checked: dict[str, Any]) -> Iterator[None]:
    """Adds the checked inputs to a failure that left something behind."""
    try:
        yield
    except InitFailedError as error:
        raise _WithStateError(error, checked, None) from error


async def _abort_keeping_state(context: Grpc, failure: _WithStateError, redact: Callable[[str], str]) -> None:
    failed = failure.failed
    reasons = [redact(reason) for reason in failed.reasons]
    detail = provider_pb2.ErrorResourceInitFailed(
        id=failed.resource_id,
        properties=_properties(failure.checked, failed.outputs),
        reasons=reasons,
    )
    if failure.inputs is not None:
        detail.inputs.CopyFrom(values.encode(failure.inputs))
    message = "; ".join(reasons)
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
    status.details.add().Pack(detail)
    await context.abort(
        grpc.StatusCode.UNKNOWN,
        message,
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )


def _redactor(request: Any) -> Callable[[str], str]:
    """Takes the secrets of all properties of a request out of a text."""
    parts = ("news", "olds", "old_inputs", "inputs", "properties")
    return values.redactor(*(values.decode(getattr(request, part)) for part in parts if hasattr(request, part)))


def _name(request: Any) -> str:
    return str(request.name or request.urn.rsplit("::", 1)[-1])


def _properties(checked: dict[str, Any], outputs: Outputs) -> Any:
    return values.encode(state_of(checked, outputs, values.secret_texts(checked)))


def _load_old(model: type[Inputs], olds: dict[str, Any]) -> Inputs | None:
    """Inputs of the state; None if there are none or an older release of the provider wrote them otherwise."""
    if not olds:
        return None
    try:
        return load(model, {key: value for key, value in olds.items() if not key.startswith("__")})
    except ValueError:
        return None


def _load_outputs(resource: AnyResource, state: dict[str, Any]) -> Outputs | None:
    """The outputs of a state, as far as this release knows them."""
    model = resource.outputs_model()
    names = {info.alias or name for name, info in model.model_fields.items()}
    plain = values.unseal(state)
    try:
        outputs: Outputs = model.model_validate({key: value for key, value in plain.items() if key in names})
    except ValueError:
        return None
    return outputs


def _failure(
    problem: Problem, hidden: set[tuple[str | int, ...]], redact: Callable[[str], str]
) -> provider_pb2.CheckFailure:
    path = values.path_text(problem.path)
    secret = any(problem.path[: len(at)] == at for at in hidden)
    if secret:
        # With a property named, the engine prints its value, secret or not.
        return provider_pb2.CheckFailure(reason=redact(f"{path}: {problem.text()}"))
    return provider_pb2.CheckFailure(property=path, reason=redact(problem.text()))
