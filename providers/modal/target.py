"""The component that a stack declares."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime import is_dry_run

from lorafleet.plan import Plan, PlannedTarget
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.launch import OWN_FOLDER, PORT, check, launch_file, variables
from providers.stack import refuse
from providers.stack import target as planned_target

from . import resources
from .fields import GCS
from .spec import PROXY_TOKEN, ModalTarget

_VOLUME_PATH = "/mnt/lorafleet"
_MODEL_PATH = "/mnt/model"


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
        image = check(fleet, name, fleet.image, "Modal")
        _check_bucket(name, fleet, spec)
        if spec.gpu_snapshot and is_dry_run():
            pulumi.log.warn(
                f"target '{name}': gpuSnapshot is alpha at Modal, and was not tried with this image (README.md there)",
                self,
            )
        inside = pulumi.ResourceOptions(parent=self)
        key = declare(ApiKey, f"{name}-key", {}, inside)
        values = variables(_launch(fleet, planned, spec, key))
        if "LORAFLEET_GOOGLE_CREDENTIALS" not in values and not spec.secrets and is_dry_run():
            pulumi.log.warn(
                f"target '{name}' has no credentials for {fleet.store}, which its containers read and write\n"
                "  next:    `pulumi config set --secret googleCredentials` with a service account's key, or name a "
                "Modal Secret that has it as LORAFLEET_GOOGLE_CREDENTIALS in `secrets`",
                self,
            )
        secret = declare(
            resources.Secret,
            f"{name}-config",
            {"environment": spec.environment, "values": values},
            inside,
        )
        app = declare(
            resources.App,
            name,
            {
                "environment": spec.environment,
                "name": spec.app_name(fleet.environment, name),
                "image": image,
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
                "buckets": _buckets(fleet, spec),
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
            # Asking either would start a container, and keep one from being scaled down.
            health_path=None,
            status_path=None,
            headers=_headers(spec),
        )
        self.register_outputs({"url": app.url})

    def _volumes(self, name: str, spec: ModalTarget, inside: pulumi.ResourceOptions) -> dict[str, Any]:
        if not spec.cache_volume:
            return {}
        volume = declare(resources.Volume, f"{name}-cache", {"environment": spec.environment}, inside)
        return {_VOLUME_PATH: {"volume": volume.full_name}}


def _check_bucket(name: str, fleet: Plan, spec: ModalTarget) -> None:
    if spec.model_bucket_secret is not None and not fleet.base.source.startswith("gs://"):
        refuse(
            f"target '{name}' mounts the base model's bucket, and baseModel.source is {fleet.base.source}\n"
            "  allowed: gs://bucket/folder\n"
            f"  next:    copy the model there (`lorafleet model mirror`), or take modelBucketSecret out of '{name}'"
        )


def _buckets(fleet: Plan, spec: ModalTarget) -> dict[str, Any]:
    """The base model's folder in its bucket, mounted."""
    if spec.model_bucket_secret is None:
        return {}
    bucket, _, folder = fleet.base.source.removeprefix("gs://").partition("/")
    mount = {"bucket": bucket, "endpoint": GCS, "secret": spec.model_bucket_secret, "readOnly": True}
    return {_MODEL_PATH: mount | ({"prefix": f"{folder.rstrip('/')}/"} if folder else {})}


def _headers(spec: ModalTarget) -> dict[str, pulumi.Output[str]]:
    """What the router sends so that Modal lets a request in. In a preview it may be missing (`stack_secrets`)."""
    config = pulumi.Config()
    found = {header: config.get_secret(key) for header, key in PROXY_TOKEN.items() if spec.proxy_auth}
    return {header: value for header, value in found.items() if value is not None}


def _launch(fleet: Plan, planned: PlannedTarget, spec: ModalTarget, key: Declared) -> dict[str, Any]:
    document = launch_file(
        fleet,
        planned,
        key_digests=[key.sha256],
        start_timeout_s=spec.start_timeout_s,
        drain_timeout_s=spec.drain_timeout_s,
        cache=f"{_VOLUME_PATH if spec.cache_volume else OWN_FOLDER}/cache",
    )
    if spec.model_bucket_secret is not None:
        # The same model as the manifest's by its digest, wherever it lies. A folder is served in place.
        document["baseModel"]["source"] = f"file://{_MODEL_PATH}"
    return document


TARGET = App
