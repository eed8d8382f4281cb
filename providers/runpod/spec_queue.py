"""What may be declared of a target of the kind `runpod-queue`: jobs that wait until a worker takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from lorafleet.errors import Problem
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site
from lorafleet.values import Image, Whole

from .shared_spec import ServerlessSpec

# Of RunPod's documentation of endpoint settings, November 2026: 5 seconds to 7 days.
_SHORTEST_JOB_S, _LONGEST_JOB_S = 5, 7 * 24 * 3600
_QUEUE_DELAY_S = 4
_IDLE_TIMEOUT_S = 60


class RunpodQueueTarget(ServerlessSpec):
    """The fleet on RunPod's serverless GPUs, behind RunPod's queue: for work that may wait.

    Fields:
        image: of the queue's worker (images/runpod), by digest. The release's image is the server's, which knows
            nothing of a queue.
        queue_delay_s: another worker is started when a job has waited for so many seconds (4 if neither this nor
            requests_per_worker is given).
        requests_per_worker: instead of queue_delay_s: jobs for each worker from which on another one is started.
        idle_timeout_s: how long a worker waits for the next job before it stops, in seconds (60 if it is not given);
            not with requests_per_worker.
        job_timeout_s: longest time of one job, in seconds.
    """

    kind: Literal["runpod-queue"]
    image: Image
    queue_delay_s: Annotated[int, Whole(1, 3600, "seconds")] | None = None
    requests_per_worker: Annotated[int, Whole(1, 1024, "jobs")] | None = None
    idle_timeout_s: Annotated[int, Whole(1, 3600, "seconds")] | None = None
    job_timeout_s: Annotated[int, Whole(_SHORTEST_JOB_S, _LONGEST_JOB_S, "seconds")] = 600

    def scaling(self) -> dict[str, object]:
        """The rule by which workers are added, as RunPod says it."""
        if self.requests_per_worker is not None:
            return {"type": "REQUEST_COUNT", "requestCount": self.requests_per_worker}
        return {"type": "QUEUE_DELAY", "queueDelay": self.queue_delay_s or _QUEUE_DELAY_S}

    def idle_timeout(self) -> int | None:
        """Seconds; None where RunPod takes none."""
        return None if self.requests_per_worker is not None else self.idle_timeout_s or _IDLE_TIMEOUT_S

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        yield from super().problems(site)
        if self.requests_per_worker is None:
            return
        for field, value in (("queueDelayS", self.queue_delay_s), ("idleTimeoutS", self.idle_timeout_s)):
            if value is not None:
                yield (
                    (field,),
                    Problem(
                        "RunPod takes this only where workers are added by how long jobs wait",
                        found=f"{field}: {value} beside requestsPerWorker",
                        allowed="requestsPerWorker alone, or queueDelayS with or without idleTimeoutS",
                        next_action="Take one of them away.",
                    ),
                )


SPEC = RunpodQueueTarget
