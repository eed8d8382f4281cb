"""What the components of this platform have in common: secrets, volume, launch file."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime.rpc import UNKNOWN

from lorafleet.plan import Plan, PlannedTarget
from providers.access.resources import ApiKey
from providers.kit.program import Declared, declare
from providers.launch import OWN_FOLDER, launch_file, variables

from . import resources
from .cards import CARDS
from .shared_spec import RunpodSpec, ServerlessSpec

FLASH_BOOT = {"off": "OFF", "on": "FLASHBOOT", "priority": "PRIORITY_FLASHBOOT"}
# Where RunPod mounts a network volume in a serverless worker; a pod mounts it at the same place.
VOLUME_PATH = "/runpod-volume"


def runpod_key(name: str, inside: pulumi.ResourceOptions) -> Declared:
    """The key that the router presents where RunPod itself asks for one: it takes none but RunPod's own.

    Only a preview gets here without it (`stack_secrets` of the spec).
    """
    return declare(ApiKey, f"{name}-key", {"value": pulumi.Config().get_secret("runpodKey")}, inside)


def secret_variables(launch: dict[str, Any]) -> list[dict[str, Any]]:
    """The secret variables of a container, as the resources take them."""
    return [{"name": name, "value": value} for name, value in variables(launch).items()]


def registry(name: str, spec: RunpodSpec, inside: pulumi.ResourceOptions) -> pulumi.Output[str] | None:
    """The id of a credential for the image, None for a public image."""
    if spec.registry_username is None:
        return None
    # A preview does without (`stack_secrets` of the spec).
    password = pulumi.Config().get_secret("registryPassword") or UNKNOWN
    inputs = {"username": spec.registry_username, "password": password}
    return declare(resources.RegistryCredential, f"{name}-registry", inputs, inside).id


def volume(name: str, spec: RunpodSpec, inside: pulumi.ResourceOptions) -> pulumi.Output[str] | None:
    """The id of the network volume, None without one."""
    if spec.volume_gb is None:
        return None
    inputs = {"size_gb": spec.volume_gb, "data_center": spec.data_centers[0]}
    return declare(resources.NetworkVolume, f"{name}-volume", inputs, inside).id


def serverless_inputs(
    name: str, planned: PlannedTarget, spec: ServerlessSpec, image: str, inside: pulumi.ResourceOptions
) -> dict[str, Any]:
    """Those inputs of a serverless endpoint that do not depend on its type."""
    mounted = volume(name, spec, inside)
    return {
        "image": image,
        "registry": registry(name, spec, inside),
        "disk_gb": spec.disk(planned.disk_bytes),
        "gpus": card_ids(*spec.gpus),
        "gpu_count": spec.gpu_count,
        "min_cuda_version": spec.min_cuda,
        "flashboot": FLASH_BOOT[spec.flash_boot],
        "data_center_ids": sorted(spec.data_centers),
        "network_volumes": [] if mounted is None else [mounted],
    }


def card_ids(*names: str) -> list[str]:
    """RunPod's ids of cards."""
    return sorted({CARDS[each].id for each in names})


def launch(
    fleet: Plan, planned: PlannedTarget, spec: RunpodSpec, *, host: str = "0.0.0.0", keys: list[pulumi.Output[str]]
) -> dict[str, Any]:
    """The launch file of a target on RunPod. keys: SHA-256 digests of those that the server takes."""
    return launch_file(
        fleet,
        planned,
        key_digests=keys,
        start_timeout_s=spec.start_timeout_s,
        drain_timeout_s=spec.drain_timeout_s,
        cache=OWN_FOLDER if spec.volume_gb is None else f"{VOLUME_PATH}/lorafleet",
        host=host,
    )
