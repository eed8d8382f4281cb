"""The component that a stack declares."""

from __future__ import annotations

from typing import Any

import pulumi

from lorafleet.plan import Plan, PlannedTarget
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.launch import check, launch_file, variables
from providers.shared.declaration import account_id
from providers.stack import target as planned_target

from . import resources
from .spec import VertexTarget

PORT = 8080
# handlers/vertex, in the image `vertex`: it takes OpenAI's bodies and Vertex AI's instances on one route. /ready: every
# adapter answered; /health: alive.
_COMMAND = "/opt/lorafleet/images/hf-serve.sh"
_PREDICT_ROUTE, _READY_ROUTE, _ALIVE_ROUTE = "/predict", "/ready", "/health"
_GOOGLE = "LORAFLEET_GOOGLE_CREDENTIALS"  # Google's own machines have an identity


class HandlerEndpoint(pulumi.ComponentResource):
    """The target called `name` of the fleet, on Vertex AI.

    manifest: says what its replicas serve; they follow it, so a release of adapters is no change of this resource.
    endpoint: what the router needs to send requests to it.

    A new image, or a new setting of the machines, is a new deployment beside the old one, on the same endpoint: it gets
    the requests when it is up, and then the old one goes.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:vertex:Target", name, None, opts)
        planned = planned_target(fleet, name, "vertex")
        spec = planned.spec
        assert isinstance(spec, VertexTarget)  # its kind says so
        image = check(fleet, name, spec.image, "Vertex AI")
        inside = pulumi.ResourceOptions(parent=self)
        address = declare(
            resources.Endpoint,
            name,
            {
                "project": spec.project,
                "location": spec.region,
                "display_name": f"{fleet.environment}-{name}",
                "labels": _labels(fleet),
                "exposure": spec.access,
                "request_timeout_s": spec.timeout_s,
                "allowed_projects": sorted(spec.allowed_projects),
            },
            inside,
        )
        after = pulumi.ResourceOptions(parent=self, depends_on=[manifest])
        main = _deployed(name, image, fleet, planned, spec, address, after)
        split = [{"deployedModelId": main.deployed_model_id, "percent": 100}]
        if spec.canary is not None:
            canary = _deployed(f"{name}-canary", spec.canary.image, fleet, planned, spec, address, after)
            share = spec.canary.percent
            split = [
                {"deployedModelId": main.deployed_model_id, "percent": 100 - share},
                {"deployedModelId": canary.deployed_model_id, "percent": share},
            ]
        declare(resources.Traffic, name, {"endpoint": address.id, "split": split}, inside)
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=address.url if spec.private_url is None else pulumi.Output.from_input(spec.private_url),
            key=None,
            # Without a token only from inside of the networks of a private endpoint.
            token=None if spec.access == "private-service-connect" else "google",
            paths=(address.raw_predict_path, address.stream_predict_path),
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
            health_path=None,  # asks for the token, too, and would wake what has scaled to zero
            status_path=None,
        )
        self.register_outputs({"url": address.url})


def _deployed(
    name: str,
    image: str,
    fleet: Plan,
    planned: PlannedTarget,
    spec: VertexTarget,
    address: Declared,
    opts: pulumi.ResourceOptions,
) -> Declared:
    """A version of the container, running on machines of its own."""
    inside = pulumi.ResourceOptions(parent=opts.parent)
    # They ask for no key: Google does, before them, and by whom they act as they reach the store.
    launch = launch_file(
        fleet,
        planned,
        key_digests=[],
        start_timeout_s=spec.start_timeout_s,
        drain_timeout_s=spec.drain_timeout_s,
        port=PORT,
        target=name,
    )
    model = declare(
        resources.Model,
        name,
        {
            "project": spec.project,
            "location": spec.region,
            "display_name": f"{fleet.environment}-{name}",
            "labels": _labels(fleet),
            "image": image,
            "command": [_COMMAND],
            "env": {"LORAFLEET_MAX_QUEUE": str(spec.max_queue)},
            "secret_env": [
                {"name": each, "value": value} for each, value in variables(launch).items() if each != _GOOGLE
            ],
            "port": PORT,
            "predict_route": _PREDICT_ROUTE,
            "health_route": _READY_ROUTE,
            "shared_memory_mb": spec.shared_memory_mb,
            "deployment_timeout_s": spec.start_timeout_s,
            # Without one, three questions of a second each are all the time that a model has to be loaded.
            "startup_probe": {
                "path": _READY_ROUTE,
                "periodS": 10,
                "timeoutS": 5,
                "failures": max(1, spec.start_timeout_s // 10),
            },
            "health_probe": {"path": _READY_ROUTE, "periodS": 10, "timeoutS": 5, "failures": 3},
            "liveness_probe": {"path": _ALIVE_ROUTE, "periodS": 30, "timeoutS": 10, "failures": 6},
        },
        inside,
    )
    inputs: dict[str, Any] = {
        "endpoint": address.id,
        "model": pulumi.Output.concat(model.id, "@", model.version_alias),
        "machine_type": spec.machine,
        "accelerator_type": spec.accelerator,
        "accelerator_count": 1,
        "spot": spec.spot,
        "min_replicas": spec.replicas_min,
        "max_replicas": spec.replicas_max,
        "metrics": [{"name": spec.scale_on, "target": spec.scale_target}] if spec.replicas_max > 1 else [],
        # Google's own account, which acts without one, can't read the bucket: each start would fail, and be paid for.
        "service_account": spec.service_account or f"{account_id('vertex')}@{spec.project}.iam.gserviceaccount.com",
        "access_logging": spec.access_logging,
    }
    if spec.idle_s is not None:
        inputs["scale_to_zero"] = {"idleS": spec.idle_s, "leastUpS": 300}
    return declare(resources.Deployment, name, inputs, opts)


def _labels(fleet: Plan) -> dict[str, str]:
    return {"managed-by": "lorafleet", "environment": fleet.environment.replace(".", "-").lower()[:63]}


TARGET = HandlerEndpoint
