"""The component that a stack declares."""

from __future__ import annotations

from typing import Any

import pulumi

from lorafleet.plan import Plan, PlannedTarget
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare, without_none
from providers.stack import refuse
from providers.stack import target as planned_target

from . import resources
from .spec import ModalTarget

PORT = 8000
_OWN_PATH = "/var/lib/lorafleet"
_VOLUME_PATH = "/mnt/lorafleet"
# What the stack may know for the containers: {configuration key: variable}.
_OPTIONAL = {"hfToken": "HF_TOKEN", "googleCredentials": "LORAFLEET_GOOGLE_CREDENTIALS"}


class App(pulumi.ComponentResource):
    """The target called `name` of the fleet, as an app on Modal.

    manifest: says what its containers serve; they follow it, so a release is no change of this resource.
    endpoint: what the router needs to send requests to it.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:modal:Target", name, None, opts)
        planned = planned_target(fleet, name, "modal")
        spec = planned.spec
        assert isinstance(spec, ModalTarget)  # its kind says so
        _check(name, fleet)
        if spec.proxy_auth:
            pulumi.log.warn(
                f"target '{name}': with proxyAuth Modal answers 401 to requests without Modal-Key and Modal-Secret, "
                "which this project's router does not send",
                self,
            )
        inside = pulumi.ResourceOptions(parent=self)
        key = declare(ApiKey, f"{name}-key", {}, inside)
        launch = pulumi.Output.json_dumps(_launch(name, fleet, planned, spec, key))
        secret = declare(
            resources.Secret,
            f"{name}-config",
            {"environment": spec.environment, "values": {"LORAFLEET_CONFIG": launch, **_variables()}},
            inside,
        )
        app = declare(
            resources.App,
            name,
            {
                "environment": spec.environment,
                "name": spec.app_name(fleet.environment, name),
                "image": fleet.image,
                "registry_secret": spec.registry_secret,
                "secrets": [*spec.secrets, secret.full_name],
                "gpus": list(spec.gpus),
                "min_containers": spec.min_containers,
                "max_containers": spec.max_containers,
                "buffer_containers": spec.buffer_containers,
                "scaledown_window_s": spec.scaledown_window_s,
                "target_concurrency": spec.requests_per_container,
                "port": PORT,
                "routing_region": spec.routing_region,
                "compute_regions": list(spec.regions),
                "nonpreemptible": spec.nonpreemptible,
                "proxy_auth": spec.proxy_auth,
                "startup_timeout_s": spec.start_timeout_s,
                "exit_grace_period_s": spec.drain_timeout_s,
                "gpu_snapshot": spec.gpu_snapshot,
                "volumes": self._volumes(name, spec, inside),
            },
            pulumi.ResourceOptions(parent=self, depends_on=[manifest]),
        )
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=app.url,
            key=key.key,
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
            status_path=None,  # asking would start a container
        )
        self.register_outputs({"url": app.url})

    def _volumes(self, name: str, spec: ModalTarget, inside: pulumi.ResourceOptions) -> dict[str, Any]:
        if not spec.cache_volume:
            return {}
        volume = declare(resources.Volume, f"{name}-cache", {"environment": spec.environment}, inside)
        return {_VOLUME_PATH: {"volume": volume.full_name}}


def _check(name: str, fleet: Plan) -> None:
    if fleet.image is None:
        refuse(
            f"target '{name}' runs an image, and the stack file names none\n  next:    set serving:fleet.release.image"
        )
    for field, url in (("store", fleet.store), ("baseModel.source", fleet.base.source)):
        if url.startswith("file://"):
            refuse(
                f"target '{name}' runs on Modal, which cannot read {field}: a folder of this machine\n"
                "  allowed: gs://bucket/folder, and hf://owner/repository for the base model\n"
                f"  next:    change serving:fleet.{field}; `lorafleet model mirror` and `adapter push` copy there"
            )


def _variables() -> dict[str, pulumi.Output[str]]:
    config = pulumi.Config()
    found = {variable: config.get_secret(key) for key, variable in _OPTIONAL.items()}
    return {variable: value for variable, value in found.items() if value is not None}


def _launch(name: str, fleet: Plan, planned: PlannedTarget, spec: ModalTarget, key: Declared) -> dict[str, Any]:
    """The launch file (docs/architecture.md); a container's host name is its replica's name."""
    return {
        "version": 2,
        "store": fleet.store,
        "environment": fleet.environment,
        "target": name,
        "replica": None,
        "baseModel": without_none(fleet.base_model()),
        "cache": f"{_VOLUME_PATH if spec.cache_volume else _OWN_PATH}/cache",
        "host": "0.0.0.0",
        "port": PORT,
        "apiKeySha256": [key.sha256],
        "stateFile": "/run/lorafleet/state.json",
        "engine": planned.engine.launch(),
        "startTimeoutS": spec.start_timeout_s,
        "drainTimeoutS": spec.drain_timeout_s,
    }
