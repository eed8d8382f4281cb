"""The component of the kind `runpod-pod`."""

from __future__ import annotations

import pulumi

from lorafleet.plan import Plan
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.launch import PORT, check
from providers.stack import target as planned_target

from . import component, marks, resources
from .spec_pod import RunpodPodTarget


class PodServer(pulumi.ComponentResource):
    """The target called `name` of the fleet, on a pod of RunPod that runs all the time or by the clock.

    manifest: says what the pod serves; it follows it, so a release is no change of this resource.
    endpoint: what the router needs to send requests to it.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(marks.POD_TARGET, name, None, opts)
        planned = planned_target(fleet, name, "runpod-pod")
        spec = planned.spec
        assert isinstance(spec, RunpodPodTarget)  # its kind says so
        image = check(fleet, name, fleet.image, "RunPod")
        inside = pulumi.ResourceOptions(parent=self)
        # RunPod's proxy lets everybody through: the server itself asks for a key of its own.
        key = declare(ApiKey, f"{name}-key", {}, inside)
        launch = component.launch(fleet, planned, spec, keys=[key.sha256])
        mounted = component.volume(name, spec, inside)
        pod = declare(
            resources.Pod,
            name,
            {
                "image": image,
                "registry": component.registry(name, spec, inside),
                "secret_env": component.secret_variables(launch),
                "disk_gb": spec.disk(planned.disk_bytes),
                "ports": [f"{PORT}/http"],
                "gpu": component.card_ids(spec.gpu)[0],
                "gpu_count": spec.gpu_count,
                "min_cuda_version": spec.min_cuda,
                "cloud": spec.cloud.upper(),
                "data_center_ids": sorted(spec.data_centers),
                "network_mount": None if mounted is None else {"volumeId": mounted, "path": component.VOLUME_PATH},
                "schedule": spec.hours or "",
                "schedule_days": list(spec.days),
                "start_timeout_s": spec.start_timeout_s,
            },
            pulumi.ResourceOptions(parent=self, depends_on=[manifest]),
        )
        url = pod.urls.apply(lambda urls: urls[str(PORT)])
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=url,
            key=key.key,
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
        )
        self.register_outputs({"url": url})


TARGET = PodServer
