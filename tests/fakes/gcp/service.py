"""The provider protocol of the stand-in."""

from __future__ import annotations

import json
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from providers.kit import values

from . import VERSION, sdk
from .cloud import Cloud, CloudError, replaced

_KINDS = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


class StubService(provider_pb2_grpc.ResourceProviderServicer):
    """Serves one engine; one provider instance of the program at a time."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._project = "no-project"

    # -- what the plugin is ---------------------------------------------------------------------------------

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:  # noqa: N802
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Any, context: Any) -> provider_pb2.GetSchemaResponse:  # noqa: N802
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "gcp", "version": VERSION}))

    def Attach(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def CheckConfig(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:  # noqa: N802
        news = {
            key: value for key, value in values.decode(request.news).items() if key not in ("version", "__internal")
        }
        # What is not a text goes over the wire as a text of JSON here.
        plain = {key: _from_json(value) for key, value in news.items()}
        failures = [_failure(path, why) for path, why in sdk.problems(sdk.provider_args(), plain)]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        old, new = values.decode(request.old_inputs or request.olds), values.decode(request.news)
        changed = sorted(key for key in {*old, *new} - {"version"} if old.get(key) != new.get(key))
        some = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=some, diffs=changed)

    def Configure(self, request: provider_pb2.ConfigureRequest, context: Any) -> provider_pb2.ConfigureResponse:  # noqa: N802
        project = values.decode(request.args).get("project")
        if isinstance(project, str):
            self._project = project
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, acceptResources=False, acceptOutputs=False
        )

    def Invoke(self, request: provider_pb2.InvokeRequest, context: Any) -> provider_pb2.InvokeResponse:  # noqa: N802
        context.abort(grpc.StatusCode.UNAVAILABLE, f"{request.tok} asks Google, which a preview without network can't")
        raise AssertionError  # abort() raised

    # -- resources ------------------------------------------------------------------------------------------

    def Check(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:  # noqa: N802
        try:
            kind = sdk.kind(_token(request))
        except KeyError:
            context.abort(grpc.StatusCode.NOT_FOUND, f"pulumi-gcp {VERSION} has no resource type {_token(request)}")
            raise
        news, olds = values.decode(request.news), values.decode(request.olds)
        if "name" in kind.inputs and news.get("name") is None and "name" in replaced(kind.token):
            made = request.randomSeed.hex()[:7] or "0000000"
            news["name"] = olds.get("name") or f"{request.urn.rpartition('::')[2]}-{made}"
        failures = [_failure(path, why) for path, why in sdk.problems(kind.args, news)]
        return provider_pb2.CheckResponse(inputs=values.encode(news), failures=failures)

    def Diff(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        old, new = values.unseal(values.decode(request.old_inputs)), values.unseal(values.decode(request.news))
        changes: dict[str, str] = {}
        for key in sorted({*old, *new} - set(request.ignoreChanges)):
            if old.get(key) != new.get(key):
                changes[key] = "add" if old.get(key) is None else "delete" if new.get(key) is None else "update"
        forced = [key for key in changes if key in replaced(_token(request))]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changes else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=list(changes),
            replaces=forced,
            hasDetailedDiff=True,
            detailedDiff={
                key: provider_pb2.PropertyDiff(kind=_KINDS[how, key in forced], inputDiff=True)
                for key, how in changes.items()
            },
        )

    def Create(self, request: provider_pb2.CreateRequest, context: Any) -> provider_pb2.CreateResponse:  # noqa: N802
        kind, inputs = sdk.kind(_token(request)), values.decode(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=values.encode(self._previewed(kind, inputs)))
        try:
            made, outputs = self._cloud.create(kind.token, values.unseal(inputs), kind.outputs, self._project)
        except CloudError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise
        return provider_pb2.CreateResponse(id=made, properties=_sealed(outputs, inputs))

    def Update(self, request: provider_pb2.UpdateRequest, context: Any) -> provider_pb2.UpdateResponse:  # noqa: N802
        kind, inputs = sdk.kind(_token(request)), values.decode(request.news)
        if request.preview:
            before = values.decode(request.olds)
            return provider_pb2.UpdateResponse(properties=values.encode({**before, **inputs}))
        try:
            outputs = self._cloud.update(kind.token, request.id, values.unseal(inputs))
        except CloudError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise
        return provider_pb2.UpdateResponse(properties=_sealed(outputs, inputs))

    def Read(self, request: provider_pb2.ReadRequest, context: Any) -> provider_pb2.ReadResponse:  # noqa: N802
        found = self._cloud.read(request.id)
        if found is None:
            return provider_pb2.ReadResponse()
        before = values.decode(request.inputs)
        return provider_pb2.ReadResponse(
            id=request.id,
            inputs=_sealed(found["inputs"], before),
            properties=_sealed({**found["outputs"], **found["inputs"]}, before),
        )

    def Delete(self, request: provider_pb2.DeleteRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        try:
            self._cloud.delete(_token(request), request.id)
        except CloudError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
            raise
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    @staticmethod
    def _previewed(kind: sdk.Kind, inputs: dict[str, Any]) -> dict[str, Any]:
        return {**dict.fromkeys(kind.outputs, values.UNKNOWN), **inputs}


def _token(request: Any) -> str:
    """The type of a request's resource: the last part of the URN's types, which has its parents in front."""
    return str(request.urn.split("::")[2].rpartition("$")[2])


def _failure(path: str, why: str) -> provider_pb2.CheckFailure:
    return provider_pb2.CheckFailure(property=path, reason=f"{path}: {why}")


def _sealed(plain: dict[str, Any], like: dict[str, Any]) -> Any:
    """Plain values with the secret marks of the inputs that they come from."""
    return values.encode(values.reseal(plain, values.sealed_paths(like)))


def _from_json(value: Any) -> Any:
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return decoded if isinstance(decoded, dict | list | bool) else value
