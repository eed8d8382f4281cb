"""Modal, as far as this folder needs it: a connection, the calls that only look or remove, and its errors as ours.

Modal has no public API but its SDK (`modal` 1.6), whose classes with an underscore are the asynchronous ones; the
commands `modal server deploy` and `modal app` are built from the same. The SDK takes most of a second to import and is
imported inside what needs it. What of its inside is used stands in this file and in `deployment.py`; the contract tests
run the real SDK and tell when another version of it has that no more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from providers import kit

T = TypeVar("T")

TOKEN_VARIABLES = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")
# The SDK itself would try for more than a minute to reach a server that does not answer.
_CONNECT_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.5
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Deployed:
    """An app that is deployed under a name.

    state: `deployed`, `disabled` or `stopping`. version counts its deployments, from whomever they came.
    """

    app_id: str
    state: str
    version: int
    deployed_by: str


def missing_token() -> kit.ResourceError | None:
    """The error of a run that has no token in its environment, or None."""
    for name in TOKEN_VARIABLES:
        value = os.environ.get(name, "")
        if not (value.isascii() and value.isprintable() and value.strip() == value != ""):
            return kit.ResourceError(
                f"the environment variable {name} holds no token of Modal (its value is not shown)",
                next_action=f"make one with `modal token new` and set {' and '.join(TOKEN_VARIABLES)}, "
                "without spaces or line ends around them",
            )
    return None


@asynccontextmanager
async def connect() -> AsyncIterator[Modal]:
    """Modal, with the token of this run's environment.

    Raises kit.ResourceError, here and for whatever goes wrong inside.
    """
    missing = missing_token()
    if missing is not None:
        raise missing
    with told():
        from google.protobuf import empty_pb2
        from modal.client import _Client

        token_id, token_secret = (os.environ[name] for name in TOKEN_VARIABLES)
        client = await _Client.from_credentials(token_id, token_secret)
        try:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await client._stub.ClientHello(empty_pb2.Empty())
            except TimeoutError:
                raise _unreachable("no answer") from None
            yield Modal(client)
        finally:
            await client.close()


class Modal:
    """A connection. `client` is the SDK's, for what needs it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._stub = client._stub

    async def deployed(self, environment: str, name: str) -> Deployed | None:
        """What is deployed under a name; None if nothing is, or there is no such environment."""
        from modal_proto import api_pb2

        request = api_pb2.AppGetByDeploymentNameRequest(name=name, environment_name=environment)
        answer = await found(self._stub.AppGetByDeploymentName(request))
        if answer is None or not answer.app_id:
            return None
        states = {
            api_pb2.APP_STATE_DEPLOYED: "deployed",
            api_pb2.APP_STATE_DISABLED: "disabled",
            api_pb2.APP_STATE_STOPPING: "stopping",
        }
        state = states.get(answer.lifecycle.app_state)
        if state is None:
            return None
        return Deployed(answer.app_id, state, answer.lifecycle.version, answer.lifecycle.deployed_by)

    async def tags(self, app_id: str) -> dict[str, str]:
        from modal_proto import api_pb2

        return dict((await self._stub.AppGetTags(api_pb2.AppGetTagsRequest(app_id=app_id))).tags)

    async def server(self, environment: str, app: str, name: str) -> Any | None:
        """The definition that runs (api_pb2.FunctionGetResponse), or None if the app has no such server."""
        from modal_proto import api_pb2

        request = api_pb2.FunctionGetRequest(app_name=app, object_tag=name, environment_name=environment)
        return await found(self._stub.FunctionGet(request))

    async def scaling(self, function_id: str) -> Any:
        """How it scales now (api_pb2.AutoscalerSettings): as deployed, or as somebody set since."""
        from modal_proto import api_pb2

        request = api_pb2.FunctionGetSchedulingParamsRequest(function_id=function_id)
        return (await self._stub.FunctionGetSchedulingParams(request)).autoscaler_configuration.settings

    async def set_scaling(self, function_id: str, settings: Any) -> None:
        from modal_proto import api_pb2

        request = api_pb2.FunctionUpdateSchedulingParamsRequest(function_id=function_id, settings=settings)
        await self._stub.FunctionUpdateSchedulingParams(request)

    async def unfinished(self, environment: str, name: str) -> list[str]:
        """Ids of apps whose deployment under this name was begun and not ended; nothing runs in them."""
        from modal_proto import api_pb2

        answer = await found(self._stub.AppList(api_pb2.AppListRequest(environment_name=environment)))
        begun, apps = api_pb2.APP_STATE_INITIALIZING, answer.apps if answer is not None else ()
        return [each.app_id for each in apps if each.state == begun and each.description == name]

    async def stop(self, app_id: str) -> None:
        """Stops an app for good, with all its containers; no error if there is none."""
        from modal_proto import api_pb2

        source = api_pb2.APP_STOP_SOURCE_PYTHON_CLIENT
        await found(self._stub.AppStop(api_pb2.AppStopRequest(app_id=app_id, source=source)))

    async def stopped(self, environment: str, name: str, app_id: str) -> None:
        """Waits until an app is no longer what is deployed under this name."""
        while True:
            there = await self.deployed(environment, name)
            if there is None or there.app_id != app_id:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def secret_keys(self, environment: str, name: str) -> list[str] | None:
        """The names of a secret's variables, sorted; None if there is no such secret."""
        from modal_proto import api_pb2

        request = api_pb2.SecretGetOrCreateRequest(deployment_name=name, environment_name=environment)
        answer = await found(self._stub.SecretGetOrCreate(request))
        return None if answer is None else sorted(answer.metadata.keys)

    async def put_secret(self, environment: str, name: str, content: dict[str, str]) -> None:
        """Makes a secret, or gives the one of this name this content."""
        from modal_proto import api_pb2

        request = api_pb2.SecretGetOrCreateRequest(
            deployment_name=name,
            environment_name=environment,
            object_creation_type=api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS,
            env_dict=content,
        )
        await self._stub.SecretGetOrCreate(request)

    async def secrets(self, environment: str) -> dict[str, tuple[str, float]]:
        """{id: (name, when it was made, in seconds since 1970)}"""
        from modal.secret import _Secret

        with_names = await found(_Secret.objects.list(environment_name=environment, client=self.client))
        return _names(with_names)

    async def remove_secret(self, environment: str, name: str) -> None:
        from modal.secret import _Secret

        await found(_Secret.objects.delete(name, allow_missing=True, environment_name=environment, client=self.client))

    async def has_volume(self, environment: str, name: str) -> bool:
        from modal_proto import api_pb2

        request = api_pb2.VolumeGetOrCreateRequest(deployment_name=name, environment_name=environment)
        return await found(self._stub.VolumeGetOrCreate(request)) is not None

    async def put_volume(self, environment: str, name: str) -> None:
        """Makes a volume, or leaves the one of this name as it is."""
        from modal.volume import _Volume

        await _Volume.objects.create(name, allow_existing=True, environment_name=environment, client=self.client)

    async def volumes(self, environment: str) -> dict[str, tuple[str, float]]:
        """{id: (name, when it was made, in seconds since 1970)}"""
        from modal.volume import _Volume

        with_names = await found(_Volume.objects.list(environment_name=environment, client=self.client))
        return _names(with_names)

    async def remove_volume(self, environment: str, name: str) -> None:
        from modal.volume import _Volume

        await found(_Volume.objects.delete(name, allow_missing=True, environment_name=environment, client=self.client))


def _names(listed: Iterable[Any] | None) -> dict[str, tuple[str, float]]:
    metadata = {each.object_id: each._get_metadata() for each in listed or ()}
    return {object_id: (each.name, each.creation_info.created_at) for object_id, each in metadata.items()}


async def found(call: Awaitable[T]) -> T | None:
    """The answer, or None where Modal has nothing of that name."""
    from modal.exception import NotFoundError

    try:
        return await call
    except NotFoundError:
        return None


@contextmanager
def told() -> Iterator[None]:
    """What the SDK raises, as kit.ResourceError with the next step. No token is ever in it."""
    try:
        yield
    except (kit.ResourceError, asyncio.CancelledError):
        raise
    except ModuleNotFoundError as error:
        if error.name not in ("modal", "modal_proto"):
            raise
        raise kit.ResourceError(
            "the package `modal` is not installed, which the platform `modal` needs",
            next_action="run `make setup`",
        ) from None
    except Exception as error:
        known = _translated(error)
        if known is None:
            raise
        raise known from None


def _translated(error: Exception) -> kit.ResourceError | None:
    from modal import exception

    said = _said(error)
    match error:
        case exception.AuthError():
            return kit.ResourceError(
                f"Modal refused the token in {' and '.join(TOKEN_VARIABLES)}: {said}",
                next_action="see `modal token info`; make another with `modal token new`, and set both variables",
            )
        case exception.PermissionDeniedError():
            return kit.ResourceError(
                f"Modal does not let this token do that: {said}",
                next_action="give its user a role in that environment which may deploy (README.md of providers/modal)",
            )
        case exception.ResourceExhaustedError():
            return kit.ResourceError(
                f"Modal has no more room for this workspace: {said}",
                next_action="see the workspace's limits and budget on modal.com/settings, or wait and run it again",
            )
        case exception.NotFoundError():
            return kit.ResourceError(
                f"Modal does not know something that this needs: {said}",
                next_action="make it (`modal environment create`, `modal secret create`), or mend its name",
            )
        case exception.AlreadyExistsError() | exception.ConflictError():
            return kit.ResourceError(
                f"something else changed it at the same time: {said}",
                next_action="run `pulumi refresh`, then `pulumi up`",
            )
        case exception.InvalidError():
            return kit.ResourceError(
                f"Modal refused what was declared: {said}", next_action="mend that in the stack and run `pulumi up`"
            )
        case exception.RemoteError():
            return kit.ResourceError(
                f"Modal could not make the image: {said}",
                next_action="see whether the digest is in the registry and whether registrySecret may pull it",
            )
        case exception.ConnectionError() | exception.ServiceError() | exception.InternalError():
            return _unreachable(said)
        case exception.TimeoutError() | OSError():
            return _unreachable(said)
        case exception.Error():
            return kit.ResourceError(f"Modal: {said}", next_action="mend that and run `pulumi up` again")
    return None


def _unreachable(said: str) -> kit.ResourceError:
    return kit.ResourceError(
        f"Modal does not answer: {said}",
        next_action="see the network and status.modal.com, then run the command again: it goes on where it was",
    )


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    for name in TOKEN_VARIABLES:
        if value := os.environ.get(name):
            text = text.replace(value, "…")
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
