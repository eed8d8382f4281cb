"""What the router lets through. On its own, so that the provider need not load the whole declaration."""

from __future__ import annotations

from typing import Annotated

from lorafleet.values import Model, Whole


class RouterLimits(Model):
    """What the router lets through.

    Fields:
        max_body_kib: longest request body, in KiB.
        max_tokens: highest number of tokens that a request may ask for.
        queue_timeout_s: longest wait for a free target, in seconds; then 429 with Retry-After.
        response_timeout_s: longest silence of a target during an answer, in seconds.
    """

    max_body_kib: Annotated[int, Whole(1, 4096, "KiB")] = 512
    max_tokens: Annotated[int, Whole(1, 131_072, "tokens")] = 4096
    queue_timeout_s: Annotated[int, Whole(1, 600, "seconds")] = 30
    response_timeout_s: Annotated[int, Whole(1, 3600, "seconds")] = 600
