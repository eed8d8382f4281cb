"""The component of the kind `runpod-queue`."""

from __future__ import annotations

from typing import Any

import pulumi

from lorafleet.plan import Plan
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.launch import check
from providers.stack import target as planned_target

from . import component, resources
from .spec_queue import RunpodQueueTarget


class QueueEndpoint(pulumi.ComponentResource):
    """The target called `name` of the fleet, on RunPod's serverless GPUs behind RunPod's queue.

    manifest: says what its workers serve; they follow it, so a release is no change of this resource.
    endpoint: its OpenAI address, where a request waits in the queue like any other job.
    jobs_url: what `/run`, `/runsync`, `/status/<job>`, `/stream/<job>` and `/cancel/<job>` stand behind.
    """

    endpoint: Endpoint
    jobs_url: pulumi.Output[str]

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:runpod:QueueTarget", name, None, opts)
        planned = planned_target(fleet, name, "runpod-queue")
        spec = planned.spec
        assert isinstance(spec, RunpodQueueTarget)  # its kind says so
        image = check(fleet, name, spec.image, "RunPod")
        inside = pulumi.ResourceOptions(parent=self)
        key = component.runpod_key(name, inside)
        # Only the worker beside it reaches the server, so it asks for no key. RunPod asks whoever sends jobs.
        launch = component.launch(fleet, planned, spec, host="127.0.0.1", keys=[])
        workers: dict[str, Any] = {"min": spec.workers_min, "max": spec.workers_max}
        if (idle_timeout := spec.idle_timeout()) is not None:
            workers["idleTimeout"] = idle_timeout
        served = declare(
            resources.ServerlessEndpoint,
            name,
            {
                **component.serverless_inputs(name, planned, spec, image, inside),
                "type": "QUEUE",
                "env": {
                    "RUNPOD_INIT_TIMEOUT": str(spec.start_timeout_s),
                    # RunPod's own limit ends the job; this one frees the worker if nobody tells it.
                    "LORAFLEET_JOB_TIMEOUT_S": str(spec.job_timeout_s),
                },
                "secret_env": component.secret_variables(launch),
                "workers": workers,
                "scaling": spec.scaling(),
                "timeout_ms": spec.job_timeout_s * 1000,
            },
            pulumi.ResourceOptions(parent=self, depends_on=[manifest]),
        )
        self.jobs_url = served.url
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=served.url.apply(lambda url: f"{url}/openai"),
            key=key.key,
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
            health_path=None,  # a question would be a job, which wakes a worker
            status_path=None,
        )
        self.register_outputs({"url": served.url})


TARGET = QueueEndpoint
