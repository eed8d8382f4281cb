"""The component of the kind `runpod`."""

from __future__ import annotations

import pulumi

from lorafleet.plan import Plan
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.launch import PORT, check
from providers.stack import target as planned_target

from . import component, resources
from .spec import RunpodTarget


class ServerlessEndpoint(pulumi.ComponentResource):
    """The target called `name` of the fleet, on RunPod's serverless GPUs behind RunPod's load balancer.

    manifest: says what its workers serve; they follow it, so a release is no change of this resource.
    endpoint: what the router needs to send requests to it.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:runpod:Target", name, None, opts)
        planned = planned_target(fleet, name, "runpod")
        spec = planned.spec
        assert isinstance(spec, RunpodTarget)  # its kind says so
        image = check(fleet, name, fleet.image, "RunPod")
        inside = pulumi.ResourceOptions(parent=self)
        key = component.runpod_key(name, inside)
        keys = [key.sha256] if spec.worker_checks_key else []
        served = declare(
            resources.ServerlessEndpoint,
            name,
            {
                **component.serverless_inputs(name, planned, spec, image, inside),
                "type": "LOAD_BALANCER",
                "env": {
                    "PORT": str(PORT),
                    "PORT_HEALTH": str(PORT),
                    "HEALTH_CHECK_PATH": "/ping",
                    "RUNPOD_INIT_TIMEOUT": str(spec.start_timeout_s),
                },
                "secret_env": component.secret_variables(component.launch(fleet, planned, spec, keys=keys)),
                "ports": [f"{PORT}/http"],
                "workers": {"min": spec.workers_min, "max": spec.workers_max, "idleTimeout": spec.idle_timeout_s},
                "scaling": {"type": "REQUEST_COUNT", "requestCount": spec.requests_per_worker},
                "timeout_ms": spec.request_timeout_s * 1000,
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
            health_path=None,  # RunPod's balancer refuses who has no key, and asking with one would wake a worker
            status_path=None,
        )
        self.register_outputs({"url": served.url})


TARGET = ServerlessEndpoint
