"""The component that a stack declares."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime import is_dry_run

from lorafleet.plan import Plan, PlannedTarget
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.stack import refuse
from providers.stack import target as planned_target

from . import resources
from .cards import CARDS
from .spec import RunpodTarget

PORT = 8000
_FLASH_BOOT = {"off": "OFF", "on": "FLASHBOOT", "priority": "PRIORITY_FLASHBOOT"}
_VOLUME_PATH = "/runpod-volume"  # where RunPod mounts a network volume in a serverless worker
_OWN_PATH = "/var/lib/lorafleet"
_KEY = "runpodKey"


class ServerlessEndpoint(pulumi.ComponentResource):
    """The target called `name` of the fleet, on RunPod's serverless GPUs.

    manifest: says what its workers serve; they follow it, so a release is no change of this resource.
    endpoint: what the router needs to send requests to it.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:runpod:Target", name, None, opts)
        planned = planned_target(fleet, name, "runpod")
        spec = planned.spec
        assert isinstance(spec, RunpodTarget)  # its kind says so
        _check(name, fleet)
        inside = pulumi.ResourceOptions(parent=self)
        config = pulumi.Config()
        key = declare(ApiKey, f"{name}-key", {"value": _runpod_key(name, config)}, inside)
        launch = pulumi.Output.json_dumps(_launch(name, fleet, planned, spec, key))
        secret_env: list[dict[str, Any]] = [{"name": "LORAFLEET_CONFIG", "value": launch}]
        hub_token = config.get_secret("hfToken")
        if hub_token is not None:
            secret_env.append({"name": "HF_TOKEN", "value": hub_token})
        served = declare(
            resources.ServerlessEndpoint,
            name,
            {
                "type": "LOAD_BALANCER",
                "image": fleet.image,
                "registry": self._registry(name, spec, config, inside),
                "env": {
                    "PORT": str(PORT),
                    "PORT_HEALTH": str(PORT),
                    "HEALTH_CHECK_PATH": "/ready",
                    "RUNPOD_INIT_TIMEOUT": str(spec.start_timeout_s),
                },
                "secret_env": secret_env,
                "disk_gb": spec.disk(planned.disk_bytes),
                "ports": [f"{PORT}/http"],
                "gpus": sorted({CARDS[each].id for each in spec.gpus}),
                "gpu_count": spec.gpu_count,
                "min_cuda_version": spec.min_cuda,
                "workers": {"min": spec.workers_min, "max": spec.workers_max, "idleTimeout": spec.idle_timeout_s},
                "scaling": {"type": "REQUEST_COUNT", "requestCount": spec.requests_per_worker},
                "timeout_ms": spec.request_timeout_s * 1000,
                "flashboot": _FLASH_BOOT[spec.flash_boot],
                "data_center_ids": sorted(spec.data_centers),
                "network_volumes": self._volumes(name, spec, inside),
            },
            pulumi.ResourceOptions(parent=self, depends_on=[manifest]),
        )
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=served.url,
            key=key.key,
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
            status_path=None,  # asking would wake a worker
        )
        self.register_outputs({"url": served.url})

    def _volumes(self, name: str, spec: RunpodTarget, inside: pulumi.ResourceOptions) -> list[pulumi.Output[str]]:
        if spec.volume_gb is None:
            return []
        inputs = {"size_gb": spec.volume_gb, "data_center": spec.data_centers[0]}
        return [declare(resources.NetworkVolume, f"{name}-volume", inputs, inside).id]

    def _registry(
        self, name: str, spec: RunpodTarget, config: pulumi.Config, inside: pulumi.ResourceOptions
    ) -> pulumi.Output[str] | None:
        if spec.registry_username is None:
            return None
        password = config.get_secret("registryPassword")
        if password is None:
            refuse(
                f"target '{name}' fetches its image as {spec.registry_username}, and there is no password\n"
                "  next:    pulumi config set --secret registryPassword"
            )
        inputs = {"username": spec.registry_username, "password": password}
        return declare(resources.RegistryCredential, f"{name}-registry", inputs, inside).id


def _check(name: str, fleet: Plan) -> None:
    if fleet.image is None:
        refuse(
            f"target '{name}' runs an image, and the stack file names none\n  next:    set serving:fleet.release.image"
        )
    sources = [("store", fleet.store), ("baseModel.source", fleet.base.source)]
    for field, url in sources:
        if url.startswith("file://"):
            refuse(
                f"target '{name}' runs on RunPod, which cannot read {field}: a folder of this machine\n"
                "  allowed: gs://bucket/folder, and hf://owner/repository for the base model\n"
                f"  next:    change serving:fleet.{field}; `lorafleet model mirror` and `adapter push` copy there"
            )


def _runpod_key(name: str, config: pulumi.Config) -> pulumi.Output[str] | None:
    """The key that the router presents: RunPod's balancer takes none but RunPod's own."""
    key = config.get_secret(_KEY)
    if key is None:
        what = f"target '{name}' needs a RunPod API key that may send requests to the endpoint"
        next_step = f"  next:    make one in RunPod's console, then: pulumi config set --secret {_KEY}"
        if not is_dry_run():
            refuse(f"{what}\n{next_step}")
        pulumi.log.warn(f"{what} before `pulumi up`\n{next_step}")
    return key


def _launch(name: str, fleet: Plan, planned: PlannedTarget, spec: RunpodTarget, key: Declared) -> dict[str, Any]:
    """The launch file of its workers (docs/architecture.md)."""
    kept = _OWN_PATH if spec.volume_gb is None else f"{_VOLUME_PATH}/lorafleet"
    return {
        "version": 2,
        "store": fleet.store,
        "environment": fleet.environment,
        "target": name,
        "replica": None,
        "baseModel": fleet.base_model(),
        "cache": kept,
        "host": "0.0.0.0",
        "port": PORT,
        "apiKeySha256": [key.sha256] if spec.worker_checks_key else [],
        "stateFile": "/run/lorafleet/state.json",
        "engine": planned.engine.launch(),
        "startTimeoutS": spec.start_timeout_s,
        "drainTimeoutS": spec.drain_timeout_s,
    }
