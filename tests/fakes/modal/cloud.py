"""What there is on the stand-in: environments, apps with their functions, secrets, volumes, images."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb

GPUS = ("T4", "L4", "A10", "L40S", "A100", "A100-40GB", "A100-80GB", "H100", "H100!", "H200", "B200")
REGIONS = ("us", "us-east", "us-west", "eu", "eu-west", "ap", "asia-northeast3", "us-east-1", "europe-west4")
ROUTING_REGIONS = ("us-east", "us-west", "eu-west", "ap-south")
CLOUDS = ("", "aws", "gcp", "oci", "auto")
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,64}")
_TAG = re.compile(r"[a-zA-Z0-9._-]{1,63}")


def refuse(status: Status, message: str) -> GRPCError:
    """The error that a call ends with."""
    return GRPCError(status, message)


@dataclass
class Function:
    """One server of an app. `draft` is what was created and not yet published; `live` what runs."""

    id: str
    app_id: str
    tag: str
    draft: Any = None
    live: Any = None
    overrides: Any = None
    """What somebody set with update_autoscaler, until the next deployment that changes something."""


@dataclass
class App:
    """An app of any state. `history` has one entry for each version that was published."""

    id: str
    environment: str
    description: str
    state: int
    tags: dict[str, str]
    created_at: float
    name: str = ""
    function_ids: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    deployed_by: str = ""
    deployed_at: float = 0.0
    looks_until_stopped: int = 0


@dataclass
class Named:
    """A secret or a volume. `content` is a secret's variables."""

    id: str
    name: str
    created_at: float
    content: dict[str, str] = field(default_factory=dict)


class Cloud:
    """The whole of it. Tests change it under `lock`, as somebody would behind the provider's back."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.environments = {"main"}
        self.apps: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.secrets: dict[tuple[str, str], Named] = {}
        self.volumes: dict[tuple[str, str], Named] = {}
        self.images: dict[str, str | None] = {}
        """{reference: name of the secret that its registry asks for, or None}; empty: every image is there."""
        self.image_ids: dict[str, str] = {}
        self.pulls: dict[str, str] = {}
        """{id: why it can't be pulled, or nothing} of the images whose pull nobody has waited for yet"""
        self.looks_until_stopped = 1
        """How often one may ask for an app and still see it stopping."""
        self.workspace = "acme"
        self.calls: list[tuple[str, Any]] = []
        """Every call whose work was done: (name, request)"""
        self._ids = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids):022d}"

    # -- for tests ------------------------------------------------------------------------------------------

    def deployed(self, environment: str, name: str) -> App | None:
        """The app that is deployed under this name."""
        found = [a for a in self.apps.values() if (a.environment, a.name) == (environment, name) and self._is_up(a)]
        assert len(found) < 2, "two deployed apps of one name"
        return found[0] if found else None

    def living(self) -> list[App]:
        """Every app that is not stopped, deployed or not."""
        return [app for app in self.apps.values() if app.state not in (pb.APP_STATE_STOPPED, pb.APP_STATE_STOPPING)]

    def live(self, app: App, tag: str = "serving") -> Any:
        """The definition that runs (api_pb2.FunctionData)."""
        return self.functions[app.function_ids[tag]].live

    def deploy_from_elsewhere(self, app: App, *, by: str = "mallory", tag: str | None = None) -> Any:
        """A new version that this project did not make; its definition is returned to be changed.

        tag: name of the server that it has instead of ours.
        """
        with self.lock:
            [(own, function_id)] = app.function_ids.items()
            function = self.functions[function_id]
            function.live = type(function.live).FromString(function.live.SerializeToString())
            function.overrides = None
            if tag is not None:
                app.function_ids = {tag: function_id}
            app.tags = {}
            self._version(app, by, f"elsewhere {len(app.history)} {own}")
            return function.live

    def stop(self, app: App) -> None:
        app.state = pb.APP_STATE_STOPPED

    # -- rules ----------------------------------------------------------------------------------------------

    @staticmethod
    def _is_up(app: App) -> bool:
        return app.state in (pb.APP_STATE_DEPLOYED, pb.APP_STATE_DISABLED)

    def _version(self, app: App, by: str, signature: str) -> None:
        app.history.append(signature)
        app.deployed_at, app.deployed_by = time.time(), by

    def environment(self, name: str) -> str:
        name = name or "main"
        if name not in self.environments:
            raise refuse(Status.NOT_FOUND, f"Environment '{name}' not found.")
        return name

    def app(self, app_id: str) -> App:
        if app_id not in self.apps:
            raise refuse(Status.NOT_FOUND, f"App {app_id} not found")
        return self.apps[app_id]

    def open_app(self, app_id: str) -> App:
        app = self.app(app_id)
        if app.state in (pb.APP_STATE_STOPPED, pb.APP_STATE_STOPPING):
            raise refuse(Status.FAILED_PRECONDITION, f"App {app_id} is stopped")
        return app

    @staticmethod
    def check_name(name: str, what: str) -> None:
        if not _NAME.fullmatch(name):
            raise refuse(Status.INVALID_ARGUMENT, f"Invalid {what} name: '{name}'")

    @staticmethod
    def check_tags(tags: dict[str, str]) -> None:
        for text in (*tags, *tags.values()):
            if not _TAG.fullmatch(text):
                raise refuse(Status.INVALID_ARGUMENT, f"Invalid tag: '{text}'")

    def publish(self, app: App, name: str, functions: dict[str, str], tags: dict[str, str]) -> bool:
        """Makes drafts live; whether that changed anything. A name belongs to one app at a time."""
        taken = self.deployed(app.environment, name)
        if taken is not None and taken is not app:
            raise refuse(Status.ALREADY_EXISTS, f"App '{name}' is already deployed")
        for function_id in functions.values():
            function = self.functions.get(function_id)
            if function is None or function.app_id != app.id or function.draft is None:
                raise refuse(Status.FAILED_PRECONDITION, f"Function {function_id} was not created in this app")
        drafts = {tag: self.functions[each].draft for tag, each in functions.items()}
        text = repr([sorted((t, hash_of(d)) for t, d in drafts.items()), sorted(tags.items()), name])
        signature = hashlib.sha256(text.encode()).hexdigest()
        if app.history and app.history[-1] == signature and app.state == pb.APP_STATE_DEPLOYED:
            return False
        for function_id in functions.values():
            function = self.functions[function_id]
            function.live, function.overrides = function.draft, None
        app.name, app.function_ids, app.tags = name, functions, tags
        app.state = pb.APP_STATE_DEPLOYED
        self._version(app, "somebody", signature)
        return True

    def check_function(self, function: Any) -> None:
        """Raises for a definition that Modal would not take."""
        gpu = function.resources.gpu_config
        if gpu.count and gpu.gpu_type not in GPUS:
            raise refuse(Status.INVALID_ARGUMENT, f"Invalid GPU type: {gpu.gpu_type}")
        for region in function.scheduler_placement.regions:
            if region not in REGIONS:
                raise refuse(Status.INVALID_ARGUMENT, f"Invalid region: {region}")
        for region in function.http_config.proxy_regions:
            if region not in ROUTING_REGIONS:
                raise refuse(Status.INVALID_ARGUMENT, f"Invalid routing region: {region}")
        mounts = function.cloud_bucket_mounts
        wanted = [*function.secret_ids, *(m.credentials_secret_id for m in mounts if m.credentials_secret_id)]
        there = {each.id for each in self.secrets.values()}
        for secret_id in wanted:
            if secret_id not in there:
                raise refuse(Status.NOT_FOUND, f"Secret {secret_id} not found")
        volumes = {each.id for each in self.volumes.values()}
        for mount in function.volume_mounts:
            if mount.volume_id not in volumes:
                raise refuse(Status.NOT_FOUND, f"Volume {mount.volume_id} not found")
        if function.cloud_provider_str not in CLOUDS:
            raise refuse(Status.INVALID_ARGUMENT, f"Invalid cloud provider: {function.cloud_provider_str}")
        settings = function.autoscaler_settings
        if settings.scaledown_window and not 2 <= settings.scaledown_window <= 3600:
            raise refuse(Status.INVALID_ARGUMENT, "scaledown_window must be between 2 and 3600 seconds")
        if settings.max_containers and settings.min_containers > settings.max_containers:
            raise refuse(Status.INVALID_ARGUMENT, "min_containers cannot be greater than max_containers")
        if function.image_id not in self.image_ids.values():
            raise refuse(Status.NOT_FOUND, f"Image {function.image_id} not found")


def hash_of(message: Any) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
