"""What may be declared of a target of the kind `runpod`: a load-balancing serverless endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from lorafleet.values import Whole

from .shared_spec import ServerlessSpec

# Of RunPod's documentation of load-balancing endpoints, November 2026: a request that takes longer is cut off.
LONGEST_REQUEST_S = 330


class RunpodTarget(ServerlessSpec):
    """The fleet on RunPod's serverless GPUs, behind RunPod's load balancer.

    Fields:
        idle_timeout_s: how long a worker waits for the next request before it stops, in seconds.
        requests_per_worker: requests at once from which on another worker is started.
        request_timeout_s: longest time of one request, in seconds.
        worker_checks_key: whether the worker asks for the key too, beside RunPod's balancer.
    """

    kind: Literal["runpod"]
    idle_timeout_s: Annotated[int, Whole(1, 3600, "seconds")] = 60
    requests_per_worker: Annotated[int, Whole(1, 1024, "requests")] = 16
    request_timeout_s: Annotated[int, Whole(1, LONGEST_REQUEST_S, "seconds")] = 300
    worker_checks_key: bool = True


SPEC = RunpodTarget
