"""The calls: each takes a request, works on the cloud and returns the answer, or raises GRPCError."""

from __future__ import annotations

import re
import time
from typing import Any

from grpclib import Status
from modal_proto import api_pb2 as pb

from .cloud import App, Cloud, Function, Named, hash_of, refuse

_OVERWRITE = pb.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS
_CREATE = (pb.OBJECT_CREATION_TYPE_CREATE_IF_MISSING, pb.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS, _OVERWRITE)
_BUILDER = pb.ImageMetadata(image_builder_version="2025.06")
# Fields of a definition that both messages have, but for the ranked copies.
_SHARED = [f for f in pb.FunctionData.DESCRIPTOR.fields if f.name in pb.Function.DESCRIPTOR.fields_by_name]


class Rpcs:
    """One method per call, by its name in the protocol."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    # -- environments and apps ------------------------------------------------------------------------------

    def ClientHello(self, request: Any) -> Any:  # noqa: N802
        return pb.ClientHelloResponse()

    def EnvironmentGetOrCreate(self, request: Any) -> Any:  # noqa: N802
        name = self.cloud.environment(request.deployment_name)
        settings = pb.EnvironmentSettings(image_builder_version="2025.06")
        return pb.EnvironmentGetOrCreateResponse(
            environment_id=f"en-{name}", metadata=pb.EnvironmentMetadata(name=name, settings=settings)
        )

    def AppGetByDeploymentName(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        for app in self.cloud.apps.values():  # what is stopping is stopped a moment later
            if app.state == pb.APP_STATE_STOPPING:
                app.looks_until_stopped -= 1
                if app.looks_until_stopped < 0:
                    app.state = pb.APP_STATE_STOPPED
        ours = [
            each for each in self.cloud.apps.values() if (each.environment, each.name) == (environment, request.name)
        ]
        stopping = [each for each in ours if each.state == pb.APP_STATE_STOPPING]
        there = self.cloud.deployed(environment, request.name) or next(iter(stopping), None)
        if there is None:
            return pb.AppGetByDeploymentNameResponse(environment_name=environment)
        return pb.AppGetByDeploymentNameResponse(
            app_id=there.id, environment_name=environment, lifecycle=_lifecycle(there)
        )

    def AppCreate(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        self.cloud.check_tags(dict(request.tags))
        app_id = self.cloud.new_id("ap")
        self.cloud.apps[app_id] = App(
            app_id, environment, request.description, request.app_state, dict(request.tags), time.time()
        )
        return pb.AppCreateResponse(app_id=app_id, app_page_url=f"https://modal.com/apps/{app_id}")

    def AppList(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        item = pb.AppListResponse.AppListItem
        return pb.AppListResponse(
            apps=[
                item(app_id=a.id, description=a.description, name=a.name, state=a.state, created_at=a.created_at)  # type: ignore[arg-type]
                for a in self.cloud.apps.values()
                if a.environment == environment
            ]
        )

    def AppGetTags(self, request: Any) -> Any:  # noqa: N802
        return pb.AppGetTagsResponse(tags=self.cloud.app(request.app_id).tags)

    def AppGetLayout(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.app(request.app_id)
        return pb.AppGetLayoutResponse(app_layout=pb.AppLayout(function_ids=app.function_ids))

    def AppHeartbeat(self, request: Any) -> Any:  # noqa: N802
        return None

    def AppClientDisconnect(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.app(request.app_id)
        if app.state == pb.APP_STATE_INITIALIZING:
            app.state = pb.APP_STATE_STOPPED
        return None

    def AppPublish(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.open_app(request.app_id)
        self.cloud.check_name(request.name, "App")
        self.cloud.check_tags(dict(request.tags))
        changed = self.cloud.publish(app, request.name, dict(request.function_ids), dict(request.tags))
        return pb.AppPublishResponse(
            url=f"https://modal.com/apps/{app.id}", deployed_at=app.deployed_at if changed else 0.0
        )

    def AppStop(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.app(request.app_id)
        if app.state != pb.APP_STATE_STOPPED:
            app.state, app.looks_until_stopped = pb.APP_STATE_STOPPING, self.cloud.looks_until_stopped
        return None

    # -- functions ------------------------------------------------------------------------------------------

    def FunctionPrecreate(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.open_app(request.app_id)
        function = self._function(app, request.function_name, request.existing_function_id)
        return pb.FunctionPrecreateResponse(function_id=function.id, handle_metadata=self._handle(function, None))

    def FunctionCreate(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.open_app(request.app_id)
        if request.HasField("function_data"):
            data = pb.FunctionData.FromString(request.function_data.SerializeToString())
        else:
            data = pb.FunctionData()
            for field in _SHARED:
                _copy(request.function, data, field)
            data.ranked_functions.add(rank=0, function=request.function)
        if not data.ranked_functions:
            raise refuse(Status.INVALID_ARGUMENT, "no functions")
        for ranked in data.ranked_functions:
            self.cloud.check_function(ranked.function)
        function = self._function(app, data.function_name, request.existing_function_id)
        data.flash_service_urls[:] = [self._url(app, data)]
        function.draft = data
        return pb.FunctionCreateResponse(
            function_id=function.id, function_data=data, handle_metadata=self._handle(function, data)
        )

    def FunctionGet(self, request: Any) -> Any:  # noqa: N802
        app = self.cloud.deployed(self.cloud.environment(request.environment_name), request.app_name)
        if app is None:
            raise refuse(Status.NOT_FOUND, f"App '{request.app_name}' not found")
        if request.object_tag not in app.function_ids:
            raise refuse(Status.NOT_FOUND, f"No function '{request.object_tag}' in app '{request.app_name}'")
        function = self.cloud.functions[app.function_ids[request.object_tag]]
        return pb.FunctionGetResponse(
            function_id=function.id, function=function.live, handle_metadata=self._handle(function, function.live)
        )

    def FunctionGetSchedulingParams(self, request: Any) -> Any:  # noqa: N802
        function = self.cloud.functions[request.function_id]
        return pb.FunctionGetSchedulingParamsResponse(
            autoscaler_configuration=pb.AutoscalerConfiguration(settings=_settings(function))
        )

    def FunctionUpdateSchedulingParams(self, request: Any) -> Any:  # noqa: N802
        function = self.cloud.functions[request.function_id]
        settings = _settings(function)
        settings.MergeFrom(request.settings)
        function.overrides = settings
        return pb.FunctionUpdateSchedulingParamsResponse(current_settings=settings)

    def _function(self, app: App, tag: str, existing: str) -> Function:
        if existing:
            if existing not in self.cloud.functions or self.cloud.functions[existing].app_id != app.id:
                raise refuse(Status.NOT_FOUND, f"Function {existing} not found")
            return self.cloud.functions[existing]
        made = Function(self.cloud.new_id("fu"), app.id, tag)
        self.cloud.functions[made.id] = made
        return made

    def _url(self, app: App, data: Any) -> str:
        name = app.name or app.description
        label = re.sub("[^a-z0-9-]", "-", f"{self.cloud.workspace}--{name}-{data.function_name}".lower())
        return f"https://{label}.{data.http_config.proxy_regions[0]}.modal.direct"

    def _handle(self, function: Function, data: Any) -> Any:
        return pb.FunctionHandleMetadata(
            function_name=function.tag,
            function_type=pb.Function.FUNCTION_TYPE_FUNCTION,
            definition_id="de-" + (hash_of(data)[:22] if data is not None else "none"),
            app_id=function.app_id,
            _experimental_flash_urls=list(data.flash_service_urls) if data is not None else [],
        )

    # -- images, secrets, volumes ---------------------------------------------------------------------------

    def ImageGetOrCreate(self, request: Any) -> Any:  # noqa: N802
        if request.app_id:
            self.cloud.open_app(request.app_id)
        reference = next(
            (line[5:] for line in request.image.dockerfile_commands if line.startswith("FROM ")), "no reference"
        )
        problem = self._pull(reference, request.image.image_registry_config.secret_id)
        image_id = f"im-{hash_of(request.image)[:22]}"
        known = self.cloud.image_ids.get(hash_of(request.image))
        if known is None or problem:
            # Seen for the first time: Modal pulls it, and whoever asked joins that.
            self.cloud.pulls[image_id] = problem
        if not problem:
            self.cloud.image_ids[hash_of(request.image)] = image_id
        if image_id in self.cloud.pulls:
            return pb.ImageGetOrCreateResponse(image_id=image_id)
        return pb.ImageGetOrCreateResponse(image_id=image_id, result=_pulled(""), metadata=_BUILDER)

    def ImageJoinStreaming(self, request: Any) -> list[Any]:  # noqa: N802
        if request.image_id not in (*self.cloud.pulls, *self.cloud.image_ids.values()):
            raise refuse(Status.NOT_FOUND, f"Image {request.image_id} not found")
        problem = self.cloud.pulls.pop(request.image_id, "")
        log = pb.TaskLogs(data="Pulling the image\n")
        answers = [
            pb.ImageJoinStreamingResponse(entry_id="1", task_logs=[log]),
            pb.ImageJoinStreamingResponse(entry_id="2", result=_pulled(problem), metadata=_BUILDER),
        ]
        return answers[int(request.last_entry_id or 0) :]

    def _pull(self, reference: str, secret_id: str) -> str:
        """Why the image can't be had, or nothing."""
        if not self.cloud.images:
            return ""
        if reference not in self.cloud.images:
            return f"failed to resolve {reference}: manifest unknown"
        asked = self.cloud.images[reference]
        given = next((each.name for each in self.cloud.secrets.values() if each.id == secret_id), None)
        return "" if asked is None or asked == given else f"failed to resolve {reference}: 403 Forbidden"

    def SecretGetOrCreate(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        found = self._named(self.cloud.secrets, "st", "Secret", environment, request, dict(request.env_dict))
        missing = set(request.required_keys) - set(found.content)
        if missing:
            raise refuse(Status.FAILED_PRECONDITION, f"Secret is missing key(s): {', '.join(sorted(missing))}")
        return pb.SecretGetOrCreateResponse(secret_id=found.id, metadata=_secret(found, environment))

    def SecretList(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        items = [
            pb.SecretListItem(
                label=each.name, secret_id=each.id, created_at=each.created_at, metadata=_secret(each, environment)
            )
            for each in _page(self.cloud.secrets, environment, request.pagination)
        ]
        return pb.SecretListResponse(items=items, environment_name=environment)

    def SecretDelete(self, request: Any) -> Any:  # noqa: N802
        self._remove(self.cloud.secrets, request.secret_id, "Secret")

    def VolumeGetOrCreate(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        found = self._named(self.cloud.volumes, "vo", "Volume", environment, request, {})
        return pb.VolumeGetOrCreateResponse(
            volume_id=found.id, version=pb.VOLUME_FS_VERSION_V2, metadata=_volume(found)
        )

    def VolumeList(self, request: Any) -> Any:  # noqa: N802
        environment = self.cloud.environment(request.environment_name)
        items = [
            pb.VolumeListItem(label=each.name, volume_id=each.id, created_at=each.created_at, metadata=_volume(each))
            for each in _page(self.cloud.volumes, environment, request.pagination)
        ]
        return pb.VolumeListResponse(items=items, environment_name=environment)

    def VolumeDelete(self, request: Any) -> Any:  # noqa: N802
        self._remove(self.cloud.volumes, request.volume_id, "Volume")

    def _named(
        self,
        shelf: dict[tuple[str, str], Named],
        prefix: str,
        what: str,
        environment: str,
        request: Any,
        content: dict[str, str],
    ) -> Named:
        how, key = request.object_creation_type, (environment, request.deployment_name)
        if how in _CREATE:
            self.cloud.check_name(request.deployment_name, what)
        if key in shelf:
            if how == pb.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
                raise refuse(Status.ALREADY_EXISTS, f"{what} '{request.deployment_name}' already exists")
            if how == _OVERWRITE:
                shelf[key].content = content
            return shelf[key]
        if how not in _CREATE:
            raise refuse(Status.NOT_FOUND, f"{what} '{request.deployment_name}' not found in '{environment}'")
        shelf[key] = Named(self.cloud.new_id(prefix), request.deployment_name, time.time(), content)
        return shelf[key]

    @staticmethod
    def _remove(shelf: dict[tuple[str, str], Named], object_id: str, what: str) -> None:
        for key, each in list(shelf.items()):
            if each.id == object_id:
                del shelf[key]
                return
        raise refuse(Status.NOT_FOUND, f"{what} {object_id} not found")


def _pulled(problem: str) -> Any:
    """How a pull ended; `problem`: why there is no image, or nothing."""
    result = pb.GenericResult
    status = result.GENERIC_STATUS_FAILURE if problem else result.GENERIC_STATUS_SUCCESS
    return result(status=status, exception=problem)


def _lifecycle(app: App) -> Any:
    return pb.AppLifecycle(
        app_state=app.state,  # type: ignore[arg-type]
        version=len(app.history),
        created_at=app.created_at,
        deployed_at=app.deployed_at,
        deployed_by=app.deployed_by,
    )


def _settings(function: Function) -> Any:
    settings = pb.AutoscalerSettings()
    settings.CopyFrom(function.overrides or function.live.autoscaler_settings)
    return settings


def _copy(source: Any, target: Any, field: Any) -> None:
    value = getattr(source, field.name)
    if field.is_repeated:
        getattr(target, field.name).MergeFrom(value)
    elif field.message_type is None:
        setattr(target, field.name, value)
    elif source.HasField(field.name):
        getattr(target, field.name).CopyFrom(value)


def _secret(found: Named, environment: str) -> Any:
    return pb.SecretMetadata(
        name=found.name,
        keys=sorted(found.content),
        environment_name=environment,
        creation_info=pb.CreationInfo(created_at=found.created_at),
    )


def _volume(found: Named) -> Any:
    return pb.VolumeMetadata(
        version=pb.VOLUME_FS_VERSION_V2, name=found.name, creation_info=pb.CreationInfo(created_at=found.created_at)
    )


def _page(shelf: dict[tuple[str, str], Named], environment: str, pagination: Any) -> list[Named]:
    """Newest first, as Modal lists."""
    there = [each for (where, _), each in shelf.items() if where == environment]
    before = pagination.created_before or float("inf")
    newest = sorted((each for each in there if each.created_at < before), key=lambda each: -each.created_at)
    return newest[: pagination.max_objects or None]
